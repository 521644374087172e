/* Rotary position embedding (RoPE): Su et al., arXiv:2104.09864, with every published scaling.
 *
 * Three steps: describe the model (rw_rope_spec), build its tables once (rw_rope_create), rotate q
 * and k of every layer (rw_rope_apply).
 */
#ifndef ROPEWALK_ROPE_H
#define ROPEWALK_ROPE_H

#include <ropewalk/context.h>

#ifdef __cplusplus
extern "C" {
#endif

/* How the frequencies follow from rope_theta. Names and formulas are those of Hugging Face:
 * transformers:src/transformers/modeling_rope_utils.py. */
typedef enum rw_rope_type {
    RW_ROPE_DEFAULT = 0, /* f_i = theta^(-2i/d) */
    RW_ROPE_LINEAR,      /* f_i / factor */
    RW_ROPE_DYNAMIC,     /* theta grows with the sequence (NTK) */
    RW_ROPE_YARN,        /* arXiv:2309.00071 */
    RW_ROPE_LONGROPE,    /* arXiv:2402.13753, Phi-3 */
    RW_ROPE_LLAMA3,      /* Llama 3.1 */
    RW_ROPE_PROPORTIONAL /* the leading frequencies of the whole head, the others 0 */
} rw_rope_type;

/* Which columns of a head turn together. A head of 8 with rotary_dim 4 (c: x1, s: x2, 0: copied):
 *   RW_ROPE_HALF         [ccss0000]   (x_i, x_{i+d/2})     Llama, Qwen, NeoX
 *   RW_ROPE_INTERLEAVED  [cscs0000]   (x_{2i}, x_{2i+1})   GPT-J, GLM, Cohere
 */
typedef enum rw_rope_pairing {
    RW_ROPE_HALF = 0,
    RW_ROPE_INTERLEAVED
} rw_rope_pairing;

/* How many position ids a token has, and which frequency reads which. */
typedef enum rw_rope_axes {
    RW_ROPE_AXES_ONE = 0,           /* text: one id a token */
    RW_ROPE_AXES_MROPE_CHUNKED,     /* t, h, w ids; frequencies in three runs (Qwen2-VL) */
    RW_ROPE_AXES_MROPE_INTERLEAVED, /* t, h, w ids; frequencies t,h,w,t,h,w,... (Qwen3-VL) */
    RW_ROPE_AXES_VISION_2D,         /* row, column ids; frequencies over half the width, twice */
    RW_ROPE_AXES_2D_INTERLEAVED     /* row, column ids; frequencies row,column,row,... (NeoMME) */
} rw_rope_axes;

/* A model's rotary embedding. Zero means absent, and then the default in brackets. */
typedef struct rw_rope_spec {
    rw_rope_type type;
    rw_rope_pairing pairing;
    int64_t head_dim;     /* D: columns of a head, 1 to 2^30; required */
    int64_t rotary_start; /* first column that turns */
    int64_t rotary_dim;   /* d: columns that turn, even [int(head_dim * partial_rotary_factor);
                             proportional: head_dim] */
    double partial_rotary_factor;             /* in (0, 1] [1]; where rotary_dim is given only
                                                 proportional asks for it */
    double theta;                             /* rope_theta [10000] */
    int64_t max_position_embeddings;          /* L; required by dynamic */
    int64_t original_max_position_embeddings; /* Lo [L] */
    double factor;              /* [yarn, longrope: L / Lo; proportional: 1; else required] */
    double attention_factor;    /* yarn, longrope [derived]; unused by the others */
    double beta_fast;           /* yarn [32] */
    double beta_slow;           /* yarn [1] */
    double mscale;              /* yarn */
    double mscale_all_dim;      /* yarn */
    bool no_truncate;           /* yarn: keep the correction range's fractions */
    double low_freq_factor;     /* llama3; required */
    double high_freq_factor;    /* llama3; required, unequal to low_freq_factor */
    const double *short_factor; /* longrope: d/2 values, the caller's; required */
    const double *long_factor;  /* longrope: d/2 values, the caller's; required */
    double short_mscale;        /* longrope: attention factor up to Lo [attention_factor] */
    double long_mscale;         /* longrope: attention factor beyond Lo (Phi-3.5-MoE) [the same] */
    const float
        *frequency_factors; /* any type: d/2 divisors of f_i (GGUF rope_freqs), the caller's */
    rw_rope_axes axes;
    int64_t sections[3]; /* M-RoPE: frequencies of t, h, w; they sum to d/2 */
} rw_rope_spec;

/* The frequencies of a spec. */
typedef struct rw_rope_frequency_list {
    double *inv_freq;        /* the caller's array */
    int64_t capacity;        /* its length; d/2 values are needed */
    int64_t count;           /* receives d/2 */
    double attention_factor; /* receives what cos and sin are multiplied by */
} rw_rope_frequency_list;

/* Computes inv_freq (radians a position, f64) and the attention factor of `spec`.
 *
 * seq_len  tokens of the whole sequence, which dynamic and longrope depend on; 0: unknown, short
 * Returns RW_OK or RW_INVALID_ARGUMENT with a sentence in `message` (may be NULL); then `list` is
 * unchanged. Attention factors that f32 does not hold are refused, and so are frequencies that it
 * rounds to infinity or, where they are not 0, to 0. With capacity 0 and inv_freq NULL only `count`
 * and `attention_factor` are set.
 */
RW_API rw_status rw_rope_frequencies(const rw_rope_spec *spec, int64_t seq_len,
                                     rw_rope_frequency_list *list, rw_message *message);

/* Tables of cos and sin on a context's device, with the spec they were built from. Read-only once
 * created. */
typedef struct rw_rope rw_rope;

typedef struct rw_rope_options {
    rw_rope_spec spec;
    int64_t seq_len;       /* as for rw_rope_frequencies */
    int64_t max_positions; /* 1 to 2^31 - 1; ids must lie in [0, max_positions)
                              [the larger of seq_len and max_position_embeddings] */
} rw_rope_options;

/* Builds the tables: two levels in f64, rounded to f32, (B + max_positions / B) * d * 4 bytes with
 * B a power of two near the square root: 2 MiB for 2^20 positions at d = 256. At every position
 * below 2^20 cos and sin are within 2^-22 of the true ones, times the attention factor.
 *
 * The attention factor and its inverse are numbers that f32 holds, and so is the quotient of two in
 * rw_rope_rerotate().
 *
 * The spec's arrays are not needed afterwards. Every context of the same backend and device may use
 * the result while the one that made it lives. Allocates and copies host to device; no operation
 * later does. Returns RW_OK, RW_INVALID_ARGUMENT, RW_OUT_OF_MEMORY or RW_DEVICE_ERROR; on failure
 * *rope is NULL.
 */
RW_API rw_status rw_rope_create(rw_context *context, const rw_rope_options *options,
                                rw_rope **rope);

/* Frees the tables; no operation that reads them may be in flight. NULL does nothing. */
RW_API void rw_rope_destroy(rw_rope *rope);

/* The regime that seq_len falls into: two lengths with equal regimes have equal frequencies.
 * 0 for every type but dynamic (the length that enters the formula) and longrope (0 short, 1 long).
 * A KV cache that was filled under one regime is poison under another: rw_rope_rerotate() it. */
RW_API int64_t rw_rope_regime(const rw_rope_spec *spec, int64_t seq_len);

typedef enum rw_rope_direction {
    RW_ROPE_FORWARD = 0,
    RW_ROPE_INVERSE, /* s -> -s, attention factor -> its reciprocal: undoes FORWARD */
    RW_ROPE_BACKWARD /* s -> -s, attention factor kept: the gradient of FORWARD */
} rw_rope_direction;

/* q, k          [batch, seq, heads, head_dim], or [tokens, heads, head_dim] for packed sequences;
 *               f32, f16 or bf16, the same for both; any strides. Batch and seq agree, the numbers
 *               of heads are each their own (GQA, MQA), at most 2^30. Either may be absent, not
 *               both.
 * q_out, k_out  shape and dtype of q and k; absent: in place
 * positions     i32 or i64, [seq], [batch, seq] or, with several axes, [axes, batch, seq]
 *               ([tokens] and [axes, tokens] for packed ones); absent: 0, 1, 2, ... in each row.
 *               One id a token serves all axes.
 * offsets       i32 or i64, [batch]: added to the ids of its row (KV-cache decode); may be absent
 * offset        added to every id
 */
typedef struct rw_rope_args {
    rw_tensor q;
    rw_tensor k;
    rw_tensor q_out;
    rw_tensor k_out;
    rw_tensor positions;
    rw_tensor offsets;
    int64_t offset;
    rw_rope_direction direction;
} rw_rope_args;

/* Rotates q and k in one launch:
 *
 *   y1 = x1 * c - x2 * s      c = af * cos(p * f_i)
 *   y2 = x2 * c + x1 * s      s = af * sin(p * f_i)
 *
 * for the columns [rotary_start, rotary_start + rotary_dim) of every head; out of place the other
 * columns are copied. Arithmetic is f32, rounded once.
 *
 * Stream-ordered: allocates nothing, moves nothing between host and device, may be captured in a
 * graph. A token with an id outside [0, max_positions) is left untouched and the next
 * rw_synchronize() reports it. Returns RW_OK, RW_INVALID_ARGUMENT, RW_UNSUPPORTED or
 * RW_DEVICE_ERROR.
 */
RW_API rw_status rw_rope_apply(rw_context *context, const rw_rope *rope, const rw_rope_args *args);

/* Moves tensors that were rotated by `from` under `to`, as if by INVERSE with `from` and FORWARD
 * with `to`, in one pass and with one rounding. Both have the same head_dim, rotary window, pairing
 * and axes; ids must lie within both. args->direction must be RW_ROPE_FORWARD. Otherwise as
 * rw_rope_apply(). */
typedef struct rw_rope_change {
    const rw_rope *from;
    const rw_rope *to;
} rw_rope_change;

RW_API rw_status rw_rope_rerotate(rw_context *context, const rw_rope_change *change,
                                  const rw_rope_args *args);

#ifdef __cplusplus
}
#endif
#endif
