/* Gated activations on the CPU; the twin of activation.hip. An item is a piece of a row. */
#include "activation_params.h"
#include "cpu/block_cpu.h"
#include "cpu/lanes_cpu.h"
#include "cpu/pairs_cpu.h"
#include "cpu/weights_cpu.h"

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

/* A piece of a row, f32, bf16 or, if has_vectors(), f16; consecutive elements of gate and of up are `step` elements apart.
 */
typedef struct glu_piece {
    const void *gate;
    const void *up;
    void *out;
    int64_t count;
    bool stream; /* whole vectors are written with nontemporal stores, if rwi_lanes_streamable() */
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
            rwi_store(dtype, piece->out, i, value);
    }
}

/* Whether activate_vectors() computes the whole vectors of a row. */
RWI_INLINE bool has_vectors(const rw_glu_params *p, int step) {
#if defined(__AVX512F__)
    return step == 1 && glu_is_plain(p);
#else
    (void)p, (void)step;
    return false;
#endif
}

#if defined(__AVX512F__)
/* silu of any size, for elements [begin, begin + count) of a piece. */
RWI_INLINE void activate_far(const rw_glu_params *p, rw_dtype dtype, const glu_piece *piece,
                             int64_t begin, int64_t count) {
    const glu_piece part = {.gate = rwi_element(dtype, piece->gate, begin),
                            .up = rwi_element(dtype, piece->up, begin),
                            .out = rwi_element(dtype, piece->out, begin),
                            .count = count};
    activate(p, dtype, 1, GLU_ANY, RW_GLU_SILU, &part);
}

/* silu_near() within the same bound: 1 / (1 + e) from an estimate of 14 bits and one step of
 * Newton's iteration, since a division takes longer than all the rest. */
RWI_INLINE rwi_lanes silu_16(rwi_lanes gate, rwi_lanes up) {
    const __m512 sum = _mm512_add_ps(rwi_exp_16(_mm512_sub_ps(_mm512_setzero_ps(), (__m512)gate)),
                                     _mm512_set1_ps(1.0f));
    __m512 r = _mm512_rcp14_ps(sum);
    r = _mm512_fmadd_ps(_mm512_fnmadd_ps(sum, r, _mm512_set1_ps(1.0f)), r, r);
    return gate * (rwi_lanes)r * up;
}

/* SILU_PLAIN for whole vectors, without a pass over the gates before; returns their number of
 * elements. */
RWI_INLINE int64_t activate_vectors(const rw_glu_params *p, rw_dtype dtype,
                                    const glu_piece *piece) {
    const __m512 nearest = _mm512_set1_ps(glu_nearest(p));
    int64_t i = 0;
    for (; i + RWI_TWO_LANES <= piece->count; i += RWI_TWO_LANES) {
        const void *gate_at = rwi_element(dtype, piece->gate, i);
        const void *up_at = rwi_element(dtype, piece->up, i);
        rwi_two_lanes_prefetch(dtype, gate_at);
        rwi_two_lanes_prefetch(dtype, up_at);
        const rwi_two_lanes gate = rwi_two_lanes_load(dtype, gate_at);
        const rwi_two_lanes up = rwi_two_lanes_load(dtype, up_at);
        const __mmask16 far = _mm512_cmplt_ps_mask((__m512)gate.a, nearest) |
                              _mm512_cmplt_ps_mask((__m512)gate.b, nearest);
        if (far) {
            activate_far(p, dtype, piece, i, RWI_TWO_LANES);
            continue;
        }
        const rwi_two_lanes value = {silu_16(gate.a, up.a), silu_16(gate.b, up.b)};
        if (piece->stream)
            rwi_two_lanes_stream(dtype, rwi_element(dtype, piece->out, i), value);
        else
            rwi_two_lanes_store(dtype, rwi_element(dtype, piece->out, i), value);
    }
    return i;
}
#else
RWI_INLINE int64_t activate_vectors(const rw_glu_params *p, rw_dtype dtype,
                                    const glu_piece *piece) {
    (void)p, (void)dtype, (void)piece;
    return 0;
}
#endif

RWI_INLINE void activate_silu(const rw_glu_params *p, rw_dtype dtype, int step,
                              const glu_piece *piece) {
    const bool plain = glu_is_plain(p);
    const int64_t done = has_vectors(p, step) ? activate_vectors(p, dtype, piece) : 0;
    const glu_piece rest = {.gate = rwi_element(dtype, piece->gate, step * done),
                            .up = rwi_element(dtype, piece->up, step * done),
                            .out = rwi_element(dtype, piece->out, done),
                            .count = piece->count - done};
    if (!is_near(dtype, step, &rest, glu_nearest(p)))
        activate(p, dtype, step, GLU_ANY, RW_GLU_SILU, &rest);
    else if (plain)
        activate(p, dtype, step, SILU_PLAIN, RW_GLU_SILU, &rest);
    else
        activate(p, dtype, step, SILU_NEAR, RW_GLU_SILU, &rest);
}

RWI_INLINE void activate_piece(const rw_glu_params *p, rw_dtype dtype, int step,
                               const glu_piece *piece) {
    switch (p->activation) {
    case RW_GLU_SILU:
        activate_silu(p, dtype, step, piece);
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
    /* activate() reads and writes f32 and bf16 as they lie, and f16 where little of it remains */
    bool converted = dtype == RW_F16 && !has_vectors(p, step);
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
    piece.stream =
        stream && !converted && step == 1 && glu_is_plain(p) && rwi_lanes_streamable(out);
    const bool buffered = converted || (stream && !piece.stream);
    piece.out = buffered ? (void *)out_buffer : out;
    activate_piece(p, as, step, &piece);
    if (converted)
        rwi_cpu_write(dtype, out, count, stream, out_buffer);
    else if (buffered)
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
