/* Gated activations on the CPU; the twin of activation.hip. An item is a piece of a row. */
#include "activation_params.h"
#include "cpu/block_cpu.h"
#include "cpu/pairs_cpu.h"

_Static_assert(RWI_GLU_PIECE <= RWI_CPU_BLOCK, "a piece is computed as one block");

/* ---- values ---- */

/* The formula for a piece. */
typedef enum glu_formula {
    SILU_PLAIN, /* silu_near(), glu_is_plain() */
    SILU_NEAR,  /* silu_near() */
    GLU_ANY     /* glu_value(), for gates of any size */
} glu_formula;

/* The smallest gate for which silu_near() is valid. */
RWI_INLINE float glu_nearest(const rw_glu_params *p) {
    return p->alpha > 1024.0f ? INFINITY : -80.0f / p->alpha;
}

/* As glu_silu(), at half the cost: for gates from -80 on, exp(-z) does not overflow and no product
 * underflows before the result does. */
RWI_INLINE float silu_near(const rw_glu_params *p, bool plain, float gate, float up) {
    if (!plain)
        glu_clamp(p, &gate, &up);
    float z = plain ? gate : p->alpha * gate;
    float e = rwi_exp_small(-z);
    if (!plain) { /* the rounding error of z */
        float rest = rwi_product_rest(p->alpha, gate, z);
        e -= z < 80.0f ? e * rest : 0.0f;
    }
    return gate / (1.0f + e) * up;
}

/* ---- pieces ---- */

/* A piece of a row, f32 or bf16; consecutive elements of gate and of up are `step` elements apart.
 */
typedef struct glu_piece {
    const void *gate;
    const void *up;
    void *out;
    int64_t count;
} glu_piece;

/* Whether every gate is NaN or at least glu_nearest(). */
RWI_INLINE bool is_near(rw_dtype dtype, int step, const glu_piece *piece, float nearest) {
    unsigned below = 0;
#pragma omp simd reduction(| : below)
    for (int64_t i = 0; i < piece->count; i++)
        below |= rwi_load(dtype, piece->gate, step * i) < nearest;
    return !below;
}

/* `formula` and `activation` are constants where this is called. */
RWI_INLINE void activate(const rw_glu_params *p, rw_dtype dtype, int step, glu_formula formula,
                         rw_glu_activation activation, const glu_piece *piece) {
#pragma omp simd
    for (int64_t i = 0; i < piece->count; i++) {
        float gate = rwi_load(dtype, piece->gate, step * i);
        float up = rwi_load(dtype, piece->up, step * i);
        float value = formula == GLU_ANY ? glu_value(p, activation, gate, up)
                                         : silu_near(p, formula == SILU_PLAIN, gate, up);
        if (dtype == RW_BF16)
            ((uint16_t *)piece->out)[i] = (uint16_t)(rwi_pair_round(value) >> 16);
        else
            ((float *)piece->out)[i] = value;
    }
}

RWI_INLINE void activate_piece(const rw_glu_params *p, rw_dtype dtype, int step,
                               const glu_piece *piece) {
    switch (p->activation) {
    case RW_GLU_SILU:
        if (!is_near(dtype, step, piece, glu_nearest(p)))
            activate(p, dtype, step, GLU_ANY, RW_GLU_SILU, piece);
        else if (glu_is_plain(p))
            activate(p, dtype, step, SILU_PLAIN, RW_GLU_SILU, piece);
        else
            activate(p, dtype, step, SILU_NEAR, RW_GLU_SILU, piece);
        return;
    case RW_GLU_GELU:
        activate(p, dtype, step, GLU_ANY, RW_GLU_GELU, piece);
        return;
    case RW_GLU_GELU_TANH:
        activate(p, dtype, step, GLU_ANY, RW_GLU_GELU_TANH, piece);
        return;
    case RW_GLU_RELU:
        activate(p, dtype, step, GLU_ANY, RW_GLU_RELU, piece);
        return;
    case RW_GLU_RELU2:
        activate(p, dtype, step, GLU_ANY, RW_GLU_RELU2, piece);
        return;
    }
}

/* Elements [first, first + count) of a row. */
RWI_INLINE void read_and_activate(const rw_glu_params *p, rw_dtype dtype, int step,
                                  const rwi_row_index *index, int64_t first, bool stream) {
    float gate_buffer[2 * RWI_GLU_PIECE], up_buffer[RWI_GLU_PIECE];
    float out_buffer[RWI_GLU_PIECE];
    bool converted = dtype != RW_F32 && dtype != RW_BF16; /* activate() computes in these */
    int64_t count = rwi_min(RWI_GLU_PIECE, p->hidden - first);
    int64_t gate_at = rwi_row_offset(index, p->gate_stride) + step * first;
    int64_t up_at = rwi_row_offset(index, p->up_stride) + first;
    glu_piece piece = {.gate = rwi_element(dtype, p->gate, gate_at), .count = count};
    char *out = rwi_element(dtype, p->out, rwi_row_offset(index, p->out_stride) + first);
    if (step == 1)
        piece.up = rwi_element(dtype, p->up, up_at);
    if (converted) {
        piece.gate = rwi_cpu_read(dtype, piece.gate, step * count, gate_buffer);
        if (step == 1)
            piece.up = rwi_cpu_read(dtype, piece.up, count, up_buffer);
    }
    rw_dtype as = converted ? RW_F32 : dtype; /* dtype of the buffers */
    if (step == 2) {
        const void *second = rwi_element(as, piece.gate, 1);
        piece.up = p->up_first ? piece.gate : second;
        piece.gate = p->up_first ? second : piece.gate;
    }
    piece.out = stream || converted ? (void *)out_buffer : out;
    activate_piece(p, as, step, &piece);
    if (converted)
        rwi_cpu_write(dtype, out, count, stream, out_buffer);
    else if (stream)
        rwi_cpu_stream(out, out_buffer, (size_t)count * rwi_dtype_size(dtype));
}

RWI_INLINE void activate_pieces(const rw_glu_params *p, rw_dtype dtype, int64_t begin,
                                int64_t end) {
    int64_t bytes = rwi_row_count(&p->rows) * p->hidden * (int64_t)rwi_dtype_size(dtype);
    bool stream = p->out != p->gate && p->out != p->up && bytes >= RWI_CPU_STREAM_BYTES;
    int64_t pieces = glu_pieces(p);
    for (int64_t item = begin; item < end; item++) {
        int64_t row, piece;
        rwi_split_index(item, pieces, &row, &piece);
        rwi_row_index index = rwi_row_find(&p->rows, row);
        if (p->interleaved)
            read_and_activate(p, dtype, 2, &index, piece * RWI_GLU_PIECE, stream);
        else
            read_and_activate(p, dtype, 1, &index, piece * RWI_GLU_PIECE, stream);
    }
    if (stream)
        rwi_cpu_stream_end();
}

void RWI_CPU_KERNEL(glu)(const rw_glu_params *p, int64_t begin, int64_t end, rwi_fault_sink *sink) {
    (void)sink;
    switch (p->dtype) {
    case RW_F32:
        activate_pieces(p, RW_F32, begin, end);
        return;
    case RW_F16:
        activate_pieces(p, RW_F16, begin, end);
        return;
    case RW_BF16:
        activate_pieces(p, RW_BF16, begin, end);
        return;
    case RW_I32:
    case RW_I64:
    case RW_U8:
    case RW_F8_E4M3:
    case RW_F8_E5M2:
        return;
    }
}
