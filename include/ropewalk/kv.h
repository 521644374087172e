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
 *   ring > 0                      as position p % ring
 *
 * k            f32, f16, bf16, f8_e4m3 or f8_e5m2 [batch, max_seq, kv_heads, head_dim], or if paged
 *              [pages, page_size, kv_heads, head_dim]; any strides, hence any memory layout; any
 *              page_size from 1
 * v            as k; its head_dim may differ. Absent: a cache of k alone (the latent cache of MLA)
 * block_table  i32 or i64 [batch, max_pages]: page numbers, checked on the device. Entries that no
 *              token of the call uses are not read
 * ring         0: none. A cache of the last `ring` positions of every sequence, for sliding windows
 *              of at most that many keys; at most max_seq (paged: max_pages * page_size). Positions
 *              may be any number from 0
 * k_scale,     f32 [1] or [kv_heads], positive, in memory of the device; for caches of 8 bits, whose
 * v_scale      numbers are code * scale. Absent: 1
 */
typedef struct rw_kv_cache {
    rw_tensor k;
    rw_tensor v;
    rw_tensor block_table;
    int64_t ring;
    rw_tensor k_scale;
    rw_tensor v_scale;
} rw_kv_cache;

/* k           [batch, seq, kv_heads, head_dim], or packed [tokens, kv_heads, head_dim]: a batch of
 *             1 or, with cu_seqlens, the tokens of several sequences; the dtype of the cache or, if
 *             that has 8 bits, f32, f16 or bf16; any strides
 * v           as k, with the head_dim of cache.v; absent if cache.v is
 * cache       written at the positions offset + offsets[b] + s
 * offsets     i32 or i64 [batch]: number of tokens of each sequence already in the cache; absent: 0
 * offset      added to every position
 * cu_seqlens  i32 or i64 [batch + 1], from 0 on, for packed k: the tokens cu_seqlens[b] to
 *             cu_seqlens[b + 1] are those of sequence b, and s counts from the first of them. Tokens
 *             from cu_seqlens[batch] on are padding: nothing of them is read or written. Absent: one
 *             sequence
 * slots       i32 or i64 [batch, seq], for packed k [tokens], in place of positions: a token is
 *             written at k[slot / page_size, slot % page_size, :, :]. Slot -1 is padding: nothing of
 *             the token is read or written, in rw_rope_append() nothing of q either. cache.ring,
 *             cache.block_table, offsets, offset and cu_seqlens are then absent or 0 (vLLM's
 *             slot_mapping, vllm:csrc/cache_kernels.cu)
 */
typedef struct rw_kv_append_args {
    rw_tensor k;
    rw_tensor v;
    rw_kv_cache cache;
    rw_tensor offsets;
    int64_t offset;
    rw_tensor cu_seqlens;
    rw_tensor slots;
} rw_kv_append_args;

/* Copies k and v of new tokens into the cache, bit for bit; into a cache of 8 bits, x / scale in f32,
 * rounded to nearest even. There, numbers beyond the largest one, Inf too, become that one, and NaN
 * stays NaN.
 *
 * No two tokens of a call may have the same place in the cache, except in a ring: there the last of
 * them is written. The cache must not overlap other arguments. A token whose position is outside
 * [0, max_seq) (paged: [0, max_pages * page_size); ring: below 0), whose page number is outside
 * [0, pages), whose slot is outside [-1, pages * page_size), or whose bounds in cu_seqlens decrease,
 * is not written; the next rw_synchronize() reports the token b * seq + s with the position, the
 * page number, the slot or the bound.
 *
 * Stream-ordered: allocates nothing, moves nothing between host and device. Returns RW_OK,
 * RW_INVALID_ARGUMENT, RW_UNSUPPORTED or RW_DEVICE_ERROR.
 */
RW_API rw_status rw_kv_append(rw_context *context, const rw_kv_append_args *args);

/* Norms of heads: RMSNorm of every head of q and k before the rotation (Qwen3, Gemma 3), and of v
 * (Gemma 4):
 *
 *   x * (weight + weight_offset) / sqrt(mean(x^2) + eps)     over the columns of a head
 *
 * q_weight, k_weight  f32, f16 or bf16 [head_dim]; absent: q or k, respectively, is not normalised
 * v_weight            as these, [head_dim of v]
 * normalize_v         normalise v although v_weight is absent: x / sqrt(mean(x^2) + eps)
 * eps                 0 to 1
 * cast                as in rw_rms_norm(): whether x / sqrt(...) is rounded to the dtype before the
 *                     weight multiplies it
 */
typedef struct rw_head_norm {
    rw_tensor q_weight;
    rw_tensor k_weight;
    rw_tensor v_weight;
    bool normalize_v;
    float eps;
    float weight_offset;
    rw_norm_cast cast;
} rw_head_norm;

/* rope    q, q_out, positions, offsets, offset and direction as in rw_rope_apply(); k and k_out are
 *         absent: k is that of `append`, of q's dtype, batch, seq and head_dim. With
 *         append.cu_seqlens, positions must be given, [tokens]
 * append  as in rw_kv_append(). A token's position in the cache and its ids for the rotation are
 *         independent: they differ for left-padded and M-RoPE tokens
 * norm    zero: no norm
 *
 * The head_dims of q and of v are at most 4096.
 */
typedef struct rw_rope_append_args {
    rw_rope_args rope;
    rw_kv_append_args append;
    rw_head_norm norm;
} rw_rope_append_args;

/* Rotates q, in place or into q_out, writes rotated k to the cache and copies v to it, in one
 * launch; with `norm`, heads are normalised first. Arithmetic is f32, rounded once at the end (for a
 * cache of 8 bits, after the division by the scale), and also before the weight if norm.cast requires
 * it.
 *
 * `rope` may be NULL if `norm` normalises q, k or v: the heads are normalised and not rotated (the
 * layers of EXAONE 4 without RoPE). args->rope.positions, offsets and offset are then absent or 0,
 * and its direction is RW_ROPE_FORWARD.
 *
 * If a token's rotation id, bounds in cu_seqlens, position in the cache, slot or page number is out
 * of range, nothing of the token is written and the first of these errors is reported. In a ring, q
 * of a token that a later one replaces is still written. Otherwise as rw_rope_apply() and
 * rw_kv_append().
 */
RW_API rw_status rw_rope_append(rw_context *context, const rw_rope *rope,
                                const rw_rope_append_args *args);

#ifdef __cplusplus
}
#endif
#endif
