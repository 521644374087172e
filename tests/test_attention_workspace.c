/* The workspace of attention: its size and use, and every invalid one. Each must be refused with a
 * sentence that names the function and the argument, and nothing may be written. */
#include "harness/attention_fixture.h"

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
    f->attention.v.shape[3] = 577;
    refuse_size(f, RW_UNSUPPORTED, "v has a head_dim of 577, expected 1 to 576");
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

int main(void) {
    if (!rwt_test_backend_usable())
        return RWT_TEST_SKIPPED;
    const struct CMUnitTest tests[] = {
        WITH_FIXTURE(test_workspace),       WITH_FIXTURE(test_workspace_overlap),
        WITH_FIXTURE(test_exact_workspace), WITH_FIXTURE(test_needless_workspace),
        WITH_FIXTURE(test_workspace_size),  WITH_FIXTURE(test_workspace_is_small),
    };
    return cmocka_run_group_tests_name("attention, workspace", tests, NULL, NULL);
}
