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

/* The formula of the frequencies. Names and formulas are those of Hugging Face:
 * transformers:src/transformers/modeling_rope_utils.py. */
typedef enum rw_rope_type {
    RW_ROPE_DEFAULT = 0, /* f_i = theta^(-2i/d) */
    RW_ROPE_LINEAR,      /* f_i / factor */
    RW_ROPE_DYNAMIC,     /* theta increases with the sequence length (NTK) */
    RW_ROPE_YARN,        /* arXiv:2309.00071 */
    RW_ROPE_LONGROPE,    /* arXiv:2402.13753, Phi-3 */
    RW_ROPE_LLAMA3,      /* Llama 3.1 */
    RW_ROPE_PROPORTIONAL /* the leading frequencies of the whole head, the others 0 */
} rw_rope_type;

/* The columns of a pair. A head of 8 with rotary_dim 4 (c: x1, s: x2, 0: copied):
 *   RW_ROPE_HALF         [ccss0000]   (x_i, x_{i+d/2})     Llama, Qwen, NeoX
 *   RW_ROPE_INTERLEAVED  [cscs0000]   (x_{2i}, x_{2i+1})   GPT-J, GLM, Cohere
 */
typedef enum rw_rope_pairing {
    RW_ROPE_HALF = 0,
    RW_ROPE_INTERLEAVED
} rw_rope_pairing;

/* The number of position ids of a token, and the id that each frequency uses. */
typedef enum rw_rope_axes {
    RW_ROPE_AXES_ONE = 0,           /* text: one id for each token */
    RW_ROPE_AXES_MROPE_CHUNKED,     /* t, h, w ids; frequencies in three runs (Qwen2-VL) */
    RW_ROPE_AXES_MROPE_INTERLEAVED, /* t, h, w ids; frequencies t,h,w,t,h,w,... (Qwen3-VL) */
    RW_ROPE_AXES_VISION_2D,         /* row, column ids; frequencies over half the width, twice */
    RW_ROPE_AXES_2D_INTERLEAVED     /* row, column ids; frequencies row,column,row,... (NeoMME) */
} rw_rope_axes;

/* A model's rotary embedding. A field of zero is absent and has the default in brackets. */
typedef struct rw_rope_spec {
    rw_rope_type type;
    rw_rope_pairing pairing;
    int64_t head_dim;     /* D: columns of a head, 1 to 2^30; required */
    int64_t rotary_start; /* first rotated column */
    /* d: number of rotated columns, even [int(head_dim * partial_rotary_factor);
     * proportional: head_dim] */
    int64_t rotary_dim;
    /* in (0, 1] [1]; if rotary_dim is given, only proportional uses it */
    double partial_rotary_factor;
    double theta;                             /* rope_theta [10000] */
    int64_t max_position_embeddings;          /* L; required by dynamic */
    int64_t original_max_position_embeddings; /* Lo [L] */
    double factor;              /* [yarn, longrope: L / Lo; proportional: 1; else required] */
    double attention_factor;    /* yarn, longrope [derived]; ignored by the others */
    double beta_fast;           /* yarn [32] */
    double beta_slow;           /* yarn [1] */
    double mscale;              /* yarn */
    double mscale_all_dim;      /* yarn */
    bool no_truncate;           /* yarn: do not round the bounds of the correction range */
    double low_freq_factor;     /* llama3; required */
    double high_freq_factor;    /* llama3; required, unequal to low_freq_factor */
    const double *short_factor; /* longrope: d/2 values, owned by the caller; required */
    const double *long_factor;  /* longrope: d/2 values, owned by the caller; required */
    double short_mscale;        /* longrope: attention factor up to Lo [attention_factor] */
    double long_mscale;         /* longrope: attention factor beyond Lo (Phi-3.5-MoE) [the same] */
    /* any type: d/2 divisors of f_i (GGUF rope_freqs), owned by the caller */
    const float *frequency_factors;
    rw_rope_axes axes;
    int64_t sections[3]; /* M-RoPE: frequencies of t, h, w; they sum to d/2 */
} rw_rope_spec;

/* The frequencies of a spec. */
typedef struct rw_rope_frequency_list {
    double *inv_freq;        /* owned by the caller */
    int64_t capacity;        /* its length; d/2 values are required */
    int64_t count;           /* output: d/2 */
    double attention_factor; /* output: the factor of cos and sin */
} rw_rope_frequency_list;

/* Computes inv_freq (radians per position, f64) and the attention factor of `spec`.
 *
 * seq_len  length of the whole sequence, which dynamic and longrope depend on; 0: unknown, short
 *
 * Returns RW_OK, or RW_INVALID_ARGUMENT with a sentence in `message` (may be NULL); then `list` is
 * unchanged. Attention factors that f32 cannot represent are refused, and so are frequencies that
 * f32 rounds to infinity or, unless they are 0, to 0. With capacity 0 and inv_freq NULL only
 * `count` and `attention_factor` are set.
 */
RW_API rw_status rw_rope_frequencies(const rw_rope_spec *spec, int64_t seq_len,
                                     rw_rope_frequency_list *list, rw_message *message);

/* Tables of cos and sin on a context's device, with the spec that they were built from. Read-only
 * after creation. */
typedef struct rw_rope rw_rope;

typedef struct rw_rope_options {
    rw_rope_spec spec;
    int64_t seq_len; /* as for rw_rope_frequencies */
    /* 1 to 2^31 - 1; ids must be in [0, max_positions)
     * [the larger of seq_len and max_position_embeddings] */
    int64_t max_positions;
} rw_rope_options;

/* Builds the tables: two levels in f64, rounded to f32, (B + max_positions / B) * d * 4 bytes with
 * B a power of two near the square root: 2 MiB for 2^20 positions at d = 256. At every position
 * below 2^20 the error of cos and sin is at most 2^-22, times the attention factor.
 *
 * The attention factor and its inverse must be representable in f32, and so must the quotient of
 * two of them in rw_rope_rerotate().
 *
 * The spec's arrays are not needed afterwards. Every context of the same backend and device may use
 * the result during the lifetime of the context that created it. Allocates and copies from host to
 * device; later operations do neither. Returns RW_OK, RW_INVALID_ARGUMENT, RW_OUT_OF_MEMORY or
 * RW_DEVICE_ERROR; on failure *rope is NULL.
 */
RW_API rw_status rw_rope_create(rw_context *context, const rw_rope_options *options,
                                rw_rope **rope);

/* Frees the tables; operations that read them must be complete. NULL is ignored. */
RW_API void rw_rope_destroy(rw_rope *rope);

/* The regime of a sequence length: two lengths with equal regimes have equal frequencies. 0 for
 * every type except dynamic (the length used in the formula) and longrope (0 short, 1 long). A KV
 * cache that was filled in one regime must not be reused in another without rw_rope_rerotate(). */
RW_API int64_t rw_rope_regime(const rw_rope_spec *spec, int64_t seq_len);

typedef enum rw_rope_direction {
    RW_ROPE_FORWARD = 0,
    RW_ROPE_INVERSE, /* s -> -s, attention factor -> its reciprocal: undoes FORWARD */
    RW_ROPE_BACKWARD /* s -> -s, attention factor kept: the gradient of FORWARD */
} rw_rope_direction;

/* q, k          [batch, seq, heads, head_dim], or [tokens, heads, head_dim] for packed sequences;
 *               f32, f16 or bf16, the same for both; any strides. Batch and seq must agree; the
 *               numbers of heads may differ (GQA, MQA), at most 2^30. Either may be absent, not
 *               both.
 * q_out, k_out  shape and dtype of q and k; absent: in place
 * positions     i32 or i64, [seq], [batch, seq] or, with several axes, [axes, batch, seq]
 *               ([tokens] and [axes, tokens] for packed ones); absent: 0, 1, 2, ... in each row.
 *               A single id for each token is used for all axes.
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
 * for the columns [rotary_start, rotary_start + rotary_dim) of every head; out of place, the other
 * columns are copied. Arithmetic is f32, with one rounding at the end.
 *
 * Stream-ordered: allocates nothing, moves nothing between host and device, may be captured in a
 * graph. A token with an id outside [0, max_positions) is not written, and the next
 * rw_synchronize() reports it. Returns RW_OK, RW_INVALID_ARGUMENT, RW_UNSUPPORTED or
 * RW_DEVICE_ERROR.
 */
RW_API rw_status rw_rope_apply(rw_context *context, const rw_rope *rope, const rw_rope_args *args);

/* Converts tensors that were rotated with `from` to a rotation with `to`, as INVERSE with `from`
 * followed by FORWARD with `to`, in one pass and with one rounding. Both must have the same
 * head_dim, rotary window, pairing and axes; ids must be inside both tables. args->direction must
 * be RW_ROPE_FORWARD. Otherwise as rw_rope_apply(). */
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
