/* Gated activations on a GPU; the twin of activation_cpu.c. Each thread computes one vector of a
 * row: an element is expensive enough that many threads are faster than many elements per thread. */
#include "activation_params.h"
#include "gpu/dispatch.h"
#include "gpu/launch.h"
#include "gpu/row_offsets.h"
#include "gpu/row_tiles.h"
#include "gpu/vectors.h"

/* The row of each tensor; `up` is unused where gate and up are interleaved. */
struct glu_row {
    const void *gate;
    const void *up;
    void *out;
};

template <rw_dtype D>
__device__ static inline glu_row find_row(const rw_glu_params &p, int64_t number) {
    int64_t offset[3];
    rwi_row_offsets(p.rows, number, {p.gate_stride, p.up_stride, p.out_stride}, offset);
    return {rwi_element(D, p.gate, offset[0]), rwi_element(D, p.up, offset[1]),
            rwi_element(D, p.out, offset[2])};
}

/* Gate and up of elements i .. i + VEC - 1 of a row. */
template <rw_dtype D, int VEC, bool INTERLEAVED>
__device__ static inline void load_pairs(const rw_glu_params &p, const glu_row &row, int64_t i,
                                         float (&gate)[VEC], float (&up)[VEC]) {
    if constexpr (INTERLEAVED) {
        float low[VEC], high[VEC];
        rwi_load_vector<D>(row.gate, 2 * i, low);
        rwi_load_vector<D>(row.gate, 2 * i + VEC, high);
#pragma unroll
        for (int n = 0; n < VEC; n++) {
            const float first = 2 * n < VEC ? low[2 * n] : high[2 * n - VEC];
            const float second = 2 * n + 1 < VEC ? low[2 * n + 1] : high[2 * n + 1 - VEC];
            gate[n] = p.up_first ? second : first;
            up[n] = p.up_first ? first : second;
        }
    } else {
        rwi_load_vector<D>(row.gate, i, gate);
        rwi_load_vector<D>(row.up, i, up);
    }
}

/* alpha / (2 ln 2), as first + second. */
struct glu_scale {
    float first;
    float second;
};

__device__ static inline glu_scale scale_of(float alpha) {
    const float first = 0x1.715476p+0f, second = 0x1.4ae0cp-26f; /* 1 / ln 2 */
    const float half = alpha * 0.5f, product = half * first;
    return {product, fmaf(half, first, -product) + half * second};
}

/* The formulas that a kernel contains. */
enum glu_form {
    GLU_PLAIN, /* glu_is_plain() */
    GLU_SILU,
    GLU_ANY /* every activation */
};

/* As glu_silu(), for results that are rounded to 16 bits: the GPU's exp2 instruction, with a
 * correction for the rounding of its f32 argument, and a fast division. */
template <bool PLAIN>
__device__ static inline float narrow_silu(const rw_glu_params &p, glu_scale scale, float gate,
                                           float up) {
    if (!PLAIN)
        glu_clamp(&p, &gate, &up);
    const float size = fabsf(gate) * scale.first;
    const float rest = fmaf(fabsf(gate), scale.first, -size) + fabsf(gate) * scale.second;
    const float power = rwi_exp2_fast(-size);
    const float e = size < 200.0f ? fmaf(power, rest * -0x1.62e43p-1f, power) : 0.0f;
    const float factor = gate < 0.0f ? e : 1.0f;
    return rwi_divide_fast(gate * factor, 1.0f + e * e) * (up * factor);
}

/* gate = activation(gate) * up */
template <rw_glu_activation ACTIVATION, int VEC>
__device__ static inline void activate(const rw_glu_params &p, float (&gate)[VEC],
                                       const float (&up)[VEC]) {
#pragma unroll
    for (int n = 0; n < VEC; n++)
        gate[n] = glu_value(&p, ACTIVATION, gate[n], up[n]);
}

template <int VEC>
__device__ static inline void activate_any(const rw_glu_params &p, float (&gate)[VEC],
                                           const float (&up)[VEC]) {
    switch (p.activation) {
    case RW_GLU_SILU:
        activate<RW_GLU_SILU>(p, gate, up);
        return;
    case RW_GLU_GELU:
        activate<RW_GLU_GELU>(p, gate, up);
        return;
    case RW_GLU_GELU_TANH:
        activate<RW_GLU_GELU_TANH>(p, gate, up);
        return;
    case RW_GLU_RELU:
        activate<RW_GLU_RELU>(p, gate, up);
        return;
    case RW_GLU_RELU2:
        activate<RW_GLU_RELU2>(p, gate, up);
        return;
    }
}

template <rw_dtype D, int VEC, bool INTERLEAVED, glu_form FORM>
static __global__ void __launch_bounds__(RWI_BLOCK)
    glu_kernel(rwi_tiled<rw_glu_params> p, rwi_fault_sink) {
    rwi_begin_kernel();
    int64_t number, i;
    if (!rwi_tile_place<VEC>(p.tiles, &number, &i) || i >= p.op.hidden)
        return;
    const glu_row row = find_row<D>(p.op, number);
    float gate[VEC], up[VEC];
    load_pairs<D, VEC, INTERLEAVED>(p.op, row, i, gate, up);
    if constexpr (FORM == GLU_ANY) {
        activate_any(p.op, gate, up);
    } else if constexpr (D == RW_F32 && FORM == GLU_PLAIN) {
#pragma unroll
        for (int n = 0; n < VEC; n++)
            gate[n] = glu_sigmoid(gate[n], up[n], gate[n], 0.0f);
    } else if constexpr (D == RW_F32) {
        activate<RW_GLU_SILU>(p.op, gate, up);
    } else {
        const glu_scale scale = scale_of(FORM == GLU_PLAIN ? 1.0f : p.op.alpha);
#pragma unroll
        for (int n = 0; n < VEC; n++)
            gate[n] = narrow_silu<FORM == GLU_PLAIN>(p.op, scale, gate[n], up[n]);
    }
    rwi_store_vector<D>(row.out, i, gate);
}

static bool has_vectors(const rw_glu_params &p) {
    return rwi_rows_are_vectors(p.dtype, {p.gate, p.gate_stride, 3, p.hidden}) &&
           (p.interleaved || rwi_rows_are_vectors(p.dtype, {p.up, p.up_stride, 3, p.hidden})) &&
           rwi_rows_are_vectors(p.dtype, {p.out, p.out_stride, 3, p.hidden});
}

template <rw_dtype D, int VEC, bool INTERLEAVED>
static rw_status launch_glu(rwi_device *device, const rw_glu_params &op) {
    rwi_tiled<rw_glu_params> p = {op, {rwi_row_count(&op.rows), op.hidden, 0}};
    const rwi_launch_shape shape = rwi_launch_row_tiles(RWI_OP_glu, VEC, 1, &p.tiles);
    if (op.activation != RW_GLU_SILU)
        return rwi_launch(device, shape, glu_kernel<D, VEC, INTERLEAVED, GLU_ANY>, p);
    return glu_is_plain(&op)
               ? rwi_launch(device, shape, glu_kernel<D, VEC, INTERLEAVED, GLU_PLAIN>, p)
               : rwi_launch(device, shape, glu_kernel<D, VEC, INTERLEAVED, GLU_SILU>, p);
}

extern "C" rw_status rwi_hip_glu(rwi_device *device, const rw_glu_params *p) {
    return rwi_dispatch_float(device, p->dtype, [&](auto dtype) {
        constexpr rw_dtype D = dtype.value;
        constexpr int VEC = rwi_vector_length<D>;
        if (has_vectors(*p))
            return p->interleaved ? launch_glu<D, VEC, true>(device, *p)
                                  : launch_glu<D, VEC, false>(device, *p);
        return p->interleaved ? launch_glu<D, 1, true>(device, *p)
                              : launch_glu<D, 1, false>(device, *p);
    });
}
