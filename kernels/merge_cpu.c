/* Merging attention over two sets of keys on the CPU; the twin of merge.hip. An item is a query of
 * one head. */
#include "cpu/convert_cpu.h"
#include "merge_params.h"

#define CHUNK 128

RWI_INLINE void merge_query(const rw_attention_merge_params *p, rw_dtype in, rw_dtype out,
                            rwi_query query) {
    float lse_a = p->a.lse[rwi_query_lse_at(&p->a, query)];
    float lse_b = p->b.lse[rwi_query_lse_at(&p->b, query)];
    bool has_a = lse_a != -INFINITY, has_b = lse_b != -INFINITY;
    rwi_merge_weights weights = rwi_merge_weigh(lse_a, lse_b);
    const void *row_a = rwi_element(in, p->a.out, rwi_query_out_at(&p->a, query));
    const void *row_b = rwi_element(in, p->b.out, rwi_query_out_at(&p->b, query));
    void *row = rwi_element(out, p->merged.out, rwi_query_out_at(&p->merged, query));
    for (int64_t first = 0; first < p->width; first += CHUNK) {
        int64_t count = rwi_min(CHUNK, p->width - first);
        float a[CHUNK] = {0}, b[CHUNK] = {0};
        if (has_a)
            rwi_load_many(in, rwi_element(in, row_a, first), count, a);
        if (has_b)
            rwi_load_many(in, rwi_element(in, row_b, first), count, b);
#pragma omp simd
        for (int64_t i = 0; i < count; i++)
            a[i] = rwi_merge_values(weights, has_a, has_b, a[i], b[i]);
        rwi_store_many(out, rwi_element(out, row, first), count, a);
    }
    p->merged.lse[rwi_query_lse_at(&p->merged, query)] = weights.lse;
}

RWI_INLINE void merge(const rw_attention_merge_params *p, rw_dtype in, rw_dtype out, int64_t begin,
                      int64_t end) {
    for (int64_t item = begin; item < end; item++)
        merge_query(p, in, out, rwi_query_find(item, p->heads, p->seq));
}

RWI_INLINE void merge_into(const rw_attention_merge_params *p, rw_dtype in, int64_t begin,
                           int64_t end) {
    switch (p->out_dtype) {
    case RW_F32:
        merge(p, in, RW_F32, begin, end);
        return;
    case RW_F16:
        merge(p, in, RW_F16, begin, end);
        return;
    case RW_BF16:
        merge(p, in, RW_BF16, begin, end);
        return;
    case RW_I32:
    case RW_I64:
    case RW_U8:
    case RW_F8_E4M3:
    case RW_F8_E5M2:
        return;
    }
}

void RWI_CPU_KERNEL(attention_merge)(const rw_attention_merge_params *p, int64_t begin, int64_t end,
                                     rwi_fault_sink *sink) {
    (void)sink;
    switch (p->in_dtype) {
    case RW_F32:
        merge_into(p, RW_F32, begin, end);
        return;
    case RW_F16:
        merge_into(p, RW_F16, begin, end);
        return;
    case RW_BF16:
        merge_into(p, RW_BF16, begin, end);
        return;
    case RW_I32:
    case RW_I64:
    case RW_U8:
    case RW_F8_E4M3:
    case RW_F8_E5M2:
        return;
    }
}
