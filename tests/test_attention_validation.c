/* Attention and the matrix products before and after the softmax: every invalid call. Each must be
 * refused with a sentence that names the function and the argument, and nothing may be written. */
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

static rw_tensor tensor(float *data, int rank, const int64_t *shape) {
    return rw_tensor_contiguous(data, RW_F32, rank, shape);
}

static int open_fixture(void **state) {
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

static int close_fixture(void **state) {
    fixture *f = *state;
    int status = rw_free(f->context, f->memory);
    rw_context_destroy(f->context);
    free(f);
    return status;
}

#define SPLIT_KEYS 1024
#define WORKSPACE 6144 /* offset in floats */

/* k and v as 3 pages of 16, of which two sequences have 2 each. */
static void make_paged(fixture *f) {
    const int64_t pages[] = {3, 16, 2, 16}, table[] = {2, 2};
    f->attention.k = tensor(f->memory + 2560, 4, pages);
    f->attention.v = tensor(f->memory + 4096, 4, pages);
    f->attention.block_table = rw_tensor_contiguous(f->memory + WORKSPACE, RW_I32, 2, table);
}

/* One query against many keys, all at the same 16 floats, and a workspace. With one
 * group of heads the keys are split on any device. Returns the workspace size in bytes. */
static int64_t make_split(fixture *f) {
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
static void assert_refused(const fixture *f, rw_status got, rw_status expected,
                           const char *function, const char *argument) {
    const rwt_guarded guarded = {f->context, f->memory, f->before, sizeof f->before};
    rwt_assert_refused(guarded, got, (rwt_refusal){expected, function, argument});
}

static void refuse_attention(fixture *f, rw_status expected, const char *argument) {
    assert_refused(f, rw_attention(f->context, &f->attention), expected, "rw_attention", argument);
}

static void test_valid(void **state) {
    fixture *f = *state;
    assert_int_equal(rw_attention(f->context, &f->attention), RW_OK);
    assert_int_equal(rw_qk_matmul(f->context, &f->qk), RW_OK);
    assert_int_equal(rw_weighted_matmul(f->context, &f->weighted), RW_OK);
    assert_int_equal(rw_score_statistics(f->context, &f->statistics), RW_OK);
    assert_int_equal(rw_attention_merge(f->context, &f->merge), RW_OK);
    assert_int_equal(rw_synchronize(f->context), RW_OK);
}

static void test_null(void **state) {
    fixture *f = *state;
    assert_int_equal(rw_attention(NULL, &f->attention), RW_INVALID_ARGUMENT);
    assert_int_equal(rw_attention(f->context, NULL), RW_INVALID_ARGUMENT);
    assert_int_equal(rw_qk_matmul(f->context, NULL), RW_INVALID_ARGUMENT);
    assert_int_equal(rw_weighted_matmul(f->context, NULL), RW_INVALID_ARGUMENT);
    assert_int_equal(rw_score_statistics(f->context, NULL), RW_INVALID_ARGUMENT);
    assert_int_equal(rw_attention_merge(f->context, NULL), RW_INVALID_ARGUMENT);
    f->attention.k.data = NULL;
    refuse_attention(f, RW_INVALID_ARGUMENT, "k.data");
}

static void test_attention_shapes(void **state) {
    fixture *f = *state;
    const rw_attention_args good = f->attention;
    f->attention.k.shape[2] = 3;
    f->attention.v.shape[2] = 3;
    refuse_attention(f, RW_INVALID_ARGUMENT, "divisor");
    f->attention = good;
    f->attention.v.shape[1] = 4;
    refuse_attention(f, RW_INVALID_ARGUMENT, "v has shape");
    f->attention = good;
    f->attention.k.shape[3] = 8;
    refuse_attention(f, RW_INVALID_ARGUMENT, "k has shape");
    f->attention = good;
    f->attention.out.shape[1] = 2;
    refuse_attention(f, RW_INVALID_ARGUMENT, "out has shape");
    f->attention = good;
    f->attention.lse.shape[1] = 2;
    refuse_attention(f, RW_INVALID_ARGUMENT, "lse has shape");
    f->attention = good;
    f->attention.lse.dtype = RW_F16;
    refuse_attention(f, RW_UNSUPPORTED, "lse");
    f->attention = good;
    f->attention.v.dtype = RW_BF16;
    refuse_attention(f, RW_INVALID_ARGUMENT, "v has dtype");
    const int64_t widths[] = {0, 4, 12, 264};
    for (int i = 0; i < 4; i++) {
        f->attention = good;
        f->attention.v.shape[3] = widths[i];
        refuse_attention(f, RW_UNSUPPORTED, "multiple of 8");
    }
}

static void test_attention_rules(void **state) {
    fixture *f = *state;
    const rw_attention_args good = f->attention;
    const int64_t two[] = {2};
    const double softcaps[] = {-1.0, INFINITY, NAN};
    for (int i = 0; i < 3; i++) {
        f->attention.softcap = softcaps[i];
        refuse_attention(f, RW_INVALID_ARGUMENT, "softcap");
    }
    f->attention = good;
    f->attention.scale = NAN;
    refuse_attention(f, RW_INVALID_ARGUMENT, "scale");
    f->attention = good;
    f->attention.sinks = tensor(f->memory + 4000, 1, two);
    refuse_attention(f, RW_INVALID_ARGUMENT, "sinks");
    f->attention = good;
    f->attention.mask = tensor(f->memory + 4000, 1, two);
    refuse_attention(f, RW_INVALID_ARGUMENT, "mask");
    f->attention = good;
    rw_pattern pattern = {.prefix_length = -1};
    f->attention.pattern = &pattern;
    refuse_attention(f, RW_INVALID_ARGUMENT, "prefix");
    pattern = (rw_pattern){.causal = true, .alignment = RW_ALIGN_KEY_END};
    refuse_attention(f, RW_INVALID_ARGUMENT, "pattern.key_end is absent");
    const int64_t heads[] = {4};
    rw_alibi alibi = {tensor(f->memory + 4000, 1, heads), false, RW_ALIGN_KEY_END};
    f->attention.alibi = &alibi;
    pattern.alignment = RW_ALIGN_BOTTOM_RIGHT;
    refuse_attention(f, RW_INVALID_ARGUMENT, "pattern.key_end is absent");
    f->attention.pattern = NULL;
    refuse_attention(f, RW_INVALID_ARGUMENT, "pattern.key_end is absent");
}

static void test_attention_overlap(void **state) {
    fixture *f = *state;
    const rw_attention_args good = f->attention;
    f->attention.out.data = good.q.data;
    refuse_attention(f, RW_INVALID_ARGUMENT, "out overlaps q");
    f->attention = good;
    f->attention.lse.data = good.v.data;
    refuse_attention(f, RW_INVALID_ARGUMENT, "lse overlaps v");
    f->attention = good;
    f->attention.lse.data = good.out.data;
    refuse_attention(f, RW_INVALID_ARGUMENT, "out overlaps lse");
    f->attention = good;
    f->attention.out.stride[0] = 0;
    refuse_attention(f, RW_INVALID_ARGUMENT, "out has strides");
    f->attention = good;
    const int64_t mask[] = {3, 5};
    f->attention.mask = tensor(good.lse.data, 2, mask);
    refuse_attention(f, RW_INVALID_ARGUMENT, "lse overlaps mask");
}

static void test_block_table(void **state) {
    fixture *f = *state;
    make_paged(f);
    const rw_attention_args good = f->attention;
    const int64_t rows[] = {1, 3, 0}, sizes[] = {0, 1, 8, 24, 48};
    f->attention.block_table.rank = 1;
    refuse_attention(f, RW_INVALID_ARGUMENT, "block_table has rank 1");
    f->attention.block_table.rank = 9;
    refuse_attention(f, RW_INVALID_ARGUMENT, "block_table has rank 9");
    f->attention = good;
    f->attention.block_table.dtype = RW_F32;
    refuse_attention(f, RW_UNSUPPORTED, "block_table has dtype f32");
    f->attention = good;
    f->attention.block_table.data = NULL;
    refuse_attention(f, RW_INVALID_ARGUMENT, "block_table.data is NULL");
    f->attention = good;
    f->attention.block_table.shape[1] = -1;
    refuse_attention(f, RW_INVALID_ARGUMENT, "block_table has shape [2, -1]");
    for (int i = 0; i < 3; i++) {
        f->attention = good;
        f->attention.block_table.shape[0] = rows[i];
        refuse_attention(f, RW_INVALID_ARGUMENT, "block_table has shape");
    }
    for (int i = 0; i < 5; i++) {
        f->attention = good;
        f->attention.k.shape[1] = f->attention.v.shape[1] = sizes[i];
        refuse_attention(f, RW_INVALID_ARGUMENT, "k has pages of");
    }
    f->attention = good;
    f->attention.v.shape[0] = 2;
    refuse_attention(f, RW_INVALID_ARGUMENT, "v has shape [2, 16, 2, 16]");
    f->attention = good;
    f->attention.v.shape[1] = 32;
    refuse_attention(f, RW_INVALID_ARGUMENT, "v has shape [3, 32, 2, 16]");
    f->attention = good;
    f->attention.out.data = good.block_table.data;
    refuse_attention(f, RW_INVALID_ARGUMENT, "out overlaps block_table");
    f->attention = good;
    f->attention.lse.data = good.block_table.data;
    refuse_attention(f, RW_INVALID_ARGUMENT, "lse overlaps block_table");
}

/* More keys than the supported maximum. */
static void test_long_tables(void **state) {
    fixture *f = *state;
    make_paged(f);
    f->attention.block_table.stride[1] = 0;
    f->attention.block_table.shape[1] = (int64_t)1 << 27;
    refuse_attention(f, RW_INVALID_ARGUMENT, "seq_k is 2147483648");
    f->attention.block_table.shape[1] = (int64_t)1 << 60;
    refuse_attention(f, RW_INVALID_ARGUMENT, "block_table has");
}

static void test_workspace(void **state) {
    fixture *f = *state;
    const int64_t bytes = make_split(f);
    const rw_attention_args good = f->attention;
    const int32_t ranks[] = {-1, 2, 4, 5, 9};
    for (int axis = 1; axis < RW_MAX_RANK; axis++) /* the excess axes are not empty */
        f->attention.workspace.shape[axis] = f->attention.workspace.stride[axis] = 1;
    for (int i = 0; i < 5; i++) {
        f->attention.workspace.rank = ranks[i];
        refuse_attention(f, RW_INVALID_ARGUMENT, "workspace has rank");
    }
    f->attention = good;
    f->attention.workspace.dtype = RW_F32;
    refuse_attention(f, RW_UNSUPPORTED, "workspace has dtype f32");
    f->attention.workspace.dtype = (rw_dtype)99;
    refuse_attention(f, RW_UNSUPPORTED, "workspace has dtype");
    f->attention = good;
    f->attention.workspace.shape[0] = bytes - 1;
    refuse_attention(f, RW_INVALID_ARGUMENT, "workspace has");
    f->attention.workspace.shape[0] = 0;
    refuse_attention(f, RW_INVALID_ARGUMENT, "workspace has 0 bytes");
    f->attention.workspace.shape[0] = -1;
    refuse_attention(f, RW_INVALID_ARGUMENT, "workspace has shape [-1]");
    f->attention = good;
    f->attention.workspace.data = NULL;
    refuse_attention(f, RW_INVALID_ARGUMENT, "workspace.data is NULL");
    f->attention = good;
    f->attention.workspace.stride[0] = 2;
    refuse_attention(f, RW_INVALID_ARGUMENT, "workspace has stride 2");
    for (int by = 1; by < 16; by++) {
        f->attention = good;
        f->attention.workspace.data = (char *)good.workspace.data + by;
        refuse_attention(f, RW_INVALID_ARGUMENT, "workspace.data is");
    }
}

/* The workspace overlaps the start of an argument. */
static void refuse_overlap(fixture *f, const void *data, const char *words) {
    void *apart = f->attention.workspace.data;
    memcpy(&f->attention.workspace.data, &data, sizeof data);
    refuse_attention(f, RW_INVALID_ARGUMENT, words);
    f->attention.workspace.data = apart;
}

static void test_workspace_overlap(void **state) {
    fixture *f = *state;
    const int64_t bytes = make_split(f), keys[] = {SPLIT_KEYS}, heads[] = {4}, one[] = {1};
    float *m = f->memory;
    rw_pattern pattern = {.key_end = rw_tensor_contiguous(m + 3600, RW_I32, 1, one)};
    rw_alibi alibi = {.slopes = tensor(m + 4000, 1, heads)};
    f->attention.mask = tensor(m + 2560, 1, keys);
    f->attention.sinks = tensor(m + 4400, 1, heads);
    f->attention.pattern = &pattern;
    f->attention.alibi = &alibi;
    refuse_overlap(f, f->attention.q.data, "workspace overlaps q");
    refuse_overlap(f, f->attention.k.data, "workspace overlaps k");
    refuse_overlap(f, f->attention.v.data, "workspace overlaps v");
    refuse_overlap(f, f->attention.out.data, "workspace overlaps out");
    refuse_overlap(f, f->attention.lse.data, "workspace overlaps lse");
    refuse_overlap(f, f->attention.mask.data, "workspace overlaps mask");
    refuse_overlap(f, m + 3600, "workspace overlaps pattern.key_end");
    refuse_overlap(f, m + 4000, "workspace overlaps alibi.slopes");
    refuse_overlap(f, m + 4400, "workspace overlaps sinks");
    refuse_overlap(f, (char *)f->attention.v.data - bytes + 16, "workspace overlaps v");
    const int64_t table[] = {1, SPLIT_KEYS / 16};
    f->attention.block_table = rw_tensor_contiguous(m + 4800, RW_I32, 2, table);
    f->attention.k.shape[1] = f->attention.v.shape[1] = 16;
    refuse_overlap(f, m + 4800, "workspace overlaps block_table");
    for (int axis = 1; axis < RW_MAX_RANK; axis++)
        f->attention.sinks.shape[axis] = f->attention.sinks.stride[axis] = 1;
    f->attention.sinks.rank = 9;
    refuse_attention(f, RW_INVALID_ARGUMENT, "sinks has rank 9");
}

/* The requested number of bytes is sufficient, nothing is written after them, and the combined
 * parts equal the result without a workspace. */
static void test_exact_workspace(void **state) {
    fixture *f = *state;
    static float whole[MEMORY_FLOATS], parts[MEMORY_FLOATS];
    const int64_t bytes = make_split(f);
    const rw_attention_args split = f->attention;
    f->attention.workspace.rank = 0;
    assert_int_equal(rw_attention(f->context, &f->attention), RW_OK);
    assert_int_equal(rw_synchronize(f->context), RW_OK);
    rwt_test_download(f->context, whole, f->memory, sizeof whole);
    assert_int_equal(rw_attention(f->context, &split), RW_OK);
    assert_int_equal(rw_synchronize(f->context), RW_OK);
    rwt_test_download(f->context, parts, f->memory, sizeof parts);
    for (int i = 0; i < WORKSPACE; i++)
        assert_true(fabs((double)whole[i] - (double)parts[i]) <= 1e-5);
    assert_memory_not_equal((char *)(parts + WORKSPACE), (char *)(f->before + WORKSPACE),
                            (size_t)bytes);
    assert_memory_equal((char *)(parts + WORKSPACE) + bytes,
                        (char *)(f->before + WORKSPACE) + bytes,
                        sizeof parts - WORKSPACE * sizeof *parts - (size_t)bytes);
}

/* Where a workspace has no use none is required, and one of 0 or any other number of bytes is
 * accepted. */
static void test_needless_workspace(void **state) {
    fixture *f = *state;
    int64_t bytes = -1, none[] = {0}, some[] = {5};
    assert_int_equal(rw_attention_workspace(f->context, &f->attention, &bytes), RW_OK);
    assert_int_equal(bytes, 0);
    f->attention.workspace = rw_tensor_contiguous(NULL, RW_U8, 1, none);
    assert_int_equal(rw_attention(f->context, &f->attention), RW_OK);
    f->attention.workspace =
        rw_tensor_contiguous((char *)(f->memory + WORKSPACE) + 1, RW_U8, 1, some);
    assert_int_equal(rw_attention(f->context, &f->attention), RW_OK);
    assert_int_equal(rw_synchronize(f->context), RW_OK);
}

static void refuse_size(const fixture *f, rw_status expected, const char *argument) {
    int64_t bytes = 77;
    assert_refused(f, rw_attention_workspace(f->context, &f->attention, &bytes), expected,
                   "rw_attention_workspace", argument);
    assert_int_equal(bytes, 77);
}

static void test_workspace_size(void **state) {
    fixture *f = *state;
    const int64_t expected = make_split(f);
    int64_t bytes = 77;
    assert_int_equal(rw_attention_workspace(NULL, &f->attention, &bytes), RW_INVALID_ARGUMENT);
    assert_refused(f, rw_attention_workspace(f->context, NULL, &bytes), RW_INVALID_ARGUMENT,
                   "rw_attention_workspace", "args is NULL");
    assert_int_equal(bytes, 77);
    assert_refused(f, rw_attention_workspace(f->context, &f->attention, NULL), RW_INVALID_ARGUMENT,
                   "rw_attention_workspace", "bytes is NULL");
    const rw_attention_args good = f->attention;
    f->attention.workspace = (rw_tensor){.rank = 9}; /* ignored */
    assert_int_equal(rw_attention_workspace(f->context, &f->attention, &bytes), RW_OK);
    assert_int_equal(bytes, expected);
    f->attention = good;
    f->attention.q.rank = 2;
    refuse_size(f, RW_INVALID_ARGUMENT, "q has rank 2");
    f->attention.q = rwt_without_batch(good.q);
    refuse_size(f, RW_INVALID_ARGUMENT, "k has rank 4, expected 3");
    f->attention = good;
    f->attention.v.shape[1] = 4;
    refuse_size(f, RW_INVALID_ARGUMENT, "v has shape");
    f->attention = good;
    f->attention.k.shape[2] = f->attention.v.shape[2] = 3;
    refuse_size(f, RW_INVALID_ARGUMENT, "divisor");
    f->attention = good;
    f->attention.q.shape[0] = 2;
    refuse_size(f, RW_INVALID_ARGUMENT, "k has shape");
    f->attention = good;
    f->attention.v.shape[3] = 12;
    refuse_size(f, RW_UNSUPPORTED, "multiple of 8");
    f->attention = good;
    f->attention.k.dtype = RW_U8;
    refuse_size(f, RW_UNSUPPORTED, "k has dtype u8");
    f->attention = good;
    f->attention.k.shape[1] = f->attention.v.shape[1] = (int64_t)1 << 31;
    refuse_size(f, RW_INVALID_ARGUMENT, "seq_k is 2147483648");
    f->attention = good;
    f->attention.block_table = rw_tensor_contiguous(f->memory + 4000, RW_F32, 2, good.q.shape);
    refuse_size(f, RW_UNSUPPORTED, "block_table has dtype f32");
}

/* [batch, seq, heads, 128] over a few bytes: lengths without memory. */
static rw_tensor lengths(const fixture *f, int64_t batch, int64_t seq, int64_t heads) {
    return (rw_tensor){f->memory, RW_BF16, 4, {batch, seq, heads, 128}, {0, 0, 0, 1}};
}

static int64_t size_of_workspace(fixture *f, const rw_attention_args *args) {
    int64_t bytes = -1;
    assert_int_equal(rw_attention_workspace(f->context, args, &bytes), RW_OK);
    assert_true(bytes >= 0);
    return bytes;
}

/* The memory that scores would need (64 GiB for the first of these) is what attention avoids. */
static void test_workspace_is_small(void **state) {
    fixture *f = *state;
    const int64_t mib = 1 << 20;
    rw_attention_args args = {
        .q = lengths(f, 1, 65536, 8), .k = lengths(f, 1, 65536, 8), .v = lengths(f, 1, 65536, 8)};
    assert_true(size_of_workspace(f, &args) <= 64 * mib);
    args = (rw_attention_args){
        .q = lengths(f, 64, 1, 32), .k = lengths(f, 64, 8192, 8), .v = lengths(f, 64, 8192, 8)};
    assert_true(size_of_workspace(f, &args) <= 16 * mib);
    for (int64_t seq_k = 1; seq_k < (int64_t)1 << 31; seq_k *= 8) {
        args = (rw_attention_args){
            .q = lengths(f, 1, 1, 32), .k = lengths(f, 1, seq_k, 8), .v = lengths(f, 1, seq_k, 8)};
        assert_true(size_of_workspace(f, &args) <= 4 * mib);
    }
    for (int64_t seq_q = 1; seq_q <= 4096; seq_q *= 2)
        for (int64_t kv_heads = 1; kv_heads <= 16; kv_heads *= 2) {
            args = (rw_attention_args){.q = lengths(f, 1, seq_q, 16),
                                       .k = lengths(f, 1, mib, kv_heads),
                                       .v = lengths(f, 1, mib, kv_heads)};
            assert_true(size_of_workspace(f, &args) <= 64 * mib);
        }
}

static void test_products(void **state) {
    fixture *f = *state;
    const rw_qk_matmul_args qk = f->qk;
    const rw_weighted_matmul_args weighted = f->weighted;
    f->qk.out.shape[3] = 4;
    assert_refused(f, rw_qk_matmul(f->context, &f->qk), RW_INVALID_ARGUMENT, "rw_qk_matmul", "out");
    f->qk = qk;
    f->qk.k.dtype = RW_F16;
    assert_refused(f, rw_qk_matmul(f->context, &f->qk), RW_INVALID_ARGUMENT, "rw_qk_matmul", "k");
    f->qk = qk;
    f->qk.out.data = qk.k.data;
    assert_refused(f, rw_qk_matmul(f->context, &f->qk), RW_INVALID_ARGUMENT, "rw_qk_matmul",
                   "out overlaps k");
    f->weighted.weights.dtype = RW_F16; /* v is f32 */
    assert_refused(f, rw_weighted_matmul(f->context, &f->weighted), RW_INVALID_ARGUMENT,
                   "rw_weighted_matmul", "weights");
    f->weighted = weighted;
    f->weighted.v.shape[1] = 4;
    assert_refused(f, rw_weighted_matmul(f->context, &f->weighted), RW_INVALID_ARGUMENT,
                   "rw_weighted_matmul", "v has shape");
}

static void test_statistics(void **state) {
    fixture *f = *state;
    f->statistics.min.shape[1] = 3;
    assert_refused(f, rw_score_statistics(f->context, &f->statistics), RW_INVALID_ARGUMENT,
                   "rw_score_statistics", "min");
    f->statistics.min.shape[1] = 4;
    f->statistics.max = f->statistics.min;
    assert_refused(f, rw_score_statistics(f->context, &f->statistics), RW_INVALID_ARGUMENT,
                   "rw_score_statistics", "min overlaps max");
}

static void test_merge(void **state) {
    fixture *f = *state;
    const rw_attention_merge_args good = f->merge;
    f->merge.b.out.shape[1] = 2;
    assert_refused(f, rw_attention_merge(f->context, &f->merge), RW_INVALID_ARGUMENT,
                   "rw_attention_merge", "b.out");
    f->merge = good;
    f->merge.b.out.dtype = RW_F16;
    assert_refused(f, rw_attention_merge(f->context, &f->merge), RW_INVALID_ARGUMENT,
                   "rw_attention_merge", "b.out");
    f->merge = good;
    f->merge.merged.lse.data = (float *)good.a.lse.data + 1; /* only half in place */
    assert_refused(f, rw_attention_merge(f->context, &f->merge), RW_INVALID_ARGUMENT,
                   "rw_attention_merge", "merged.lse overlaps a.lse");
    f->merge = good;
    f->merge.merged.out.data = good.b.lse.data;
    assert_refused(f, rw_attention_merge(f->context, &f->merge), RW_INVALID_ARGUMENT,
                   "rw_attention_merge", "merged.out");
}

#define WITH_FIXTURE(test) cmocka_unit_test_setup_teardown(test, open_fixture, close_fixture)

int main(void) {
    if (!rwt_test_backend_usable())
        return RWT_TEST_SKIPPED;
    const struct CMUnitTest tests[] = {
        WITH_FIXTURE(test_valid),
        WITH_FIXTURE(test_null),
        WITH_FIXTURE(test_attention_shapes),
        WITH_FIXTURE(test_attention_rules),
        WITH_FIXTURE(test_attention_overlap),
        WITH_FIXTURE(test_block_table),
        WITH_FIXTURE(test_long_tables),
        WITH_FIXTURE(test_workspace),
        WITH_FIXTURE(test_workspace_overlap),
        WITH_FIXTURE(test_exact_workspace),
        WITH_FIXTURE(test_needless_workspace),
        WITH_FIXTURE(test_workspace_size),
        WITH_FIXTURE(test_workspace_is_small),
        WITH_FIXTURE(test_products),
        WITH_FIXTURE(test_statistics),
        WITH_FIXTURE(test_merge),
    };
    return cmocka_run_group_tests_name("attention, refused arguments", tests, NULL, NULL);
}
