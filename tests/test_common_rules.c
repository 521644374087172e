/* Rules of every operation: with a zero-sized axis it does nothing, for any other sizes; a
 * number that f32 cannot represent is refused; arguments that are given twice must not differ. */
#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "harness/test_support.h"

/* A tensor; without elements, its data is NULL. */
static rw_tensor tensor(float *data, int rank, const int64_t *shape) {
    for (int axis = 0; axis < rank; axis++)
        if (shape[axis] == 0)
            data = NULL;
    return rw_tensor_contiguous(data, RW_F32, rank, shape);
}

static rw_tensor tensor4(float *data, int64_t a, int64_t b, int64_t c, int64_t d) {
    const int64_t shape[] = {a, b, c, d};
    return tensor(data, 4, shape);
}

static void assert_nothing_done(const rwt_guarded *f, rw_status status, size_t n) {
    if (status != RW_OK)
        print_error("row %zu: %s\n", n, rw_last_error(f->context));
    assert_int_equal(status, RW_OK);
    rwt_assert_untouched(*f);
}

static void assert_refused(const rwt_guarded *f, rw_status status, const char *word) {
    rwt_assert_refused(*f, status, (rwt_refusal){RW_INVALID_ARGUMENT, "rw_", word});
}

/* ---- zero-sized axes ---- */

typedef struct lengths {
    int64_t batch, heads, kv_heads, seq_q, seq_k, head_dim, v_dim;
} lengths;

/* Lengths with which nothing is to be written. */
static const lengths nothing[] = {
    {0, 4, 2, 3, 5, 16, 16},  {2, 0, 2, 3, 5, 16, 16}, {2, 0, 0, 3, 5, 16, 16},
    {2, 0, 3, 3, 0, 16, 16},  {2, 4, 2, 0, 5, 16, 16}, {2, 4, 2, 3, 5, 16, 0},
    {2, 0, 2, 1, 99, 16, 16}, {0, 0, 0, 0, 0, 0, 0},   {2, 0, 5, 0, 5, 0, 8},
};

static rw_attention_args attention_of(const rwt_guarded *f, const lengths *l) {
    const int64_t lse[] = {l->batch, l->heads, l->seq_q};
    return (rw_attention_args){
        .q = tensor4(f->memory, l->batch, l->seq_q, l->heads, l->head_dim),
        .k = tensor4(f->memory + 512, l->batch, l->seq_k, l->kv_heads, l->head_dim),
        .v = tensor4(f->memory + 512, l->batch, l->seq_k, l->kv_heads, l->v_dim),
        .out = tensor4(f->memory + 7000, l->batch, l->seq_q, l->heads, l->v_dim),
        .lse = tensor(f->memory + 7600, 3, lse)};
}

static void test_attention_of_nothing(void **state) {
    const rwt_guarded *f = *state;
    for (size_t n = 0; n < sizeof nothing / sizeof *nothing; n++) {
        rw_attention_args args = attention_of(f, &nothing[n]);
        int64_t bytes = -1;
        assert_nothing_done(f, rw_attention(f->context, &args), n);
        assert_nothing_done(f, rw_attention_workspace(f->context, &args, &bytes), n);
        assert_true(bytes >= 0);
        args.workspace = rw_tensor_contiguous(f->memory + 4096, RW_U8, 1, &bytes);
        assert_nothing_done(f, rw_attention(f->context, &args), n);
    }
    const lengths no_columns = {2, 4, 2, 3, 5, 0, 16};
    rw_attention_args args = attention_of(f, &no_columns);
    assert_nothing_done(f, rw_attention(f->context, &args), 0);
    args.v.shape[3] = 0;
    assert_int_equal(rw_attention(f->context, &args), RW_UNSUPPORTED); /* out has columns */
    rwt_assert_untouched(*f);
}

static void test_products_of_nothing(void **state) {
    const rwt_guarded *f = *state;
    for (size_t n = 0; n < sizeof nothing / sizeof *nothing; n++) {
        const lengths *l = &nothing[n];
        const rw_attention_args of = attention_of(f, l);
        const rw_tensor scores = tensor4(f->memory + 7000, l->batch, l->heads, l->seq_q, l->seq_k);
        const rw_weighted_matmul_args weighted = {.weights = scores, .v = of.v, .out = of.out};
        const rw_qk_matmul_args qk = {.q = of.q, .k = of.k, .out = scores};
        if (l->v_dim == 0) /* there are scores */
            continue;
        assert_nothing_done(f, rw_qk_matmul(f->context, &qk), n);
        if (weighted.out.data == NULL || weighted.weights.data == NULL)
            assert_nothing_done(f, rw_weighted_matmul(f->context, &weighted), n);
    }
}

/* With width 0 only the LSE is merged; the rows have no address. */
static void test_merge_of_width_0(void **state) {
    const rwt_guarded *f = *state;
    rw_tensor out = tensor4(f->memory, 2, 3, 4, 0);
    for (int axis = 0; axis < 3; axis++)
        out.stride[axis] = 16 << axis;
    const int64_t shape[] = {2, 4, 3};
    const rw_attention_merge_args args = {.a = {out, tensor(f->memory, 3, shape)},
                                          .b = {out, tensor(f->memory + 100, 3, shape)},
                                          .merged = {out, tensor(f->memory + 200, 3, shape)}};
    float after[224];
    assert_int_equal(rw_attention_merge(f->context, &args), RW_OK);
    assert_int_equal(rw_synchronize(f->context), RW_OK);
    rwt_test_download(f->context, after, f->memory, sizeof after);
    for (int i = 0; i < 24; i++) {
        double sum = exp((double)f->before[i]) + exp((double)f->before[100 + i]);
        assert_true(fabs((double)after[200 + i] - log(sum)) < 1e-6);
    }
    const rw_copy_args restore = {f->memory, f->before, f->bytes, RW_COPY_HOST_TO_DEVICE};
    assert_int_equal(rw_copy(f->context, &restore), RW_OK);
}

static void test_rope_of_nothing(void **state) {
    const rwt_guarded *f = *state;
    const rw_rope_options options = {.spec = {.head_dim = 16}, .max_positions = 64};
    rw_rope *rope = NULL;
    assert_int_equal(rw_rope_create(f->context, &options, &rope), RW_OK);
    const struct {
        int64_t batch, seq, q_heads, k_heads;
    } rows[] = {{0, 3, 4, 2}, {2, 0, 4, 2}, {2, 3, 0, 0}};
    for (size_t n = 0; n < sizeof rows / sizeof *rows; n++) {
        const rw_rope_args args = {
            .q = tensor4(f->memory, rows[n].batch, rows[n].seq, rows[n].q_heads, 16),
            .k = tensor4(f->memory + 512, rows[n].batch, rows[n].seq, rows[n].k_heads, 16)};
        const rw_rope_append_args append = {
            .rope.q = args.q,
            .append = {
                .k = args.k,
                .v = args.k,
                .cache = {.k = tensor4(f->memory + 1024, rows[n].batch, 8, rows[n].k_heads, 16),
                          .v = tensor4(f->memory + 2048, rows[n].batch, 8, rows[n].k_heads, 16)}}};
        assert_nothing_done(f, rw_rope_apply(f->context, rope, &args), n);
        assert_nothing_done(f, rw_rope_append(f->context, rope, &append), n);
        assert_nothing_done(f, rw_kv_append(f->context, &append.append), n);
    }
    rw_rope_destroy(rope);
}

static rw_tensor like(float *data, rw_dtype dtype, int rank, const int64_t *shape) {
    rw_tensor result = tensor(data, rank, shape);
    result.dtype = dtype;
    return result;
}

/* Rows of [a, b, columns], one of them 0. */
static const int64_t empty_rows[][3] = {{0, 4, 32}, {2, 0, 32}, {2, 4, 0}, {0, 0, 0}};
#define NUM_EMPTY_ROWS (sizeof empty_rows / sizeof *empty_rows)

static void test_rows_of_nothing(void **state) {
    const rwt_guarded *f = *state;
    for (size_t n = 0; n < NUM_EMPTY_ROWS; n++) {
        const int64_t *shape = empty_rows[n], packed[] = {shape[0], shape[1], 2 * shape[2]};
        const int64_t blocks[] = {shape[0], shape[2] > 0 ? shape[1] : 0, 16};
        const int64_t values[] = {blocks[0], blocks[1], 32}, ids[] = {shape[0], shape[1]};
        const int64_t table[] = {5, shape[2]}, no_table[] = {0, shape[2]};
        const rw_tensor x = tensor(f->memory, 3, shape);
        const rw_rms_norm_args norm = {
            .x = x, .residual = x, .weight = tensor(f->memory + 512, 1, shape + 2)};
        const rw_layer_norm_args layer = {
            .x = x, .residual = x, .bias = tensor(f->memory + 512, 1, shape + 2)};
        const rw_glu_args pair = {.gate = x, .up = x};
        const rw_glu_args halves = {.packed = tensor(f->memory + 512, 3, packed), .out = x};
        const rw_mx_args mx = {.blocks = like(f->memory, RW_U8, 3, blocks),
                               .scales = like(f->memory + 512, RW_U8, 2, blocks),
                               .values = tensor(f->memory + 1024, 3, values)};
        const rw_embed_args embed = {.x = x, .positions = like(f->memory, RW_I32, 2, ids)};
        const rw_tensor rows = tensor(f->memory + 512, 2, table),
                        no_rows = tensor(f->memory + 512, 2, no_table);
        assert_nothing_done(f, rw_rms_norm(f->context, &norm), n);
        assert_nothing_done(f, rw_layer_norm(f->context, &layer), n);
        assert_nothing_done(f, rw_glu(f->context, &pair), n);
        assert_nothing_done(f, rw_glu(f->context, &halves), n);
        assert_nothing_done(f, rw_mx_dequantize(f->context, &mx), n);
        assert_nothing_done(f, rw_mx_quantize(f->context, &mx), n);
        assert_nothing_done(f, rw_embed_learned(f->context, &rows, &embed), n);
        assert_nothing_done(f, rw_embed_learned(f->context, &no_rows, &embed), n);
    }
}

static void test_scores_of_nothing(void **state) {
    const rwt_guarded *f = *state;
    const rw_t5_options options = {.num_buckets = 32};
    rw_t5 *t5 = NULL;
    assert_int_equal(rw_t5_create(f->context, &options, &t5), RW_OK);
    for (size_t n = 0; n < NUM_EMPTY_ROWS; n++) {
        const int64_t *shape = empty_rows[n], table[] = {32, shape[0]};
        const rw_tensor x = tensor(f->memory, 3, shape);
        const rw_pattern pattern = {.causal = true};
        const rw_alibi alibi = {.slopes = tensor(f->memory + 512, 1, shape)};
        const rw_mask_apply_args mask = {.x = x, .mask = x, .pattern = &pattern, .out = x};
        const rw_softmax_args softmax = {.x = x,
                                         .mask = tensor(f->memory + 1024, 3, shape),
                                         .pattern = &pattern,
                                         .alibi = &alibi,
                                         .sinks = tensor(f->memory + 512, 1, shape)};
        const rw_scale_args scale = {.x = x, .scale = 2};
        const rw_t5_bias_args bias = {.table = tensor(f->memory + 512, 2, table), .out = x};
        const rw_alibi_slopes_args slopes = {.out = tensor(NULL, 1, (const int64_t[]){0}),
                                             .total_heads = 4};
        assert_nothing_done(f, rw_mask_apply(f->context, &mask), n);
        assert_nothing_done(f, rw_softmax(f->context, &softmax), n);
        assert_nothing_done(f, rw_scale(f->context, &scale), n);
        assert_nothing_done(f, rw_alibi_bias(f->context, &alibi, &x), n);
        assert_nothing_done(f, rw_t5_bias(f->context, t5, &bias), n);
        assert_nothing_done(f, rw_alibi_slopes(f->context, &slopes), n);
        assert_nothing_done(f, rw_pattern_fill(f->context, &pattern, &x), n);
        const int64_t bytes[] = {shape[0], shape[1], shape[2] / 8};
        const rw_tensor bits = like(f->memory, RW_U8, 3, bytes);
        assert_nothing_done(f, rw_pattern_fill_bits(f->context, &pattern, shape[2], &bits), n);
    }
    rw_t5_destroy(t5);
}

static void test_positions_of_nothing(void **state) {
    const rwt_guarded *f = *state;
    const int64_t none[] = {0}, one[] = {1}, shapes[][2] = {{0, 5}, {2, 0}, {0, 0}};
    for (size_t n = 0; n < sizeof shapes / sizeof *shapes; n++) {
        const int64_t *shape = shapes[n];
        const int64_t two[] = {2, shape[0], shape[1]}, three[] = {3, shape[0], shape[1]},
                      segments[] = {shape[0], 0, 3};
        const rw_tensor out = like(f->memory, RW_I32, 2, shape),
                        rows = like(f->memory + 512, RW_I32, 1, shape);
        const rw_positions_sequential_args sequential = {.out = out, .offsets = rows};
        const rw_positions_left_padded_args padded = {.out = out, .padding = rows};
        const rw_positions_packed_args packed = {.out = like(NULL, RW_I32, 1, none),
                                                 .cu_seqlens = like(f->memory, RW_I32, 1, one)};
        const rw_positions_mrope_args mrope = {.out = like(f->memory, RW_I32, 3, three),
                                               .segments = like(NULL, RW_I32, 3, segments),
                                               .steps = tensor(NULL, 2, segments)};
        const rw_positions_glm_args glm = {
            .out = like(f->memory, RW_I32, 3, two), .context_length = rows, .mask_position = rows};
        const rw_pattern_positions_args table = {
            .out = out, .ids = RW_PATTERN_IDS_CUSTOM, .table = like(NULL, RW_I32, 1, none)};
        assert_nothing_done(f, rw_positions_sequential(f->context, &sequential), n);
        assert_nothing_done(f, rw_positions_left_padded(f->context, &padded), n);
        assert_nothing_done(f, rw_positions_packed(f->context, &packed), n);
        assert_nothing_done(f, rw_positions_mrope(f->context, &mrope), n);
        assert_nothing_done(f, rw_positions_glm(f->context, &glm), n);
        assert_nothing_done(f, rw_pattern_positions(f->context, &table), n);
    }
}

static void test_bake_of_nothing(void **state) {
    (void)state;
    const rw_pattern causal = {.causal = true};
    rw_pattern_shape shape = {0, 4, 9};
    rw_message message = {""};
    assert_int_equal(rw_pattern_bake(&causal, &shape, NULL, &message), RW_OK);
    shape = (rw_pattern_shape){2, 4, 0};
    assert_int_equal(rw_pattern_bake(&causal, &shape, NULL, &message), RW_OK);
    shape.seq_k = 9;
    assert_int_equal(rw_pattern_bake(&causal, &shape, NULL, &message), RW_INVALID_ARGUMENT);
    assert_true(rwt_test_says(message.text, "bits is NULL"));
    const rw_pattern_globals_list list = {.count = -1, .seq_k = 9};
    uint8_t bits[2];
    assert_int_equal(rw_pattern_globals(&list, bits, &message), RW_INVALID_ARGUMENT);
    assert_true(rwt_test_says(message.text, "count is -1"));
}

/* ---- numbers that f32 cannot represent ---- */

static const double unheld[] = {1e-46, -1e-46, 1e-40, 1e39, -1e39, INFINITY, -INFINITY, NAN};
#define NUM_UNHELD (sizeof unheld / sizeof *unheld)

static void test_double_options(void **state) {
    const rwt_guarded *f = *state;
    const lengths l = {2, 4, 2, 3, 5, 16, 16};
    const rw_attention_args attention = attention_of(f, &l);
    for (size_t n = 0; n < NUM_UNHELD; n++) {
        const rw_scale_args scale = {.x = attention.q, .scale = unheld[n]};
        assert_refused(f, rw_scale(f->context, &scale), "rw_scale: scale is ");
        rw_softmax_args softmax = {.x = attention.q, .scale = unheld[n]};
        assert_refused(f, rw_softmax(f->context, &softmax), "rw_softmax: scale is ");
        softmax = (rw_softmax_args){.x = attention.q, .softcap = unheld[n]};
        assert_refused(f, rw_softmax(f->context, &softmax), "rw_softmax: softcap is ");
        const rw_qk_matmul_args qk = {.q = attention.q,
                                      .k = attention.k,
                                      .out = tensor4(f->memory + 7000, 2, 4, 3, 5),
                                      .scale = unheld[n]};
        assert_refused(f, rw_qk_matmul(f->context, &qk), "rw_qk_matmul: scale is ");
        rw_attention_args args = attention;
        args.scale = unheld[n];
        assert_refused(f, rw_attention(f->context, &args), "rw_attention: scale is ");
        args = attention;
        args.softcap = unheld[n];
        assert_refused(f, rw_attention(f->context, &args), "rw_attention: softcap is ");
    }
}

/* The smallest and the largest representable numbers. */
static void test_held_options(void **state) {
    const rwt_guarded *f = *state;
    const double held[] = {FLT_MIN, FLT_MAX, 3.4028235e38, 0.1};
    float *copy = rwt_test_upload(f->context, f->before, f->bytes);
    for (size_t n = 0; n < sizeof held / sizeof *held; n++) {
        rw_softmax_args args = {.x = tensor4(copy, 2, 4, 3, 16), .softcap = held[n]};
        assert_int_equal(rw_softmax(f->context, &args), RW_OK);
        args = (rw_softmax_args){.x = tensor4(copy, 2, 4, 3, 16), .scale = -held[n]};
        assert_int_equal(rw_softmax(f->context, &args), RW_OK);
    }
    assert_int_equal(rw_synchronize(f->context), RW_OK);
    rw_free(f->context, copy);
}

/* Floats may be small, but must be finite. */
static void test_float_options(void **state) {
    const rwt_guarded *f = *state;
    const rw_tensor x = tensor4(f->memory, 1, 2, 4, 16), y = tensor4(f->memory + 512, 1, 2, 4, 16);
    const int64_t columns[] = {16};
    const rw_tensor weight = tensor(f->memory + 1024, 1, columns);
    const float wrong[] = {INFINITY, -INFINITY, NAN};
    for (int n = 0; n < 3; n++) {
        rw_rms_norm_args norm = {.x = x, .weight = weight, .eps = wrong[n]};
        assert_refused(f, rw_rms_norm(f->context, &norm), "rw_rms_norm: eps is ");
        norm = (rw_rms_norm_args){.x = x, .weight = weight, .weight_offset = wrong[n]};
        assert_refused(f, rw_rms_norm(f->context, &norm), "rw_rms_norm: weight_offset is ");
        const rw_layer_norm_args layer = {.x = x, .eps = wrong[n]};
        assert_refused(f, rw_layer_norm(f->context, &layer), "rw_layer_norm: eps is ");
        rw_glu_args glu = {.gate = x, .up = y, .limit = wrong[n]};
        assert_refused(f, rw_glu(f->context, &glu), "rw_glu: limit is ");
        glu = (rw_glu_args){.gate = x, .up = y, .alpha = wrong[n]};
        assert_refused(f, rw_glu(f->context, &glu), "rw_glu: alpha is ");
        glu = (rw_glu_args){.gate = x, .up = y, .up_offset = wrong[n]};
        assert_refused(f, rw_glu(f->context, &glu), "rw_glu: up_offset is ");
    }
}

static void refuse_rope(const rwt_guarded *f, rw_rope_spec spec, const char *word) {
    const rw_rope_options options = {.spec = spec, .max_positions = 16};
    rw_rope *rope = NULL;
    assert_refused(f, rw_rope_create(f->context, &options, &rope), word);
    assert_null(rope);
}

static void test_rope_numbers(void **state) {
    const rwt_guarded *f = *state;
    const rw_rope_spec yarn = {
        .type = RW_ROPE_YARN, .head_dim = 16, .factor = 4, .original_max_position_embeddings = 16};
    const double wrong[] = {1e-46, 1e-40, 1e39, 1e38}; /* 1 / 1e38 is not representable */
    rw_rope_spec spec = yarn;
    for (int n = 0; n < 4; n++) {
        spec.attention_factor = wrong[n];
        refuse_rope(f, spec, n < 3 ? "attention_factor is" : "the attention factor");
    }
    spec = yarn;
    spec.mscale = 1e308;
    spec.mscale_all_dim = 1;
    refuse_rope(f, spec, "mscale is 1e+308");
    spec = (rw_rope_spec){.head_dim = 16, .type = RW_ROPE_LINEAR, .factor = 1e-308};
    refuse_rope(f, spec, "no finite frequency 0 that f32 holds");
    const rw_sinusoid_options wave = {.hidden = 64, .max_positions = 16, .theta = 5e-324};
    rw_sinusoid *sinusoid = NULL;
    assert_refused(f, rw_sinusoid_create(f->context, &wave, &sinusoid), "frequency");
    assert_null(sinusoid);

    rw_rope *far[2];
    for (int n = 0; n < 2; n++) {
        spec = yarn;
        spec.attention_factor = n ? 1e30 : 1e-30;
        const rw_rope_options options = {.spec = spec, .max_positions = 16};
        assert_int_equal(rw_rope_create(f->context, &options, &far[n]), RW_OK);
    }
    const rw_rope_args args = {.q = tensor4(f->memory, 1, 3, 4, 16)};
    for (int n = 0; n < 2; n++) {
        const rw_rope_change change = {far[n], far[1 - n]};
        assert_refused(f, rw_rope_rerotate(f->context, &change, &args),
                       "attention factors' quotient");
    }
    rw_rope_destroy(far[0]);
    rw_rope_destroy(far[1]);
}

static void test_norm_of_append(void **state) {
    const rwt_guarded *f = *state;
    const rw_rope_options options = {.spec = {.head_dim = 16}, .max_positions = 64};
    const float wrong[] = {INFINITY, -INFINITY, NAN};
    rw_rope *rope = NULL;
    assert_int_equal(rw_rope_create(f->context, &options, &rope), RW_OK);
    rw_rope_append_args args = {.rope.q = tensor4(f->memory, 1, 3, 4, 16),
                                .append = {.k = tensor4(f->memory + 512, 1, 3, 2, 16),
                                           .v = tensor4(f->memory + 1024, 1, 3, 2, 16),
                                           .cache = {.k = tensor4(f->memory + 2048, 1, 8, 2, 16),
                                                     .v = tensor4(f->memory + 4096, 1, 8, 2, 16)}}};
    for (int n = 0; n < 3; n++) {
        args.norm.eps = wrong[n];
        assert_refused(f, rw_rope_append(f->context, rope, &args), "norm.eps is ");
        args.norm.eps = 0;
        args.norm.weight_offset = wrong[n];
        assert_refused(f, rw_rope_append(f->context, rope, &args), "norm.weight_offset is ");
    }
    rw_rope_destroy(rope);
}

/* ---- arguments that are given twice ---- */

static void test_alignments(void **state) {
    const rwt_guarded *f = *state;
    const lengths l = {2, 4, 2, 3, 5, 16, 16};
    const int64_t four[] = {4}, two[] = {2};
    const int32_t ends[] = {5, 4};
    int32_t *key_end = rwt_test_upload(f->context, ends, sizeof ends);
    rw_pattern pattern = {.causal = true, .key_end = rw_tensor_contiguous(key_end, RW_I32, 1, two)};
    rw_alibi alibi = {.slopes = tensor(f->memory + 4000, 1, four)};
    rw_attention_args attention = attention_of(f, &l);
    attention.pattern = &pattern;
    attention.alibi = &alibi;
    const rw_softmax_args softmax = {
        .x = tensor4(f->memory, 2, 4, 3, 16), .pattern = &pattern, .alibi = &alibi};
    for (int p = 0; p <= RW_ALIGN_KEY_END; p++)
        for (int a = 0; a <= RW_ALIGN_KEY_END; a++) {
            pattern.alignment = (rw_alignment)p;
            alibi.alignment = (rw_alignment)a;
            if (a == p)
                continue; /* covered by the drivers */
            assert_refused(f, rw_attention(f->context, &attention), "alibi.alignment is RW_ALIGN_");
            assert_refused(f, rw_softmax(f->context, &softmax),
                           "and pattern.alignment is RW_ALIGN_");
        }
    rw_free(f->context, key_end);
}

static void test_fields_given_in_vain(void **state) {
    const rwt_guarded *f = *state;
    const rw_tensor x = tensor4(f->memory, 1, 2, 4, 16), y = tensor4(f->memory + 512, 1, 2, 4, 16);
    const rw_pattern half_a_window = {.causal = true, .left = {.keys = 3}};
    rw_mask_apply_args mask = {.x = x, .pattern = &half_a_window};
    assert_refused(f, rw_mask_apply(f->context, &mask), "pattern.left.given is false");
    const rw_glu_args glu = {.gate = x, .up = y, .packing = RW_GLU_UP_FIRST};
    assert_refused(f, rw_glu(f->context, &glu), "packing is 1, but packed is absent");

    const rw_context_options cpu = {.backend = RW_BACKEND_CPU, .device = 1};
    rw_context *context = NULL;
    rw_message message = {""};
    assert_int_equal(rw_context_create(&cpu, &context, &message), RW_INVALID_ARGUMENT);
    assert_true(rwt_test_says(message.text, "options.device is 1"));
}

static int64_t same_id(void *user, int64_t b, int64_t pos) {
    (void)user;
    (void)b;
    return pos;
}

static void test_table_and_function(void **state) {
    const rwt_guarded *f = *state;
    const int64_t eight[] = {8};
    const rw_pattern_positions_args args = {
        .out = rw_tensor_contiguous(f->memory, RW_I64, 1, eight),
        .ids = RW_PATTERN_IDS_CUSTOM,
        .table = rw_tensor_contiguous(f->memory + 100, RW_I64, 1, eight),
        .function = same_id};
    assert_refused(f, rw_pattern_positions(f->context, &args), "table and function are both given");
}

/* A workspace that is used must have the documented alignment. */
static void test_workspace_alignment(void **state) {
    const rwt_guarded *f = *state;
    const lengths l = {1, 4, 1, 1, 4096, 16, 16};
    rw_attention_args args = attention_of(f, &l);
    args.k.stride[1] = args.v.stride[1] = 0;
    int64_t bytes = 0;
    assert_int_equal(rw_attention_workspace(f->context, &args, &bytes), RW_OK);
    assert_in_range(bytes, 1, 4 * 2048);
    for (int off = 1; off < RW_WORKSPACE_ALIGNMENT; off++) {
        args.workspace = rw_tensor_contiguous((char *)(f->memory + 4096) + off, RW_U8, 1, &bytes);
        assert_refused(f, rw_attention(f->context, &args), "expected 16-byte alignment");
    }
}

int main(void) {
    rwt_test_keep_crash_handlers();
    if (!rwt_test_backend_usable())
        return RWT_TEST_SKIPPED;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_attention_of_nothing), cmocka_unit_test(test_products_of_nothing),
        cmocka_unit_test(test_merge_of_width_0),     cmocka_unit_test(test_rope_of_nothing),
        cmocka_unit_test(test_bake_of_nothing),      cmocka_unit_test(test_rows_of_nothing),
        cmocka_unit_test(test_scores_of_nothing),    cmocka_unit_test(test_positions_of_nothing),
        cmocka_unit_test(test_double_options),       cmocka_unit_test(test_held_options),
        cmocka_unit_test(test_float_options),        cmocka_unit_test(test_rope_numbers),
        cmocka_unit_test(test_norm_of_append),       cmocka_unit_test(test_alignments),
        cmocka_unit_test(test_fields_given_in_vain), cmocka_unit_test(test_table_and_function),
        cmocka_unit_test(test_workspace_alignment),
    };
    return cmocka_run_group_tests_name("rules of every operation", tests, rwt_guarded_open,
                                       rwt_guarded_close);
}
