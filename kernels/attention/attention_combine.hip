/* Combines the partial results of attention split over the keys, on a GPU; the twin of
 * attention_combine_cpu.c. One block per row. */
#include "attention/attention_params.h"
#include "attention/attention_store.h"
#include "gpu/faults.h"
#include "gpu/launch.h"

#define COMBINE_LANES (RWI_ATTENTION_MAX_DIM / 4) /* threads along the columns, four columns each */
#define COMBINE_TEAMS (RWI_BLOCK / COMBINE_LANES) /* groups of threads along the parts */

struct combine_block {
    rwi_attention_row row;
    int64_t b;
    int64_t kv_head;
    float sum[COMBINE_TEAMS];
    float4 out[COMBINE_TEAMS][COMBINE_LANES];
    int missing_page;
};

/* Finds the row of the block (its first thread) and checks the pages that it needs (all threads).
 */
__device__ static inline void find_row(const rw_attention_params &p, int64_t number,
                                       combine_block &t, const rwi_fault_sink &sink) {
    const int thread = (int)(threadIdx.y * blockDim.x + threadIdx.x);
    int64_t group, r;
    rwi_bad_id bad = {0, RW_FAULT_NONE};
    rwi_split_index(number, rwi_attention_group_rows(&p), &group, &r);
    if (thread == 0) {
        rwi_split_index(group, p.kv_heads, &t.b, &t.kv_head);
        rwi_attention_find_row(&p, t.b, t.kv_head, r, &t.row, &bad);
        t.missing_page = 0;
        if (!t.row.valid)
            rwi_fault_raise(sink, t.b * p.rules.scores.seq_q + t.row.pattern.i, bad);
    }
    __syncthreads();
    if (!p.pages.table.data || !t.row.valid)
        return;
    const rwi_span hull = rwi_pattern_hull(&t.row.pattern);
    const int64_t end = rwi_ceil_div(hull.end, (int64_t)1 << p.pages.shift);
#pragma unroll 1
    for (int64_t n = (hull.begin >> p.pages.shift) + thread; n < end; n += RWI_BLOCK) {
        const int64_t page = rwi_ids_load(&p.pages.table, 0, t.b, n);
        if (page < 0 || page >= p.pages.num_pages)
            t.missing_page = 1; /* every writing thread writes 1 */
    }
    __syncthreads();
    if (thread == 0 && t.missing_page) {
        t.row.valid = rwi_attention_pages_exist(&p, t.b, hull, &bad);
        rwi_fault_raise(sink, t.b * p.rules.scores.seq_q + t.row.pattern.i, bad);
    }
    __syncthreads();
}

/* The largest score over all parts, in the scale in which the parts store it. */
__device__ static inline float find_largest(const rw_attention_params &p, int64_t number,
                                            int64_t rows) {
    float largest = -INFINITY;
#pragma unroll 4
    for (int64_t part = 0; part < p.parts.count; part++) {
        const float of_part = p.parts.largest[part * rows + number];
        if (p.parts.sum[part * rows + number] != 0.0f && of_part > largest)
            largest = of_part;
    }
    return rwi_softmax_base(largest);
}

/* Sums this team's parts relative to `base`; returns the sum of their weights. */
__device__ static inline float sum_parts(const rw_attention_params &p, int64_t number, int64_t rows,
                                         float base, float4 *out) {
    const int column = (int)threadIdx.x * 4;
    const float scale = rwi_attention_kept_scale(&p);
    float sum = 0.0f;
    *out = {0.0f, 0.0f, 0.0f, 0.0f};
#pragma unroll 4
    for (int64_t part = threadIdx.y; part < p.parts.count; part += COMBINE_TEAMS) {
        const int64_t at = part * rows + number;
        const float of_part = p.parts.sum[at];
        if (of_part == 0.0f)
            continue;
        const float weight = expf((p.parts.largest[at] - base) * scale);
        sum += weight * of_part;
        if (column >= p.v_dim)
            continue;
        const float4 x = *(const float4 *)(p.parts.out + at * p.v_dim + column);
        out->x += weight * x.x;
        out->y += weight * x.y;
        out->z += weight * x.z;
        out->w += weight * x.w;
    }
    return sum;
}

static __global__ void __launch_bounds__(RWI_BLOCK)
    combine_kernel(rw_attention_combine_params p, rwi_fault_sink sink) {
    __shared__ combine_block t;
    const int64_t number = rwi_block_row(), rows = attention_combine_work(&p).items;
    if (number >= rows)
        return;
    find_row(p, number, t, sink);
    if (!t.row.valid)
        return;
    const float base = find_largest(p, number, rows);
    float4 out;
    const float sum = sum_parts(p, number, rows, base, &out);
    t.out[threadIdx.y][threadIdx.x] = out;
    if (threadIdx.x == 0)
        t.sum[threadIdx.y] = sum;
    __syncthreads();
    if (threadIdx.y != 0)
        return;
    float total = t.sum[0];
#pragma unroll
    for (int team = 1; team < COMBINE_TEAMS; team++) {
        total += t.sum[team];
        out.x += t.out[team][threadIdx.x].x;
        out.y += t.out[team][threadIdx.x].y;
        out.z += t.out[team][threadIdx.x].z;
        out.w += t.out[team][threadIdx.x].w;
    }
    const rwi_attention_end end =
        rwi_attention_finish(&p, t.row.h, base * rwi_attention_kept_scale(&p), total);
    if (threadIdx.x == 0 && p.lse.data)
        ((float *)p.lse.data)[rwi_attention_lse_at(&p, t.b, &t.row)] = end.lse;
    if ((int)threadIdx.x * 4 < p.v_dim)
        attention_store_four({p.out.data, rwi_attention_at(&p.out, t.b, &t.row), p.out_dtype},
                             (int)threadIdx.x * 4, attention_multiply_four(end.factor, out), false);
}

/* Faults are reported under the name of the operation that this step belongs to. */
extern "C" rw_status rwi_hip_attention_combine(rwi_device *device,
                                               const rw_attention_combine_params *p) {
    const rwi_launch_shape shape = rwi_launch_rows(
        RWI_OP_attention, attention_combine_work(p).items, dim3(COMBINE_LANES, COMBINE_TEAMS));
    return rwi_launch(device, shape, combine_kernel, *p);
}
