/* Attention and the matrix products before and after the softmax: every invalid call. Each must be
 * refused with a sentence that names the function and the argument, and nothing may be written. */
#include "harness/attention_fixture.h"

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
    const int64_t widths[] = {0, 577, (int64_t)1 << 32};
    for (int i = 0; i < 3; i++) {
        f->attention = good;
        f->attention.v.shape[3] = widths[i];
        refuse_attention(f, RW_UNSUPPORTED, "expected 1 to 576");
        f->attention = good;
        f->attention.q.shape[3] = f->attention.k.shape[3] = widths[i];
        if (widths[i] > 0)
            refuse_attention(f, RW_UNSUPPORTED, "expected 1 to 576");
    }
}

static void test_attention_rules(void **state) {
    fixture *f = *state;
    const rw_attention_args good = f->attention;
    f->attention.f32_products = (rw_f32_products)2;
    refuse_attention(f, RW_INVALID_ARGUMENT, "f32_products is 2");
    f->attention = good;
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

/* q [6, 4, 16] of two sequences against k and v by sequence. */
static void make_ragged(fixture *f) {
    const int64_t bounds[] = {3}, q[] = {6, 4, 16}, lse[] = {4, 6};
    f->attention.q = tensor(f->memory, 3, q);
    f->attention.out = tensor(f->memory + 1536, 3, q);
    f->attention.lse = tensor(f->memory + 2048, 2, lse);
    f->attention.cu_seqlens_q = rw_tensor_contiguous(f->memory + WORKSPACE, RW_I32, 1, bounds);
}

static void test_ragged(void **state) {
    fixture *f = *state;
    make_ragged(f);
    const rw_attention_args good = f->attention;
    f->attention.cu_seqlens_q.dtype = RW_F32;
    refuse_attention(f, RW_UNSUPPORTED, "cu_seqlens_q has dtype");
    f->attention = good;
    f->attention.cu_seqlens_q.rank = 2;
    f->attention.cu_seqlens_q.shape[1] = f->attention.cu_seqlens_q.stride[1] = 1;
    refuse_attention(f, RW_INVALID_ARGUMENT, "cu_seqlens_q has rank 2");
    f->attention = good;
    f->attention.cu_seqlens_q.shape[0] = 0;
    refuse_attention(f, RW_INVALID_ARGUMENT, "cu_seqlens_q is empty");
    f->attention.cu_seqlens_q.shape[0] = 4;
    refuse_attention(f, RW_INVALID_ARGUMENT, "k has shape [2, 5, 2, 16], expected 3");
    f->attention = good;
    f->attention.max_seq_q = -1;
    refuse_attention(f, RW_INVALID_ARGUMENT, "max_seq_q is -1");
    f->attention = good;
    f->attention.cu_seqlens_q.data = f->attention.out.data;
    refuse_attention(f, RW_INVALID_ARGUMENT, "out overlaps cu_seqlens_q");
    f->attention = good;
    const int64_t q4[] = {1, 6, 4, 16};
    f->attention.q = tensor(f->memory, 4, q4);
    refuse_attention(f, RW_INVALID_ARGUMENT, "cu_seqlens_q is given, but q has rank 4");
    f->attention = good;
    f->attention.cu_seqlens_q.rank = 0;
    f->attention.max_seq_q = 3;
    refuse_attention(f, RW_INVALID_ARGUMENT, "max_seq_q is given, but cu_seqlens_q is absent");
    f->attention.max_seq_q = 0;
    f->attention.cu_seqlens_k = good.cu_seqlens_q;
    refuse_attention(f, RW_INVALID_ARGUMENT, "cu_seqlens_k is given, but cu_seqlens_q is absent");
}

static void test_ragged_keys(void **state) {
    fixture *f = *state;
    const int64_t k[] = {10, 2, 16}, table[] = {2, 1};
    make_ragged(f);
    f->attention.cu_seqlens_k = f->attention.cu_seqlens_q;
    refuse_attention(f, RW_INVALID_ARGUMENT, "k has rank 4");
    f->attention.k = tensor(f->memory + 512, 3, k);
    f->attention.v = tensor(f->memory + 1024, 3, k);
    const rw_attention_args good = f->attention;
    f->attention.cu_seqlens_k.shape[0] = 2;
    refuse_attention(f, RW_INVALID_ARGUMENT, "cu_seqlens_k has shape [2], expected 3");
    f->attention = good;
    f->attention.cu_seqlens_k.data = f->attention.lse.data;
    refuse_attention(f, RW_INVALID_ARGUMENT, "lse overlaps cu_seqlens_k");
    f->attention = good;
    f->attention.block_table = rw_tensor_contiguous(f->memory + 7000, RW_I32, 2, table);
    refuse_attention(f, RW_INVALID_ARGUMENT, "cu_seqlens_k and block_table are given");
    f->attention.block_table.rank = 0;
    f->attention.cu_seqlens_k.rank = 0;
    refuse_attention(f, RW_INVALID_ARGUMENT, "k has rank 3");
}

static void test_f8(void **state) {
    fixture *f = *state;
    const int64_t scales[] = {2};
    f->attention.k_scale = tensor(f->memory + WORKSPACE, 1, scales);
    refuse_attention(f, RW_INVALID_ARGUMENT, "k_scale is given, but k has dtype f32");
    f->attention.k.dtype = RW_F8_E4M3;
    refuse_attention(f, RW_INVALID_ARGUMENT, "v has dtype f32, expected that of k, f8_e4m3");
    f->attention.v.dtype = RW_F8_E4M3;
    const rw_attention_args good = f->attention;
    f->attention.k_scale.shape[0] = 3;
    refuse_attention(f, RW_INVALID_ARGUMENT, "k_scale has shape [3], expected 2");
    f->attention = good;
    f->attention.q.shape[3] = f->attention.k.shape[3] = 577;
    refuse_attention(f, RW_UNSUPPORTED, "q has a head_dim of 577, expected 1 to 576");
    f->attention = good;
    f->attention.v.shape[3] = f->attention.out.shape[3] = 577;
    refuse_attention(f, RW_UNSUPPORTED, "v has a head_dim of 577, expected 1 to 576");
    f->attention = good;
    f->attention.v_scale = good.k_scale;
    f->attention.v_scale.dtype = RW_F16;
    refuse_attention(f, RW_UNSUPPORTED, "v_scale has dtype f16");
    f->attention.v_scale = good.out;
    f->attention.v_scale.rank = 1;
    f->attention.v_scale.shape[0] = 1;
    refuse_attention(f, RW_INVALID_ARGUMENT, "out overlaps v_scale");
    f->attention = good;
    f->attention.q.dtype = RW_F8_E4M3;
    refuse_attention(f, RW_UNSUPPORTED, "q has dtype f8_e4m3");
    f->attention = good; /* no multiples of 8 */
    f->attention.q.shape[3] = f->attention.k.shape[3] = 12;
    f->attention.v.shape[3] = f->attention.out.shape[3] = 11;
    assert_int_equal(rw_attention(f->context, &f->attention), RW_OK);
    assert_int_equal(rw_synchronize(f->context), RW_OK);
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
        WITH_FIXTURE(test_ragged),
        WITH_FIXTURE(test_ragged_keys),
        WITH_FIXTURE(test_f8),
        WITH_FIXTURE(test_products),
        WITH_FIXTURE(test_statistics),
        WITH_FIXTURE(test_merge),
    };
    return cmocka_run_group_tests_name("attention, refused arguments", tests, NULL, NULL);
}
