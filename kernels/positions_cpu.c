/* Position ids on the CPU; the twin of positions.hip. An item is a token. */
#include "positions_params.h"

void RWI_CPU_KERNEL(positions_sequential)(const rw_positions_sequential_params *p, int64_t begin,
                                          int64_t end, rwi_fault_sink *sink) {
    for (int64_t token = begin; token < end; token++) {
        rwi_bad_id bad;
        if (!positions_sequential_token(p, token, &bad))
            rwi_cpu_fault_raise(sink, token, bad);
    }
}

void RWI_CPU_KERNEL(positions_left_padded)(const rw_positions_left_padded_params *p, int64_t begin,
                                           int64_t end, rwi_fault_sink *sink) {
    for (int64_t token = begin; token < end; token++) {
        rwi_bad_id bad;
        if (!positions_left_padded_token(p, token, &bad))
            rwi_cpu_fault_raise(sink, token, bad);
    }
}

void RWI_CPU_KERNEL(positions_packed)(const rw_positions_packed_params *p, int64_t begin,
                                      int64_t end, rwi_fault_sink *sink) {
    for (int64_t token = begin; token < end; token++) {
        rwi_bad_id bad;
        if (!positions_packed_token(p, token, &bad))
            rwi_cpu_fault_raise(sink, token, bad);
    }
}

void RWI_CPU_KERNEL(positions_mrope)(const rw_positions_mrope_params *p, int64_t begin, int64_t end,
                                     rwi_fault_sink *sink) {
    for (int64_t token = begin; token < end; token++) {
        rwi_bad_id bad;
        if (!positions_mrope_token(p, token, &bad))
            rwi_cpu_fault_raise(sink, token, bad);
    }
}

void RWI_CPU_KERNEL(positions_glm)(const rw_positions_glm_params *p, int64_t begin, int64_t end,
                                   rwi_fault_sink *sink) {
    for (int64_t token = begin; token < end; token++) {
        rwi_bad_id bad;
        if (!positions_glm_token(p, token, &bad))
            rwi_cpu_fault_raise(sink, token, bad);
    }
}
