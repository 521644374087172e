/* Attention whose scores are never stored.
 *
 * q, k, v and out are logically [batch, seq, heads, head_dim], whatever their order in memory:
 * rw_tensor_transpose(t, 1, 2) turns BHSD storage into it. Packed tensors, [tokens, heads,
 * head_dim], are a batch of 1; either all of a call are packed or none.
 *
 * LSE is the natural logarithm of the sum of the exponentials of a query's scores, -inf where it
 * sees no key; its axes are those of scores, [batch, heads, seq_q].
 */
#ifndef ROPEWALK_ATTENTION_H
#define ROPEWALK_ATTENTION_H

#include <ropewalk/softmax.h>

#ifdef __cplusplus
extern "C" {
#endif

/* A workspace's first byte lies at a multiple of this; rw_alloc() gives such memory. */
#define RW_WORKSPACE_ALIGNMENT 16

/* q            f32, f16 or bf16 [batch, seq_q, heads, head_dim], or [seq_q, heads, head_dim]
 * k            q's dtype and rank [batch, seq_k, kv_heads, head_dim]; kv_heads divides heads (GQA,
 *              MQA): head h reads k and v of head h / (heads / kv_heads)
 * v            q's dtype and rank [batch, seq_k, kv_heads, v_dim]
 * block_table  absent, or i32 or i64 [batch, max_pages]: k and v are the pages of a cache, as in
 *              rw_kv_cache: [pages, page_size, kv_heads, width], whether q is packed or not, and
 *              seq_k is max_pages times page_size; pattern->key_end says how much of it is in use
 * out          f32, f16 or bf16, q's rank [batch, seq_q, heads, v_dim]; overlaps no input
 * lse          f32 [batch, heads, seq_q], or of a packed q [heads, seq_q]; may be absent
 * workspace    u8 [bytes], at least as many as rw_attention_workspace() says, overlaps no
 *              other argument; where that is not 0, aligned to RW_WORKSPACE_ALIGNMENT. Few queries
 *              against many keys are then split over the keys, so that they keep the whole device
 *              busy. Absent: not split
 * scale        0: 1 / sqrt(head_dim)
 * softcap, mask, pattern, alibi, sinks as in rw_softmax(), whose x has the shape
 *          [batch, heads, seq_q, seq_k], of a packed q with a batch of 1. T5's bias is a mask.
 *
 * head_dim and v_dim are multiples of 8 from 8 to 256; any strides. A contiguous KV cache is k and
 * v with pattern->key_end (and RW_ALIGN_KEY_END where queries are more than one), packed sequences
 * are packed tensors with pattern->cu_seqlens. Page numbers are checked on the device, of pages
 * from the first key that a query may see to the last. Where batch, heads, seq_q, head_dim or v_dim
 * is 0 nothing is done, and nothing written; where seq_k is 0 no query sees a key.
 */
typedef struct rw_attention_args {
    rw_tensor q;
    rw_tensor k;
    rw_tensor v;
    rw_tensor block_table;
    rw_tensor out;
    rw_tensor lse;
    rw_tensor workspace;
    double scale;
    double softcap;
    rw_tensor mask;
    const rw_pattern *pattern;
    const rw_alibi *alibi;
    rw_tensor sinks;
} rw_attention_args;

/* Attention (Dao et al., arXiv:2205.14135, for what is kept of the scores):
 *
 *   out[b, i, h, :] = sum over j of softmax(q k^T * scale, ...)[b, h, i, j] * v[b, j, h', :]
 *   lse[b, h, i]    = ln(sum over j of exp(s_j) + exp(sink))
 *
 * A query without a visible key gives 0, and -inf (with a sink: the sink). Keys that the pattern
 * hides may be anything, NaN too: they show in no query that does not see them. NaN and Inf of a
 * key that is seen show, but may not where its weight is 0 in f32. Tiles that the pattern hides as
 * a whole are skipped.
 *
 * Sums are f32. Exponents are taken of differences from the row's largest score, which are exact for
 * scores close to it: scores may be as large as f32 holds, and a row whose scores are all -1e10, say,
 * is the mean of the values. Weights are at most 1 each, and sums of weighted values overflow where the
 * values times the keys pass f32's largest number. Sums over long rows keep what is small: beside one weight of
 * 1, 65,535 of e^-16.75 show in out and lse to 2e-5 of their sum. Of f16 and bf16 inputs the weights,
 * at most 1 each, are rounded to that dtype (its exponents extended) before they meet v, as matrix
 * hardware takes them. Stream-ordered: allocates nothing, moves
 * nothing between host and device. Returns RW_OK, RW_INVALID_ARGUMENT, RW_UNSUPPORTED or
 * RW_DEVICE_ERROR; what the pattern's tensors and the block table hold is checked as in rw_pattern:
 * the queries that a wrong value concerns are left untouched and reported.
 */
RW_API rw_status rw_attention(rw_context *context, const rw_attention_args *args);

/* The bytes of workspace that a call of rw_attention() with these arguments makes use of, 0 where
 * none would help; whatever args->workspace is. It depends on the lengths, not on what tensors
 * hold, and grows with the queries and the device, not with the keys. Synchronous. Returns RW_OK,
 * RW_INVALID_ARGUMENT or RW_UNSUPPORTED. */
RW_API rw_status rw_attention_workspace(rw_context *context, const rw_attention_args *args,
                                        int64_t *bytes);

/* Attention over some of the keys. */
typedef struct rw_attention_part {
    rw_tensor out; /* [batch, seq_q, heads, head_dim], or packed [seq_q, heads, head_dim] */
    rw_tensor lse; /* f32 [batch, heads, seq_q], or of packed parts [heads, seq_q] */
} rw_attention_part;

/* a, b    out: f32, f16 or bf16, the same for both; all three parts have the same shape
 * merged  its out: f32, f16 or bf16; may be that of a or b, the very same views
 */
typedef struct rw_attention_merge_args {
    rw_attention_part a;
    rw_attention_part b;
    rw_attention_part merged;
} rw_attention_merge_args;

/* Merges attention over two disjoint sets of keys (splits of a long cache, shards of other devices)
 * into attention over both:
 *
 *   m = max(lse_a, lse_b)    w_x = exp(lse_x - m)
 *   out = (w_a * out_a + w_b * out_b) / (w_a + w_b)
 *   lse = m + ln(w_a + w_b)
 *
 * A part without keys (lse = -inf) leaves the other bit for bit (merged.out of its dtype), and its
 * out is not read; two of them give 0 and -inf. Associative and commutative up to rounding. Sinks
 * count once: give them to one of the parts. An f32 LSE of 1e7 and more holds no sum beside the
 * largest score: for scores so large, split keys by a workspace of rw_attention(), which keeps both.
 *
 * Stream-ordered: allocates nothing, moves nothing between host and device. Returns RW_OK,
 * RW_INVALID_ARGUMENT, RW_UNSUPPORTED or RW_DEVICE_ERROR.
 */
RW_API rw_status rw_attention_merge(rw_context *context, const rw_attention_merge_args *args);

#ifdef __cplusplus
}
#endif
#endif
