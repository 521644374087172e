/* Attention as an inference engine runs it, on the device from end to end: prompts in chunks into a
 * paged cache, then token by token; and over shards of the keys. Every query must get the result of
 * one attention over its whole sequence, and no data may move between host and device. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "harness/test_support.h"

enum {
    BATCH = 2,
    HEADS = 4,
    KV_HEADS = 2,
    DIM = 64
};

static rw_context *context;
static rw_transfers settled; /* transfers up to the start of device-only work */

static void must(rw_status status) {
    if (status != RW_OK)
        fail_msg("%s: %s", rw_status_name(status), rw_last_error(context));
}

static void leave_alone(void) {
    settled = rw_context_transfers(context);
}

/* Synchronizes; checks that nothing was moved meanwhile. */
static void finish(void) {
    must(rw_synchronize(context));
    rw_transfers now = rw_context_transfers(context);
    assert_int_equal(now.host_to_device_bytes, settled.host_to_device_bytes);
    assert_int_equal(now.device_to_host_bytes, settled.device_to_host_bytes);
}

/* Random numbers, or NaN with a seed of 0. */
static char *upload_floats(rw_dtype dtype, int64_t count, uint64_t seed) {
    size_t bytes = (size_t)count * rw_dtype_size(dtype);
    char *host = rwt_allocate(bytes);
    rwt_random random = {seed};
    for (int64_t i = 0; i < count; i++)
        rwt_store(dtype, host, i, seed ? rwt_random_uniform(&random, -2.0, 2.0) : NAN);
    char *device = rwt_test_upload(context, host, bytes);
    free(host);
    return device;
}

static double *download_floats(rw_dtype dtype, const void *device, int64_t count) {
    size_t bytes = (size_t)count * rw_dtype_size(dtype);
    char *host = rwt_allocate(bytes);
    double *values = rwt_allocate((size_t)count * sizeof *values);
    rwt_test_download(context, host, device, bytes);
    for (int64_t i = 0; i < count; i++)
        values[i] = rwt_load(dtype, host, i);
    free(host);
    return values;
}

/* Fails for NaN, too; -inf equals itself. */
static void assert_near(double got, double expected, double bound) {
    if (got != expected && !(fabs(got - expected) <= bound * fmax(1.0, fabs(expected))))
        fail_msg("%.9g, expected %.9g", got, expected);
}

/* ---- prompts and tokens ---- */

enum {
    PAGE = 16,
    MAX_PAGES = 40, /* of a sequence: enough keys for several parts */
    PAGES = 37,
    MAX_TOKENS = 320
};

/* A call: some tokens of sequences [first, first + batch). */
typedef struct step {
    int64_t first;
    int64_t batch;
    int64_t seq;
    bool split;
} step;

static const step steps[] = {
    {0, 1, 37, false}, {1, 1, 200, false}, {1, 1, 99, false}, {0, 2, 3, false}, {0, 2, 1, true},
    {0, 2, 1, true},   {0, 2, 1, true},    {0, 2, 1, true},   {0, 2, 1, false}, {0, 2, 9, true},
};
enum {
    STEPS = sizeof steps / sizeof *steps
};

typedef struct pipeline {
    rw_dtype dtype;
    rw_rope *rope;
    char *q, *rotated, *out, *expected; /* [BATCH, MAX_TOKENS, HEADS, DIM] */
    char *k, *v;                        /* [BATCH, MAX_TOKENS, KV_HEADS, DIM] */
    char *cache_k, *cache_v;            /* [PAGES, PAGE, KV_HEADS, DIM] */
    int32_t *table;                     /* [BATCH, MAX_PAGES] */
    int32_t *lengths;                   /* [STEPS + 1, BATCH], those before a step */
    char *workspace;
    int64_t workspace_bytes;
    int32_t on_host[STEPS + 1][BATCH]; /* lengths */
} pipeline;

/* Pages in random order, as many as needed; the other entries are invalid. */
static int32_t *upload_table(const pipeline *p) {
    int32_t table[BATCH][MAX_PAGES], used = 0;
    memset(table, -1, sizeof table);
    for (int n = 0; n < MAX_PAGES; n++)
        for (int b = 0; b < BATCH; b++)
            if (n * PAGE < p->on_host[STEPS][b])
                table[b][n] = (5 + 11 * used++) % PAGES; /* each number once: 37 is prime */
    assert_in_range(used, 1, PAGES);
    return rwt_test_upload(context, table, sizeof table);
}

static void count_lengths(pipeline *p) {
    memset(p->on_host, 0, sizeof p->on_host);
    for (int n = 0; n < STEPS; n++) {
        memcpy(p->on_host[n + 1], p->on_host[n], sizeof p->on_host[n]);
        for (int64_t b = 0; b < steps[n].batch; b++)
            p->on_host[n + 1][steps[n].first + b] += (int32_t)steps[n].seq;
    }
}

static void open_pipeline(pipeline *p, rw_dtype dtype) {
    const int64_t tokens = (int64_t)BATCH * MAX_TOKENS, cache = (int64_t)PAGES * PAGE;
    rw_rope_options options = {.spec = {.head_dim = DIM, .theta = 1e6},
                               .max_positions = MAX_TOKENS};
    memset(p, 0, sizeof *p);
    p->dtype = dtype;
    count_lengths(p);
    must(rw_rope_create(context, &options, &p->rope));
    p->q = upload_floats(dtype, tokens * HEADS * DIM, 1);
    p->k = upload_floats(dtype, tokens * KV_HEADS * DIM, 2);
    p->v = upload_floats(dtype, tokens * KV_HEADS * DIM, 3);
    p->rotated = upload_floats(dtype, tokens * HEADS * DIM, 0);
    p->out = upload_floats(dtype, tokens * HEADS * DIM, 0);
    p->expected = upload_floats(dtype, tokens * HEADS * DIM, 0);
    p->cache_k = upload_floats(dtype, cache * KV_HEADS * DIM, 0);
    p->cache_v = upload_floats(dtype, cache * KV_HEADS * DIM, 0);
    p->table = upload_table(p);
    p->lengths = rwt_test_upload(context, p->on_host, sizeof p->on_host);
}

static void close_pipeline(pipeline *p) {
    void *memory[] = {p->q,       p->k,       p->v,     p->rotated, p->out,      p->expected,
                      p->cache_k, p->cache_v, p->table, p->lengths, p->workspace};
    for (size_t i = 0; i < sizeof memory / sizeof *memory; i++)
        must(rw_free(context, memory[i]));
    rw_rope_destroy(p->rope);
}

/* The tokens of a step, [batch, seq, heads, DIM]: sequences have different lengths. */
static rw_tensor tokens_of(const pipeline *p, char *data, int64_t heads, int n) {
    const step *s = &steps[n];
    const int32_t *before = p->on_host[n];
    const int64_t token = heads * DIM;
    const int64_t apart = s->batch == 2 ? MAX_TOKENS + before[1] - before[0] : MAX_TOKENS;
    const int64_t begin = (s->first * MAX_TOKENS + before[s->first]) * token;
    return (rw_tensor){data + begin * (int64_t)rw_dtype_size(p->dtype),
                       p->dtype,
                       4,
                       {s->batch, s->seq, heads, DIM},
                       {apart * token, token, DIM, 1}};
}

static rw_tensor cache_of(const pipeline *p, char *data) {
    const int64_t stored[] = {PAGES, PAGE, KV_HEADS, DIM};
    return rw_tensor_contiguous(data, p->dtype, 4, stored);
}

static rw_tensor lengths_of(const pipeline *p, int n, const step *s) {
    return rw_tensor_contiguous(p->lengths + n * BATCH + s->first, RW_I32, 1, &s->batch);
}

static rw_tensor table_of(const pipeline *p, const step *s) {
    const int64_t shape[] = {s->batch, MAX_PAGES};
    return rw_tensor_contiguous(p->table + s->first * MAX_PAGES, RW_I32, 2, shape);
}

static void append(const pipeline *p, int n) {
    const step *s = &steps[n];
    rw_rope_append_args args = {.rope = {.q = tokens_of(p, p->q, HEADS, n),
                                         .q_out = tokens_of(p, p->rotated, HEADS, n),
                                         .offsets = lengths_of(p, n, s)},
                                .append = {.k = tokens_of(p, p->k, KV_HEADS, n),
                                           .v = tokens_of(p, p->v, KV_HEADS, n),
                                           .cache = {.k = cache_of(p, p->cache_k),
                                                     .v = cache_of(p, p->cache_v),
                                                     .block_table = table_of(p, s)},
                                           .offsets = lengths_of(p, n, s)}};
    must(rw_rope_append(context, p->rope, &args));
}

/* The arguments of attention in a step; the caller owns the pattern. */
static rw_attention_args attention_of(const pipeline *p, int n, rw_pattern *pattern) {
    const step *s = &steps[n];
    *pattern = (rw_pattern){
        .causal = true, .alignment = RW_ALIGN_KEY_END, .key_end = lengths_of(p, n + 1, s)};
    return (rw_attention_args){.q = tokens_of(p, p->rotated, HEADS, n),
                               .k = cache_of(p, p->cache_k),
                               .v = cache_of(p, p->cache_v),
                               .block_table = table_of(p, s),
                               .out = tokens_of(p, p->out, HEADS, n),
                               .pattern = pattern};
}

/* The maximum over all steps. */
static void make_workspace(pipeline *p) {
    for (int n = 0; n < STEPS; n++) {
        rw_pattern pattern;
        rw_attention_args args = attention_of(p, n, &pattern);
        int64_t bytes = 0;
        if (!steps[n].split)
            continue;
        must(rw_attention_workspace(context, &args, &bytes));
        assert_true(bytes > 0); /* else parts would not be tested */
        p->workspace_bytes = bytes > p->workspace_bytes ? bytes : p->workspace_bytes;
    }
    void *memory = NULL;
    must(rw_alloc(context, (size_t)p->workspace_bytes, &memory));
    p->workspace = memory;
}

static void attend(const pipeline *p, int n) {
    rw_pattern pattern;
    rw_attention_args args = attention_of(p, n, &pattern);
    if (steps[n].split)
        args.workspace = rw_tensor_contiguous(p->workspace, RW_U8, 1, &p->workspace_bytes);
    must(rw_attention(context, &args));
}

/* A whole sequence, [1, tokens, heads, DIM]. */
static rw_tensor sequence_of(const pipeline *p, char *data, int64_t heads, int b) {
    const int64_t shape[] = {1, p->on_host[STEPS][b], heads, DIM};
    int64_t begin = b * MAX_TOKENS * heads * DIM;
    return rw_tensor_contiguous(data + begin * (int64_t)rw_dtype_size(p->dtype), p->dtype, 4,
                                shape);
}

/* Rotates q and k in place, so it must come last. */
static void attend_at_once(const pipeline *p, int b) {
    rw_rope_args rope = {.q = sequence_of(p, p->q, HEADS, b),
                         .k = sequence_of(p, p->k, KV_HEADS, b)};
    const rw_pattern pattern = {.causal = true};
    rw_attention_args args = {.q = rope.q,
                              .k = rope.k,
                              .v = sequence_of(p, p->v, KV_HEADS, b),
                              .out = sequence_of(p, p->expected, HEADS, b),
                              .pattern = &pattern};
    must(rw_rope_apply(context, p->rope, &rope));
    must(rw_attention(context, &args));
}

static void check_pipeline(rw_dtype dtype, double bound) {
    pipeline p;
    const int64_t count = (int64_t)BATCH * MAX_TOKENS * HEADS * DIM;
    open_pipeline(&p, dtype);
    make_workspace(&p);
    leave_alone();
    for (int n = 0; n < STEPS; n++) {
        append(&p, n);
        attend(&p, n);
    }
    for (int b = 0; b < BATCH; b++)
        attend_at_once(&p, b);
    finish();
    double *out = download_floats(dtype, p.out, count);
    double *expected = download_floats(dtype, p.expected, count);
    for (int b = 0; b < BATCH; b++)
        for (int64_t i = 0; i < (int64_t)MAX_TOKENS * HEADS * DIM; i++) {
            int64_t at = (int64_t)b * MAX_TOKENS * HEADS * DIM + i;
            if (i < (int64_t)p.on_host[STEPS][b] * HEADS * DIM)
                assert_near(out[at], expected[at], bound);
            else
                assert_true(isnan(out[at])); /* no token there */
        }
    free(out);
    free(expected);
    close_pipeline(&p);
}

static void test_pipeline_f32(void **state) {
    (void)state;
    check_pipeline(RW_F32, 1e-5);
}

static void test_pipeline_bf16(void **state) {
    (void)state;
    check_pipeline(RW_BF16, 1.6e-2);
}

static void test_pipeline_f16(void **state) {
    (void)state;
    check_pipeline(RW_F16, 2e-3);
}

/* ---- shards of the keys ---- */

enum {
    QUERIES = 80,
    KEYS = 200,
    SHARDS = 3
};

/* The starts of the shards, different for each sequence; for one sequence the last shard has one
 * key. */
static const int32_t cuts[SHARDS + 1][BATCH] = {{0, 0}, {70, 64}, {131, 199}, {KEYS, KEYS}};

typedef struct shards {
    rw_attention_args args; /* over all keys */
    int32_t *cuts;
    rw_attention_part whole;
    rw_attention_part parts[SHARDS];
    rw_attention_part merged;
} shards;

static rw_tensor make_floats(int64_t heads, int64_t seq, uint64_t seed) {
    const int64_t shape[] = {BATCH, seq, heads, DIM};
    return rw_tensor_contiguous(upload_floats(RW_F32, BATCH * heads * seq * DIM, seed), RW_F32, 4,
                                shape);
}

static rw_attention_part make_part(void) {
    const int64_t rows[] = {BATCH, HEADS, QUERIES};
    return (rw_attention_part){
        make_floats(HEADS, QUERIES, 0),
        rw_tensor_contiguous(upload_floats(RW_F32, BATCH * HEADS * QUERIES, 0), RW_F32, 3, rows)};
}

static void open_shards(shards *s) {
    memset(s, 0, sizeof *s);
    s->args.q = make_floats(HEADS, QUERIES, 4);
    s->args.k = make_floats(KV_HEADS, KEYS, 5);
    s->args.v = make_floats(KV_HEADS, KEYS, 6);
    s->whole = make_part();
    s->merged = make_part();
    for (int n = 0; n < SHARDS; n++)
        s->parts[n] = make_part();
    s->cuts = rwt_test_upload(context, cuts, sizeof cuts);
    leave_alone();
}

static void free_part(const rw_attention_part *part) {
    must(rw_free(context, part->out.data));
    must(rw_free(context, part->lse.data));
}

static void close_shards(const shards *s) {
    must(rw_free(context, s->args.q.data));
    must(rw_free(context, s->args.k.data));
    must(rw_free(context, s->args.v.data));
    must(rw_free(context, s->cuts));
    free_part(&s->whole);
    free_part(&s->merged);
    for (int n = 0; n < SHARDS; n++)
        free_part(&s->parts[n]);
}

static void attend_part(const rw_attention_args *like, const rw_attention_part *part) {
    rw_attention_args args = *like;
    args.out = part->out;
    args.lse = part->lse;
    must(rw_attention(context, &args));
}

/* Shard n as a pattern: query positions are those of the whole sequence. */
static void attend_shard(const shards *s, int n, bool causal) {
    const int64_t two = BATCH;
    rw_attention_args args = s->args;
    const rw_pattern pattern = {
        .causal = causal,
        .key_begin = rw_tensor_contiguous(s->cuts + n * BATCH, RW_I32, 1, &two),
        .key_end = rw_tensor_contiguous(s->cuts + (n + 1) * BATCH, RW_I32, 1, &two)};
    args.pattern = &pattern;
    attend_part(&args, &s->parts[n]);
}

static void merge(const rw_attention_part *a, const rw_attention_part *b,
                  const rw_attention_part *merged) {
    const rw_attention_merge_args args = {*a, *b, *merged};
    must(rw_attention_merge(context, &args));
}

static void compare_tensors(const rw_tensor *got, const rw_tensor *expected) {
    int64_t count = 1;
    for (int axis = 0; axis < got->rank; axis++)
        count *= got->shape[axis];
    double *a = download_floats(RW_F32, got->data, count);
    double *b = download_floats(RW_F32, expected->data, count);
    for (int64_t i = 0; i < count; i++)
        assert_near(a[i], b[i], 1e-5);
    free(a);
    free(b);
}

static void compare_parts(const rw_attention_part *got, const rw_attention_part *expected) {
    compare_tensors(&got->out, &expected->out);
    compare_tensors(&got->lse, &expected->lse);
}

/* Two halves as separate tensors, as on two devices. */
static void test_halves(void **state) {
    (void)state;
    shards s;
    open_shards(&s);
    attend_part(&s.args, &s.whole);
    for (int n = 0; n < 2; n++) {
        rw_attention_args half = s.args;
        half.k.shape[1] = half.v.shape[1] = KEYS / 2;
        half.k.data = (float *)half.k.data + n * (KEYS / 2) * KV_HEADS * DIM;
        half.v.data = (float *)half.v.data + n * (KEYS / 2) * KV_HEADS * DIM;
        attend_part(&half, &s.parts[n]);
    }
    merge(&s.parts[0], &s.parts[1], &s.merged);
    finish();
    compare_parts(&s.merged, &s.whole);
    leave_alone();
    merge(&s.parts[1], &s.parts[0], &s.parts[1]); /* in place, in reverse order */
    finish();
    compare_parts(&s.parts[1], &s.whole);
    close_shards(&s);
}

/* Three shards, merged from the left and from the right. With causal ones the last is hidden from
 * many queries. */
static void check_three(bool causal) {
    shards s;
    const rw_pattern pattern = {.causal = causal};
    open_shards(&s);
    s.args.pattern = &pattern;
    attend_part(&s.args, &s.whole);
    for (int n = 0; n < SHARDS; n++)
        attend_shard(&s, n, causal);
    merge(&s.parts[0], &s.parts[1], &s.merged);
    merge(&s.merged, &s.parts[2], &s.merged);
    merge(&s.parts[1], &s.parts[2], &s.parts[2]);
    merge(&s.parts[0], &s.parts[2], &s.parts[2]);
    finish();
    compare_parts(&s.merged, &s.whole);
    compare_parts(&s.parts[2], &s.whole);
    compare_parts(&s.parts[2], &s.merged);
    close_shards(&s);
}

static void test_three_shards(void **state) {
    (void)state;
    check_three(false);
    check_three(true);
}

int main(void) {
    if (!rwt_test_backend_usable())
        return RWT_TEST_SKIPPED;
    context = rwt_test_context();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pipeline_f32),  cmocka_unit_test(test_pipeline_f16),
        cmocka_unit_test(test_pipeline_bf16), cmocka_unit_test(test_halves),
        cmocka_unit_test(test_three_shards),
    };
    int failed = cmocka_run_group_tests_name("attention, pipeline", tests, NULL, NULL);
    rw_context_destroy(context);
    return failed;
}
