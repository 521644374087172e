/* The gated activation of feed-forward layers: SwiGLU, Shazeer, arXiv:2002.05202. */
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

/* Either gate and up, or packed, must be given. All tensors have rank 1 to 4, the same dtype (f32,
 * f16 or bf16), and any strides except that of the last axis, which must be 1.
 *
 * gate, up   [..., hidden] each
 * packed     [..., 2 * hidden], in the order of `packing`, which must be 0 if packed is absent
 * out        [..., hidden]; absent: in place in gate (invalid with packed). It may be identical to
 *            the view of gate or of up, including those within a row of packed halves; it must not
 *            overlap the inputs otherwise
 * limit      if not 0: gate is clamped to at most limit and up to [-limit, limit], before anything
 *            else; positive
 * alpha      factor of the gate in the sigmoid [1], positive
 * up_offset  added to up, after the clamp
 *
 * gpt-oss is limit 7, alpha 1.702, up_offset 1, RW_GLU_INTERLEAVED:
 * transformers:src/transformers/models/gpt_oss/modeling_gpt_oss.py.
 */
typedef struct rw_swiglu_args {
    rw_tensor gate;
    rw_tensor up;
    rw_tensor packed;
    rw_glu_packing packing;
    rw_tensor out;
    float limit;
    float alpha;
    float up_offset;
} rw_swiglu_args;

/* Computes SwiGLU for every element:
 *
 *   out = gate / (1 + exp(-alpha * gate)) * (up + up_offset)
 *
 * in f32, with one rounding at the end and without intermediate overflow: a large negative gate
 * gives its tiny result or -0. A gate of -Inf gives -Inf * 0 = NaN; the clamp propagates NaN.
 *
 * Stream-ordered: allocates nothing, moves nothing between host and device. Returns RW_OK,
 * RW_INVALID_ARGUMENT, RW_UNSUPPORTED or RW_DEVICE_ERROR.
 */
RW_API rw_status rw_swiglu(rw_context *context, const rw_swiglu_args *args);

#ifdef __cplusplus
}
#endif
#endif
