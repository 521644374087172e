/* Attention patterns on the CPU; the twin of pattern.hip. An item is a query, or a token. */
#include "pattern_params.h"

RWI_ASSERT_16_BIT_FLOATS;

RWI_INLINE void fill_row(const rwi_pattern *pattern, const rwi_pattern_row *row, rw_dtype dtype,
                         bool cells, void *out) {
    uint32_t hidden = rwi_hidden_bits(dtype);
    if (dtype == RW_F32) {
        uint32_t *to = out;
#pragma omp simd
        for (int32_t j = 0; j < pattern->seq_k; j++)
            to[j] = rwi_pattern_visible(pattern, row, cells, j) ? 0 : hidden;
    } else {
        uint16_t *to = out;
#pragma omp simd
        for (int32_t j = 0; j < pattern->seq_k; j++)
            to[j] = (uint16_t)(rwi_pattern_visible(pattern, row, cells, j) ? 0 : hidden);
    }
}

RWI_INLINE void fill_rows(const rw_pattern_fill_params *p, rw_dtype dtype, bool cells,
                          int64_t begin, int64_t end, rwi_fault_sink *sink) {
    rwi_pattern_row row;
    int64_t b, i;
    rwi_bad_id bad;
    for (int64_t query = begin; query < end; query++) {
        rwi_split_index(query, p->seq_q, &b, &i);
        if (rwi_pattern_row_at(&p->pattern, b, i, &row, &bad))
            fill_row(&p->pattern, &row, dtype, cells,
                     rwi_element(dtype, p->out, b * p->out_stride[0] + i * p->out_stride[1]));
        else
            rwi_cpu_fault_raise(sink, query, bad);
    }
}

void RWI_CPU_KERNEL(pattern_fill)(const rw_pattern_fill_params *p, int64_t begin, int64_t end,
                                  rwi_fault_sink *sink) {
    if (rwi_pattern_has_cells(&p->pattern))
        fill_rows(p, p->dtype, true, begin, end, sink);
    else if (p->dtype == RW_F32)
        fill_rows(p, RW_F32, false, begin, end, sink);
    else
        fill_rows(p, p->dtype, false, begin, end, sink);
}

RWI_INLINE void fill_bits(const rw_pattern_fill_bits_params *p, bool cells, int64_t begin,
                          int64_t end, rwi_fault_sink *sink) {
    rwi_pattern_row row;
    int64_t b, i;
    rwi_bad_id bad;
    int64_t bytes = rwi_ceil_div(p->pattern.seq_k, 8);
    for (int64_t query = begin; query < end; query++) {
        rwi_split_index(query, p->seq_q, &b, &i);
        if (!rwi_pattern_row_at(&p->pattern, b, i, &row, &bad)) {
            rwi_cpu_fault_raise(sink, query, bad);
            continue;
        }
        uint8_t *out = p->out + b * p->out_stride[0] + i * p->out_stride[1];
        for (int64_t n = 0; n < bytes; n++)
            out[n] = rwi_pattern_byte(&p->pattern, &row, cells, n);
    }
}

void RWI_CPU_KERNEL(pattern_fill_bits)(const rw_pattern_fill_bits_params *p, int64_t begin,
                                       int64_t end, rwi_fault_sink *sink) {
    if (rwi_pattern_has_cells(&p->pattern))
        fill_bits(p, true, begin, end, sink);
    else
        fill_bits(p, false, begin, end, sink);
}

void RWI_CPU_KERNEL(pattern_positions)(const rw_pattern_positions_params *p, int64_t begin,
                                       int64_t end, rwi_fault_sink *sink) {
    for (int64_t token = begin; token < end; token++) {
        rwi_bad_id bad;
        if (!pattern_positions_token(p, token, &bad))
            rwi_cpu_fault_raise(sink, token, bad);
    }
}
