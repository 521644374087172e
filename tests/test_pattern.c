/* Patterns: single pair, dense mask, bitmask and tile must agree, for 10^4 random patterns. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "harness/harness_binding.h"
#include "drivers/pattern_case.h"
#include "harness/test_support.h"

#define NUM_PATTERNS 10000
#define TILES_A_PATTERN 6

static rw_context *context;

/* ---- random patterns ---- */

#define CASE_FIELDS(FIELD)                                                                         \
    FIELD(batch, 1, NULL)                                                                          \
    FIELD(seq_q, 9, NULL)                                                                          \
    FIELD(seq_k, 9, NULL)                                                                          \
    RWT_PATTERN_FIELDS(FIELD)                                                                      \
    FIELD(seed, 0, NULL)

typedef struct pattern_case {
    CASE_FIELDS(RWT_MEMBER)
} pattern_case;

typedef struct plan {
    rwt_view mask;
    rwt_view bits;
    rwt_pattern_plan pattern;
} plan;

typedef struct call {
    rw_pattern pattern;
    rw_tensor mask;
    rw_tensor bits;
    int64_t seq_k;
} call;

static const pattern_case *case_of(const rwt_case *c) {
    return (const pattern_case *)c->values;
}

static const rwt_pattern_fields *fields_of(const rwt_case *c) {
    return (const rwt_pattern_fields *)&case_of(c)->causal;
}

static const char *invalid(const rwt_case *row) {
    const pattern_case *c = case_of(row);
    rw_pattern_shape shape = {c->batch, c->seq_q, c->seq_k};
    return rwt_pattern_invalid(fields_of(row), &shape);
}

static void fill(rwt_job *job) {
    const pattern_case *c = case_of(&job->c);
    plan *p = job->plan;
    rwt_layout mask = {3, {c->batch, c->seq_q, c->seq_k}, NULL, RWT_CONTIGUOUS};
    rwt_layout bits = {3, {c->batch, c->seq_q, (c->seq_k + 7) / 8}, NULL, RWT_CONTIGUOUS};
    rw_pattern_shape shape = {c->batch, c->seq_q, c->seq_k};
    p->mask = rwt_view_add(job, &mask, (rwt_buffer_spec){.name = "mask", .dtype = RW_F32});
    p->bits = rwt_view_add(job, &bits, (rwt_buffer_spec){.name = "bits", .dtype = RW_U8});
    rwt_pattern_add(job, fields_of(&job->c), &shape, &p->pattern);
}

static void bind(const rwt_job *job, rwt_set *set) {
    const plan *p = job->plan;
    *(call *)set->args = (call){
        .pattern = rwt_pattern_bind(job, set, fields_of(&job->c), &p->pattern),
        .mask = rwt_tensor(job, set, &p->mask),
        .bits = rwt_tensor(job, set, &p->bits),
        .seq_k = case_of(&job->c)->seq_k,
    };
}

static rw_status run(const rwt_binding *binding, const void *args) {
    const call *c = args;
    rw_status status = rw_pattern_fill(binding->context, &c->pattern, &c->mask);
    if (status != RW_OK)
        return status;
    return rw_pattern_fill_bits(binding->context, &c->pattern, c->seq_k, &c->bits);
}

static const rwt_field case_fields[] = {CASE_FIELDS(RWT_FIELD)};
static const rwt_case_row no_rows[] = {{RWT_QUICK, NULL}};

static const rwt_driver driver = {
    .name = "patterns",
    .fields = case_fields,
    .num_fields = RWT_COUNT(case_fields),
    .rows = no_rows,
    .random = "batch=1..2,seq_q=0..24,seq_k=1..40,causal=0|1,align=bottom|top|key_end,left=-1..30,"
              "right=-1|-1|0..9,prefixes=none|none|i32|i64,globals=0|0|1|4,documents=0|0|1|5,"
              "own=0|1,padding=none|none|left|right|both,bits=none|none|none|queries|batch|keys,"
              "hide=none|none|none|queries|batch|keys,part_dtype=i32|i64",
    .num_random = NUM_PATTERNS,
    .plan_size = sizeof(plan),
    .args_size = sizeof(call),
    .invalid = invalid,
    .fill = fill,
    .bind = bind,
    .run = run,
};

/* A pattern that has run on the context, and its tensors in host memory. */
typedef struct ran {
    rwt_job *job;
    rw_pattern pattern; /* on the host */
    rw_pattern_shape shape;
    rwt_images images;
    const float *mask;
    const uint8_t *bits;
} ran;

static ran run_case(const rwt_case *c) {
    const pattern_case *values = case_of(c);
    ran r = {.job = rwt_job_make(&driver, c, false),
             .shape = {values->batch, values->seq_q, values->seq_k}};
    const plan *p = r.job->plan;
    rwt_binding binding = {.job = NULL};
    rw_message message = {""};
    bool good = rwt_binding_open(&binding, r.job, context, 1, &message) &&
                rwt_binding_run(&binding, 0) == RW_OK && rw_synchronize(context) == RW_OK &&
                rwt_binding_download(&binding, &r.images, &message);
    if (!good)
        fail_msg("%s: %s %s", rwt_case_print(&driver, c).text, message.text,
                 rw_last_error(context));
    rwt_binding_close(&binding);
    r.pattern = rwt_pattern_bind(r.job, NULL, fields_of(c), &p->pattern);
    r.mask = (const float *)((const char *)r.images.data[p->mask.buffer] +
                             rwt_buffer_front(&r.job->buffers[p->mask.buffer]));
    r.bits = (const uint8_t *)r.images.data[p->bits.buffer] +
             rwt_buffer_front(&r.job->buffers[p->bits.buffer]);
    return r;
}

static void release(ran *r) {
    rwt_images_free(&r->images);
    rwt_job_free(r->job);
}

static bool visible(const ran *r, int64_t b, int64_t i, int64_t j) {
    rw_pattern_question question = {r->shape, {b, i, j}};
    rw_message message;
    bool answer;
    if (rw_pattern_visible(&r->pattern, &question, &answer, &message) != RW_OK)
        fail_msg("%s: %s", rwt_case_print(&driver, &r->job->c).text, message.text);
    return answer;
}

/* Compares single pair, dense mask and bitmask with the reference. */
static void check_cells(const ran *r) {
    const plan *p = r->job->plan;
    int64_t bytes = (r->shape.seq_k + 7) / 8;
    for (int64_t b = 0; b < r->shape.batch; b++)
        for (int64_t i = 0; i < r->shape.seq_q; i++)
            for (int64_t j = 0; j < 8 * bytes; j++) {
                int64_t row = b * r->shape.seq_q + i;
                bool bit = r->bits[row * bytes + j / 8] >> j % 8 & 1;
                rw_pattern_pair pair = {b, i, j};
                bool pairs = j < r->shape.seq_k && visible(r, b, i, j);
                bool filled = j < r->shape.seq_k && r->mask[row * r->shape.seq_k + j] == 0.0f;
                bool meant = j < r->shape.seq_k &&
                             rwt_pattern_sees(r->job, fields_of(&r->job->c), &p->pattern, &pair);
                if (bit != meant || pairs != meant || filled != meant)
                    fail_msg("%s: (%lld, %lld, %lld) is %d, pair %d, mask %d, bit %d",
                             rwt_case_print(&driver, &r->job->c).text, (long long)b, (long long)i,
                             (long long)j, meant, pairs, filled, bit);
                if (j < r->shape.seq_k && !filled)
                    assert_true(r->mask[row * r->shape.seq_k + j] == -INFINITY);
            }
}

/* Patterns of intervals that move by one key for each query: tiles are exact. */
static bool is_plain(const pattern_case *c) {
    return !c->globals && !c->documents && !c->bits && !c->hide;
}

static void check_tile(const ran *r, const rw_pattern_rectangle *at, int *certain) {
    rw_tile tile, exact;
    int64_t seen = 0, count = (at->i_end - at->i_begin) * (at->j_end - at->j_begin);
    assert_int_equal(rw_pattern_ask_tile(&r->pattern, at, &tile, NULL), RW_OK);
    for (int64_t i = at->i_begin; i < at->i_end; i++)
        for (int64_t j = at->j_begin; j < at->j_end; j++)
            seen += visible(r, at->b, i, j);
    exact = seen == 0 ? RW_TILE_NONE : seen == count ? RW_TILE_ALL : RW_TILE_SOME;
    bool wrong = tile != RW_TILE_SOME && tile != exact;
    if (wrong || (is_plain(case_of(&r->job->c)) && tile != exact))
        fail_msg("%s: queries [%lld, %lld) x keys [%lld, %lld) of %lld see %lld, the tile says %d",
                 rwt_case_print(&driver, &r->job->c).text, (long long)at->i_begin,
                 (long long)at->i_end, (long long)at->j_begin, (long long)at->j_end,
                 (long long)at->b, (long long)seen, (int)tile);
    certain[tile]++;
}

static void check_tiles(const ran *r, rwt_random *random, int *certain) {
    for (int n = 0; n < TILES_A_PATTERN; n++) {
        rw_pattern_rectangle at = {.shape = r->shape,
                                   .b = rwt_random_below(random, r->shape.batch)};
        at.i_begin = rwt_random_below(random, r->shape.seq_q + 1);
        at.i_end = at.i_begin + rwt_random_below(random, r->shape.seq_q - at.i_begin + 1);
        at.j_begin = rwt_random_below(random, r->shape.seq_k + 1);
        at.j_end = at.j_begin + rwt_random_below(random, r->shape.seq_k - at.j_begin + 1);
        check_tile(r, &at, certain);
    }
}

static void test_four_uses(void **state) {
    (void)state;
    const rwt_case_options options = {.tier = RWT_QUICK, .num_random = -1, .seed = 20261123};
    rwt_case_list list = rwt_case_list_make(&driver, &options);
    rwt_random random = {7};
    int certain[3] = {0};
    assert_true(list.count > NUM_PATTERNS / 2);
    for (size_t n = 0; n < list.count; n++) {
        ran r = run_case(&list.cases[n]);
        check_cells(&r);
        check_tiles(&r, &random, certain);
        release(&r);
    }
    print_message("%zu patterns; tiles: %d none, %d some, %d all\n", list.count, certain[0],
                  certain[1], certain[2]);
    for (int tile = 0; tile < 3; tile++)
        assert_true(certain[tile] > 100);
    rwt_case_list_free(&list);
}

/* ---- a function ---- */

/* Every key except those whose number has a common factor 3 with the query's. */
static bool unlike(void *user, const rw_pattern_pair *pair) {
    const int64_t *factor = user;
    return (pair->i + pair->j + pair->b) % *factor != 0;
}

static void test_function(void **state) {
    (void)state;
    enum {
        B = 2,
        Q = 7,
        K = 19,
        BYTES = 3
    };
    int64_t factor = 3;
    const rw_pattern pattern = {.causal = true, .function = unlike, .function_user = &factor};
    const rw_pattern_shape shape = {B, Q, K};
    const int64_t mask_shape[] = {B, Q, K}, bits_shape[] = {B, Q, BYTES};
    uint8_t bits[B * Q * BYTES];
    static float mask[B * Q * K];
    rw_message message = {""};
    assert_int_equal(rw_pattern_bake(&pattern, &shape, bits, &message), RW_OK);
    float *on_device = rwt_test_upload(context, mask, sizeof mask);
    void *bits_on_device = rwt_test_upload(context, bits, sizeof bits);
    rw_tensor out = rw_tensor_contiguous(on_device, RW_F32, 3, mask_shape);

    rw_status status = rw_pattern_fill(context, &pattern, &out);
    bool cpu = !strcmp(rw_context_get_info(context).backend, "cpu");
    assert_int_equal(status, cpu ? RW_OK : RW_UNSUPPORTED);
    if (!cpu)
        assert_true(rwt_test_says(rw_last_error(context), "rw_pattern_bake"));
    rw_pattern baked = {.bits = rw_tensor_contiguous(bits_on_device, RW_U8, 3, bits_shape)};
    for (int round = cpu ? 0 : 1; round < 2; round++) { /* by the function, then by its bits */
        if (round == 1)
            assert_int_equal(rw_pattern_fill(context, &baked, &out), RW_OK);
        assert_int_equal(rw_synchronize(context), RW_OK);
        rwt_test_download(context, mask, on_device, sizeof mask);
        for (int64_t n = 0; n < B * Q * K; n++) {
            rw_pattern_pair pair = {n / K / Q, n / K % Q, n % K};
            bool sees = pair.j <= pair.i + K - Q && unlike(&factor, &pair);
            assert_true(mask[n] == (sees ? 0.0f : -INFINITY));
        }
    }
    rw_free(context, on_device);
    rw_free(context, bits_on_device);
}

/* ---- a chunk of queries in a cache ---- */

/* Three queries at the end of sequences of 5, 3, 2 and 0 keys, in a cache of 8. */
static void test_chunk(void **state) {
    (void)state;
    enum {
        B = 4,
        Q = 3,
        K = 8
    };
    static const int32_t ends[B] = {5, 3, 2, 0};
    static const uint8_t expected[B * Q] = {0x07, 0x0F, 0x1F, 0x01, 0x03, 0x07,
                                            0x00, 0x01, 0x03, 0x00, 0x00, 0x00};
    const int64_t batch[] = {B}, bits_shape[] = {B, Q, 1};
    const rw_pattern_shape shape = {B, Q, K};
    uint8_t bits[B * Q] = {0};
    rw_message message = {""};
    rw_pattern pattern = {.causal = true, .alignment = RW_ALIGN_KEY_END};
    pattern.key_end = rw_tensor_contiguous((void *)ends, RW_I32, 1, batch);
    assert_int_equal(rw_pattern_bake(&pattern, &shape, bits, &message), RW_OK);
    assert_memory_equal(bits, expected, sizeof bits);

    void *on_device = rwt_test_upload(context, ends, sizeof ends);
    memset(bits, 0, sizeof bits);
    void *out_on_device = rwt_test_upload(context, bits, sizeof bits);
    rw_tensor out = rw_tensor_contiguous(out_on_device, RW_U8, 3, bits_shape);
    pattern.key_end.data = on_device;
    assert_int_equal(rw_pattern_fill_bits(context, &pattern, K, &out), RW_OK);
    assert_int_equal(rw_synchronize(context), RW_OK);
    rwt_test_download(context, bits, out_on_device, sizeof bits);
    assert_memory_equal(bits, expected, sizeof bits);
    rw_free(context, on_device);
    rw_free(context, out_on_device);
}

static int64_t twice(void *user, int64_t b, int64_t pos) {
    (void)user;
    return 2 * pos + 1000 * b;
}

static void test_function_of_ids(void **state) {
    (void)state;
    const int64_t shape[] = {2, 5};
    int64_t ids[10] = {0};
    void *memory = rwt_test_upload(context, ids, sizeof ids);
    rw_pattern_positions_args args = {.out = rw_tensor_contiguous(memory, RW_I64, 2, shape),
                                      .ids = RW_PATTERN_IDS_CUSTOM,
                                      .function = twice};
    rw_status status = rw_pattern_positions(context, &args);
    if (!strcmp(rw_context_get_info(context).backend, "cpu")) {
        assert_int_equal(status, RW_OK);
        rwt_test_download(context, ids, memory, sizeof ids);
        for (int64_t n = 0; n < 10; n++)
            assert_int_equal(ids[n], twice(NULL, n / 5, n % 5));
    } else {
        assert_int_equal(status, RW_UNSUPPORTED);
        assert_true(rwt_test_says(rw_last_error(context), "table"));
    }
    rw_free(context, memory);
}

/* ---- globals from a list ---- */

static void test_globals(void **state) {
    (void)state;
    const int64_t positions[] = {9, 0, 9, 15, 3};
    const int64_t beyond[] = {1, 16}, below[] = {-1};
    uint8_t bits[2] = {255, 255};
    rw_message message = {""};
    rw_pattern_globals_list list = {positions, 5, 16};
    assert_int_equal(rw_pattern_globals(&list, bits, &message), RW_OK);
    assert_int_equal(bits[0], 1 << 0 | 1 << 3);
    assert_int_equal(bits[1], 1 << 1 | 1 << 7);
    list = (rw_pattern_globals_list){beyond, 2, 16};
    assert_int_equal(rw_pattern_globals(&list, bits, &message), RW_INVALID_ARGUMENT);
    assert_string_equal(message.text, "rw_pattern_globals: positions[1] is 16, expected 0 to 15");
    list = (rw_pattern_globals_list){below, 1, 16};
    assert_int_equal(rw_pattern_globals(&list, bits, &message), RW_INVALID_ARGUMENT);
    assert_int_equal(bits[0], 1 << 0 | 1 << 3); /* unchanged */
    list = (rw_pattern_globals_list){NULL, 0, 0};
    assert_int_equal(rw_pattern_globals(&list, NULL, &message), RW_OK);
    list.positions = NULL;
    list.count = 1;
    assert_int_equal(rw_pattern_globals(&list, bits, NULL), RW_INVALID_ARGUMENT);
}

/* ---- position ids from a table ---- */

/* Ids on the device of these arguments, seq tokens in a row. */
static void assert_ids(rw_pattern_positions_args args, int64_t seq, const int64_t *expected) {
    int64_t got[32] = {0};
    void *out = rwt_test_upload(context, got, sizeof got);
    args.out = rw_tensor_contiguous(out, RW_I64, 1, &seq);
    assert_int_equal(rw_pattern_positions(context, &args), RW_OK);
    assert_int_equal(rw_synchronize(context), RW_OK);
    rwt_test_download(context, got, out, sizeof got);
    assert_memory_equal(got, expected, (size_t)seq * sizeof *got);
    rw_free(context, out);
}

static void test_table_of_ids(void **state) {
    (void)state;
    const uint8_t bits = 1 << 0 | 1 << 5;
    const int64_t cuts[] = {0, 4, 8}, one[] = {1}, three[] = {3};
    void *globals = rwt_test_upload(context, &bits, sizeof bits);
    void *documents = rwt_test_upload(context, cuts, sizeof cuts);
    rw_pattern_positions_args args = {.ids = RW_PATTERN_IDS_SEQUENTIAL};
    assert_ids(args, 8, (const int64_t[]){0, 1, 2, 3, 4, 5, 6, 7});
    args = (rw_pattern_positions_args){.ids = RW_PATTERN_IDS_LOCAL, .window = 3};
    assert_ids(args, 8, (const int64_t[]){0, 0, 0, 0, 1, 2, 3, 4});
    args.cu_seqlens = rw_tensor_contiguous(documents, RW_I64, 1, three);
    args.window = 1;
    assert_ids(args, 8, (const int64_t[]){0, 0, 1, 2, 0, 0, 1, 2});
    args = (rw_pattern_positions_args){.ids = RW_PATTERN_IDS_GLOBAL_LOCAL,
                                       .window = 3,
                                       .globals = rw_tensor_contiguous(globals, RW_U8, 1, one)};
    assert_ids(args, 8, (const int64_t[]){0, 1, 2, 0, 1, 5, 0, 1});
    args.window = 0;
    args.out = rw_tensor_contiguous(documents, RW_I64, 1, three);
    assert_int_equal(rw_pattern_positions(context, &args), RW_INVALID_ARGUMENT);
    assert_true(rwt_test_says(rw_last_error(context), "window is 0, expected 1"));
    args = (rw_pattern_positions_args){.ids = RW_PATTERN_IDS_CUSTOM, .out = args.out};
    assert_int_equal(rw_pattern_positions(context, &args), RW_INVALID_ARGUMENT);
    args.ids = (rw_pattern_ids)4;
    assert_int_equal(rw_pattern_positions(context, &args), RW_INVALID_ARGUMENT);
    rw_free(context, globals);
    rw_free(context, documents);
}

static int open_context(void **state) {
    (void)state;
    rwt_test_restore_crash_handlers();
    context = rwt_test_context();
    return 0;
}

static int close_context(void **state) {
    (void)state;
    rw_context_destroy(context);
    return 0;
}

int main(void) {
    rwt_test_keep_crash_handlers();
    if (!rwt_test_backend_usable())
        return RWT_TEST_SKIPPED;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_four_uses),       cmocka_unit_test(test_function),
        cmocka_unit_test(test_function_of_ids), cmocka_unit_test(test_globals),
        cmocka_unit_test(test_chunk),           cmocka_unit_test(test_table_of_ids),
    };
    return cmocka_run_group_tests(tests, open_context, close_context);
}
