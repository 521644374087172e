/* SwiGLU on the CPU; the twin of activation.hip. An item is a piece of a row. */
#include "activation_kernel.h"
#include "block_cpu.h"

_Static_assert(RWI_SWIGLU_PIECE <= RWI_CPU_BLOCK, "a piece is computed as one block");

RWI_INLINE void activate(const rw_swiglu_params *p, rwi_swiglu_kind kind, const float *gate,
                         const float *up, int64_t count, float *out) {
#pragma omp simd
    for (int64_t i = 0; i < count; i++)
        out[i] = swiglu_value(p, kind, gate[i], up[i]);
}

RWI_INLINE void activate_pairs(const rw_swiglu_params *p, rwi_swiglu_kind kind, const float *pairs,
                               bool up_first, int64_t count, float *out) {
#pragma omp simd
    for (int64_t i = 0; i < count; i++)
        out[i] = swiglu_value(p, kind, pairs[2 * i + up_first], pairs[2 * i + 1 - up_first]);
}

/* The elements [first, first + count) of a row. */
RWI_INLINE void activate_piece(const rw_swiglu_params *p, rw_dtype dtype, bool plain,
                               const rwi_row_index *index, int64_t first, bool stream) {
    float buffer[2 * RWI_SWIGLU_PIECE], up_buffer[RWI_SWIGLU_PIECE], out_buffer[RWI_SWIGLU_PIECE];
    rwi_swiglu_kind kind = {plain, dtype != RW_F32};
    int64_t count = rwi_min(RWI_SWIGLU_PIECE, p->hidden - first);
    char *out = rwi_element(dtype, p->out, rwi_row_offset(index, p->out_stride) + first);
    float *target = rwi_cpu_target(dtype, out, stream, out_buffer);
    int64_t gate_first = rwi_row_offset(index, p->gate_stride) + (p->interleaved ? 2 : 1) * first;
    const char *gate_data = rwi_element(dtype, p->gate, gate_first);
    if (p->interleaved) {
        const float *pairs = rwi_cpu_read(dtype, gate_data, 2 * count, buffer);
        if (p->up_first)
            activate_pairs(p, kind, pairs, true, count, target);
        else
            activate_pairs(p, kind, pairs, false, count, target);
    } else {
        const char *up_data =
            rwi_element(dtype, p->up, rwi_row_offset(index, p->up_stride) + first);
        const float *gate = rwi_cpu_read(dtype, gate_data, count, buffer);
        const float *up = rwi_cpu_read(dtype, up_data, count, up_buffer);
        activate(p, kind, gate, up, count, target);
    }
    rwi_cpu_write(dtype, out, count, stream, target);
}

RWI_INLINE void activate_pieces(const rw_swiglu_params *p, rw_dtype dtype, int64_t begin,
                                int64_t end) {
    int64_t bytes = rwi_row_count(&p->rows) * p->hidden * (int64_t)rwi_dtype_size(dtype);
    bool stream = p->out != p->gate && p->out != p->up && bytes >= RWI_CPU_STREAM_BYTES;
    bool plain = swiglu_is_plain(p);
    int64_t pieces = swiglu_pieces(p);
    for (int64_t item = begin; item < end; item++) {
        int64_t row, piece;
        rwi_split_index(item, pieces, &row, &piece);
        rwi_row_index index = rwi_row_find(&p->rows, row);
        if (plain)
            activate_piece(p, dtype, true, &index, piece * RWI_SWIGLU_PIECE, stream);
        else
            activate_piece(p, dtype, false, &index, piece * RWI_SWIGLU_PIECE, stream);
    }
    if (stream)
        rwi_cpu_stream_end();
}

void RWI_CPU_KERNEL(swiglu)(const rw_swiglu_params *p, int64_t begin, int64_t end,
                            rwi_fault_sink *sink) {
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
        return;
    }
}
