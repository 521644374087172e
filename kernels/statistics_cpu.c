/* Statistics of scores on the CPU; the twin of statistics.hip. An item is a head. */
#include "statistics_params.h"

/* Parallel partial sums, so that additions do not wait for each other. */
#define LANES 8

RWI_INLINE rwi_statistics head_statistics(const rw_score_statistics_params *p, rw_dtype dtype,
                                          int64_t head) {
    rwi_statistics lanes[LANES];
    for (int lane = 0; lane < LANES; lane++)
        lanes[lane] = rwi_statistics_none();
    for (int64_t i = 0; i < p->rows; i++) {
        const void *row = rwi_element(dtype, p->scores,
                                      head / p->heads * p->stride[0] +
                                          head % p->heads * p->stride[1] + i * p->stride[2]);
        for (int64_t j = 0; j < p->columns; j++)
            rwi_statistics_add(&lanes[j % LANES], rwi_load(dtype, row, j));
    }
    for (int lane = 1; lane < LANES; lane++)
        lanes[0] = rwi_statistics_join(lanes[0], lanes[lane]);
    return lanes[0];
}

RWI_INLINE void all_statistics(const rw_score_statistics_params *p, rw_dtype dtype, int64_t begin,
                               int64_t end, rwi_fault_sink *sink) {
    for (int64_t head = begin; head < end; head++) {
        rwi_bad_id bad;
        rwi_statistics statistics = head_statistics(p, dtype, head);
        if (!score_statistics_store(p, head, &statistics, &bad))
            rwi_cpu_fault_raise(sink, head, bad);
    }
}

void RWI_CPU_KERNEL(score_statistics)(const rw_score_statistics_params *p, int64_t begin,
                                      int64_t end, rwi_fault_sink *sink) {
    switch (p->dtype) {
    case RW_F32:
        all_statistics(p, RW_F32, begin, end, sink);
        return;
    case RW_F16:
        all_statistics(p, RW_F16, begin, end, sink);
        return;
    case RW_BF16:
        all_statistics(p, RW_BF16, begin, end, sink);
        return;
    case RW_I32:
    case RW_I64:
    case RW_U8:
    case RW_F8_E4M3:
    case RW_F8_E5M2:
        return;
    }
}
