/* Operations on scores: patterns, biases, softmax. */
#include "fuzz_tensors.h"

/* ---- patterns ---- */

static bool is_seen(void *user, const rw_pattern_pair *pair) {
    const int64_t *lengths = user;
    FUZZ_REQUIRE(pair->b >= 0 && pair->i >= 0 && pair->j >= 0);
    return (pair->i * 7 + pair->j + lengths[0]) % 3 != 0;
}

static rw_window_side window_side(fuzz_call *call) {
    const uint8_t byte = fuzz_byte(call);
    rw_window_side side = {.given = byte % 2};
    if (byte % 2 || byte >= 250)
        side.keys = fuzz_number(call);
    return side;
}

static void fill_pattern(fuzz_call *call, rw_pattern *pattern) {
    static const int64_t lengths[] = {1};
    const uint8_t parts = fuzz_byte(call), more = fuzz_byte(call);
    *pattern = (rw_pattern){.causal = parts & 1};
    if (parts & 2)
        pattern->alignment = (rw_alignment)fuzz_choice(call, 3);
    if (parts & 4) {
        pattern->left = window_side(call);
        pattern->right = window_side(call);
    }
    if (parts & 8)
        pattern->prefix = fuzz_tensor(call, call->id_dtype, "b");
    if (parts & 16)
        pattern->globals = fuzz_tensor(call, RW_U8, "y");
    if (parts & 32)
        pattern->cu_seqlens = fuzz_tensor(call, call->id_dtype, more & 32 ? "bc" : "c");
    if (parts & 64)
        pattern->key_begin = fuzz_tensor(call, call->id_dtype, "b");
    if (parts & 128)
        pattern->key_end = fuzz_tensor(call, call->id_dtype, "b");
    if (more & 1)
        pattern->bits = fuzz_tensor(call, RW_U8, more & 64 ? "bsy" : "sy");
    if (more & 2)
        pattern->mask = fuzz_tensor(call, fuzz_mask_dtype(more / 4), more & 64 ? "bst" : "st");
    if (more & 16)
        pattern->prefix_length = fuzz_number(call);
    if (more & 128) {
        pattern->function = is_seen;
        pattern->function_user = (void *)lengths;
    }
}

const rw_pattern *fuzz_pattern(fuzz_call *call, rw_pattern *pattern) {
    if (fuzz_byte(call) % 4 == 0)
        return NULL;
    fill_pattern(call, pattern);
    return pattern;
}

/* For functions that require a pattern; NULL rarely. */
static const rw_pattern *required_pattern(fuzz_call *call, rw_pattern *pattern) {
    if (fuzz_rarely(call))
        return NULL;
    fill_pattern(call, pattern);
    return pattern;
}

static void pattern_fill(fuzz_call *call) {
    rw_pattern pattern;
    const rw_pattern *given = required_pattern(call, &pattern);
    const rw_tensor out = fuzz_tensor(call, call->dtype, fuzz_byte(call) % 2 ? "st" : "bst");
    fuzz_output(call, &out, NULL);
    fuzz_check(call, rw_pattern_fill(call->context, given, fuzz_rarely(call) ? NULL : &out));
}

static void pattern_fill_bits(fuzz_call *call) {
    rw_pattern pattern;
    const rw_pattern *given = required_pattern(call, &pattern);
    const rw_tensor out = fuzz_tensor(call, RW_U8, fuzz_byte(call) % 2 ? "sy" : "bsy");
    const int64_t seq_k = fuzz_rarely(call) ? fuzz_number(call) : fuzz_length(call, 't');
    fuzz_output(call, &out, NULL);
    fuzz_check(call, rw_pattern_fill_bits(call->context, given, seq_k, &out));
}

/* The lengths of the call, or rarely any. */
static rw_pattern_shape pattern_shape(fuzz_call *call) {
    rw_pattern_shape shape = {fuzz_length(call, 'b'), fuzz_length(call, 's'),
                              fuzz_length(call, 't')};
    if (fuzz_rarely(call))
        shape.batch = fuzz_number(call);
    if (fuzz_rarely(call))
        shape.seq_q = fuzz_number(call);
    if (fuzz_rarely(call))
        shape.seq_k = fuzz_number(call);
    return shape;
}

static void pattern_visible(fuzz_call *call) {
    rw_pattern pattern;
    rw_message message = {""};
    bool visible = false;
    const rw_pattern *given = required_pattern(call, &pattern);
    rw_pattern_question question = {.shape = pattern_shape(call)};
    question.pair = (rw_pattern_pair){fuzz_number(call), fuzz_number(call), fuzz_number(call)};
    const bool without = fuzz_rarely(call);
    fuzz_check_message(
        call, rw_pattern_visible(given, &question, without ? NULL : &visible, &message), &message);
}

static void pattern_ask_tile(fuzz_call *call) {
    rw_pattern pattern;
    rw_message message = {""};
    rw_tile tile = RW_TILE_SOME;
    const rw_pattern *given = required_pattern(call, &pattern);
    rw_pattern_rectangle rectangle = {.shape = pattern_shape(call), .b = fuzz_number(call)};
    rectangle.i_begin = fuzz_number(call);
    rectangle.i_end = fuzz_number(call);
    rectangle.j_begin = fuzz_number(call);
    rectangle.j_end = fuzz_number(call);
    fuzz_check_message(call, rw_pattern_ask_tile(given, &rectangle, &tile, &message), &message);
    FUZZ_REQUIRE(tile == RW_TILE_NONE || tile == RW_TILE_SOME || tile == RW_TILE_ALL);
}

static void pattern_bake(fuzz_call *call) {
    rw_pattern pattern;
    rw_message message = {""};
    const rw_pattern *given = required_pattern(call, &pattern);
    rw_pattern_shape shape = pattern_shape(call);
    rw_tensor out = {.rank = 0};
    if (shape.batch >= 0 && shape.seq_q >= 0 && shape.seq_k >= 0 && shape.batch < 4 &&
        shape.seq_q < 64 && shape.seq_k < 64) {
        const int64_t lengths[] = {shape.batch, shape.seq_q, (shape.seq_k + 7) / 8};
        const int64_t bytes = lengths[0] * lengths[1] * lengths[2];
        out = rw_tensor_contiguous(fuzz_memory(call, (size_t)bytes), RW_U8, 3, lengths);
    }
    fuzz_output(call, &out, NULL);
    fuzz_check_message(call, rw_pattern_bake(given, &shape, out.data, &message), &message);
}

static void pattern_globals(fuzz_call *call) {
    rw_message message = {""};
    const int64_t count = fuzz_byte(call) % 16, seq_k = fuzz_byte(call) % 64;
    int64_t *positions = fuzz_memory(call, (size_t)count * sizeof *positions);
    for (int64_t n = 0; positions && n < count; n++) {
        positions[n] = fuzz_number(call);
        memcpy((int64_t *)call->buffers[0].expected + n, &positions[n], sizeof *positions);
    }
    const rw_pattern_globals_list list = {positions, fuzz_rarely(call) ? -count : count,
                                          fuzz_rarely(call) ? -seq_k : seq_k};
    const int64_t shape[] = {(seq_k + 7) / 8};
    const rw_tensor out =
        rw_tensor_contiguous(fuzz_memory(call, (size_t)shape[0]), RW_U8, 1, shape);
    fuzz_output(call, &out, NULL);
    const rw_status status = rw_pattern_globals(&list, out.data, &message);
    fuzz_check_message(call, status, &message);
}

/* ---- biases ---- */

static void alibi_slopes(fuzz_call *call) {
    rw_alibi_slopes_args args = {.out = fuzz_tensor(call, RW_F32, "h")};
    args.first_head = fuzz_number(call);
    args.total_heads = fuzz_length(call, 'h') + fuzz_byte(call);
    if (fuzz_rarely(call))
        args.total_heads = fuzz_number(call);
    fuzz_output(call, &args.out, NULL);
    fuzz_check(call, rw_alibi_slopes(call->context, &args));
}

const rw_alibi *fuzz_alibi(fuzz_call *call, rw_alibi *alibi) {
    if (fuzz_byte(call) % 4 != 3)
        return NULL;
    *alibi = (rw_alibi){.slopes = fuzz_tensor(call, RW_F32, "h"), .is_signed = fuzz_byte(call) % 2};
    alibi->alignment = (rw_alignment)fuzz_choice(call, 3);
    return alibi;
}

static void alibi_bias(fuzz_call *call) {
    rw_alibi alibi = {.slopes = fuzz_tensor(call, RW_F32, "h"), .is_signed = fuzz_byte(call) % 2};
    alibi.alignment = (rw_alignment)fuzz_choice(call, 3);
    const rw_tensor out = fuzz_tensor(call, call->dtype, "hst");
    fuzz_output(call, &out, NULL);
    fuzz_check(call, rw_alibi_bias(call->context, fuzz_rarely(call) ? NULL : &alibi, &out));
}

static void t5_bias(fuzz_call *call) {
    const rw_t5 *t5 = fuzz_t5(call);
    rw_t5_bias_args args = {.table = fuzz_tensor(call, (rw_dtype)(fuzz_byte(call) % 3), "uh")};
    args.out = fuzz_tensor(call, call->dtype, "hst");
    args.alignment = (rw_alignment)fuzz_choice(call, 3);
    fuzz_output(call, &args.out, NULL);
    fuzz_check(call, rw_t5_bias(call->context, t5, &args));
}

/* ---- scores ---- */

static void scale(fuzz_call *call) {
    static const char *const shapes[] = {"bhst", "hst", "st", "t"};
    const char *axes = shapes[fuzz_byte(call) % 4];
    rw_scale_args args = {.x = fuzz_tensor(call, call->dtype, axes)};
    args.out = fuzz_optional(call, call->dtype, axes);
    args.scale = fuzz_factor(call);
    fuzz_output(call, &args.out, &args.x);
    fuzz_check(call, rw_scale(call->context, fuzz_rarely(call) ? NULL : &args));
}

static void mask_apply(fuzz_call *call) {
    static const char *const shapes[] = {"bhst", "hst", "st"};
    const char *axes = shapes[fuzz_byte(call) % 3];
    rw_pattern pattern;
    rw_mask_apply_args args = {.x = fuzz_tensor(call, call->dtype, axes)};
    args.out = fuzz_optional(call, call->dtype, axes);
    args.mask = fuzz_optional(call, fuzz_mask_dtype(fuzz_byte(call)), axes + fuzz_byte(call) % 2);
    args.pattern = fuzz_pattern(call, &pattern);
    fuzz_output(call, &args.out, &args.x);
    fuzz_check(call, rw_mask_apply(call->context, &args));
}

static void softmax(fuzz_call *call) {
    static const char *const shapes[] = {"bhst", "hst", "st", "t"};
    const char *axes = shapes[fuzz_byte(call) % 4];
    rw_pattern pattern;
    rw_alibi alibi;
    rw_softmax_args args = {.x = fuzz_tensor(call, call->dtype, axes)};
    args.out = fuzz_optional(call, call->dtype, axes);
    args.mask = fuzz_optional(call, fuzz_mask_dtype(fuzz_byte(call)), axes);
    args.pattern = fuzz_pattern(call, &pattern);
    args.alibi = fuzz_alibi(call, &alibi);
    args.sinks = fuzz_optional(call, (rw_dtype)(fuzz_byte(call) % 3), "h");
    args.scale = fuzz_factor(call);
    args.softcap = fuzz_factor(call);
    fuzz_output(call, &args.out, &args.x);
    fuzz_check(call, rw_softmax(call->context, &args));
}

fuzz_operation *const fuzz_scores[] = {pattern_fill,
                                       pattern_fill_bits,
                                       pattern_visible,
                                       pattern_ask_tile,
                                       pattern_bake,
                                       pattern_globals,
                                       alibi_slopes,
                                       alibi_bias,
                                       t5_bias,
                                       scale,
                                       mask_apply,
                                       softmax,
                                       NULL};
