/* Gated activations of feed-forward layers: SwiGLU, GEGLU, ReGLU; Shazeer, arXiv:2002.05202. */
#ifndef ROPEWALK_ACTIVATION_H
#define ROPEWALK_ACTIVATION_H

#include <ropewalk/context.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The order of gate and up in a packed row of 2 * hidden elements. For hidden = 4 (g: gate, u: up):
 *   RW_GLU_GATE_FIRST              [gggguuuu]   Phi-3, vLLM
 *   RW_GLU_UP_FIRST                [uuuugggg]
 *   RW_GLU_INTERLEAVED             [gugugugu]   gpt-oss
 *   RW_GLU_INTERLEAVED_UP_FIRST    [ugugugug]
 */
typedef enum rw_glu_packing {
    RW_GLU_GATE_FIRST = 0,
    RW_GLU_UP_FIRST,
    RW_GLU_INTERLEAVED,
    RW_GLU_INTERLEAVED_UP_FIRST
} rw_glu_packing;

/* The activation of the gate x:
 *   RW_GLU_SILU       x / (1 + exp(-alpha * x))                                SwiGLU: Llama, Qwen
 *   RW_GLU_GELU       x * (1 + erf(x / sqrt(2))) / 2                           GEGLU
 *   RW_GLU_GELU_TANH  x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x^3))) / 2  GEGLU: Gemma
 *   RW_GLU_RELU       max(x, 0)                                                ReGLU
 *   RW_GLU_RELU2      max(x, 0)^2
 */
typedef enum rw_glu_activation {
    RW_GLU_SILU = 0,
    RW_GLU_GELU,
    RW_GLU_GELU_TANH,
    RW_GLU_RELU,
    RW_GLU_RELU2
} rw_glu_activation;

/* Either gate and up, or packed, must be given. All tensors have rank 1 to 4, the same dtype (f32,
 * f16 or bf16), and any strides except that of the last axis, which must be 1.
 *
 * gate, up   [..., hidden] each
 * packed     [..., 2 * hidden], in the order of `packing`, which must be 0 if packed is absent
 * out        [..., hidden]; absent: in place in gate (invalid with packed). It may be identical to
 *            the view of gate or of up, including those within a row of packed halves; it must not
 *            overlap the inputs otherwise
 * activation  of the gate
 * limit      if not 0: gate is clamped to at most limit and up to [-limit, limit], before anything
 *            else; positive
 * alpha      factor of the gate in the sigmoid [1], positive; 0 unless the activation is RW_GLU_SILU
 * up_offset  added to up, after the clamp
 * zero_at_minus_infinity
 *            the activation of -Inf is its limit, 0; else that of the formula: NaN, but for relu
 *
 * gpt-oss is limit 7, alpha 1.702, up_offset 1, RW_GLU_INTERLEAVED:
 * transformers:src/transformers/models/gpt_oss/modeling_gpt_oss.py.
 */
typedef struct rw_glu_args {
    rw_tensor gate;
    rw_tensor up;
    rw_tensor packed;
    rw_glu_packing packing;
    rw_tensor out;
    rw_glu_activation activation;
    float limit;
    float alpha;
    float up_offset;
    bool zero_at_minus_infinity;
} rw_glu_args;

/* Computes for every element
 *
 *   out = activation(gate) * (up + up_offset)
 *
 * in f32, with one rounding at the end and without intermediate overflow: a large negative gate
 * gives its tiny result or -0. The error is at most 4 eps of f32, of RW_GLU_GELU at most 8. A gate of
 * -Inf gives -Inf * 0 = NaN with silu and gelu, unless zero_at_minus_infinity; the clamp propagates
 * NaN.
 *
 * Stream-ordered: allocates nothing, moves nothing between host and device. Returns RW_OK,
 * RW_INVALID_ARGUMENT, RW_UNSUPPORTED or RW_DEVICE_ERROR.
 */
RW_API rw_status rw_glu(rw_context *context, const rw_glu_args *args);

#ifdef __cplusplus
}
#endif
#endif
