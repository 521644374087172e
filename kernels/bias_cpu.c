/* ALiBi and T5 on the CPU; the twin of bias.hip. An item is a row of one head. */
#include <string.h>

#include "bias_params.h"
#include "cpu/convert_cpu.h"

/* Keys whose bias is computed in f32 before it is stored. */
#define BLOCK 512

void RWI_CPU_KERNEL(alibi_slopes)(const rw_alibi_slopes_params *p, int64_t begin, int64_t end,
                                  rwi_fault_sink *sink) {
    (void)sink;
    for (int64_t h = begin; h < end; h++)
        p->out[h] = rwi_alibi_slope(p->first_head + h, p->total_heads);
}

RWI_INLINE void fill_alibi(const rw_alibi_bias_params *p, rw_dtype dtype, bool is_signed,
                           int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; row++) {
        int64_t h, i;
        rwi_split_index(row, p->rows.seq_q, &h, &i);
        void *out = rwi_bias_row(&p->rows, h, i);
        float slope = p->alibi.slopes[h];
        int32_t position = (int32_t)(i + p->alibi.shift);
        for (int64_t first = 0; first < p->rows.seq_k; first += BLOCK) {
            int32_t count = (int32_t)rwi_min(BLOCK, p->rows.seq_k - first);
            int32_t distance = (int32_t)first - position;
            float bias[BLOCK];
#pragma omp simd
            for (int32_t j = 0; j < count; j++)
                bias[j] = rwi_alibi_at(is_signed, slope, distance + j);
            rwi_store_many(dtype, rwi_element(dtype, out, first), count, bias);
        }
    }
}

RWI_INLINE void fill_alibi_of(const rw_alibi_bias_params *p, rw_dtype dtype, int64_t begin,
                              int64_t end) {
    if (p->alibi.is_signed)
        fill_alibi(p, dtype, true, begin, end);
    else
        fill_alibi(p, dtype, false, begin, end);
}

void RWI_CPU_KERNEL(alibi_bias)(const rw_alibi_bias_params *p, int64_t begin, int64_t end,
                                rwi_fault_sink *sink) {
    (void)sink;
    switch (p->rows.dtype) {
    case RW_F32:
        fill_alibi_of(p, RW_F32, begin, end);
        return;
    case RW_F16:
        fill_alibi_of(p, RW_F16, begin, end);
        return;
    case RW_BF16:
        fill_alibi_of(p, RW_BF16, begin, end);
        return;
    case RW_I32:
    case RW_I64:
    case RW_U8:
    case RW_F8_E4M3:
    case RW_F8_E5M2:
        return;
    }
}

/* The bias depends on j - i only: each row is the row above, shifted by one key. */
void RWI_CPU_KERNEL(t5_bias)(const rw_t5_bias_params *p, int64_t begin, int64_t end,
                             rwi_fault_sink *sink) {
    const rwi_bias_rows *rows = &p->rows;
    (void)sink;
    for (int64_t row = begin; row < end; row++) {
        int64_t h, i;
        rwi_split_index(row, rows->seq_q, &h, &i);
        void *out = rwi_bias_row(rows, h, i);
        int64_t position = i + rows->shift;
        int64_t fresh = row == begin || i == 0 ? rows->seq_k : 1;
        for (int64_t j = 0; j < fresh; j++)
            rwi_store(rows->dtype, out, j, rwi_t5_bias_at(p, h, j - position));
        if (fresh < rows->seq_k)
            memcpy(rwi_element(rows->dtype, out, 1), rwi_bias_row(rows, h, i - 1),
                   (size_t)(rows->seq_k - 1) * rwi_dtype_size(rows->dtype));
    }
}
