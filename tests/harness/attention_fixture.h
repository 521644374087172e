/* Valid arguments of attention, its merge and the products of its scores, for tests that make them
 * invalid. */
#ifndef RWT_ATTENTION_FIXTURE_H
#define RWT_ATTENTION_FIXTURE_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "harness/test_support.h"

#define MEMORY_FLOATS 8192

/* q [2, 3, 4, 16], k and v [2, 5, 2, 16]; a different call of each function over them. */
typedef struct fixture {
    rw_context *context;
    float *memory;
    float before[MEMORY_FLOATS];
    rw_attention_args attention;
    rw_qk_matmul_args qk;
    rw_weighted_matmul_args weighted;
    rw_score_statistics_args statistics;
    rw_attention_merge_args merge;
} fixture;

static inline rw_tensor tensor(float *data, int rank, const int64_t *shape) {
    return rw_tensor_contiguous(data, RW_F32, rank, shape);
}

static inline int open_fixture(void **state) {
    fixture *f = rwt_allocate(sizeof *f);
    f->context = rwt_test_context();
    for (int i = 0; i < MEMORY_FLOATS; i++)
        f->before[i] = (float)(i % 97) / 97.0f;
    float *m = f->memory = rwt_test_upload(f->context, f->before, sizeof f->before);
    const int64_t q[] = {2, 3, 4, 16}, k[] = {2, 5, 2, 16}, scores[] = {2, 4, 3, 5},
                  lse[] = {2, 4, 3};
    f->attention = (rw_attention_args){.q = tensor(m, 4, q),
                                       .k = tensor(m + 512, 4, k),
                                       .v = tensor(m + 1024, 4, k),
                                       .out = tensor(m + 1536, 4, q),
                                       .lse = tensor(m + 2048, 3, lse)};
    f->qk = (rw_qk_matmul_args){
        .q = tensor(m, 4, q), .k = tensor(m + 512, 4, k), .out = tensor(m + 2560, 4, scores)};
    f->weighted = (rw_weighted_matmul_args){.weights = tensor(m + 3072, 4, scores),
                                            .v = tensor(m + 512, 4, k),
                                            .out = tensor(m + 1536, 4, q)};
    f->statistics = (rw_score_statistics_args){.scores = tensor(m + 3072, 4, scores),
                                               .min = tensor(m + 4000, 2, lse)};
    f->merge =
        (rw_attention_merge_args){.a = {tensor(m, 4, q), tensor(m + 2048, 3, lse)},
                                  .b = {tensor(m + 4096, 4, q), tensor(m + 4608, 3, lse)},
                                  .merged = {tensor(m + 5120, 4, q), tensor(m + 5632, 3, lse)}};
    *state = f;
    return 0;
}

static inline int close_fixture(void **state) {
    fixture *f = *state;
    int status = rw_free(f->context, f->memory);
    rw_context_destroy(f->context);
    free(f);
    return status;
}

#define SPLIT_KEYS 1024
#define WORKSPACE 6144 /* offset in floats */

/* k and v as 3 pages of 16, of which two sequences have 2 each. */
static inline void make_paged(fixture *f) {
    const int64_t pages[] = {3, 16, 2, 16}, table[] = {2, 2};
    f->attention.k = tensor(f->memory + 2560, 4, pages);
    f->attention.v = tensor(f->memory + 4096, 4, pages);
    f->attention.block_table = rw_tensor_contiguous(f->memory + WORKSPACE, RW_I32, 2, table);
}

/* One query against many keys, all at the same 16 floats, and a workspace. With one
 * group of heads the keys are split on any device. Returns the workspace size in bytes. */
static inline int64_t make_split(fixture *f) {
    const int64_t q[] = {1, 1, 4, 16}, k[] = {1, SPLIT_KEYS, 1, 16}, lse[] = {1, 4, 1};
    f->attention.q = tensor(f->memory, 4, q);
    f->attention.k = tensor(f->memory + 512, 4, k);
    f->attention.v = tensor(f->memory + 1024, 4, k);
    f->attention.k.stride[1] = f->attention.v.stride[1] = 0;
    f->attention.out = tensor(f->memory + 1536, 4, q);
    f->attention.lse = tensor(f->memory + 2048, 3, lse);
    int64_t bytes = 0;
    assert_int_equal(rw_attention_workspace(f->context, &f->attention, &bytes), RW_OK);
    assert_in_range(bytes, 1, sizeof(float) * (MEMORY_FLOATS - WORKSPACE - 16));
    f->attention.workspace = rw_tensor_contiguous(f->memory + WORKSPACE, RW_U8, 1, &bytes);
    return bytes;
}

/* `got` is what the call returned. */
static inline void assert_refused(const fixture *f, rw_status got, rw_status expected,
                                  const char *function, const char *argument) {
    const rwt_guarded guarded = {f->context, f->memory, f->before, sizeof f->before};
    rwt_assert_refused(guarded, got, (rwt_refusal){expected, function, argument});
}

static inline void refuse_attention(fixture *f, rw_status expected, const char *argument) {
    assert_refused(f, rw_attention(f->context, &f->attention), expected, "rw_attention", argument);
}

#define WITH_FIXTURE(test) cmocka_unit_test_setup_teardown(test, open_fixture, close_fixture)

#endif
