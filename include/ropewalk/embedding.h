/* Position embeddings that are added to the hidden states: learned and sinusoidal. */
#ifndef ROPEWALK_EMBEDDING_H
#define ROPEWALK_EMBEDDING_H

#include <ropewalk/context.h>

#ifdef __cplusplus
extern "C" {
#endif

/* x          [batch, seq, hidden], or [tokens, hidden] for packed sequences; f32, f16 or bf16
 * out        shape and dtype of x; absent: in place
 * positions  i32 or i64, [seq] or [batch, seq] ([tokens] for packed ones); absent: 0, 1, 2, ... in
 *            each row
 * offsets    i32 or i64, [batch]: added to the ids of its row; may be absent
 * offset     added to every id (e.g. OPT's 2)
 */
typedef struct rw_embed_args {
    rw_tensor x;
    rw_tensor out;
    rw_tensor positions;
    rw_tensor offsets;
    int64_t offset;
} rw_embed_args;

/* Learned positions: out[b, s, :] = x[b, s, :] + table[p(b, s), :] (GPT-2, BERT, OPT)
 *
 * table  [max_positions, hidden], f32, f16 or bf16; dtype and row stride are independent of x
 *
 * The sum is computed in f32 and rounded once. Stream-ordered: allocates nothing, moves nothing
 * between host and device. A token with an id outside the table is not written, and the next
 * rw_synchronize() reports it. Returns RW_OK, RW_INVALID_ARGUMENT, RW_UNSUPPORTED or
 * RW_DEVICE_ERROR.
 */
RW_API rw_status rw_embed_learned(rw_context *context, const rw_tensor *table,
                                  const rw_embed_args *args);

/* Sinusoidal positions: Vaswani et al., arXiv:1706.03762, section 3.5.
 *   RW_SINUSOID_INTERLEAVED   PE[p, 2k] = sin(p * f_k), PE[p, 2k+1] = cos(p * f_k)
 *   RW_SINUSOID_CONCATENATED  PE[p, k] = sin(p * f_k), PE[p, k + hidden/2] = cos(p * f_k)
 *   f_k = theta^(-2k/hidden)
 */
typedef enum rw_sinusoid_layout {
    RW_SINUSOID_INTERLEAVED = 0,
    RW_SINUSOID_CONCATENATED
} rw_sinusoid_layout;

typedef struct rw_sinusoid_options {
    int64_t hidden;        /* even */
    int64_t max_positions; /* 1 to 2^31 - 1; ids must be in [0, max_positions) */
    double theta;          /* [10000] */
    rw_sinusoid_layout layout;
} rw_sinusoid_options;

/* Tables of cos and sin on a context's device, with the accuracy and size of those of rw_rope. */
typedef struct rw_sinusoid rw_sinusoid;

/* Allocates and copies from host to device. Returns RW_OK, RW_INVALID_ARGUMENT, RW_OUT_OF_MEMORY or
 * RW_DEVICE_ERROR; on failure *sinusoid is NULL. */
RW_API rw_status rw_sinusoid_create(rw_context *context, const rw_sinusoid_options *options,
                                    rw_sinusoid **sinusoid);

/* Frees the tables; operations that read them must be complete. NULL is ignored. */
RW_API void rw_sinusoid_destroy(rw_sinusoid *sinusoid);

/* out[b, s, :] = x[b, s, :] + PE[p(b, s), :]; otherwise as rw_embed_learned(). */
RW_API rw_status rw_embed_sinusoidal(rw_context *context, const rw_sinusoid *sinusoid,
                                     const rw_embed_args *args);

#ifdef __cplusplus
}
#endif
#endif
