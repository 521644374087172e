/* Statistics of scores on a GPU; the twin of statistics_cpu.c. One block per head. */
#include "gpu/dispatch.h"
#include "gpu/faults.h"
#include "gpu/launch.h"
#include "gpu/vectors.h"
#include "statistics_params.h"

/* Few heads must occupy the memory: the largest block, whose threads read this many vectors at a
 * time. */
#define THREADS 1024
#define LOADS 4

/* Lanes that join their statistics by shuffles: the smallest wave size. */
#define LANES 32

/* Vectors of a head, row after row, THREADS apart. */
struct score_walk {
    int64_t row;
    int64_t vector; /* of the row */
    int64_t row_step;
    int64_t vector_step;
    int64_t vectors;

    __device__ void next() {
        row += row_step;
        vector += vector_step;
        if (vector >= vectors) {
            vector -= vectors;
            row++;
        }
    }
};

/* Mostly all are finite. */
template <int VEC>
__device__ static __forceinline__ void add_vector(rwi_statistics *s, const float (&x)[VEC]) {
    bool finite = true;
#pragma unroll
    for (int n = 0; n < VEC; n++)
        finite = finite && fabsf(x[n]) < INFINITY;
    if (!finite) {
#pragma unroll
        for (int n = 0; n < VEC; n++)
            rwi_statistics_add(s, x[n]);
        return;
    }
#pragma unroll
    for (int n = 0; n < VEC; n++) {
        s->min = fminf(s->min, x[n]);
        s->max = fmaxf(s->max, x[n]);
        s->sum += (double)x[n];
    }
    s->num_finite += VEC;
}

__device__ static inline rwi_statistics join_lanes(rwi_statistics mine) {
#pragma unroll 1
    for (int distance = LANES / 2; distance > 0; distance /= 2) {
        rwi_statistics other;
        other.min = __shfl_xor(mine.min, distance, LANES);
        other.max = __shfl_xor(mine.max, distance, LANES);
        other.sum = __shfl_xor(mine.sum, distance, LANES);
        other.num_finite = __shfl_xor((long long)mine.num_finite, distance, LANES);
        other.num_nan = __shfl_xor((long long)mine.num_nan, distance, LANES);
        other.num_inf = __shfl_xor((long long)mine.num_inf, distance, LANES);
        mine = rwi_statistics_join(mine, other);
    }
    return mine;
}

template <rw_dtype D, int VEC>
static __global__ void __launch_bounds__(THREADS)
    statistics_kernel(rw_score_statistics_params p, rwi_fault_sink sink) {
    rwi_begin_kernel();
    __shared__ rwi_statistics waves[THREADS / LANES];
    static_assert(THREADS == LANES * LANES, "the first lanes join the others");
    const int64_t head = rwi_block_row(), rows = p.columns > 0 ? p.rows : 0;
    const int64_t vectors = rwi_max(1, rwi_ceil_div(p.columns, VEC));
    if (head >= p.batch * p.heads)
        return;
    const void *scores =
        rwi_element(D, p.scores, head / p.heads * p.stride[0] + head % p.heads * p.stride[1]);
    score_walk walk = {threadIdx.x / vectors, threadIdx.x % vectors, THREADS / vectors,
                       THREADS % vectors, vectors};
    rwi_statistics mine = rwi_statistics_none();
#pragma unroll 1
    while (walk.row < rows) {
        rwi_packed<D, VEC> packed[LOADS];
        int count = 0;
#pragma unroll
        for (int k = 0; k < LOADS; k++) { /* those past the last repeat the first element */
            const bool inside = walk.row < rows;
            rwi_load_packed(scores, inside ? walk.row * p.stride[2] + walk.vector * VEC : 0,
                            packed[k]);
            count += inside;
            walk.next();
        }
#pragma unroll
        for (int k = 0; k < LOADS; k++) {
            float x[VEC];
            rwi_unpack(packed[k], x);
            if (k < count)
                add_vector(&mine, x);
        }
    }
    mine = join_lanes(mine);
    if (threadIdx.x % LANES == 0)
        waves[threadIdx.x / LANES] = mine;
    __syncthreads();
    if (threadIdx.x >= LANES)
        return;
    mine = join_lanes(waves[threadIdx.x]);
    rwi_bad_id bad;
    if (threadIdx.x == 0 && !score_statistics_store(&p, head, &mine, &bad))
        rwi_fault_raise(sink, head, bad);
}

extern "C" rw_status rwi_hip_score_statistics(rwi_device *device,
                                              const rw_score_statistics_params *p) {
    const rwi_launch_shape shape =
        rwi_launch_rows(RWI_OP_score_statistics, score_statistics_work(p).items, dim3(THREADS));
    return rwi_dispatch_float(device, p->dtype, [&](auto dtype) {
        constexpr rw_dtype D = dtype.value;
        return rwi_rows_are_vectors(D, {p->scores, p->stride, 3, p->columns})
                   ? rwi_launch(device, shape, statistics_kernel<D, rwi_vector_length<D>>, *p)
                   : rwi_launch(device, shape, statistics_kernel<D, 1>, *p);
    });
}
