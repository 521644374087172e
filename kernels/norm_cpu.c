/* RMSNorm on the CPU; the twin of norm.hip. An item is a row. */
#include "block_cpu.h"
#include "norm_kernel.h"

/* One row of every tensor. */
typedef struct norm_row {
    const char *x;
    const char *residual; /* NULL: none */
    char *sum;
    char *out;
} norm_row;

static norm_row find_row(const rw_rms_norm_params *p, int64_t number) {
    rwi_row_index index = rwi_row_find(&p->rows, number);
    norm_row row = {
        .x = rwi_element(p->dtype, p->x, rwi_row_offset(&index, p->x_stride)),
        .out = rwi_element(p->dtype, p->out, rwi_row_offset(&index, p->out_stride)),
    };
    if (p->residual) {
        row.residual =
            rwi_element(p->dtype, p->residual, rwi_row_offset(&index, p->residual_stride));
        row.sum = rwi_element(p->dtype, p->sum, rwi_row_offset(&index, p->sum_stride));
    }
    return row;
}

/* f64 holds the square of any f32. */
RWI_INLINE double sum_of_squares(const float *x, int64_t count) {
    double a = 0.0, b = 0.0;
    int64_t half = count / 2;
#pragma omp simd reduction(+ : a, b)
    for (int64_t i = 0; i < half; i++) {
        a += (double)x[i] * (double)x[i];
        b += (double)x[half + i] * (double)x[half + i];
    }
    if (count % 2)
        a += (double)x[count - 1] * (double)x[count - 1];
    return a + b;
}

/* What rows of up to KEPT columns need not convert anew: the row between its two passes, and the
 * weight with its offset. */
#define KEPT 4096

typedef struct norm_kept {
    float row[KEPT];
    float weight[KEPT];
    bool has_row;
    bool has_weight;
} norm_kept;

RWI_INLINE void prepare(const rw_rms_norm_params *p, rw_dtype dtype, norm_kept *kept) {
    kept->has_row = dtype != RW_F32 && p->hidden <= KEPT;
    kept->has_weight = p->weight && p->weight_dtype != RW_F32 && p->hidden <= KEPT;
    if (!kept->has_weight)
        return;
    rwi_cpu_load(p->weight_dtype, p->weight, p->hidden, kept->weight);
#pragma omp simd
    for (int64_t i = 0; i < p->hidden; i++)
        kept->weight[i] += p->weight_offset;
}

/* Writes x + residual, where there is one. Returns the sum of the row's squares. */
RWI_INLINE double first_pass(const rw_rms_norm_params *p, rw_dtype dtype, const norm_row *row,
                             norm_kept *kept) {
    float x_buffer[RWI_CPU_BLOCK], residual_buffer[RWI_CPU_BLOCK];
    double total = 0.0;
    for (int64_t first = 0; first < p->hidden; first += RWI_CPU_BLOCK) {
        int64_t count = rwi_min(RWI_CPU_BLOCK, p->hidden - first);
        float *buffer = kept->has_row ? kept->row + first : x_buffer;
        const float *x = rwi_cpu_read(dtype, rwi_element(dtype, row->x, first), count, buffer);
        if (row->residual) {
            const float *residual = rwi_cpu_read(dtype, rwi_element(dtype, row->residual, first),
                                                 count, residual_buffer);
            char *out = rwi_element(dtype, row->sum, first);
            float *sum = rwi_cpu_target(dtype, out, false, buffer);
#pragma omp simd
            for (int64_t i = 0; i < count; i++)
                sum[i] = x[i] + residual[i];
            rwi_cpu_write(dtype, out, count, false, sum);
            rwi_round_many(dtype, count, sum);
            x = sum;
        }
        total += sum_of_squares(x, count);
    }
    return total;
}

/* y *= weight, for the columns from `first` on */
RWI_INLINE void multiply_by_weight(const rw_rms_norm_params *p, const norm_kept *kept,
                                   int64_t first, int64_t count, float *y) {
    float buffer[RWI_CPU_BLOCK];
    const float *weight = kept->weight + first;
    float offset = kept->has_weight ? 0.0f : p->weight_offset;
    if (!kept->has_weight)
        weight = rwi_cpu_read(p->weight_dtype, rwi_element(p->weight_dtype, p->weight, first),
                              count, buffer);
#pragma omp simd
    for (int64_t i = 0; i < count; i++)
        y[i] *= weight[i] + offset;
}

/* Asks for memory that is about to be read: rows are too short for the CPU to foresee the next. */
RWI_INLINE void prefetch(const char *data, int64_t bytes) {
    for (int64_t i = 0; i < bytes; i += 64)
        __builtin_prefetch(data + i);
}

/* Normalizes the row that the first pass left, of which most is still in the cache. */
RWI_INLINE void second_pass(const rw_rms_norm_params *p, rw_dtype dtype, const norm_row *row,
                            const norm_row *next, const norm_kept *kept, rwi_rms_factor factor,
                            bool stream) {
    float buffer[RWI_CPU_BLOCK];
    const char *in = row->residual ? row->sum : row->x;
    for (int64_t first = 0; first < p->hidden; first += RWI_CPU_BLOCK) {
        int64_t count = rwi_min(RWI_CPU_BLOCK, p->hidden - first);
        int64_t bytes = count * (int64_t)rwi_dtype_size(dtype);
        prefetch(rwi_element(dtype, next->x, first), bytes);
        if (row->residual)
            prefetch(rwi_element(dtype, next->residual, first), bytes);
        const float *x = kept->row + first;
        if (!kept->has_row)
            x = rwi_cpu_read(dtype, rwi_element(dtype, in, first), count, buffer);
        char *out = rwi_element(dtype, row->out, first);
        float *y = rwi_cpu_target(dtype, out, stream, buffer);
#pragma omp simd
        for (int64_t i = 0; i < count; i++)
            y[i] = rms_norm_scale(x[i], factor);
        if (p->weight && p->cast_before_weight)
            rwi_round_many(dtype, count, y);
        if (p->weight)
            multiply_by_weight(p, kept, first, count, y);
        rwi_cpu_write(dtype, out, count, stream, y);
    }
}

RWI_INLINE void normalize(const rw_rms_norm_params *p, rw_dtype dtype, int64_t begin, int64_t end) {
    const void *in = p->residual ? p->sum : p->x;
    int64_t bytes = rwi_row_count(&p->rows) * p->hidden * (int64_t)rwi_dtype_size(dtype);
    bool stream =
        p->out != in && p->out != p->x && p->out != p->residual && bytes >= RWI_CPU_STREAM_BYTES;
    norm_kept kept;
    prepare(p, dtype, &kept);
    norm_row row = find_row(p, begin);
    for (int64_t number = begin; number < end; number++) {
        norm_row next = find_row(p, number + 1 < end ? number + 1 : number);
        rwi_rms_factor factor = rms_norm_factor(p, first_pass(p, dtype, &row, &kept));
        second_pass(p, dtype, &row, &next, &kept, factor, stream);
        row = next;
    }
    if (stream)
        rwi_cpu_stream_end();
}

void RWI_CPU_KERNEL(rms_norm)(const rw_rms_norm_params *p, int64_t begin, int64_t end,
                              rwi_fault_sink *sink) {
    (void)sink;
    switch (p->dtype) {
    case RW_F32:
        normalize(p, RW_F32, begin, end);
        return;
    case RW_F16:
        normalize(p, RW_F16, begin, end);
        return;
    case RW_BF16:
        normalize(p, RW_BF16, begin, end);
        return;
    case RW_I32:
    case RW_I64:
    case RW_U8:
        return;
    }
}
