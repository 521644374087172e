/* Cosines and sines at every position below 2^20, through the public API: rotating the pair (1, 0)
 * gives (c, s), rotating (0, 1) gives (-s, c). */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "drivers/rope_reference.h"
#include "harness/test_support.h"

#define NUM_POSITIONS ((int64_t)1 << 20)
#define BOUND 0x1p-22
#define CHUNK 16384
#define MAX_HEAD_DIM 256

typedef struct measure {
    rw_context *context;
    rw_rope *rope;
    int64_t head_dim;
    double inv_freq[MAX_HEAD_DIM / 2];
    double attention_factor;
    int64_t count; /* number of pending positions */
    int64_t positions[CHUNK];
    double worst;
    int64_t worst_position;
} measure;

/* Rows of ones, then zeros; or the reverse. */
static float *unit_rows(const measure *m, bool ones_first) {
    int64_t half = m->head_dim / 2;
    float *rows = rwt_allocate((size_t)(CHUNK * m->head_dim) * sizeof *rows);
    for (int64_t i = 0; i < CHUNK * m->head_dim; i++)
        rows[i] = (i / half % 2 == 0) == ones_first ? 1.0f : 0.0f;
    return rows;
}

static void judge(measure *m, const float *q, const float *k) {
    int64_t half = m->head_dim / 2;
    for (int64_t t = 0; t < m->count; t++) {
        for (int64_t i = 0; i < half; i++) {
            double angle = (double)m->positions[t] * m->inv_freq[i];
            double c = m->attention_factor * cos(angle), s = m->attention_factor * sin(angle);
            const float *from_1_0 = q + t * m->head_dim + i, *from_0_1 = k + t * m->head_dim + i;
            double errors[] = {from_1_0[0] - c, from_1_0[half] - s, from_0_1[0] + s,
                               from_0_1[half] - c};
            for (int e = 0; e < 4; e++) {
                double error = fabs(errors[e]) / m->attention_factor;
                if (!(error <= m->worst)) {
                    m->worst = error;
                    m->worst_position = m->positions[t];
                }
            }
        }
    }
}

/* Rotates the pending positions and compares. */
static void flush(measure *m) {
    size_t bytes = (size_t)(CHUNK * m->head_dim) * sizeof(float);
    float *host_q = unit_rows(m, true), *host_k = unit_rows(m, false);
    float *q = rwt_test_upload(m->context, host_q, bytes);
    float *k = rwt_test_upload(m->context, host_k, bytes);
    int64_t *ids = rwt_test_upload(m->context, m->positions, sizeof m->positions);
    const int64_t shape[] = {m->count, 1, m->head_dim};
    rw_rope_args args = {.q = rw_tensor_contiguous(q, RW_F32, 3, shape),
                         .k = rw_tensor_contiguous(k, RW_F32, 3, shape),
                         .positions = rw_tensor_contiguous(ids, RW_I64, 1, shape)};
    assert_int_equal(rw_rope_apply(m->context, m->rope, &args), RW_OK);
    assert_int_equal(rw_synchronize(m->context), RW_OK);
    rwt_test_download(m->context, host_q, q, bytes);
    rwt_test_download(m->context, host_k, k, bytes);
    judge(m, host_q, host_k);
    assert_int_equal(rw_free(m->context, q) | rw_free(m->context, k), RW_OK);
    assert_int_equal(rw_free(m->context, ids), RW_OK);
    free(host_q);
    free(host_k);
    m->count = 0;
}

static void add(measure *m, int64_t position) {
    if (position < 0 || position >= NUM_POSITIONS)
        return;
    m->positions[m->count++] = position;
    if (m->count == CHUNK)
        flush(m);
}

/* Random positions and all those near a power of two, or near the row boundaries of any two-level
 * table. */
static void add_sample(measure *m) {
    rwt_random random = {7};
    for (int64_t power = 1; power <= NUM_POSITIONS; power *= 2) {
        for (int64_t near = -5; near <= 5; near++)
            add(m, power + near);
    }
    for (int64_t seam = 0; seam < NUM_POSITIONS; seam += 512) {
        for (int64_t near = -1; near <= 1; near++)
            add(m, seam + near);
    }
    for (int64_t i = 0; i < 30000; i++)
        add(m, rwt_random_below(&random, NUM_POSITIONS));
}

static void add_every(measure *m) {
    for (int64_t position = 0; position < NUM_POSITIONS; position++)
        add(m, position);
}

static void check_spec(const rw_rope_spec *spec, void (*add_positions)(measure *)) {
    measure *m = rwt_allocate(sizeof *m);
    m->context = rwt_test_context();
    m->head_dim = spec->head_dim;
    rwt_rope_frequencies(spec, 0, m->inv_freq, &m->attention_factor);
    rw_rope_options options = {.spec = *spec, .max_positions = NUM_POSITIONS};
    assert_int_equal(rw_rope_create(m->context, &options, &m->rope), RW_OK);
    add_positions(m);
    if (m->count > 0)
        flush(m);
    print_message("theta %g, head_dim %lld: worst error %.3g of %.3g, at position %lld\n",
                  spec->theta, (long long)spec->head_dim, m->worst, BOUND,
                  (long long)m->worst_position);
    assert_true(m->worst > 0.0); /* zero: nothing was compared, f32 is not exact */
    assert_true(m->worst <= BOUND);
    rw_rope_destroy(m->rope);
    rw_context_destroy(m->context);
    free(m);
}

static void test_every_position(void **state) {
    (void)state;
    rw_rope_spec spec = {.head_dim = 16, .theta = 10000.0};
    check_spec(&spec, add_every);
}

static void test_all_frequencies_of_a_head(void **state) {
    (void)state;
    rw_rope_spec plain = {.head_dim = 128, .theta = 10000.0};
    rw_rope_spec llama3 = {.head_dim = 128,
                           .type = RW_ROPE_LLAMA3,
                           .theta = 500000.0,
                           .factor = 8.0,
                           .low_freq_factor = 1.0,
                           .high_freq_factor = 4.0,
                           .original_max_position_embeddings = 8192};
    rw_rope_spec yarn = {.head_dim = 128,
                         .type = RW_ROPE_YARN,
                         .theta = 1000000.0,
                         .factor = 4.0,
                         .original_max_position_embeddings = 32768};
    check_spec(&plain, add_sample);
    check_spec(&llama3, add_sample);
    check_spec(&yarn, add_sample);
}

static void test_tables_are_small(void **state) {
    (void)state;
    rw_context *context = rwt_test_context();
    rw_rope_options options = {.spec = {.head_dim = MAX_HEAD_DIM}, .max_positions = NUM_POSITIONS};
    rw_rope *rope;
    uint64_t before = rw_context_transfers(context).host_to_device_bytes;
    assert_int_equal(rw_rope_create(context, &options, &rope), RW_OK);
    uint64_t bytes = rw_context_transfers(context).host_to_device_bytes - before;
    print_message("tables of 2^20 positions at head_dim %d: %llu bytes\n", MAX_HEAD_DIM,
                  (unsigned long long)bytes);
    assert_true(bytes > 0 && bytes <= 8u << 20);
    rw_rope_destroy(rope);
    rw_context_destroy(context);
}

int main(void) {
    if (!rwt_test_backend_usable())
        return RWT_TEST_SKIPPED;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_position),
        cmocka_unit_test(test_all_frequencies_of_a_head),
        cmocka_unit_test(test_tables_are_small),
    };
    return cmocka_run_group_tests_name("rope tables", tests, NULL, NULL);
}
