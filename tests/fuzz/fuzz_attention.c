/* Attention, its merge and its products. */
#include "fuzz_tensors.h"

static rw_attention_args attention_args(fuzz_call *call, rw_pattern *pattern, rw_alibi *alibi) {
    const uint8_t kind = fuzz_byte(call);
    const bool packed = kind % 4 == 3, paged = kind / 4 % 4 == 3;
    if (paged)
        fuzz_set_length(call, 't', fuzz_length(call, 'n') * fuzz_length(call, 'g'));
    fuzz_set_length(call, 'y', (fuzz_length(call, 't') + 7) / 8);
    rw_attention_args args = {.q = fuzz_tensor(call, call->dtype, packed ? "shd" : "bshd")};
    args.k = fuzz_tensor(call, call->dtype, paged ? "pgkd" : packed ? "tkd" : "btkd");
    args.v = fuzz_tensor(call, call->dtype, paged ? "pgkv" : packed ? "tkv" : "btkv");
    if (paged)
        args.block_table = fuzz_tensor(call, call->id_dtype, "bn");
    args.out = fuzz_tensor(call, (rw_dtype)(kind / 16 % 3), packed ? "shv" : "bshv");
    args.lse = fuzz_optional(call, RW_F32, packed ? "hs" : "bhs");
    args.scale = fuzz_factor(call);
    args.softcap = fuzz_factor(call);
    args.mask = fuzz_optional(call, fuzz_mask_dtype(fuzz_byte(call)), &"bhst"[fuzz_byte(call) % 3]);
    args.pattern = fuzz_pattern(call, pattern);
    args.alibi = fuzz_alibi(call, alibi);
    args.sinks = fuzz_optional(call, (rw_dtype)(fuzz_byte(call) % 3), "h");
    return args;
}

static void attention(fuzz_call *call) {
    rw_pattern pattern;
    rw_alibi alibi;
    rw_attention_args args = attention_args(call, &pattern, &alibi);
    int64_t bytes = -1;
    const rw_status status =
        rw_attention_workspace(call->context, &args, fuzz_rarely(call) ? NULL : &bytes);
    FUZZ_REQUIRE(status != RW_OK || bytes >= 0);
    if (status != RW_OK)
        fuzz_require_sentence(rw_last_error(call->context));
    const int64_t wanted = bytes < 0 ? 64 : bytes - (fuzz_rarely(call) && bytes > 0);
    fuzz_set_length(call, 'w', wanted);
    if (fuzz_byte(call) % 2)
        args.workspace = fuzz_optional(call, RW_U8, "w");
    fuzz_output(call, &args.out, NULL);
    fuzz_output(call, &args.lse, NULL);
    fuzz_output(call, &args.workspace, NULL);
    fuzz_check(call, rw_attention(call->context, fuzz_rarely(call) ? NULL : &args));
}

static rw_attention_part part(fuzz_call *call, rw_dtype dtype, bool packed) {
    rw_attention_part made = {.out = fuzz_tensor(call, dtype, packed ? "shv" : "bshv")};
    made.lse = fuzz_tensor(call, RW_F32, packed ? "hs" : "bhs");
    return made;
}

static void attention_merge(fuzz_call *call) {
    const bool packed = fuzz_byte(call) % 4 == 3;
    rw_attention_merge_args args = {.a = part(call, call->dtype, packed)};
    args.b = part(call, call->dtype, packed);
    const uint8_t kind = fuzz_byte(call);
    args.merged = kind % 4 == 3 ? args.a : part(call, (rw_dtype)(kind / 4 % 3), packed);
    fuzz_output(call, &args.merged.out, NULL);
    fuzz_output(call, &args.merged.lse, NULL);
    fuzz_check(call, rw_attention_merge(call->context, fuzz_rarely(call) ? NULL : &args));
}

static void qk_matmul(fuzz_call *call) {
    const bool packed = fuzz_byte(call) % 4 == 3;
    rw_qk_matmul_args args = {.q = fuzz_tensor(call, call->dtype, packed ? "shd" : "bshd")};
    args.k = fuzz_tensor(call, call->dtype, packed ? "tkd" : "btkd");
    args.out = fuzz_tensor(call, (rw_dtype)(fuzz_byte(call) % 3), packed ? "hst" : "bhst");
    args.scale = fuzz_factor(call);
    fuzz_output(call, &args.out, NULL);
    fuzz_check(call, rw_qk_matmul(call->context, fuzz_rarely(call) ? NULL : &args));
}

static void weighted_matmul(fuzz_call *call) {
    const bool packed = fuzz_byte(call) % 4 == 3;
    const rw_dtype weights = fuzz_byte(call) % 2 ? call->dtype : RW_F32;
    rw_weighted_matmul_args args = {.weights = fuzz_tensor(call, weights, packed ? "hst" : "bhst")};
    args.v = fuzz_tensor(call, call->dtype, packed ? "tkv" : "btkv");
    args.out = fuzz_tensor(call, (rw_dtype)(fuzz_byte(call) % 3), packed ? "shv" : "bshv");
    fuzz_output(call, &args.out, NULL);
    fuzz_check(call, rw_weighted_matmul(call->context, fuzz_rarely(call) ? NULL : &args));
}

static void score_statistics(fuzz_call *call) {
    rw_score_statistics_args args = {.scores = fuzz_tensor(call, call->dtype, "bhst")};
    rw_tensor *const floats[] = {&args.min, &args.max, &args.mean};
    for (int n = 0; n < 3; n++)
        *floats[n] = fuzz_optional(call, RW_F32, "bh");
    args.num_nan = fuzz_optional(call, call->id_dtype, "bh");
    args.num_inf = fuzz_optional(call, (rw_dtype)(RW_I32 + fuzz_byte(call) % 2), "bh");
    for (int n = 0; n < 3; n++)
        fuzz_output(call, floats[n], NULL);
    fuzz_output(call, &args.num_nan, NULL);
    fuzz_output(call, &args.num_inf, NULL);
    fuzz_check(call, rw_score_statistics(call->context, &args));
}

fuzz_operation *const fuzz_attention[] = {
    attention, attention, attention_merge, qk_matmul, weighted_matmul, score_statistics, NULL};
