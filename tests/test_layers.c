/* Norms, gated activations and the MX formats: every invalid call must be refused with a sentence that names
 * the function and the argument, and nothing may be written; and round trips of values through the
 * MX formats. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "drivers/mx_reference.h"
#include "harness/test_support.h"

static rw_tensor floats(const rwt_guarded *f, int64_t first, int64_t rows, int64_t columns) {
    const int64_t shape[] = {rows, columns};
    return rw_tensor_contiguous(f->memory + first, RW_F32, 2, shape);
}

static rw_tensor vector(const rwt_guarded *f, int64_t first, int64_t columns) {
    return rw_tensor_contiguous(f->memory + first, RW_F32, 1, &columns);
}

/* ---- rms_norm ---- */

static rw_rms_norm_args norm_args(const rwt_guarded *f) {
    return (rw_rms_norm_args){.x = floats(f, 0, 4, 16),
                              .weight = vector(f, 100, 16),
                              .residual = floats(f, 200, 4, 16),
                              .residual_out = floats(f, 300, 4, 16),
                              .out = floats(f, 400, 4, 16),
                              .eps = 1e-6f};
}

#define REFUSE_NORM(status, word, change)                                                          \
    do {                                                                                           \
        rw_rms_norm_args args = norm_args(f);                                                      \
        change;                                                                                    \
        rwt_assert_refused(*f, rw_rms_norm(f->context, &args),                                     \
                           (rwt_refusal){status, "rw_rms_norm", word});                            \
    } while (0)

static void test_norm_refuses(void **state) {
    const rwt_guarded *f = *state;
    REFUSE_NORM(RW_INVALID_ARGUMENT, "x has rank 0", args.x.rank = 0);
    REFUSE_NORM(RW_UNSUPPORTED, "x has dtype u8", args.x.dtype = RW_U8);
    REFUSE_NORM(RW_INVALID_ARGUMENT, "x has stride 2", args.x.stride[1] = 2);
    REFUSE_NORM(RW_INVALID_ARGUMENT, "x.data is NULL", args.x.data = NULL);
    REFUSE_NORM(RW_INVALID_ARGUMENT, "weight has shape [15]", args.weight.shape[0] = 15);
    REFUSE_NORM(RW_UNSUPPORTED, "weight has dtype i32", args.weight.dtype = RW_I32);
    REFUSE_NORM(RW_INVALID_ARGUMENT, "residual has shape [3, 16]", args.residual.shape[0] = 3);
    REFUSE_NORM(RW_INVALID_ARGUMENT, "residual has dtype f16", args.residual.dtype = RW_F16);
    REFUSE_NORM(RW_INVALID_ARGUMENT, "residual_out has shape", args.residual_out.shape[1] = 15);
    REFUSE_NORM(RW_INVALID_ARGUMENT, "residual_out is given",
                args.residual = (rw_tensor){.rank = 0});
    REFUSE_NORM(RW_INVALID_ARGUMENT, "out has shape [4, 15]", args.out.shape[1] = 15);
    REFUSE_NORM(RW_INVALID_ARGUMENT, "out has dtype bf16", args.out.dtype = RW_BF16);
    REFUSE_NORM(RW_INVALID_ARGUMENT, "out has strides", args.out.stride[0] = 0);
    REFUSE_NORM(RW_INVALID_ARGUMENT, "out overlaps residual_out", args.out = args.residual_out);
    REFUSE_NORM(RW_INVALID_ARGUMENT, "overlaps x", args.out = floats(f, 1, 4, 16));
    REFUSE_NORM(RW_INVALID_ARGUMENT, "overlaps weight", args.out = floats(f, 96, 4, 16));
    REFUSE_NORM(RW_INVALID_ARGUMENT, "eps is -1", args.eps = -1.0f);
    REFUSE_NORM(RW_INVALID_ARGUMENT, "eps is nan", args.eps = NAN);
    REFUSE_NORM(RW_INVALID_ARGUMENT, "weight_offset is inf", args.weight_offset = INFINITY);
    REFUSE_NORM(RW_INVALID_ARGUMENT, "weight is absent",
                (args.weight_offset = 1.0f, args.weight = (rw_tensor){.rank = 0}));
    REFUSE_NORM(RW_INVALID_ARGUMENT, "cast is 2", args.cast = (rw_norm_cast)2);
    rwt_assert_refused(*f, rw_rms_norm(f->context, NULL),
                       (rwt_refusal){RW_INVALID_ARGUMENT, "rw_rms_norm", "args"});
    assert_int_equal(rw_rms_norm(NULL, NULL), RW_INVALID_ARGUMENT);
}

/* ---- layer_norm ---- */

static rw_layer_norm_args layer_args(const rwt_guarded *f) {
    return (rw_layer_norm_args){.x = floats(f, 0, 4, 16),
                                .weight = vector(f, 100, 16),
                                .bias = vector(f, 120, 16),
                                .residual = floats(f, 200, 4, 16),
                                .residual_out = floats(f, 300, 4, 16),
                                .out = floats(f, 400, 4, 16),
                                .eps = 1e-5f};
}

#define REFUSE_LAYER(status, word, change)                                                         \
    do {                                                                                           \
        rw_layer_norm_args args = layer_args(f);                                                   \
        change;                                                                                    \
        rwt_assert_refused(*f, rw_layer_norm(f->context, &args),                                   \
                           (rwt_refusal){status, "rw_layer_norm", word});                          \
    } while (0)

static void test_layer_norm_refuses(void **state) {
    const rwt_guarded *f = *state;
    REFUSE_LAYER(RW_INVALID_ARGUMENT, "x has rank 0", args.x.rank = 0);
    REFUSE_LAYER(RW_UNSUPPORTED, "x has dtype u8", args.x.dtype = RW_U8);
    REFUSE_LAYER(RW_INVALID_ARGUMENT, "x has stride 2", args.x.stride[1] = 2);
    REFUSE_LAYER(RW_INVALID_ARGUMENT, "weight has shape [15]", args.weight.shape[0] = 15);
    REFUSE_LAYER(RW_INVALID_ARGUMENT, "bias has shape [17]", args.bias.shape[0] = 17);
    REFUSE_LAYER(RW_INVALID_ARGUMENT, "bias has rank 2", args.bias = floats(f, 120, 1, 16));
    REFUSE_LAYER(RW_UNSUPPORTED, "bias has dtype i32", args.bias.dtype = RW_I32);
    REFUSE_LAYER(RW_INVALID_ARGUMENT, "bias.data is NULL", args.bias.data = NULL);
    REFUSE_LAYER(RW_INVALID_ARGUMENT, "residual has dtype f16", args.residual.dtype = RW_F16);
    REFUSE_LAYER(RW_INVALID_ARGUMENT, "residual_out has shape", args.residual_out.shape[1] = 15);
    REFUSE_LAYER(RW_INVALID_ARGUMENT, "residual_out is given",
                 args.residual = (rw_tensor){.rank = 0});
    REFUSE_LAYER(RW_INVALID_ARGUMENT, "out has shape [4, 15]", args.out.shape[1] = 15);
    REFUSE_LAYER(RW_INVALID_ARGUMENT, "out overlaps residual_out", args.out = args.residual_out);
    REFUSE_LAYER(RW_INVALID_ARGUMENT, "overlaps x", args.out = floats(f, 1, 4, 16));
    REFUSE_LAYER(RW_INVALID_ARGUMENT, "out overlaps weight", args.out = floats(f, 48, 4, 16);
                 args.x = floats(f, 500, 4, 16); args.bias = vector(f, 130, 16));
    REFUSE_LAYER(RW_INVALID_ARGUMENT, "out overlaps bias", args.out = floats(f, 130, 4, 16));
    REFUSE_LAYER(RW_INVALID_ARGUMENT, "residual_out overlaps bias",
                 args.residual_out = floats(f, 130, 4, 16));
    REFUSE_LAYER(RW_INVALID_ARGUMENT, "eps is -1", args.eps = -1.0f);
    REFUSE_LAYER(RW_INVALID_ARGUMENT, "eps is nan", args.eps = NAN);
    REFUSE_LAYER(RW_INVALID_ARGUMENT, "weight_offset is inf", args.weight_offset = INFINITY);
    REFUSE_LAYER(RW_INVALID_ARGUMENT, "weight is absent",
                 (args.weight_offset = 1.0f, args.weight = (rw_tensor){.rank = 0}));
    rwt_assert_refused(*f, rw_layer_norm(f->context, NULL),
                       (rwt_refusal){RW_INVALID_ARGUMENT, "rw_layer_norm", "args"});
    assert_int_equal(rw_layer_norm(NULL, NULL), RW_INVALID_ARGUMENT);
}

/* ---- glu ---- */

static rw_glu_args pair_args(const rwt_guarded *f) {
    return (rw_glu_args){
        .gate = floats(f, 0, 4, 16), .up = floats(f, 100, 4, 16), .out = floats(f, 200, 4, 16)};
}

static rw_glu_args packed_args(const rwt_guarded *f) {
    return (rw_glu_args){.packed = floats(f, 0, 4, 32), .out = floats(f, 200, 4, 16)};
}

#define REFUSE_GLU(base, status, word, change)                                                     \
    do {                                                                                           \
        rw_glu_args args = base(f);                                                                \
        change;                                                                                    \
        rwt_assert_refused(*f, rw_glu(f->context, &args), (rwt_refusal){status, "rw_glu", word});  \
    } while (0)

static void test_glu_refuses(void **state) {
    const rwt_guarded *f = *state;
    REFUSE_GLU(pair_args, RW_INVALID_ARGUMENT, "gate has rank 0", args.gate.rank = 0);
    REFUSE_GLU(pair_args, RW_INVALID_ARGUMENT, "up has rank 0", args.up.rank = 0);
    REFUSE_GLU(pair_args, RW_UNSUPPORTED, "gate has dtype i64", args.gate.dtype = RW_I64);
    REFUSE_GLU(pair_args, RW_INVALID_ARGUMENT, "up has shape [4, 15]", args.up.shape[1] = 15);
    REFUSE_GLU(pair_args, RW_INVALID_ARGUMENT, "up has dtype f16", args.up.dtype = RW_F16);
    REFUSE_GLU(pair_args, RW_INVALID_ARGUMENT, "out has shape", args.out.shape[0] = 3);
    REFUSE_GLU(pair_args, RW_INVALID_ARGUMENT, "overlaps up", args.out = floats(f, 104, 4, 16));
    REFUSE_GLU(pair_args, RW_INVALID_ARGUMENT, "packed is given",
               args.packed = floats(f, 300, 4, 32));
    REFUSE_GLU(pair_args, RW_INVALID_ARGUMENT, "limit is -7", args.limit = -7.0f);
    REFUSE_GLU(pair_args, RW_INVALID_ARGUMENT, "limit is nan", args.limit = NAN);
    REFUSE_GLU(pair_args, RW_INVALID_ARGUMENT, "alpha is inf", args.alpha = INFINITY);
    REFUSE_GLU(pair_args, RW_INVALID_ARGUMENT, "up_offset is nan", args.up_offset = NAN);
    REFUSE_GLU(pair_args, RW_INVALID_ARGUMENT, "packing is 4", args.packing = (rw_glu_packing)4);
    REFUSE_GLU(pair_args, RW_INVALID_ARGUMENT, "activation is 5",
               args.activation = (rw_glu_activation)5);
    REFUSE_GLU(pair_args, RW_INVALID_ARGUMENT, "alpha is 2", args.alpha = 2.0f;
               args.activation = RW_GLU_GELU);
    REFUSE_GLU(packed_args, RW_INVALID_ARGUMENT, "packed has rows of 31",
               args.packed.shape[1] = 31);
    REFUSE_GLU(packed_args, RW_INVALID_ARGUMENT, "out is absent", args.out.rank = 0);
    REFUSE_GLU(packed_args, RW_INVALID_ARGUMENT, "out has shape", args.out.shape[1] = 32);
    REFUSE_GLU(packed_args, RW_INVALID_ARGUMENT, "overlaps packed", args.out = floats(f, 8, 4, 16));
    REFUSE_GLU(
        packed_args, RW_INVALID_ARGUMENT, "overlaps packed",
        (args.packing = RW_GLU_INTERLEAVED, args.out.data = f->memory, args.out.stride[0] = 32));
    rwt_assert_refused(*f, rw_glu(f->context, NULL),
                       (rwt_refusal){RW_INVALID_ARGUMENT, "rw_glu", "args"});
}

/* ---- MX ---- */

static rw_mx_args mx_args(const rwt_guarded *f) {
    const int64_t blocks[] = {3, 16}, scales[] = {3};
    return (rw_mx_args){.blocks = rw_tensor_contiguous(f->memory, RW_U8, 2, blocks),
                        .scales = rw_tensor_contiguous(f->memory + 100, RW_U8, 1, scales),
                        .values = floats(f, 200, 3, 32)};
}

#define REFUSE_MX(status, word, change)                                                            \
    do {                                                                                           \
        rw_mx_args args = mx_args(f);                                                              \
        change;                                                                                    \
        rwt_assert_refused(*f, rw_mx_dequantize(f->context, &args),                                \
                           (rwt_refusal){status, "rw_mx_dequantize", word});                       \
        rwt_assert_refused(*f, rw_mx_quantize(f->context, &args),                                  \
                           (rwt_refusal){status, "rw_mx_quantize", word});                         \
    } while (0)

static void test_mx_refuses(void **state) {
    const rwt_guarded *f = *state;
    REFUSE_MX(RW_INVALID_ARGUMENT, "layout.format is 5", args.layout.format = (rw_mx_format)5);
    REFUSE_MX(RW_INVALID_ARGUMENT, "layout.nibbles is 3", args.layout.nibbles = (rw_mx_nibbles)3);
    REFUSE_MX(RW_INVALID_ARGUMENT, "layout.nibbles is 1",
              (args.layout.format = RW_MXFP6_E2M3, args.layout.nibbles = RW_MX_HIGH_FIRST));
    REFUSE_MX(RW_INVALID_ARGUMENT, "expected 24", args.layout.format = RW_MXFP6_E3M2);
    REFUSE_MX(RW_INVALID_ARGUMENT, "expected 32", args.layout.format = RW_MXFP8_E4M3);
    REFUSE_MX(RW_INVALID_ARGUMENT, "expected 17",
              (args.layout.scale_in_front = true, args.scales.rank = 0));
    REFUSE_MX(
        RW_INVALID_ARGUMENT, "scales are given",
        (args.layout.scale_in_front = true, args.blocks.shape[1] = 17, args.blocks.stride[0] = 17));
    REFUSE_MX(RW_UNSUPPORTED, "blocks has dtype f16 (1), expected u8", args.blocks.dtype = RW_F16);
    REFUSE_MX(RW_INVALID_ARGUMENT, "blocks has rank 1", args.blocks.rank = 1);
    REFUSE_MX(RW_INVALID_ARGUMENT, "scales has rank 0", args.scales.rank = 0);
    REFUSE_MX(RW_INVALID_ARGUMENT, "scales has shape [2]", args.scales.shape[0] = 2);
    REFUSE_MX(RW_UNSUPPORTED, "values has dtype u8", args.values.dtype = RW_U8);
    REFUSE_MX(RW_INVALID_ARGUMENT, "values has shape [3, 16]", args.values.shape[1] = 16);
    REFUSE_MX(RW_INVALID_ARGUMENT, "values has shape [4, 32]", args.values.shape[0] = 4);
    REFUSE_MX(RW_INVALID_ARGUMENT, "values.data is NULL", args.values.data = NULL);
    REFUSE_MX(RW_INVALID_ARGUMENT, "overlaps", args.values = floats(f, 2, 3, 32));
    REFUSE_MX(RW_INVALID_ARGUMENT, "overlaps", args.values = floats(f, 100, 3, 32));
    rwt_assert_refused(*f, rw_mx_dequantize(f->context, NULL),
                       (rwt_refusal){RW_INVALID_ARGUMENT, "rw_mx_dequantize", "args"});
    rwt_assert_refused(*f, rw_mx_quantize(f->context, NULL),
                       (rwt_refusal){RW_INVALID_ARGUMENT, "rw_mx_quantize", "args"});
}

#define NUM_BLOCKS 200

/* The tensors of a round trip through a format. */
typedef struct trip {
    rw_mx_args there;
    rw_mx_args back;
    void *memory;
    char *host; /* a copy of the memory */
    size_t bytes;
} trip;

static trip make_trip(const rwt_guarded *f, rw_mx_layout layout) {
    int64_t block_bytes = rw_mx_block_bytes(&layout), count = NUM_BLOCKS;
    const int64_t blocks[] = {count, block_bytes}, values[] = {count, RW_MX_BLOCK};
    size_t value_bytes = NUM_BLOCKS * RW_MX_BLOCK * sizeof(float);
    trip t = {.bytes = 2 * value_bytes + (size_t)(count * (block_bytes + 1))};
    t.host = rwt_allocate(t.bytes);
    rwt_random random = {3};
    for (int64_t i = 0; i < count * RW_MX_BLOCK; i++)
        rwt_store(RW_F32, t.host, i,
                  ldexp(rwt_random_uniform(&random, -1.0, 1.0), (int)(i / RW_MX_BLOCK) - 100));
    t.memory = rwt_test_upload(f->context, t.host, t.bytes);
    char *memory = t.memory;
    t.there.layout = layout;
    t.there.values = rw_tensor_contiguous(memory, RW_F32, 2, values);
    t.there.blocks = rw_tensor_contiguous(memory + 2 * value_bytes, RW_U8, 2, blocks);
    if (!layout.scale_in_front)
        t.there.scales =
            rw_tensor_contiguous(memory + 2 * value_bytes + count * block_bytes, RW_U8, 1, &count);
    t.back = t.there;
    t.back.values = rw_tensor_contiguous(memory + value_bytes, RW_F32, 2, values);
    return t;
}

/* The error of a round trip is at most that of the largest value, which saturates: (2^(emax + 1) -
 * largest number) / 2^emax. A second round trip changes nothing. */
static void check_trip(const rwt_guarded *f, rw_mx_layout layout) {
    static const double limits[] = {0.5, 0.125, 0.25, 0.25, 0.25};
    trip t = make_trip(f, layout);
    assert_int_equal(rw_mx_quantize(f->context, &t.there), RW_OK);
    assert_int_equal(rw_mx_dequantize(f->context, &t.back), RW_OK);
    assert_int_equal(rw_synchronize(f->context), RW_OK);
    rwt_test_download(f->context, t.host, t.memory, t.bytes);
    const float *values = (const float *)(void *)t.host, *back = values + NUM_BLOCKS * RW_MX_BLOCK;
    for (int64_t b = 0; b < NUM_BLOCKS; b++) {
        double largest = 0.0;
        for (int i = 0; i < RW_MX_BLOCK; i++)
            largest = rwt_worse(largest, fabs((double)values[b * RW_MX_BLOCK + i]));
        double unit = ldexp(1.0, ilogb(largest));
        for (int i = 0; i < RW_MX_BLOCK; i++) {
            double difference =
                fabs((double)values[b * RW_MX_BLOCK + i] - back[b * RW_MX_BLOCK + i]);
            assert_true(difference <= limits[layout.format] * unit);
        }
    }
    size_t value_bytes = NUM_BLOCKS * RW_MX_BLOCK * sizeof(float);
    char *once = rwt_allocate(t.bytes);
    memcpy(once, t.host, t.bytes);
    t.there.values = t.back.values;
    assert_int_equal(rw_mx_quantize(f->context, &t.there), RW_OK);
    assert_int_equal(rw_mx_dequantize(f->context, &t.back), RW_OK);
    assert_int_equal(rw_synchronize(f->context), RW_OK);
    rwt_test_download(f->context, t.host, t.memory, t.bytes);
    assert_memory_equal(t.host + value_bytes, once + value_bytes, value_bytes);
    free(once);
    free(t.host);
    assert_int_equal(rw_free(f->context, t.memory), RW_OK);
}

static void test_mx_round_trip(void **state) {
    const rwt_guarded *f = *state;
    for (int format = RW_MXFP4_E2M1; format <= RW_MXFP8_E5M2; format++) {
        int orders = format == RW_MXFP4_E2M1 ? 3 : 1;
        for (int nibbles = 0; nibbles < orders; nibbles++) {
            for (int front = 0; front < 2; front++)
                check_trip(f, (rw_mx_layout){(rw_mx_format)format, (rw_mx_nibbles)nibbles, front});
        }
    }
}

/* The examples that the specification prints, so that not everything depends on one interpretation
 * of it. */
static void test_mx_reference(void **state) {
    (void)state;
    static const double e2m1[] = {0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0};
    for (unsigned code = 0; code < 8; code++) {
        assert_true(rwt_mx_element(RW_MXFP4_E2M1, code) == e2m1[code]);
        assert_true(rwt_mx_element(RW_MXFP4_E2M1, code + 8) == -e2m1[code]);
        assert_true(signbit(rwt_mx_element(RW_MXFP4_E2M1, code + 8)));
    }
    assert_true(rwt_mx_element(RW_MXFP6_E2M3, 0x1F) == 7.5);
    assert_true(rwt_mx_element(RW_MXFP6_E2M3, 0x01) == 0.125);
    assert_true(rwt_mx_element(RW_MXFP6_E3M2, 0x1F) == 28.0);
    assert_true(rwt_mx_element(RW_MXFP6_E3M2, 0x01) == 0.0625);
    assert_true(rwt_mx_element(RW_MXFP8_E4M3, 0x7E) == 448.0);
    assert_true(rwt_mx_element(RW_MXFP8_E4M3, 0x01) == 0x1p-9);
    assert_true(isnan(rwt_mx_element(RW_MXFP8_E4M3, 0xFF)));
    assert_true(rwt_mx_element(RW_MXFP8_E5M2, 0x7B) == 57344.0);
    assert_true(rwt_mx_element(RW_MXFP8_E5M2, 0x01) == 0x1p-16);
    assert_true(rwt_mx_element(RW_MXFP8_E5M2, 0xFC) == -INFINITY);
    assert_true(isnan(rwt_mx_element(RW_MXFP8_E5M2, 0x7D)));
    assert_true(rwt_mx_scale(0) == 0x1p-127 && rwt_mx_scale(127) == 1.0);
    assert_true(rwt_mx_scale(254) == 0x1p127 && isnan(rwt_mx_scale(255)));
    rw_mx_layout layout = {RW_MXFP8_E4M3, RW_MX_HIGH_FIRST, false};
    assert_int_equal(rw_mx_block_bytes(&layout), 0);
    assert_int_equal(rw_mx_block_bytes(NULL), 0);
}

int main(void) {
    if (!rwt_test_backend_usable())
        return RWT_TEST_SKIPPED;
#define TEST(name) cmocka_unit_test_setup_teardown(name, rwt_guarded_open, rwt_guarded_close)
    const struct CMUnitTest tests[] = {TEST(test_norm_refuses),  TEST(test_layer_norm_refuses),
                                       TEST(test_glu_refuses),   TEST(test_mx_refuses),
                                       TEST(test_mx_round_trip), TEST(test_mx_reference)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
