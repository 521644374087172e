/* Fused attention: scores are never stored.
 *
 * q, k, v and out have the logical axes [batch, seq, heads, head_dim] and any memory layout:
 * rw_tensor_transpose(t, 1, 2) gives this view of BHSD storage. Packed tensors,
 * [tokens, heads, head_dim], are a batch of 1; either all tensors of a call are packed or none.
 *
 * LSE (log-sum-exp) is the natural logarithm of the sum of the exponentials of a query's scores;
 * -inf for a query without visible keys. Its axes are [batch, heads, seq_q], as for scores, with
 * any strides: rw_tensor_transpose() gives this view of [batch, seq_q, heads].
 */
#ifndef ROPEWALK_ATTENTION_H
#define ROPEWALK_ATTENTION_H

#include <ropewalk/softmax.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Required alignment of a workspace, in bytes; memory of rw_alloc() satisfies it. */
#define RW_WORKSPACE_ALIGNMENT 16

/* How f32 q, k and v are multiplied:
 *
 *   RW_F32_EXACT  by f32's own multiply and add
 *   RW_F32_SPLIT  on a GPU that has units for it (NVIDIA's, from sm_80 on), as the sum of three
 *                 products of parts of 11 bits ("3xTF32"): a product may lack 2^-19 of itself, which
 *                 keeps out and lse within 2e-5 for scores up to 10. Elsewhere, and for 32 rows of a
 *                 group of heads or fewer, ragged batches, k and v of 8 bits and widths above 256 or
 *                 no multiple of 8, as RW_F32_EXACT
 */
typedef enum rw_f32_products {
    RW_F32_EXACT = 0,
    RW_F32_SPLIT
} rw_f32_products;

/* q            f32, f16 or bf16 [batch, seq_q, heads, head_dim], or [seq_q, heads, head_dim]
 * k            q's dtype, f8_e4m3 or f8_e5m2, q's rank (see cu_seqlens_q) [batch, seq_k, kv_heads, head_dim]; kv_heads
 *              divides heads (GQA, MQA): head h reads k and v of head h / (heads / kv_heads)
 * v            k's dtype and q's rank [batch, seq_k, kv_heads, v_dim]
 * block_table  absent, or i32 or i64 [batch, max_pages]: k and v are the pages of a cache, as in
 *              rw_kv_cache: [pages, page_size, kv_heads, width], whether q is packed or not, and
 *              seq_k is max_pages * page_size; pattern->key_end is the number of keys in use
 * out          f32, f16 or bf16, q's rank [batch, seq_q, heads, v_dim]; overlaps no input
 * lse          f32 [batch, heads, seq_q], or [heads, seq_q] if q is packed; may be absent
 * workspace    u8 [bytes], at least the size that rw_attention_workspace() returns; overlaps no
 *              other argument; aligned to RW_WORKSPACE_ALIGNMENT unless that size is 0. With a
 *              workspace, calls with few queries and many keys are split over the keys (split-KV),
 *              so that they use the whole device. Absent: no split
 * scale        0: 1 / sqrt(head_dim)
 * f32_products how f32 is multiplied; without effect on other dtypes
 * k_scale,     f32 [1] or [kv_heads], of either sign, for k and v of 8 bits, whose numbers are
 * v_scale      code * scale; as in rw_kv_cache. Absent: 1
 * softcap, mask, pattern, alibi, sinks as in rw_softmax() for an x of shape
 *          [batch, heads, seq_q, seq_k] (batch 1 if q is packed). Pass a T5 bias as the mask.
 * cu_seqlens_q  absent, or i32 or i64 [batch + 1], for packed q: the batch is ragged
 * cu_seqlens_k  absent, or the same for packed k and v
 * max_seq_q     the largest number of queries of a sequence of a ragged batch, or more: less work is
 *               launched. 0: unknown
 * batch_invariant  the bits of a sequence's result do not depend on the rest of the batch: the keys
 *               are not split. Otherwise the number of parts depends on the batch
 *
 * Ragged batches: q, out and lse are packed, and tokens cu_seqlens_q[b] to cu_seqlens_q[b + 1] are
 * the queries of sequence b. The first bound is 0. Tokens from the last bound on are padding: nothing
 * of them is read or written. k and v are one of
 *
 *   packed       [tokens_k, kv_heads, width] with cu_seqlens_k, whose first bound is 0 or more
 *   by sequence  [batch, seq_k, kv_heads, width], usually with pattern->key_end
 *   paged        as above, with pattern->key_end
 *
 * Every sequence is computed as if it were alone. seq_q, in alignments too, is its number of queries,
 * and seq_k, if k is packed, its number of keys; parts of the pattern with a batch axis are those of
 * sequence b. In the shapes of mask, pattern->globals, pattern->bits and pattern->mask, seq_q is the
 * number of tokens, and seq_k, if k is packed, tokens_k; column j is key j of the token's sequence,
 * and global positions are those of the sequence's keys.
 * Bounds that decrease or are out of range, and more than max_seq_q queries, are reported with the
 * first token of the first such sequence and the bound or the length; nothing is written then.
 *
 * head_dim and v_dim are from 1 to 576; any strides. Multiples of 8 are fastest, on a GPU those up
 * to 256. v may be the first columns of k, in the same memory (multi-head latent attention: 512 of
 * 576 columns, one head), also of 8 bits, with scales of their own. For a contiguous KV cache, pass
 * its k and v and pattern->key_end (and RW_ALIGN_KEY_END if seq_q > 1). For packed sequences that
 * attend to themselves alone, pass packed tensors and pattern->cu_seqlens. Page numbers are checked
 * on the device, for the pages from the first to the last key that a query may see. If batch,
 * heads, seq_q, head_dim or v_dim is 0, nothing is computed or written; if seq_k is 0, no query has
 * a visible key.
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
    rw_f32_products f32_products;
    rw_tensor cu_seqlens_q;
    rw_tensor cu_seqlens_k;
    int64_t max_seq_q;
    bool batch_invariant;
    rw_tensor k_scale;
    rw_tensor v_scale;
} rw_attention_args;

/* Attention, with the online softmax of Dao et al., arXiv:2205.14135:
 *
 *   out[b, i, h, :] = sum over j of softmax(q k^T * scale, ...)[b, h, i, j] * v[b, j, h', :]
 *   lse[b, h, i]    = ln(sum over j of exp(s_j) + exp(sink))
 *
 * A query without visible keys gives out = 0 and lse = -inf (with a sink: lse = sink). Keys that
 * the pattern hides may hold any value, including NaN: they never affect a query that does not see
 * them. NaN and Inf of a visible key affect the result, except possibly if its weight, relative to
 * that of the largest score, is below 3e-38 (on a GPU, for q of f16 or a cache of 8 bits, below
 * 1e-12): it may count as 0. Tiles that the pattern hides completely are skipped.
 *
 * Accumulation is f32. Exponentials are computed from differences to the row's maximum score, which
 * are exact for scores close to it: scores may have any finite f32 value, and a row whose scores
 * are all -1e10, for example, gives the mean of the values. Each weight is at most 1; sums of
 * weighted values overflow if value * number of keys exceeds f32's largest number. Sums over long
 * rows keep small terms: next to one weight of 1, 65,535 weights of e^-16.75 contribute to out and
 * lse with an error of at most 2e-5 of their sum. For f16 and bf16 inputs the weights, at most 1
 * each, are rounded to that dtype (with an extended exponent range) before they are multiplied by
 * v, as matrix hardware requires.
 *
 * Stream-ordered: allocates nothing, moves nothing between host and device. Returns RW_OK,
 * RW_INVALID_ARGUMENT, RW_UNSUPPORTED or RW_DEVICE_ERROR. The contents of the pattern's tensors and
 * of the block table are checked as in rw_pattern: queries affected by an invalid value are not
 * written and are reported.
 */
RW_API rw_status rw_attention(rw_context *context, const rw_attention_args *args);

/* The size in bytes of the workspace that rw_attention() uses for these arguments; 0 if a workspace
 * would not help. args->workspace is ignored. The size depends on the lengths and on whether v is
 * part of k, not on the contents of tensors, and grows with the number of queries and the size of
 * the device, not with the number of keys. Synchronous. Returns RW_OK, RW_INVALID_ARGUMENT or RW_UNSUPPORTED. */
RW_API rw_status rw_attention_workspace(rw_context *context, const rw_attention_args *args,
                                        int64_t *bytes);

/* Partial attention: the result over a subset of the keys. */
typedef struct rw_attention_part {
    rw_tensor out; /* [batch, seq_q, heads, head_dim], or packed [seq_q, heads, head_dim] */
    rw_tensor lse; /* f32 [batch, heads, seq_q], or [heads, seq_q] if packed */
} rw_attention_part;

/* a, b    out: f32, f16 or bf16, the same for both; all three parts have the same shape
 * merged  its out: f32, f16 or bf16; may be in place in a or b, with identical views
 */
typedef struct rw_attention_merge_args {
    rw_attention_part a;
    rw_attention_part b;
    rw_attention_part merged;
} rw_attention_merge_args;

/* Merges the results of attention over two disjoint sets of keys (splits of a long cache, shards of
 * other devices) into attention over their union:
 *
 *   m = max(lse_a, lse_b)    w_x = exp(lse_x - m)
 *   out = (w_a * out_a + w_b * out_b) / (w_a + w_b)
 *   lse = m + ln(w_a + w_b)
 *
 * If one part has no keys (lse = -inf), its out is not read and the other part is copied bit for
 * bit (if merged.out has the same dtype); two such parts give 0 and -inf. Associative and
 * commutative up to rounding. Pass sinks to only one of the parts, so that they count once. An f32
 * LSE of 1e7 or more cannot represent the sum in addition to the maximum score: for such scores,
 * split the keys with a workspace of rw_attention(), which stores both.
 *
 * Stream-ordered: allocates nothing, moves nothing between host and device. Returns RW_OK,
 * RW_INVALID_ARGUMENT, RW_UNSUPPORTED or RW_DEVICE_ERROR.
 */
RW_API rw_status rw_attention_merge(rw_context *context, const rw_attention_merge_args *args);

#ifdef __cplusplus
}
#endif
#endif
