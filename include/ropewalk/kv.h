/* The KV cache: keys and values of past tokens, contiguous or paged.
 *
 * One call per layer and step: rw_rope_append() rotates q, writes rotated k to the cache and copies
 * v; rw_kv_append() is for models without RoPE.
 */
#ifndef ROPEWALK_KV_H
#define ROPEWALK_KV_H

#include <ropewalk/norm.h>
#include <ropewalk/rope.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The cache of one layer. Position p of sequence b is stored
 *
 *   contiguous (no block_table)   at k[b, p, :, :]
 *   paged                         at k[block_table[b, p / page_size], p % page_size, :, :]
 *
 * k            f32, f16 or bf16 [batch, max_seq, kv_heads, head_dim], or if paged
 *              [pages, page_size, kv_heads, head_dim]; any strides, hence any memory layout;
 *              page_size is a power of two, at least 16
 * v            as k; its head_dim may differ
 * block_table  i32 or i64 [batch, max_pages]: page numbers, checked on the device. Entries that no
 *              token of the call uses are not read
 */
typedef struct rw_kv_cache {
    rw_tensor k;
    rw_tensor v;
    rw_tensor block_table;
} rw_kv_cache;

/* k        [batch, seq, kv_heads, head_dim], or [seq, kv_heads, head_dim] for a batch of 1; the
 *          dtype of the cache; any strides
 * v        as k, with the head_dim of cache.v
 * cache    written at the positions offset + offsets[b] + s
 * offsets  i32 or i64 [batch]: number of tokens of each sequence already in the cache; absent: 0
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
 * No two tokens of a call may have the same place in the cache; the cache must not overlap other
 * arguments. A token whose position is outside [0, max_seq) (paged: [0, max_pages * page_size)), or
 * whose page number is outside [0, pages), is not written; the next rw_synchronize() reports the
 * token b * seq + s with the position or the page number.
 *
 * Stream-ordered: allocates nothing, moves nothing between host and device. Returns RW_OK,
 * RW_INVALID_ARGUMENT, RW_UNSUPPORTED or RW_DEVICE_ERROR.
 */
RW_API rw_status rw_kv_append(rw_context *context, const rw_kv_append_args *args);

/* QK norm: RMSNorm of every head of q and k before the rotation (Qwen3, Gemma 3):
 *
 *   x * (weight + weight_offset) / sqrt(mean(x^2) + eps)     over the head_dim columns of a head
 *
 * q_weight, k_weight  f32, f16 or bf16 [head_dim]; absent: q or k, respectively, is not normalised
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
 * append  as in rw_kv_append(). A token's position in the cache and its ids for the rotation are
 *         independent: they differ for left-padded and M-RoPE tokens
 * norm    zero: no norm
 *
 * head_dim is at most 4096.
 */
typedef struct rw_rope_append_args {
    rw_rope_args rope;
    rw_kv_append_args append;
    rw_head_norm norm;
} rw_rope_append_args;

/* Rotates q, in place or into q_out, writes rotated k to the cache and copies v to it, in one
 * launch; with `norm`, heads are normalised first. Arithmetic is f32, rounded once at the end, and
 * also before the weight if norm.cast requires it.
 *
 * If a token's rotation id, position in the cache or page number is out of range, nothing of the
 * token is written and the first of these three errors is reported. Otherwise as rw_rope_apply()
 * and rw_kv_append().
 */
RW_API rw_status rw_rope_append(rw_context *context, const rw_rope *rope,
                                const rw_rope_append_args *args);

#ifdef __cplusplus
}
#endif
#endif
