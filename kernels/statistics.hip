/* Statistics of scores on a GPU; the twin of statistics_cpu.c. One block per head. */
#include "gpu/dispatch.h"
#include "gpu/faults.h"
#include "gpu/launch.h"
#include "statistics_params.h"

template <rw_dtype D>
static __global__ void __launch_bounds__(RWI_BLOCK)
    statistics_kernel(rw_score_statistics_params p, rwi_fault_sink sink) {
    HIP_DYNAMIC_SHARED(rwi_statistics, shared)
    const int64_t head = rwi_block_row();
    if (head >= p.batch * p.heads)
        return;
    const void *scores =
        rwi_element(D, p.scores, head / p.heads * p.stride[0] + head % p.heads * p.stride[1]);
    rwi_statistics mine = rwi_statistics_none();
#pragma unroll 1
    for (int64_t i = 0; i < p.rows; i++) {
        const void *row = rwi_element(D, scores, i * p.stride[2]);
#pragma unroll 1
        for (int64_t j = threadIdx.x; j < p.columns; j += RWI_BLOCK)
            rwi_statistics_add(&mine, rwi_load(D, row, j));
    }
    shared[threadIdx.x] = mine;
    for (int distance = RWI_BLOCK / 2; distance > 0; distance /= 2) {
        __syncthreads();
        if ((int)threadIdx.x < distance)
            shared[threadIdx.x] =
                rwi_statistics_join(shared[threadIdx.x], shared[threadIdx.x + distance]);
    }
    rwi_bad_id bad;
    if (threadIdx.x == 0 && !score_statistics_store(&p, head, &shared[0], &bad))
        rwi_fault_raise(sink, head, bad);
}

extern "C" rw_status rwi_hip_score_statistics(rwi_device *device,
                                              const rw_score_statistics_params *p) {
    rwi_launch_shape shape =
        rwi_launch_rows(RWI_OP_score_statistics, score_statistics_work(p).items, dim3(RWI_BLOCK));
    shape.shared_bytes = RWI_BLOCK * sizeof(rwi_statistics);
    return rwi_dispatch_float(device, p->dtype, [&](auto dtype) {
        return rwi_launch(device, shape, statistics_kernel<dtype.value>, *p);
    });
}
