/* rw_mx_dequantize and rw_mx_quantize: cases, buffers and the expected bits. */
#include "drivers/driver_fields.h"
#include "drivers/mx_reference.h"

#include <math.h>

static const char *const words_format[] = {"fp4",      "fp6_e2m3", "fp6_e3m2",
                                           "fp8_e4m3", "fp8_e5m2", NULL};
static const char *const words_nibbles[] = {"low", "high", "split", NULL};
static const char *const words_content[] = {"random", "exhaustive", "ties", "special", NULL};

/* The content of codes and scales, or of the values to quantize. */
typedef enum content {
    CONTENT_RANDOM = 0,
    CONTENT_EXHAUSTIVE, /* dequantize: every code with every scale, given enough blocks */
    CONTENT_TIES,       /* quantize: numbers of the format, and halfway between two */
    CONTENT_SPECIAL     /* quantize: with NaN, Inf, subnormals; dequantize: scales 0, 1, 254, 255 */
} content;

/* The axes of blocks: outer, rows, blocks, as many as `rank` has. */
#define MX_FIELDS(FIELD)                                                                           \
    FIELD(format, RW_MXFP4_E2M1, words_format)                                                     \
    FIELD(nibbles, RW_MX_LOW_FIRST, words_nibbles)                                                 \
    FIELD(front, 0, NULL)                                                                          \
    FIELD(dtype, RW_F32, rwt_words_dtype)                                                          \
    FIELD(rank, 1, NULL)                                                                           \
    FIELD(outer, 1, NULL)                                                                          \
    FIELD(rows, 1, NULL)                                                                           \
    FIELD(blocks, 5, NULL)                                                                         \
    FIELD(stride, RWT_CONTIGUOUS, rwt_words_stride)                                                \
    FIELD(values_stride, RWT_CONTIGUOUS, rwt_words_stride)                                         \
    FIELD(misalign, 0, NULL)                                                                       \
    FIELD(values_misalign, 0, NULL)                                                                \
    FIELD(content, CONTENT_RANDOM, words_content)                                                  \
    FIELD(seed, 0, NULL)

typedef struct mx_case {
    MX_FIELDS(RWT_MEMBER)
} mx_case;

static const rwt_field mx_fields[] = {MX_FIELDS(RWT_FIELD)};

typedef struct mx_plan {
    rwt_view blocks;
    rwt_view scales;
    rwt_view values;
} mx_plan;

static const mx_case *mx_case_of(const rwt_case *c) {
    return (const mx_case *)c->values;
}

static rw_mx_layout mx_layout(const mx_case *c) {
    return (rw_mx_layout){(rw_mx_format)c->format, (rw_mx_nibbles)c->nibbles, c->front != 0};
}

static const char *mx_invalid(const rwt_case *row) {
    const mx_case *c = mx_case_of(row);
    if (c->outer < 0 || c->rows < 0 || c->blocks < 0 || c->misalign < 0 || c->values_misalign < 0)
        return "a length is negative";
    if (c->rank < 1 || c->rank > 3)
        return "rank, of blocks without their bytes, is 1 to 3";
    if ((c->rank < 3 && c->outer != 1) || (c->rank < 2 && c->rows != 1))
        return "axes that rank leaves out are 1 long";
    if (c->nibbles != RW_MX_LOW_FIRST && c->format != RW_MXFP4_E2M1)
        return "nibbles are halves of bytes, of fp4";
    return NULL;
}

static const char *dequantize_invalid(const rwt_case *row) {
    return mx_case_of(row)->content == CONTENT_TIES ? "ties are quantized" : mx_invalid(row);
}

static const char *quantize_invalid(const rwt_case *row) {
    return mx_case_of(row)->content == CONTENT_EXHAUSTIVE ? "exhaustive is for codes"
                                                          : mx_invalid(row);
}

/* The axes of blocks and, if it is not 0, one more of `last`. */
static rwt_view add_view(rwt_job *job, const rwt_buffer_spec *spec, int64_t style, int64_t last) {
    const mx_case *c = mx_case_of(&job->c);
    const int64_t shape[3] = {c->outer, c->rows, c->blocks};
    rwt_layout layout = {.rank = (int)c->rank, .style = (rwt_stride_style)style};
    for (int axis = 0; axis < layout.rank; axis++)
        layout.shape[axis] = shape[3 - layout.rank + axis];
    if (last)
        layout.shape[layout.rank++] = last;
    return rwt_view_add(job, &layout, *spec);
}

/* A byte or value of block `number` of the case. */
static int64_t element_of(const rwt_job *job, const rwt_view *view, int64_t number, int64_t i) {
    const mx_case *c = mx_case_of(&job->c);
    const int64_t index[3] = {number / (c->rows * c->blocks), number / c->blocks % c->rows,
                              number % c->blocks};
    int64_t element = view->offset;
    for (int axis = 0; axis < c->rank; axis++)
        element += index[3 - c->rank + axis] * view->stride[axis];
    return element + i;
}

static int64_t num_blocks(const rwt_job *job) {
    const mx_case *c = mx_case_of(&job->c);
    return c->outer * c->rows * c->blocks;
}

static void add_views(rwt_job *job) {
    const mx_case *c = mx_case_of(&job->c);
    mx_plan *plan = job->plan;
    rw_mx_layout layout = mx_layout(c);
    rwt_buffer_spec bytes = {.name = "blocks", .dtype = RW_U8, .misalign = c->misalign};
    plan->blocks = add_view(job, &bytes, c->stride, rw_mx_block_bytes(&layout));
    bytes.name = "scales";
    plan->scales = layout.scale_in_front ? rwt_view_absent : add_view(job, &bytes, c->stride, 0);
    rwt_buffer_spec values = {
        .name = "values", .dtype = (rw_dtype)c->dtype, .misalign = c->values_misalign};
    plan->values = add_view(job, &values, c->values_stride, RW_MX_BLOCK);
}

/* The location of a block's scale. */
static int64_t scale_element(const rwt_job *job, int64_t number, int *buffer) {
    const mx_plan *plan = job->plan;
    const rwt_view *view = mx_case_of(&job->c)->front ? &plan->blocks : &plan->scales;
    *buffer = view->buffer;
    return element_of(job, view, number, 0);
}

/* ---- dequantize ---------------------------------------------------------------------------- */

static unsigned choose_scale(rwt_job *job, int64_t number) {
    static const unsigned special[] = {0, 1, 254, 255};
    switch ((content)mx_case_of(&job->c)->content) {
    case CONTENT_EXHAUSTIVE:
        return (unsigned)(number % 256);
    case CONTENT_SPECIAL:
        return special[rwt_random_below(&job->random, 4)];
    case CONTENT_RANDOM:
    case CONTENT_TIES:
        break;
    }
    return (unsigned)rwt_random_below(&job->random, 256);
}

static void dequantize_fill(rwt_job *job) {
    const mx_case *c = mx_case_of(&job->c);
    const mx_plan *plan = job->plan;
    rw_mx_layout layout = mx_layout(c);
    add_views(job);
    for (int64_t number = 0; number < num_blocks(job); number++) {
        unsigned char codes[RW_MX_BLOCK] = {0};
        int buffer;
        int64_t element = scale_element(job, number, &buffer);
        rwt_buffer_set_id(job, buffer, element, choose_scale(job, number));
        for (int i = 0; i < RW_MX_BLOCK; i++) {
            int64_t code = rwt_random_below(&job->random, 256);
            if (c->content == CONTENT_EXHAUSTIVE)
                code = number / 256 * RW_MX_BLOCK + i;
            unsigned all = (1u << rwt_mx_bits(layout.format)) - 1;
            rwt_mx_put(&layout, codes, i, (unsigned)code & all);
        }
        for (int i = 0; i < rwt_mx_bits(layout.format) * RW_MX_BLOCK / 8; i++)
            rwt_buffer_set_id(job, plan->blocks.buffer,
                              element_of(job, &plan->blocks, number, c->front + i), codes[i]);
    }
}

/* The bytes of a block's codes. */
static void get_codes(const rwt_job *job, int64_t number, unsigned char *codes) {
    const mx_case *c = mx_case_of(&job->c);
    const mx_plan *plan = job->plan;
    for (int i = 0; i < rwt_mx_bits((rw_mx_format)c->format) * RW_MX_BLOCK / 8; i++)
        codes[i] = (unsigned char)rwt_buffer_get_id(
            job, plan->blocks.buffer, element_of(job, &plan->blocks, number, c->front + i));
}

static void dequantize_reference(rwt_job *job) {
    const mx_plan *plan = job->plan;
    rw_mx_layout layout = mx_layout(mx_case_of(&job->c));
    for (int64_t number = 0; number < num_blocks(job); number++) {
        unsigned char codes[RW_MX_BLOCK];
        int buffer;
        int64_t element = scale_element(job, number, &buffer);
        double scale = rwt_mx_scale((unsigned)rwt_buffer_get_id(job, buffer, element));
        get_codes(job, number, codes);
        for (int i = 0; i < RW_MX_BLOCK; i++)
            rwt_expect_exact(job, plan->values.buffer, element_of(job, &plan->values, number, i),
                             rwt_mx_element(layout.format, rwt_mx_get(&layout, codes, i)) * scale);
    }
}

/* ---- quantize ---------------------------------------------------------------------------- */

/* A number of the format, or halfway to the next. */
static double tie(rwt_job *job, rw_mx_format format) {
    unsigned codes = 1u << (rwt_mx_bits(format) - 1);
    for (;;) {
        unsigned code = (unsigned)rwt_random_below(&job->random, codes - 1);
        double value = rwt_mx_element(format, code), next = rwt_mx_element(format, code + 1);
        double middle = (value + next) / 2.0;
        if (isnan(next) || isinf(next))
            continue;
        double sign = rwt_random_below(&job->random, 2) ? -1.0 : 1.0;
        switch (rwt_random_below(&job->random, 4)) {
        case 0:
            return sign * value;
        case 1:
            return sign * middle;
        case 2:
            return sign * middle * (1.0 - 0x1p-20);
        default:
            return sign * middle * (1.0 + 0x1p-20);
        }
    }
}

static void quantize_fill(rwt_job *job) {
    const mx_case *c = mx_case_of(&job->c);
    const mx_plan *plan = job->plan;
    add_views(job);
    rwt_buffer_fill(job, plan->values.buffer,
                    c->content == CONTENT_SPECIAL ? RWT_SPECIAL : RWT_ORDINARY);
    if (c->content == CONTENT_SPECIAL)
        return;
    int range = c->dtype == RW_F16 ? 10 : 140; /* exponents past those of scales */
    for (int64_t number = 0; number < num_blocks(job); number++) {
        int power = (int)rwt_random_below(&job->random, 2 * range) - range;
        bool zero = rwt_random_below(&job->random, 8) == 0;
        for (int i = 0; i < RW_MX_BLOCK; i++) {
            int64_t element = element_of(job, &plan->values, number, i);
            double value = rwt_buffer_get(job, plan->values.buffer, element);
            if (c->content == CONTENT_TIES)
                value = tie(job, (rw_mx_format)c->format);
            if (power > 126 && c->dtype != RW_F16)
                value /= 65536.0; /* the largest element's exponent is 15 */
            rwt_buffer_set(job, plan->values.buffer, element,
                           zero ? copysign(0.0, value) : ldexp(value, power));
        }
    }
}

static void quantize_reference(rwt_job *job) {
    const mx_case *c = mx_case_of(&job->c);
    const mx_plan *plan = job->plan;
    rw_mx_layout layout = mx_layout(c);
    for (int64_t number = 0; number < num_blocks(job); number++) {
        double values[RW_MX_BLOCK];
        unsigned scale, codes[RW_MX_BLOCK];
        unsigned char packed[RW_MX_BLOCK] = {0};
        for (int i = 0; i < RW_MX_BLOCK; i++)
            values[i] =
                rwt_buffer_get(job, plan->values.buffer, element_of(job, &plan->values, number, i));
        rwt_mx_quantize(layout.format, values, &scale, codes);
        for (int i = 0; i < RW_MX_BLOCK; i++)
            rwt_mx_put(&layout, packed, i, codes[i]);
        int buffer;
        int64_t element = scale_element(job, number, &buffer);
        rwt_expect_bits(job, buffer, element, scale);
        for (int i = 0; i < rwt_mx_bits(layout.format) * RW_MX_BLOCK / 8; i++)
            rwt_expect_bits(job, plan->blocks.buffer,
                            element_of(job, &plan->blocks, number, c->front + i), packed[i]);
    }
}

/* ---- the operations ------------------------------------------------------------------------ */

static void mx_bind(const rwt_job *job, rwt_set *set) {
    const mx_plan *plan = job->plan;
    rw_mx_args *args = set->args;
    args->layout = mx_layout(mx_case_of(&job->c));
    args->blocks = rwt_tensor(job, set, &plan->blocks);
    args->scales = rwt_tensor(job, set, &plan->scales);
    args->values = rwt_tensor(job, set, &plan->values);
}

static rw_status dequantize_run(const rwt_binding *binding, const void *args) {
    return rw_mx_dequantize(binding->context, args);
}

static rw_status quantize_run(const rwt_binding *binding, const void *args) {
    return rw_mx_quantize(binding->context, args);
}

static double mx_bytes(const rwt_job *job) {
    const mx_case *c = mx_case_of(&job->c);
    int bits = rwt_mx_bits((rw_mx_format)c->format);
    double value_bytes = (double)rw_dtype_size((rw_dtype)c->dtype);
    return (double)num_blocks(job) * (1.0 + RW_MX_BLOCK * (bits / 8.0 + value_bytes));
}

static double mx_flops(const rwt_job *job) {
    return (double)(num_blocks(job) * RW_MX_BLOCK);
}

#define ANY_FORMAT "format=fp4|fp6_e2m3|fp6_e3m2|fp8_e4m3|fp8_e5m2"

/* Cases of both operations. */
#define SHARED_ROWS                                                                                \
    {RWT_QUICK, ANY_FORMAT ",front=0|1,dtype=f32|f16|bf16,blocks=9"},                              \
        {RWT_QUICK, "nibbles=low|high|split,front=0|1,dtype=f32|f16|bf16,blocks=9"},               \
        {RWT_QUICK, ANY_FORMAT ",misalign=1|2|3|5,front=0|1,values_misalign=0|1,dtype=f32|bf16"},  \
        {RWT_QUICK, "nibbles=high|split,misalign=1|3,values_misalign=1|2,dtype=f32|f16"},          \
        {RWT_QUICK, ANY_FORMAT ",rank=2,rows=3,blocks=7,stride=contiguous|gaps|negative,"          \
                               "values_stride=contiguous|gaps|negative"},                          \
        {RWT_QUICK, "rank=3,outer=2,rows=3,blocks=4,stride=contiguous|gaps,"                       \
                    "values_stride=contiguous|gaps|negative,nibbles=low|split,front=0|1"},         \
        {RWT_QUICK, "blocks=0|1|2|3|15|16|17|31|32|33|63|64|65,dtype=f32|bf16"},                   \
        {RWT_QUICK, "rank=3,outer=0|2,rows=0|2,blocks=0|2"},                                       \
        {RWT_QUICK, ANY_FORMAT ",content=special,blocks=40,dtype=f32|f16|bf16"},                   \
        {RWT_FULL, ANY_FORMAT ",blocks=1001,dtype=f32|f16|bf16"}, {                                \
        RWT_LARGE, "blocks=80001,dtype=f32|bf16,nibbles=low|high|split,front=0|1"                  \
    }

static const rwt_case_row dequantize_rows[] = {
    SHARED_ROWS,
    {RWT_QUICK, ANY_FORMAT ",content=exhaustive,blocks=2048,dtype=f32"},
    {RWT_FULL, ANY_FORMAT ",content=exhaustive,blocks=2048,dtype=f16|bf16,front=0|1"},
    {RWT_FULL, "nibbles=high|split,content=exhaustive,blocks=256,dtype=f32|f16|bf16,front=0|1"},
    {RWT_QUICK, NULL}};

static const rwt_case_row quantize_rows[] = {
    SHARED_ROWS,
    {RWT_QUICK, ANY_FORMAT ",content=ties,blocks=100,dtype=f32|f16|bf16"},
    {RWT_FULL, ANY_FORMAT ",content=ties,blocks=2000,dtype=f32"},
    {RWT_FULL, "nibbles=low|high|split,content=ties,blocks=500,front=0|1"},
    {RWT_QUICK, NULL}};

#define SHARED_RANDOM                                                                              \
    ANY_FORMAT ",nibbles=low|low|high|split,front=0|1,dtype=f32|f16|bf16,rank=1..3,"               \
               "outer=1|1|2,rows=1|1|3,blocks=0..40,stride=contiguous|gaps|negative,"              \
               "values_stride=contiguous|gaps|negative,misalign=0..7,values_misalign=0|0|1..7,"

static const rwt_benchmark dequantize_benchmarks[] = {
    {"MXFP4 to f32, 16 Mi", "blocks=524288", true, true, false},
    {"MXFP4 ggml to f32, 16 Mi", "blocks=524288,nibbles=split,front=1", true, true, false},
    {"MXFP4 to bf16, 16 Mi", "blocks=524288,dtype=bf16", true, true, false},
    {"MXFP8 E4M3 to bf16, 16 Mi", "blocks=524288,dtype=bf16,format=fp8_e4m3", true, true, false},
    {NULL, NULL, false, false, false}};

static const rwt_benchmark quantize_benchmarks[] = {
    {"f32 to MXFP4, 16 Mi", "blocks=524288", true, true, false},
    {"bf16 to MXFP8 E4M3, 16 Mi", "blocks=524288,dtype=bf16,format=fp8_e4m3", true, true, false},
    {NULL, NULL, false, false, false}};

const rwt_driver rwt_mx_dequantize_driver = {
    .name = "mx_dequantize",
    .fields = mx_fields,
    .num_fields = RWT_COUNT(mx_fields),
    .rows = dequantize_rows,
    .random = SHARED_RANDOM "content=random|random|special",
    .num_random = 200,
    .benchmarks = dequantize_benchmarks,
    .plan_size = sizeof(mx_plan),
    .args_size = sizeof(rw_mx_args),
    .invalid = dequantize_invalid,
    .fill = dequantize_fill,
    .reference = dequantize_reference,
    .bind = mx_bind,
    .run = dequantize_run,
    .bytes = mx_bytes,
    .flops = mx_flops,
};

const rwt_driver rwt_mx_quantize_driver = {
    .name = "mx_quantize",
    .fields = mx_fields,
    .num_fields = RWT_COUNT(mx_fields),
    .rows = quantize_rows,
    .random = SHARED_RANDOM "content=random|random|ties|special",
    .num_random = 200,
    .benchmarks = quantize_benchmarks,
    .plan_size = sizeof(mx_plan),
    .args_size = sizeof(rw_mx_args),
    .invalid = quantize_invalid,
    .fill = quantize_fill,
    .reference = quantize_reference,
    .bind = mx_bind,
    .run = quantize_run,
    .bytes = mx_bytes,
    .flops = mx_flops,
};
