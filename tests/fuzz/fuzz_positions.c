/* Operations that write position ids. */
#include "fuzz_tensors.h"

static void sequential(fuzz_call *call) {
    rw_positions_sequential_args args = {.out = fuzz_tensor(call, call->id_dtype, "bs")};
    args.offsets = fuzz_optional(call, (rw_dtype)(RW_I32 + fuzz_byte(call) % 2), "b");
    args.offset = fuzz_number(call);
    fuzz_output(call, &args.out, NULL);
    fuzz_check(call, rw_positions_sequential(call->context, fuzz_rarely(call) ? NULL : &args));
}

static void left_padded(fuzz_call *call) {
    rw_positions_left_padded_args args = {.out = fuzz_tensor(call, call->id_dtype, "bs")};
    args.padding = fuzz_tensor(call, (rw_dtype)(RW_I32 + fuzz_byte(call) % 2), "b");
    args.padding_id = fuzz_number(call);
    fuzz_output(call, &args.out, NULL);
    fuzz_check(call, rw_positions_left_padded(call->context, &args));
}

static void packed(fuzz_call *call) {
    rw_positions_packed_args args = {.out = fuzz_tensor(call, call->id_dtype, "s")};
    args.cu_seqlens = fuzz_tensor(call, (rw_dtype)(RW_I32 + fuzz_byte(call) % 2), "c");
    fuzz_output(call, &args.out, NULL);
    fuzz_check(call, rw_positions_packed(call->context, &args));
}

static void mrope(fuzz_call *call) {
    rw_positions_mrope_args args = {.out = fuzz_tensor(call, call->id_dtype, "3bs")};
    args.segments = fuzz_tensor(call, (rw_dtype)(RW_I32 + fuzz_byte(call) % 2), "bc3");
    args.steps = fuzz_optional(call, RW_F32, "bc");
    args.advance = (rw_mrope_advance)fuzz_choice(call, 2);
    args.rope_delta = fuzz_optional(call, call->id_dtype, "b");
    fuzz_output(call, &args.out, NULL);
    fuzz_output(call, &args.rope_delta, NULL);
    fuzz_check(call, rw_positions_mrope(call->context, &args));
}

static void glm(fuzz_call *call) {
    rw_positions_glm_args args = {.out = fuzz_tensor(call, call->id_dtype, "2bs")};
    args.context_length = fuzz_tensor(call, (rw_dtype)(RW_I32 + fuzz_byte(call) % 2), "b");
    args.mask_position = fuzz_tensor(call, (rw_dtype)(RW_I32 + fuzz_byte(call) % 2), "b");
    fuzz_output(call, &args.out, NULL);
    fuzz_check(call, rw_positions_glm(call->context, &args));
}

static int64_t id_of(void *user, int64_t b, int64_t pos) {
    FUZZ_REQUIRE(b >= 0 && pos >= 0);
    return *(const int64_t *)user + b - pos;
}

static void of_pattern(fuzz_call *call) {
    int64_t first = 100;
    rw_pattern_positions_args args = {
        .out = fuzz_tensor(call, call->id_dtype, fuzz_byte(call) % 2 ? "bs" : "s"),
        .ids = (rw_pattern_ids)fuzz_choice(call, 4)};
    args.window = fuzz_number(call);
    args.offset = fuzz_number(call);
    args.globals = fuzz_optional(call, RW_U8, "y");
    args.cu_seqlens = fuzz_optional(call, call->id_dtype, fuzz_byte(call) % 2 ? "bc" : "c");
    args.table = fuzz_optional(call, call->id_dtype, fuzz_byte(call) % 2 ? "br" : "r");
    if (fuzz_byte(call) % 4 == 3) {
        args.function = id_of;
        args.function_user = &first;
    }
    fuzz_output(call, &args.out, NULL);
    fuzz_check(call, rw_pattern_positions(call->context, &args));
}

fuzz_operation *const fuzz_positions[] = {sequential, left_padded, packed, mrope,
                                          glm,        of_pattern,  NULL};
