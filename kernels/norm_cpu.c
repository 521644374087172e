/* RMSNorm and LayerNorm on the CPU; the twin of norm.hip. An item is a row. */
#include "cpu/block_cpu.h"
#include "cpu/lanes_cpu.h"
#include "norm_params.h"
#include "cpu/pairs_cpu.h"

/* One row of every tensor. */
typedef struct norm_row {
    const char *x;
    const char *residual; /* NULL: none */
    char *sum;
    char *out;
} norm_row;

static norm_row find_row(const rwi_norm_params *p, rw_dtype dtype, int64_t number) {
    rwi_row_index index = rwi_row_find(&p->rows, number);
    norm_row row = {
        .x = rwi_element(dtype, p->x, rwi_row_offset(&index, p->x_stride)),
        .out = rwi_element(dtype, p->out, rwi_row_offset(&index, p->out_stride)),
    };
    if (p->residual) {
        row.residual = rwi_element(dtype, p->residual, rwi_row_offset(&index, p->residual_stride));
        row.sum = rwi_element(dtype, p->sum, rwi_row_offset(&index, p->sum_stride));
    }
    return row;
}

/* ---- the weight ---- */

/* For rows of up to KEPT columns the prepared weight is computed once: as f32, with its offset and,
 * for bf16, split by blocks of pairs. */
#define KEPT 4096

typedef struct norm_weight {
    float kept[KEPT];
    bool is_kept;
    bool is_ready; /* the caller's weight needs no preparation */
} norm_weight;

/* Prepares columns [first, first + count) of the weight, at most one block. */
RWI_INLINE void prepare_weight(const rwi_norm_params *p, rw_dtype dtype, int64_t first,
                               int64_t count, float *prepared) {
    float ordered[RWI_CPU_BLOCK];
    float *weight = dtype == RW_BF16 ? ordered : prepared;
    rwi_cpu_load(p->weight_dtype, rwi_element(p->weight_dtype, p->weight, first), count, weight);
#pragma omp simd
    for (int64_t i = 0; i < count; i++)
        weight[i] = rwi_pair_operand(weight[i] + p->weight_offset);
    if (dtype == RW_BF16)
        rwi_pair_split(count, ordered, prepared);
}

RWI_INLINE void keep_weight(const rwi_norm_params *p, rw_dtype dtype, norm_weight *weight) {
    weight->is_ready = dtype != RW_BF16 && p->weight_dtype == RW_F32 && p->weight_offset == 0.0f;
    weight->is_kept = p->weight && !weight->is_ready && p->hidden <= KEPT;
    if (!weight->is_kept)
        return;
    for (int64_t first = 0; first < p->hidden; first += RWI_CPU_BLOCK)
        prepare_weight(p, dtype, first, rwi_min(RWI_CPU_BLOCK, p->hidden - first),
                       weight->kept + first);
}

RWI_INLINE const float *find_weight(const rwi_norm_params *p, rw_dtype dtype,
                                    const norm_weight *weight, int64_t first, int64_t count,
                                    float *buffer) {
    if (weight->is_kept)
        return weight->kept + first;
    if (weight->is_ready)
        return (const float *)p->weight + first;
    prepare_weight(p, dtype, first, count, buffer);
    return buffer;
}

/* ---- the sum of squares ---- */

/* Sums in f32 are fast but inexact, and wrong where squares overflow or underflow; f64 holds the
 * square of any f32.
 *
 * eight_squares() rounds each number at most four times, so that a sum has an error of at most 4 *
 * 2^-24 of it, and 1 / rms of 2 * 2^-24. The conversion of the mean to f32, root, division and
 * products add 5.5 * 2^-24: less than 4 eps, which are 8 * 2^-24.
 */
RWI_INLINE float two_squares(float a, float b) {
    return a * a + b * b;
}

RWI_INLINE float four_squares(float a, float b, float c, float d) {
    return two_squares(a, b) + two_squares(c, d);
}

/* Whether the error bound above holds: squares of a block that underflow lose less than 512 *
 * 2^-149. False for NaN. */
RWI_INLINE bool is_safe_sum(double sum) {
    return sum >= 0x1p-80 && sum <= (double)0x1p127f;
}

RWI_INLINE double exact_squares(rw_dtype dtype, const void *x, int64_t begin, int64_t end) {
    double sum = 0.0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = begin; i < end; i++)
        sum += (double)rwi_load(dtype, x, i) * (double)rwi_load(dtype, x, i);
    return sum;
}

/* Parallel partial sums, since a compiler does not reorder float sums. */
#define LANES 8

/* The squares of eight columns of a block that are `part` apart (bf16: of eight pairs). */
RWI_INLINE float float_squares(const float *x, int64_t part) {
    return four_squares(x[0], x[part], x[2 * part], x[3 * part]) +
           four_squares(x[4 * part], x[5 * part], x[6 * part], x[7 * part]);
}

RWI_INLINE float pair_squares(uint32_t a, uint32_t b) {
    return four_squares(rwi_pair_first(a), rwi_pair_second(a), rwi_pair_first(b),
                        rwi_pair_second(b));
}

RWI_INLINE float pairs_squares(const rwi_pair *x, int64_t part) {
    return pair_squares(x[0], x[part]) + pair_squares(x[2 * part], x[3 * part]);
}

/* The sum of squares of the first 8 * part columns of a block of f32 or bf16. */
RWI_INLINE double quick_squares(rw_dtype dtype, const void *x, int64_t part) {
    double sum[LANES] = {0.0};
    for (int64_t i = 0; i < part; i += LANES) {
#pragma omp simd
        for (int lane = 0; lane < LANES; lane++)
            sum[lane] +=
                (double)(dtype == RW_BF16 ? pairs_squares((const rwi_pair *)x + i + lane, part)
                                          : float_squares((const float *)x + i + lane, part));
    }
    return ((sum[0] + sum[1]) + (sum[2] + sum[3])) + ((sum[4] + sum[5]) + (sum[6] + sum[7]));
}

/* The sum of squares of a block of f32 or bf16. */
RWI_INLINE double sum_of_squares(rw_dtype dtype, const void *x, int64_t count) {
    int64_t part = count / (8 * LANES) * LANES;
    double sum = quick_squares(dtype, x, part);
    if (!is_safe_sum(sum))
        return exact_squares(dtype, x, 0, count);
    return 8 * part < count ? sum + exact_squares(dtype, x, 8 * part, count) : sum;
}

/* ---- a row ---- */

/* Writes x + residual if there is a residual. Returns the sum of the row's squares. */
RWI_INLINE double first_pass(const rwi_norm_params *p, rw_dtype dtype, const norm_row *row) {
    float buffer[RWI_CPU_BLOCK];
    double total = 0.0;
    for (int64_t first = 0; first < p->hidden; first += RWI_CPU_BLOCK) {
        int64_t count = rwi_min(RWI_CPU_BLOCK, p->hidden - first);
        const void *x = rwi_element(dtype, row->x, first);
        if (row->residual) {
            void *sum = rwi_element(dtype, row->sum, first);
            rwi_lanes_add(dtype, x, rwi_element(dtype, row->residual, first), count, sum, false);
            x = sum;
        }
        if (dtype == RW_BF16)
            total += sum_of_squares(RW_BF16, x, count);
        else
            total += sum_of_squares(RW_F32, rwi_cpu_read(dtype, x, count, buffer), count);
    }
    return total;
}

/* The computation for each number, before the last rounding. */
typedef enum norm_kind {
    NORM_PLAIN,
    NORM_WEIGHT,
    NORM_CAST_WEIGHT
} norm_kind;

/* Scales a block of pairs; the weight is split. */
RWI_INLINE void scale_pairs(norm_kind kind, const void *in, const float *weight, int64_t count,
                            rwi_rms_factor factor, void *out) {
    const rwi_pair *x = in;
    rwi_pair *y = out;
    int64_t half = count / 2;
#pragma omp simd
    for (int64_t i = 0; i < half; i++) {
        float a = rwi_rms_scale(rwi_pair_first(x[i]), factor);
        float b = rwi_rms_scale(rwi_pair_second(x[i]), factor);
        if (kind == NORM_CAST_WEIGHT) {
            a = rwi_pair_rounded(a);
            b = rwi_pair_rounded(b);
        }
        if (kind != NORM_PLAIN) {
            a *= weight[i];
            b *= weight[half + i];
        }
        y[i] = rwi_pair_join(a, b);
    }
    if (count % 2) {
        float a = rwi_rms_scale(rwi_load(RW_BF16, in, count - 1), factor);
        a = kind == NORM_CAST_WEIGHT ? rwi_round_to(RW_BF16, a) : a;
        a *= kind == NORM_PLAIN ? 1.0f : weight[count - 1];
        rwi_store(RW_BF16, out, count - 1, a);
    }
}

/* Scales a block of f32 that is to be rounded to the dtype. */
RWI_INLINE void scale_floats(rw_dtype dtype, norm_kind kind, const float *x, const float *weight,
                             int64_t count, rwi_rms_factor factor, float *y) {
    if (kind == NORM_WEIGHT || (kind == NORM_CAST_WEIGHT && dtype == RW_F32)) {
#pragma omp simd
        for (int64_t i = 0; i < count; i++)
            y[i] = rwi_rms_scale(x[i], factor) * weight[i];
        return;
    }
#pragma omp simd
    for (int64_t i = 0; i < count; i++)
        y[i] = rwi_rms_scale(x[i], factor);
    if (kind == NORM_PLAIN)
        return;
    rwi_round_many(dtype, count, y);
#pragma omp simd
    for (int64_t i = 0; i < count; i++)
        y[i] *= weight[i];
}

RWI_INLINE void scale_block(rw_dtype dtype, norm_kind kind, const void *in, const float *weight,
                            int64_t count, rwi_rms_factor factor, void *out, bool stream) {
    float buffer[RWI_CPU_BLOCK];
    if (dtype == RW_BF16) {
        scale_pairs(kind, in, weight, count, factor, stream ? (void *)buffer : out);
        if (stream)
            rwi_cpu_stream(out, buffer, (size_t)count * sizeof(uint16_t));
        return;
    }
    const float *x = rwi_cpu_read(dtype, in, count, buffer);
    float *y = rwi_cpu_target(dtype, out, stream, buffer);
    scale_floats(dtype, kind, x, weight, count, factor, y);
    rwi_cpu_write(dtype, out, count, stream, y);
}

/* Prefetches memory that is read next, since rows are too short for the hardware prefetcher. Into
 * the second-level cache: the current row occupies the first. */
RWI_INLINE void prefetch(const char *data, int64_t bytes) {
    for (int64_t i = 0; i < bytes; i += 64)
        __builtin_prefetch(data + i, 0, 2);
}

/* Normalizes the row of the first pass, most of which is still cached. */
RWI_INLINE void second_pass(const rwi_norm_params *p, rw_dtype dtype, const norm_row *row,
                            const norm_row *ahead, const norm_weight *weight, rwi_rms_factor factor,
                            bool stream) {
    float buffer[RWI_CPU_BLOCK];
    const char *in = row->residual ? row->sum : row->x;
    for (int64_t first = 0; first < p->hidden; first += RWI_CPU_BLOCK) {
        int64_t count = rwi_min(RWI_CPU_BLOCK, p->hidden - first);
        int64_t bytes = count * (int64_t)rwi_dtype_size(dtype);
        prefetch(rwi_element(dtype, ahead->x, first), bytes);
        if (row->residual)
            prefetch(rwi_element(dtype, ahead->residual, first), bytes);
        const void *x = rwi_element(dtype, in, first);
        void *out = rwi_element(dtype, row->out, first);
        if (!p->weight) {
            scale_block(dtype, NORM_PLAIN, x, NULL, count, factor, out, stream);
            continue;
        }
        const float *w = find_weight(p, dtype, weight, first, count, buffer);
        if (p->cast_before_weight)
            scale_block(dtype, NORM_CAST_WEIGHT, x, w, count, factor, out, stream);
        else
            scale_block(dtype, NORM_WEIGHT, x, w, count, factor, out, stream);
    }
}

/* Short rows that are normalized together: a single row would wait for its root and division. */
#define GROUP 8

/* Whether the results are not read soon, and not read now. */
static bool is_streamed(const rwi_norm_params *p) {
    const void *in = p->residual ? p->sum : p->x;
    int64_t bytes = rwi_row_count(&p->rows) * p->hidden * (int64_t)rwi_dtype_size(p->dtype);
    return p->out != in && p->out != p->x && p->out != p->residual && bytes >= RWI_CPU_STREAM_BYTES;
}

RWI_INLINE void normalize(const rwi_norm_params *p, rw_dtype dtype, int64_t begin, int64_t end) {
    bool stream = is_streamed(p);
    norm_weight weight;
    keep_weight(p, dtype, &weight);
    int64_t step = p->hidden <= RWI_CPU_BLOCK ? GROUP : 1;
    for (int64_t first = begin; first < end; first += step) {
        norm_row rows[GROUP];
        double totals[GROUP];
        int64_t count = rwi_min(step, end - first);
        for (int64_t i = 0; i < count; i++) {
            rows[i] = find_row(p, dtype, first + i);
            totals[i] = first_pass(p, dtype, &rows[i]);
        }
        for (int64_t i = 0; i < count; i++) {
            norm_row ahead = find_row(p, dtype, rwi_min(first + i + step, end - 1));
            second_pass(p, dtype, &rows[i], &ahead, &weight, rms_norm_factor(p, totals[i]), stream);
        }
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
    case RW_F8_E4M3:
    case RW_F8_E5M2:
        return;
    }
}

/* ---- layer_norm ---- */

/* Rows of up to KEPT columns of a dtype other than f32 are converted once. */
typedef struct layer_row {
    const char *in; /* x, or the sum */
    float kept[KEPT];
    bool is_kept;
} layer_row;

/* The factors and the summands of the columns, kept for rows of up to KEPT columns. */
typedef struct norm_affine {
    float weight[KEPT];
    float bias[KEPT];
} norm_affine;

/* Columns [first, first + count), at most one block. The absent bias is -0: x + -0 is x, -0 too. */
RWI_INLINE void load_affine(const rwi_norm_params *p, int64_t first, int64_t count, float *weight,
                            float *bias) {
    for (int64_t i = 0; i < count; i++) {
        weight[i] = 1.0f;
        bias[i] = -0.0f;
    }
    if (p->weight) {
        rwi_cpu_load(p->weight_dtype, rwi_element(p->weight_dtype, p->weight, first), count,
                     weight);
        for (int64_t i = 0; i < count; i++)
            weight[i] += p->weight_offset;
    }
    if (p->bias)
        rwi_cpu_load(p->bias_dtype, rwi_element(p->bias_dtype, p->bias, first), count, bias);
}

RWI_INLINE const float *read_columns(rw_dtype dtype, const layer_row *row, int64_t first,
                                     int64_t count, float *buffer) {
    if (row->is_kept)
        return row->kept + first;
    return rwi_cpu_read(dtype, rwi_element(dtype, row->in, first), count, buffer);
}

/* Partial sums of several registers, since each addition waits for the last one to its own. */
#define SUMS RWI_TWO_LANES

/* A number, or the square of its difference from the mean. */
RWI_INLINE double layer_term(float x, const rwi_norm_center *center) {
    const double term = (double)(center ? layer_norm_difference(x, center) : x);
    return center ? term * term : term;
}

RWI_INLINE double sum_terms(const float *x, int64_t count, const rwi_norm_center *center) {
    double sums[SUMS] = {0.0}, total = 0.0;
    int64_t i = 0;
    for (; i + SUMS <= count; i += SUMS) {
#pragma omp simd
        for (int lane = 0; lane < SUMS; lane++)
            sums[lane] += layer_term(x[i + lane], center);
    }
    for (; i < count; i++)
        total += layer_term(x[i], center);
#pragma omp simd reduction(+ : total)
    for (int lane = 0; lane < SUMS; lane++)
        total += sums[lane];
    return total;
}

RWI_INLINE float quick_square(float x, const rwi_norm_center *center) {
    const float difference = layer_norm_difference(x, center);
    return difference * difference;
}

/* The squares of eight columns of a block that are `part` apart. */
RWI_INLINE float quick_squares_of(const float *x, int64_t part, const rwi_norm_center *center) {
    float squares[8];
#pragma GCC unroll 8
    for (int n = 0; n < 8; n++)
        squares[n] = quick_square(x[n * part], center);
    return ((squares[0] + squares[1]) + (squares[2] + squares[3])) +
           ((squares[4] + squares[5]) + (squares[6] + squares[7]));
}

/* The sum of the squares of the first 8 * part columns of a block. */
RWI_INLINE double sum_quick_squares(const float *x, int64_t part, const rwi_norm_center *center) {
    double sums[SUMS] = {0.0}, total = 0.0;
    for (int64_t i = 0; i < part; i += SUMS) {
#pragma omp simd
        for (int lane = 0; lane < SUMS; lane++)
            sums[lane] += (double)quick_squares_of(x + i + lane, part, center);
    }
#pragma omp simd reduction(+ : total)
    for (int lane = 0; lane < SUMS; lane++)
        total += sums[lane];
    return total;
}

/* The sum of a block's terms. Squares are added in f32, eight at a time, where the result is of 16
 * bits, as in sum_of_squares(); numbers are not, since large ones may cancel each other out. */
RWI_INLINE double sum_columns(rw_dtype dtype, const float *x, int64_t count,
                              const rwi_norm_center *center) {
    const int64_t part = center && dtype != RW_F32 ? count / (8 * SUMS) * SUMS : 0;
    if (part == 0)
        return sum_terms(x, count, center);
    const double sum = sum_quick_squares(x, part, center);
    if (!is_safe_sum(sum))
        return sum_terms(x, count, center);
    return sum + sum_terms(x + 8 * part, count - 8 * part, center);
}

/* Writes x + residual if there is a residual, and keeps the row. Returns its sum. */
RWI_INLINE double sum_row(const rwi_norm_params *p, rw_dtype dtype, const norm_row *source,
                          layer_row *row) {
    float buffer[RWI_CPU_BLOCK];
    double total = 0.0;
    for (int64_t first = 0; first < p->hidden; first += RWI_CPU_BLOCK) {
        int64_t count = rwi_min(RWI_CPU_BLOCK, p->hidden - first);
        if (source->residual)
            rwi_lanes_add(dtype, rwi_element(dtype, source->x, first),
                          rwi_element(dtype, source->residual, first), count,
                          rwi_element(dtype, source->sum, first), false);
        if (row->is_kept)
            rwi_cpu_load(dtype, rwi_element(dtype, row->in, first), count, row->kept + first);
        const float *x = read_columns(dtype, row, first, count, buffer);
        total += sum_columns(dtype, x, count, NULL);
    }
    return total;
}

/* The sum of squares of the differences from the mean. */
RWI_INLINE double sum_differences(const rwi_norm_params *p, rw_dtype dtype, const layer_row *row,
                                  const rwi_norm_center *center) {
    float buffer[RWI_CPU_BLOCK];
    double total = 0.0;
    for (int64_t first = 0; first < p->hidden; first += RWI_CPU_BLOCK) {
        int64_t count = rwi_min(RWI_CPU_BLOCK, p->hidden - first);
        const float *x = read_columns(dtype, row, first, count, buffer);
        total += sum_columns(dtype, x, count, center);
    }
    return total;
}

RWI_INLINE rwi_norm_center find_center(const rwi_norm_params *p, rw_dtype dtype,
                                       const layer_row *row, double sum) {
    rwi_norm_center center = layer_norm_center(p, sum, 1.0f);
    double squares = sum_differences(p, dtype, row, &center);
    if (!(squares <= RWI_LARGE_SQUARES)) {
        center = layer_norm_center(p, sum, RWI_BEFORE_LARGE);
        squares = sum_differences(p, dtype, row, &center);
    }
    center.factor = layer_norm_factor(p, center.before, squares);
    return center;
}

/* `ahead`: the next row, whose memory is prefetched. */
RWI_INLINE void write_row(const rwi_norm_params *p, rw_dtype dtype, const layer_row *row, char *out,
                          const norm_row *ahead, const norm_affine *affine,
                          const rwi_norm_center *center, bool stream) {
    float buffer[RWI_CPU_BLOCK], block[2][RWI_CPU_BLOCK];
    for (int64_t first = 0; first < p->hidden; first += RWI_CPU_BLOCK) {
        int64_t count = rwi_min(RWI_CPU_BLOCK, p->hidden - first);
        const float *weight = affine->weight + first, *bias = affine->bias + first;
        prefetch(rwi_element(dtype, ahead->x, first), count * (int64_t)rwi_dtype_size(dtype));
        if (ahead->residual)
            prefetch(rwi_element(dtype, ahead->residual, first),
                     count * (int64_t)rwi_dtype_size(dtype));
        if (p->hidden > KEPT) {
            load_affine(p, first, count, block[0], block[1]);
            weight = block[0];
            bias = block[1];
        }
        const float *x = read_columns(dtype, row, first, count, buffer);
        void *target = rwi_element(dtype, out, first);
        float *y = rwi_cpu_target(dtype, target, stream, buffer);
#pragma omp simd
        for (int64_t i = 0; i < count; i++)
            y[i] = rwi_rms_scale(layer_norm_difference(x[i], center), center->factor) * weight[i] +
                   bias[i];
        rwi_cpu_write(dtype, target, count, stream, y);
    }
}

RWI_INLINE void normalize_layer(const rwi_norm_params *p, rw_dtype dtype, int64_t begin,
                                int64_t end) {
    bool stream = is_streamed(p);
    norm_affine affine;
    for (int64_t first = 0; first < p->hidden && p->hidden <= KEPT; first += RWI_CPU_BLOCK)
        load_affine(p, first, rwi_min(RWI_CPU_BLOCK, p->hidden - first), affine.weight + first,
                    affine.bias + first);
    layer_row row;
    row.is_kept = dtype != RW_F32 && p->hidden <= KEPT;
    for (int64_t number = begin; number < end; number++) {
        norm_row source = find_row(p, dtype, number);
        row.in = source.residual ? source.sum : source.x;
        double sum = sum_row(p, dtype, &source, &row);
        rwi_norm_center center = find_center(p, dtype, &row, sum);
        const norm_row ahead = find_row(p, dtype, rwi_min(number + 1, end - 1));
        write_row(p, dtype, &row, source.out, &ahead, &affine, &center, stream);
    }
    if (stream)
        rwi_cpu_stream_end();
}

void RWI_CPU_KERNEL(layer_norm)(const rw_layer_norm_params *p, int64_t begin, int64_t end,
                                rwi_fault_sink *sink) {
    (void)sink;
    switch (p->dtype) {
    case RW_F32:
        normalize_layer(p, RW_F32, begin, end);
        return;
    case RW_F16:
        normalize_layer(p, RW_F16, begin, end);
        return;
    case RW_BF16:
        normalize_layer(p, RW_BF16, begin, end);
        return;
    case RW_I32:
    case RW_I64:
    case RW_U8:
    case RW_F8_E4M3:
    case RW_F8_E5M2:
        return;
    }
}
