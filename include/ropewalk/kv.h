/* The KV cache: keys and values of past tokens, contiguous or in pages.
 *
 * One call a layer and step: rw_rope_append() turns q, turns k on its way into the cache and copies
 * v; rw_kv_append() is for models that turn nothing.
 */
#ifndef ROPEWALK_KV_H
#define ROPEWALK_KV_H

#include <ropewalk/norm.h>
#include <ropewalk/rope.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The cache of one layer. Position p of sequence b lies
 *
 *   contiguous (no block_table)   at k[b, p, :, :]
 *   paged                         at k[block_table[b, p / page_size], p % page_size, :, :]
 *
 * k            f32, f16 or bf16 [batch, max_seq, kv_heads, head_dim], or for paged ones
 *              [pages, page_size, kv_heads, head_dim]; any strides, so that the order in memory is
 *              the caller's; page_size a power of two, 16 at least
 * v            the same with a head_dim of its own
 * block_table  i32 or i64 [batch, max_pages]: page numbers, checked on the device. Entries that no
 *              token of the call needs are not read
 */
typedef struct rw_kv_cache {
    rw_tensor k;
    rw_tensor v;
    rw_tensor block_table;
} rw_kv_cache;

/* k        [batch, seq, kv_heads, head_dim], or [seq, kv_heads, head_dim] for a batch of 1; the
 *          dtype of the cache; any strides
 * v        the same with the head_dim of cache.v
 * cache    written at the positions offset + offsets[b] + s
 * offsets  i32 or i64 [batch]: how many tokens each sequence has in the cache already; absent: 0
 * offset   added to every position
 */
typedef struct rw_kv_append_args {
    rw_tensor k;
    rw_tensor v;
    rw_kv_cache cache;
    rw_tensor offsets;
    int64_t offset;
} rw_kv_append_args;

/* Copies k and v of new tokens into the cache, bit for bit.
 *
 * No two tokens of a call may lie in the same place; the cache overlaps no other argument. A token
 * whose position lies outside of [0, max_seq) (paged: [0, max_pages * page_size)), or whose page
 * number is outside of [0, pages), is left untouched, and the next rw_synchronize() reports the
 * token b * seq + s with the position or the page number.
 *
 * Stream-ordered: allocates nothing, moves nothing between host and device. Returns RW_OK,
 * RW_INVALID_ARGUMENT, RW_UNSUPPORTED or RW_DEVICE_ERROR.
 */
RW_API rw_status rw_kv_append(rw_context *context, const rw_kv_append_args *args);

/* RMSNorm of every head of q and k, before the rotation (Qwen3, Gemma 3):
 *
 *   x * (weight + weight_offset) / sqrt(mean(x^2) + eps)     over the head_dim columns of a head
 *
 * q_weight, k_weight  f32, f16 or bf16 [head_dim]; absent: that one is not normalised
 * eps                 0 to 1
 * cast                as in rw_rms_norm(): whether x / sqrt(...) is rounded to the dtype before the
 *                     weight multiplies it
 */
typedef struct rw_head_norm {
    rw_tensor q_weight;
    rw_tensor k_weight;
    float eps;
    float weight_offset;
    rw_norm_cast cast;
} rw_head_norm;

/* rope    q, q_out, positions, offsets, offset and direction as in rw_rope_apply(); k and k_out are
 *         absent: k is that of `append`, of q's dtype, batch, seq and head_dim
 * append  as in rw_kv_append(). Where a token lies in the cache and which ids turn it are two
 *         things: left-padded and M-RoPE tokens differ in them
 * norm    zero: none
 *
 * head_dim is at most 4096.
 */
typedef struct rw_rope_append_args {
    rw_rope_args rope;
    rw_kv_append_args append;
    rw_head_norm norm;
} rw_rope_append_args;

/* Turns q, in place or into q_out, turns k into the cache and copies v into it, in one launch;
 * heads are normalised before, if asked for. Arithmetic is f32, rounded once, and
 * where norm.cast asks for it before the weight.
 *
 * A token with a rotation id, a position in the cache or a page number out of range is left
 * untouched altogether and reported, the first of these three. Otherwise as rw_rope_apply() and
 * rw_kv_append().
 */
RW_API rw_status rw_rope_append(rw_context *context, const rw_rope *rope,
                                const rw_rope_append_args *args);

#ifdef __cplusplus
}
#endif
#endif
