/* Rows of attention and stores of their results, for attention_cpu.c and attention_combine_cpu.c.
 */
#ifndef RWI_ATTENTION_STORE_CPU_H
#define RWI_ATTENTION_STORE_CPU_H

#include "attention/attention_ragged.h"
#include "cpu/convert_cpu.h"

/* Finds a row and checks the pages that it needs. */
RWI_INLINE void rwi_attention_find_whole_row(const rw_attention_params *p, int64_t b,
                                             int64_t kv_head, int64_t r, rwi_attention_row *row,
                                             rwi_bad_id *bad) {
    rwi_attention_find_row(p, b, kv_head, r, row, bad);
    row->valid =
        row->valid && rwi_attention_pages_exist(p, b, rwi_pattern_hull(&row->pattern), bad);
}

/* Stores the result of a row in the caller's tensors. */
RWI_INLINE void rwi_attention_store(const rw_attention_params *p, rw_dtype dtype, int64_t b,
                                    const rwi_attention_row *row, float *out,
                                    rwi_attention_end end) {
#pragma omp simd
    for (int64_t d = 0; d < p->v_dim; d++)
        out[d] = rwi_attention_multiply(end.factor, out[d]);
    rwi_store_many(dtype, rwi_element(dtype, p->out.data, rwi_attention_at(&p->out, b, row)),
                   p->v_dim, out);
    if (p->lse.data)
        ((float *)p->lse.data)[rwi_attention_lse_at(p, b, row)] = end.lse;
}

static inline void rwi_attention_store_any(const rw_attention_params *p, int64_t b,
                                           const rwi_attention_row *row, float *out,
                                           rwi_attention_end end) {
    switch (p->out_dtype) {
    case RW_F32:
        rwi_attention_store(p, RW_F32, b, row, out, end);
        return;
    case RW_F16:
        rwi_attention_store(p, RW_F16, b, row, out, end);
        return;
    case RW_BF16:
        rwi_attention_store(p, RW_BF16, b, row, out, end);
        return;
    case RW_I32:
    case RW_I64:
    case RW_U8:
    case RW_F8_E4M3:
    case RW_F8_E5M2:
        return;
    }
}

#endif
