/* Attention over values of unit variance, as in models: every result must be within an absolute
 * bound of plain sums in double over the values rounded to the dtype. ROPEWALK_TEST_16_BIT=1 omits
 * f32, ROPEWALK_TEST_TIER=quick the longest sequences. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "harness/test_support.h"

#define LSE_BOUND 1e-4
#define MAX_HEADS 8
#define MAX_BATCH 2

typedef enum seen {
    SEEN_ALL,
    SEEN_CAUSAL,
    SEEN_WINDOW,
    SEEN_PREFIX,
    SEEN_DOCUMENTS,
    SEEN_KEY_END /* causal, the queries at the end of sequences of several lengths */
} seen;

enum {
    WINDOW = 23,
    PREFIX = 17
};

/* The parameters of attention other than the shapes. */
typedef struct setting {
    const char *name;
    seen seen;
    double softcap;
    bool alibi;
    bool sinks;
} setting;

typedef struct shape {
    int64_t batch;
    int64_t heads;
    int64_t kv_heads;
    int64_t seq_q;
    int64_t seq_k;
    int64_t dim;
} shape;

typedef struct problem {
    setting setting;
    shape shape;
    rw_dtype dtype;
    bool split;
    double *q, *k, *v;
    float slopes[MAX_HEADS];
    float sinks[MAX_HEADS];
    int32_t ends[MAX_BATCH]; /* key_end */
    int32_t documents[4];    /* cu_seqlens of three */
    rwt_random random;
} problem;

static rw_context *context;
static int first_dtype = RW_F32, last_dtype = RW_BF16;
static rw_f32_products products = RW_F32_EXACT;
static int num_lengths = 3;
static double worst[RW_BF16 + 1];
static double worst_lse;

/* ---- values ---- */

/* Box and Muller, "A note on the generation of random normal deviates", 1958 */
static double normal(rwt_random *random) {
    double radius = sqrt(-2.0 * log(1.0 - rwt_random_uniform(random, 0.0, 1.0)));
    return radius * cos(6.283185307179586 * rwt_random_uniform(random, 0.0, 1.0));
}

static double *normals(problem *p, int64_t count) {
    double *values = rwt_allocate((size_t)count * sizeof *values);
    for (int64_t i = 0; i < count; i++)
        values[i] = rwt_round(p->dtype, normal(&p->random));
    return values;
}

static void fill(problem *p) {
    const shape *s = &p->shape;
    p->q = normals(p, s->batch * s->heads * s->seq_q * s->dim);
    p->k = normals(p, s->batch * s->kv_heads * s->seq_k * s->dim);
    p->v = normals(p, s->batch * s->kv_heads * s->seq_k * s->dim);
    for (int64_t h = 0; h < s->heads; h++) {
        p->slopes[h] = (float)exp2(-8.0 * (double)(h + 1) / (double)s->heads);
        p->sinks[h] = (float)normal(&p->random);
    }
    for (int64_t b = 0; b < s->batch; b++)
        p->ends[b] = (int32_t)(s->seq_k - 3 - 20 * b);
    p->documents[1] = (int32_t)(s->seq_k / 3);
    p->documents[2] = (int32_t)(s->seq_k - s->seq_k / 5);
    p->documents[3] = (int32_t)s->seq_k;
}

static void release(problem *p) {
    free(p->q);
    free(p->k);
    free(p->v);
}

/* ---- expected results ---- */

static int64_t position_of(const problem *p, int64_t b, int64_t i) {
    int64_t end = p->setting.seen == SEEN_KEY_END ? p->ends[b] : p->shape.seq_k;
    return i + end - p->shape.seq_q;
}

static int document_of(const problem *p, int64_t position) {
    return (position >= p->documents[1]) + (position >= p->documents[2]);
}

static bool sees(const problem *p, int64_t position, int64_t j) {
    bool causal = j <= position;
    switch (p->setting.seen) {
    case SEEN_ALL:
        return true;
    case SEEN_CAUSAL:
    case SEEN_KEY_END: /* positions count from key_end */
        return causal;
    case SEEN_WINDOW:
        return causal && j >= position - WINDOW;
    case SEEN_PREFIX:
        return causal || j < PREFIX;
    case SEEN_DOCUMENTS:
        return causal && document_of(p, position) == document_of(p, j);
    }
    return false;
}

static double score_of(const problem *p, int64_t h, int64_t distance, const double *q,
                       const double *k) {
    double s = 0.0;
    for (int64_t d = 0; d < p->shape.dim; d++)
        s += q[d] * k[d];
    s /= sqrt((double)p->shape.dim);
    if (p->setting.softcap > 0.0)
        s = p->setting.softcap * tanh(s / p->setting.softcap);
    if (p->setting.alibi)
        s -= (double)p->slopes[h] * fabs((double)distance);
    return s;
}

/* One query of one head: its row of `out`, and what is returned, the LSE. */
static double expect_row(const problem *p, int64_t b, int64_t h, int64_t i, double *out) {
    const shape *s = &p->shape;
    const int64_t position = position_of(p, b, i);
    const int64_t kv_head = h / (s->heads / s->kv_heads);
    const double *q = p->q + ((b * s->seq_q + i) * s->heads + h) * s->dim;
    /* Scores of unit variance are small: their exponentials need no common factor. */
    double sum = p->setting.sinks ? exp((double)p->sinks[h]) : 0.0;
    memset(out, 0, (size_t)s->dim * sizeof *out);
    for (int64_t j = 0; j < s->seq_k; j++) {
        if (!sees(p, position, j))
            continue;
        const int64_t key = ((b * s->seq_k + j) * s->kv_heads + kv_head) * s->dim;
        double weight = exp(score_of(p, h, position - j, q, p->k + key));
        sum += weight;
        for (int64_t d = 0; d < s->dim; d++)
            out[d] += weight * p->v[key + d];
    }
    for (int64_t d = 0; d < s->dim && sum > 0.0; d++)
        out[d] /= sum;
    return log(sum);
}

/* ---- results of the device ---- */

typedef struct device {
    rw_attention_args args;
    rw_pattern pattern;
    rw_alibi alibi;
} device;

static rw_tensor upload_floats(const problem *p, const double *values, int64_t seq, int64_t heads) {
    const int64_t lengths[] = {p->shape.batch, seq, heads, p->shape.dim};
    int64_t count = p->shape.batch * heads * seq * p->shape.dim;
    size_t bytes = (size_t)count * rw_dtype_size(p->dtype);
    void *host = rwt_allocate(bytes);
    for (int64_t i = 0; i < count; i++)
        rwt_store(p->dtype, host, i, values ? values[i] : NAN);
    rw_tensor tensor =
        rw_tensor_contiguous(rwt_test_upload(context, host, bytes), p->dtype, 4, lengths);
    free(host);
    return tensor;
}

static rw_tensor upload_list(const void *values, rw_dtype dtype, int64_t count) {
    size_t bytes = (size_t)count * rw_dtype_size(dtype);
    return rw_tensor_contiguous(rwt_test_upload(context, values, bytes), dtype, 1, &count);
}

static void make_pattern(const problem *p, device *on) {
    rw_pattern *pattern = &on->pattern;
    pattern->causal = p->setting.seen != SEEN_ALL;
    if (p->setting.seen == SEEN_WINDOW)
        pattern->left = (rw_window_side){true, WINDOW};
    if (p->setting.seen == SEEN_PREFIX)
        pattern->prefix_length = PREFIX;
    if (p->setting.seen == SEEN_DOCUMENTS)
        pattern->cu_seqlens = upload_list(p->documents, RW_I32, 4);
    if (p->setting.seen == SEEN_KEY_END) {
        pattern->alignment = on->alibi.alignment = RW_ALIGN_KEY_END;
        pattern->key_end = upload_list(p->ends, RW_I32, p->shape.batch);
    }
    on->args.pattern = pattern;
}

static void make_workspace(device *on) {
    int64_t bytes = 0;
    assert_int_equal(rw_attention_workspace(context, &on->args, &bytes), RW_OK);
    assert_true(bytes > 0);
    void *memory = NULL;
    assert_int_equal(rw_alloc(context, (size_t)bytes, &memory), RW_OK);
    on->args.workspace = rw_tensor_contiguous(memory, RW_U8, 1, &bytes);
}

static void make_device(const problem *p, device *on) {
    const shape *s = &p->shape;
    const int64_t rows[] = {s->batch, s->heads, s->seq_q};
    void *lse = NULL;
    memset(on, 0, sizeof *on);
    on->args.q = upload_floats(p, p->q, s->seq_q, s->heads);
    on->args.k = upload_floats(p, p->k, s->seq_k, s->kv_heads);
    on->args.v = upload_floats(p, p->v, s->seq_k, s->kv_heads);
    on->args.out = upload_floats(p, NULL, s->seq_q, s->heads);
    assert_int_equal(rw_alloc(context, (size_t)(rows[0] * rows[1] * rows[2] * 4), &lse), RW_OK);
    on->args.lse = rw_tensor_contiguous(lse, RW_F32, 3, rows);
    on->args.softcap = p->setting.softcap;
    on->args.f32_products = products;
    if (p->setting.alibi) {
        on->alibi.slopes = upload_list(p->slopes, RW_F32, s->heads);
        on->args.alibi = &on->alibi;
    }
    if (p->setting.sinks)
        on->args.sinks = upload_list(p->sinks, RW_F32, s->heads);
    make_pattern(p, on);
    if (p->split)
        make_workspace(on);
}

static void free_device(const device *on) {
    const rw_tensor *tensors[] = {&on->args.q,          &on->args.k,
                                  &on->args.v,          &on->args.out,
                                  &on->args.lse,        &on->args.sinks,
                                  &on->args.workspace,  &on->alibi.slopes,
                                  &on->pattern.key_end, &on->pattern.cu_seqlens};
    for (size_t i = 0; i < sizeof tensors / sizeof *tensors; i++)
        if (tensors[i]->rank > 0)
            assert_int_equal(rw_free(context, tensors[i]->data), RW_OK);
}

static void run(const device *on) {
    rw_transfers before = rw_context_transfers(context);
    if (rw_attention(context, &on->args) != RW_OK || rw_synchronize(context) != RW_OK)
        fail_msg("%s", rw_last_error(context));
    rw_transfers after = rw_context_transfers(context);
    assert_int_equal(after.host_to_device_bytes, before.host_to_device_bytes);
    assert_int_equal(after.device_to_host_bytes, before.device_to_host_bytes);
}

static double bound_of(rw_dtype dtype) {
    return dtype == RW_F32 ? 2e-5 : dtype == RW_F16 ? 2e-3 : 1.6e-2;
}

/* The absolute difference; infinite if only one is NaN or they are different infinities. */
static double difference(double got, double expected) {
    if (got == expected)
        return 0.0;
    double distance = fabs(got - expected);
    return isnan(distance) ? INFINITY : distance;
}

static void compare(const problem *p, const void *out, const float *lse) {
    const shape *s = &p->shape;
    double *row = rwt_allocate((size_t)s->dim * sizeof *row), largest = 0.0, largest_lse = 0.0;
    for (int64_t n = 0; n < s->batch * s->heads * s->seq_q; n++) {
        int64_t b = n / (s->heads * s->seq_q), h = n / s->seq_q % s->heads;
        const int64_t i = n % s->seq_q, at = ((b * s->seq_q + i) * s->heads + h) * s->dim;
        double expected = expect_row(p, b, h, i, row);
        largest_lse = fmax(largest_lse, difference((double)lse[n], expected));
        for (int64_t d = 0; d < s->dim; d++)
            largest = fmax(largest, difference(rwt_load(p->dtype, out, at + d), row[d]));
    }
    free(row);
    worst[p->dtype] = fmax(worst[p->dtype], largest);
    worst_lse = fmax(worst_lse, largest_lse);
    if (largest > bound_of(p->dtype) || largest_lse > LSE_BOUND)
        fail_msg("%s %s, %lld x %lld/%lld x %lld x %lld x %lld: out is %.3g off, lse %.3g",
                 rw_dtype_name(p->dtype), p->setting.name, (long long)s->batch, (long long)s->heads,
                 (long long)s->kv_heads, (long long)s->seq_q, (long long)s->seq_k,
                 (long long)s->dim, largest, largest_lse);
}

static void check(setting chosen, shape lengths, bool split) {
    for (int dtype = first_dtype; dtype <= last_dtype; dtype++) {
        problem p = {.setting = chosen,
                     .shape = lengths,
                     .dtype = (rw_dtype)dtype,
                     .split = split,
                     .random = {(uint64_t)(lengths.seq_k + 1000 * lengths.dim + dtype)}};
        device on;
        fill(&p);
        make_device(&p, &on);
        run(&on);
        int64_t rows = lengths.batch * lengths.heads * lengths.seq_q;
        size_t bytes = (size_t)(rows * lengths.dim) * rw_dtype_size(p.dtype);
        void *out = rwt_allocate(bytes);
        float *lse = rwt_allocate((size_t)rows * sizeof *lse);
        rwt_test_download(context, out, on.args.out.data, bytes);
        rwt_test_download(context, lse, on.args.lse.data, (size_t)rows * sizeof *lse);
        free_device(&on);
        compare(&p, out, lse);
        free(out);
        free(lse);
        release(&p);
    }
}

/* ---- tests ---- */

static void test_lengths(void **state) {
    (void)state;
    static const int64_t lengths[] = {65, 129, 257};
    for (int i = 0; i < num_lengths; i++)
        for (int64_t dim = 64; dim <= 128; dim += 64) {
            int64_t batch = lengths[i] < 200 ? 2 : 1;
            shape square = {batch, 4, 2, lengths[i], lengths[i], dim};
            check((setting){.name = "causal", .seen = SEEN_CAUSAL}, square, false);
            check((setting){.name = "all keys", .seen = SEEN_ALL}, square, false);
        }
}

static void test_settings(void **state) {
    (void)state;
    static const setting settings[] = {
        {.name = "window", .seen = SEEN_WINDOW},
        {.name = "prefix", .seen = SEEN_PREFIX},
        {.name = "documents", .seen = SEEN_DOCUMENTS},
        {.name = "key_end", .seen = SEEN_KEY_END},
        {.name = "softcap", .seen = SEEN_CAUSAL, .softcap = 2.0},
        {.name = "softcap above the scores", .seen = SEEN_CAUSAL, .softcap = 12.0},
        {.name = "softcap far above the scores", .seen = SEEN_CAUSAL, .softcap = 50.0},
        {.name = "alibi", .seen = SEEN_CAUSAL, .alibi = true},
        {.name = "sinks", .seen = SEEN_CAUSAL, .sinks = true},
        {.name = "key_end, softcap, alibi and sinks",
         .seen = SEEN_KEY_END,
         .softcap = 5.0,
         .alibi = true,
         .sinks = true},
    };
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++) {
        check(settings[i], (shape){2, 4, 2, 129, 129, 64}, false);
        check(settings[i], (shape){2, 4, 2, 70, 129, 128}, false);
    }
}

/* Few queries against many keys, in parts. */
static void test_decode(void **state) {
    (void)state;
    static const setting settings[] = {
        {.name = "decode", .seen = SEEN_CAUSAL},
        {.name = "decode, key_end", .seen = SEEN_KEY_END},
        {.name = "decode, window", .seen = SEEN_WINDOW},
        {.name = "decode, softcap, alibi and sinks",
         .seen = SEEN_KEY_END,
         .softcap = 5.0,
         .alibi = true,
         .sinks = true},
    };
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++) {
        check(settings[i], (shape){1, 8, 2, 1, 1031, 128}, true);
        check(settings[i], (shape){1, 8, 1, 3, 1031, 64}, true);
    }
}

/* Whether the device has units for RW_F32_SPLIT. */
static bool splits_products(void) {
    const char *arch = getenv("ROPEWALK_EMULATED_ARCH");
    const char *platform = rw_context_get_info(context).platform;
    return strcmp(platform, "nvidia") == 0 ||
           (strcmp(platform, "emulated") == 0 && arch && strncmp(arch, "sm_", 3) == 0);
}

static void test_split_products(void **state) {
    (void)state;
    if (first_dtype != RW_F32)
        skip();
    products = RW_F32_SPLIT;
    last_dtype = RW_F32;
    for (int64_t dim = 64; dim <= 256; dim *= 2) {
        check((setting){.name = "causal, split", .seen = SEEN_CAUSAL},
              (shape){1, 4, 2, 129, 129, dim}, false);
        check((setting){.name = "all keys, split", .seen = SEEN_ALL},
              (shape){1, 2, 2, 70, 300, dim}, false);
    }
    products = RW_F32_EXACT;
    last_dtype = RW_BF16;

    problem p = {.setting = {.seen = SEEN_ALL}, .shape = {1, 1, 1, 64, 64, 64}, .dtype = RW_F32};
    float exact[64 * 64], split[64 * 64];
    device on;
    fill(&p);
    make_device(&p, &on);
    run(&on);
    rwt_test_download(context, exact, on.args.out.data, sizeof exact);
    on.args.f32_products = RW_F32_SPLIT;
    run(&on);
    rwt_test_download(context, split, on.args.out.data, sizeof split);
    assert_int_equal(memcmp(exact, split, sizeof exact) != 0, splits_products());
    free_device(&on);
    release(&p);
}

/* A row whose mask hides every key that its pattern shows must not read any of them, not even NaN.
 */
static void test_masked_row(void **state) {
    (void)state;
    enum {
        SEQ_Q = 40,
        SEQ_K = 130,
        DIM = 16
    };
    static float q[SEQ_Q * DIM], k[SEQ_K * DIM], v[SEQ_K * DIM], mask[SEQ_Q * SEQ_K];
    static float out[SEQ_Q * DIM], lse[SEQ_Q];
    for (int j = 0; j < SEQ_K; j++)
        mask[j] = -INFINITY;
    for (int n = 0; n < SEQ_K * DIM; n++)
        v[n] = 1.0f;
    v[65 * DIM + 3] = NAN;
    v[65 * DIM + 4] = INFINITY;
    const int64_t q_shape[] = {1, SEQ_Q, 1, DIM}, k_shape[] = {1, SEQ_K, 1, DIM};
    const int64_t mask_shape[] = {1, 1, SEQ_Q, SEQ_K}, lse_shape[] = {1, 1, SEQ_Q};
    const rw_pattern causal = {.causal = true};
    void *memory[] = {
        rwt_test_upload(context, q, sizeof q),     rwt_test_upload(context, k, sizeof k),
        rwt_test_upload(context, v, sizeof v),     rwt_test_upload(context, mask, sizeof mask),
        rwt_test_upload(context, out, sizeof out), rwt_test_upload(context, lse, sizeof lse)};
    rw_attention_args args = {.q = rw_tensor_contiguous(memory[0], RW_F32, 4, q_shape),
                              .k = rw_tensor_contiguous(memory[1], RW_F32, 4, k_shape),
                              .v = rw_tensor_contiguous(memory[2], RW_F32, 4, k_shape),
                              .mask = rw_tensor_contiguous(memory[3], RW_F32, 4, mask_shape),
                              .out = rw_tensor_contiguous(memory[4], RW_F32, 4, q_shape),
                              .lse = rw_tensor_contiguous(memory[5], RW_F32, 3, lse_shape),
                              .pattern = &causal};
    assert_int_equal(rw_attention(context, &args), RW_OK);
    rwt_test_download(context, out, memory[4], sizeof out);
    rwt_test_download(context, lse, memory[5], sizeof lse);
    assert_true(lse[0] == -INFINITY);
    for (int d = 0; d < DIM; d++)
        assert_true(out[d] == 0.0f);
    assert_true(isnan(out[DIM + 3])); /* the next row sees it */
    assert_true(out[DIM + 4] == INFINITY);
    assert_true(fabsf(out[DIM] - 1.0f) < 1e-6f);
    for (size_t n = 0; n < sizeof memory / sizeof *memory; n++)
        assert_int_equal(rw_free(context, memory[n]), RW_OK);
}

static bool is_set(const char *name, const char *expected) {
    const char *value = getenv(name);
    return value && strcmp(value, expected) == 0;
}

/* ---- hidden values ---- */

#define HIDDEN_HEADS 4
#define HIDDEN_DIM 64

/* Causal attention of bf16 with one head of k and v, of which all elements of the last key's v have
 * the value. */
static void attend_with_last(float value, int64_t seq_q, int64_t seq_k, float *out) {
    const int64_t q_shape[] = {1, seq_q, HIDDEN_HEADS, HIDDEN_DIM},
                  k_shape[] = {1, seq_k, 1, HIDDEN_DIM};
    const int64_t num_q = seq_q * HIDDEN_HEADS * HIDDEN_DIM, num_k = seq_k * HIDDEN_DIM;
    const int64_t num = num_q + 2 * num_k;
    uint16_t *values = rwt_allocate((size_t)num * sizeof *values);
    rwt_random random = {5};
    for (int64_t i = 0; i < num; i++)
        rwt_store(RW_BF16, values, i, i < num - HIDDEN_DIM ? normal(&random) : (double)value);
    rw_context *own = rwt_test_context();
    uint16_t *memory = rwt_test_upload(own, values, (size_t)num * sizeof *values);
    float *result = rwt_test_upload(own, out, (size_t)num_q * sizeof *out);
    const rw_pattern pattern = {.causal = true};
    const rw_attention_args args = {
        .q = rw_tensor_contiguous(memory, RW_BF16, 4, q_shape),
        .k = rw_tensor_contiguous(memory + num_q, RW_BF16, 4, k_shape),
        .v = rw_tensor_contiguous(memory + num_q + num_k, RW_BF16, 4, k_shape),
        .out = rw_tensor_contiguous(result, RW_F32, 4, q_shape),
        .pattern = &pattern};
    assert_int_equal(rw_attention(own, &args), RW_OK);
    rwt_test_download(own, out, result, (size_t)num_q * sizeof *out);
    assert_int_equal(rw_free(own, memory), RW_OK);
    assert_int_equal(rw_free(own, result), RW_OK);
    rw_context_destroy(own);
    free(values);
}

/* What queries do not see must not change how they are computed: rounding weights to bf16 only where
 * all of v is finite changed results by up to 2e-3. */
static void test_hidden_values(void **state) {
    (void)state;
    for (int64_t seq_q = 2; seq_q <= 40; seq_q += 38) {
        const int64_t count = (seq_q - 1) * HIDDEN_HEADS * HIDDEN_DIM;
        const size_t size = (size_t)(count + HIDDEN_HEADS * HIDDEN_DIM);
        float *plain = rwt_allocate(size * sizeof *plain);
        float *hidden = rwt_allocate(size * sizeof *hidden);
        attend_with_last(0.5f, seq_q, 60, plain);
        attend_with_last(NAN, seq_q, 60, hidden);
        for (int64_t i = 0; i < count; i++)
            if (!(fabs((double)plain[i] - (double)hidden[i]) <= 0x1p-18))
                fail_msg("%lld queries: %.9g, with a hidden NaN %.9g", (long long)seq_q,
                         (double)plain[i], (double)hidden[i]);
        free(plain);
        free(hidden);
    }
}

int main(void) {
    if (!rwt_test_backend_usable())
        return RWT_TEST_SKIPPED;
    context = rwt_test_context();
    if (is_set("ROPEWALK_TEST_16_BIT", "1"))
        first_dtype = RW_F16;
    if (is_set("ROPEWALK_TEST_TIER", "quick"))
        num_lengths = 2;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lengths),    cmocka_unit_test(test_settings),
        cmocka_unit_test(test_decode),     cmocka_unit_test(test_split_products),
        cmocka_unit_test(test_masked_row), cmocka_unit_test(test_hidden_values),
    };
    int failed = cmocka_run_group_tests_name("attention, accuracy", tests, NULL, NULL);
    print_message("largest errors: f32 %.2g, f16 %.2g, bf16 %.2g, lse %.2g\n", worst[RW_F32],
                  worst[RW_F16], worst[RW_BF16], worst_lse);
    rw_context_destroy(context);
    return failed;
}
