/* Operations on rows: embeddings, norms, activations, microscaling, rotary embedding, KV cache. */
#include "fuzz_tensors.h"

static rw_embed_args embed_args(fuzz_call *call) {
    const bool packed = fuzz_byte(call) % 4 == 3;
    rw_embed_args args = {.x = fuzz_tensor(call, call->dtype, packed ? "sx" : "bsx")};
    args.out = fuzz_optional(call, args.x.dtype, packed ? "sx" : "bsx");
    args.positions = fuzz_optional(call, call->id_dtype, fuzz_byte(call) % 2 ? "bs" : "s");
    args.offsets = fuzz_optional(call, call->id_dtype, "b");
    args.offset = fuzz_number(call);
    fuzz_output(call, &args.out, &args.x);
    return args;
}

static void embed_learned(fuzz_call *call) {
    const rw_embed_args args = embed_args(call);
    const rw_tensor table = fuzz_tensor(call, (rw_dtype)(fuzz_byte(call) % 3), "rx");
    const bool without = fuzz_rarely(call);
    fuzz_check(call, rw_embed_learned(call->context, without ? NULL : &table, &args));
}

static void embed_sinusoidal(fuzz_call *call) {
    const rw_embed_args args = embed_args(call);
    fuzz_check(call, rw_embed_sinusoidal(call->context, fuzz_sinusoid(call), &args));
}

static rw_rope_args rope_args(fuzz_call *call, bool packed, bool with_k) {
    rw_rope_args args = {.q = fuzz_tensor(call, call->dtype, packed ? "shd" : "bshd")};
    args.q_out = fuzz_optional(call, call->dtype, packed ? "shd" : "bshd");
    if (with_k) {
        args.k = fuzz_optional(call, call->dtype, packed ? "skd" : "bskd");
        args.k_out = fuzz_optional(call, call->dtype, packed ? "skd" : "bskd");
    }
    static const char *const axes[] = {"s", "bs", "abs", "as"};
    args.positions = fuzz_optional(call, call->id_dtype, axes[fuzz_byte(call) % 4]);
    args.offsets = fuzz_optional(call, call->id_dtype, "b");
    args.offset = fuzz_number(call);
    args.direction = (rw_rope_direction)fuzz_choice(call, 3);
    fuzz_output(call, &args.q_out, &args.q);
    fuzz_output(call, &args.k_out, &args.k);
    return args;
}

static void rope_apply(fuzz_call *call) {
    const rw_rope *rope = fuzz_rope(call);
    const rw_rope_args args = rope_args(call, fuzz_byte(call) % 4 == 3, true);
    fuzz_check(call, rw_rope_apply(call->context, rope, fuzz_rarely(call) ? NULL : &args));
}

static void rope_rerotate(fuzz_call *call) {
    const rw_rope_change change = {fuzz_rope(call), fuzz_rope(call)};
    const rw_rope_args args = rope_args(call, fuzz_byte(call) % 4 == 3, true);
    fuzz_check(call, rw_rope_rerotate(call->context, fuzz_rarely(call) ? NULL : &change, &args));
}

static rw_kv_append_args append_args(fuzz_call *call, bool packed) {
    const bool paged = fuzz_byte(call) % 2;
    rw_kv_append_args args = {.k = fuzz_tensor(call, call->dtype, packed ? "skd" : "bskd")};
    args.v = fuzz_tensor(call, call->dtype, packed ? "skv" : "bskv");
    const bool quantized = fuzz_rarely(call);
    const rw_dtype f8 = fuzz_byte(call) % 2 ? RW_F8_E4M3 : RW_F8_E5M2;
    const rw_dtype dtype = quantized ? f8 : call->dtype;
    args.cache.k = fuzz_tensor(call, dtype, paged ? "pgkd" : "bmkd");
    args.cache.v = fuzz_tensor(call, dtype, paged ? "pgkv" : "bmkv");
    if (quantized) {
        args.cache.k_scale = fuzz_optional(call, RW_F32, "k");
        args.cache.v_scale = fuzz_optional(call, RW_F32, "k");
    }
    if (paged)
        args.cache.block_table = fuzz_tensor(call, call->id_dtype, "bn");
    args.offsets = fuzz_optional(call, call->id_dtype, "b");
    args.offset = fuzz_number(call);
    if (fuzz_rarely(call))
        args.slots = fuzz_tensor(call, call->id_dtype, packed ? "s" : "bs");
    if (packed && fuzz_rarely(call))
        args.cu_seqlens = fuzz_tensor(call, call->id_dtype, "c");
    if (fuzz_rarely(call))
        args.cache.ring = fuzz_number(call);
    if (fuzz_rarely(call))
        args.v = args.cache.v = (rw_tensor){0};
    fuzz_output(call, &args.cache.k, NULL);
    fuzz_output(call, &args.cache.v, NULL);
    return args;
}

static void kv_append(fuzz_call *call) {
    const rw_kv_append_args args = append_args(call, fuzz_byte(call) % 4 == 3);
    fuzz_check(call, rw_kv_append(call->context, fuzz_rarely(call) ? NULL : &args));
}

static void rope_append(fuzz_call *call) {
    const bool packed = fuzz_byte(call) % 4 == 3;
    const rw_rope *rope = fuzz_rope(call);
    rw_rope_append_args args = {.rope = rope_args(call, packed, fuzz_rarely(call))};
    args.append = append_args(call, packed);
    args.norm.q_weight = fuzz_optional(call, (rw_dtype)(fuzz_byte(call) % 3), "d");
    args.norm.k_weight = fuzz_optional(call, (rw_dtype)(fuzz_byte(call) % 3), "d");
    args.norm.v_weight = fuzz_optional(call, (rw_dtype)(fuzz_byte(call) % 3), "v");
    args.norm.normalize_v = fuzz_rarely(call);
    args.norm.eps = (float)fuzz_factor(call);
    args.norm.weight_offset = (float)fuzz_factor(call);
    args.norm.cast = (rw_norm_cast)fuzz_choice(call, 2);
    fuzz_check(call, rw_rope_append(call->context, fuzz_rarely(call) ? NULL : rope, &args));
}

static void rms_norm(fuzz_call *call) {
    static const char *const shapes[] = {"sx", "x", "bsx", "bshx"};
    const char *axes = shapes[fuzz_byte(call) % 4];
    rw_rms_norm_args args = {.x = fuzz_tensor(call, call->dtype, axes)};
    args.weight = fuzz_optional(call, (rw_dtype)(fuzz_byte(call) % 3), "x");
    args.residual = fuzz_optional(call, call->dtype, axes);
    args.residual_out = fuzz_optional(call, call->dtype, axes);
    args.out = fuzz_optional(call, call->dtype, axes);
    args.eps = (float)fuzz_factor(call);
    args.weight_offset = (float)fuzz_factor(call);
    args.cast = (rw_norm_cast)fuzz_choice(call, 2);
    fuzz_output(call, &args.out, &args.x);
    fuzz_output(call, &args.residual_out, &args.residual);
    fuzz_check(call, rw_rms_norm(call->context, fuzz_rarely(call) ? NULL : &args));
}

static void layer_norm(fuzz_call *call) {
    static const char *const shapes[] = {"sx", "x", "bsx", "bshx"};
    const char *axes = shapes[fuzz_byte(call) % 4];
    rw_layer_norm_args args = {.x = fuzz_tensor(call, call->dtype, axes)};
    args.weight = fuzz_optional(call, (rw_dtype)(fuzz_byte(call) % 3), "x");
    args.bias = fuzz_optional(call, (rw_dtype)(fuzz_byte(call) % 3), "x");
    args.residual = fuzz_optional(call, call->dtype, axes);
    args.residual_out = fuzz_optional(call, call->dtype, axes);
    args.out = fuzz_optional(call, call->dtype, axes);
    args.eps = (float)fuzz_factor(call);
    args.weight_offset = (float)fuzz_factor(call);
    fuzz_output(call, &args.out, &args.x);
    fuzz_output(call, &args.residual_out, &args.residual);
    fuzz_check(call, rw_layer_norm(call->context, fuzz_rarely(call) ? NULL : &args));
}

static void glu(fuzz_call *call) {
    static const char *const shapes[] = {"sx", "x", "bsx", "bshx"};
    static const char *const packed_shapes[] = {"se", "e", "bse", "bshe"};
    const int shape = fuzz_byte(call) % 4;
    const bool packed = fuzz_byte(call) % 2;
    rw_glu_args args = {.packing = packed ? (rw_glu_packing)fuzz_choice(call, 4) : 0};
    args.activation = (rw_glu_activation)fuzz_choice(call, 5);
    args.zero_at_minus_infinity = fuzz_rarely(call);
    if (packed) {
        args.packed = fuzz_tensor(call, call->dtype, packed_shapes[shape]);
        args.out = fuzz_tensor(call, call->dtype, shapes[shape]);
    } else {
        args.gate = fuzz_tensor(call, call->dtype, shapes[shape]);
        args.up = fuzz_tensor(call, call->dtype, shapes[shape]);
        args.out = fuzz_optional(call, call->dtype, shapes[shape]);
    }
    args.limit = (float)fuzz_factor(call);
    args.alpha = (float)fuzz_factor(call);
    args.up_offset = (float)fuzz_factor(call);
    fuzz_output(call, &args.out, &args.gate);
    fuzz_check(call, rw_glu(call->context, fuzz_rarely(call) ? NULL : &args));
}

static rw_mx_args mx_args(fuzz_call *call) {
    rw_mx_args args = {.layout = {.format = (rw_mx_format)fuzz_choice(call, 5),
                                  .nibbles = (rw_mx_nibbles)fuzz_choice(call, 3),
                                  .scale_in_front = fuzz_byte(call) % 2}};
    if (args.layout.format != RW_MXFP4_E2M1 && fuzz_byte(call) % 8)
        args.layout.nibbles = RW_MX_LOW_FIRST;
    const int64_t bytes = rw_mx_block_bytes(&args.layout);
    FUZZ_REQUIRE(bytes >= 0 && bytes <= 33);
    const bool flat = fuzz_byte(call) % 2;
    fuzz_set_length(call, 'z', bytes);
    fuzz_set_length(call, 'o', RW_MX_BLOCK);
    args.blocks = fuzz_tensor(call, RW_U8, flat ? "sz" : "bsz");
    if (!args.layout.scale_in_front)
        args.scales = fuzz_tensor(call, RW_U8, flat ? "s" : "bs");
    args.values = fuzz_tensor(call, call->dtype, flat ? "so" : "bso");
    return args;
}

static void mx_dequantize(fuzz_call *call) {
    const rw_mx_args args = mx_args(call);
    fuzz_output(call, &args.values, NULL);
    fuzz_check(call, rw_mx_dequantize(call->context, fuzz_rarely(call) ? NULL : &args));
}

static void mx_quantize(fuzz_call *call) {
    const rw_mx_args args = mx_args(call);
    fuzz_output(call, &args.blocks, NULL);
    fuzz_output(call, &args.scales, NULL);
    fuzz_check(call, rw_mx_quantize(call->context, fuzz_rarely(call) ? NULL : &args));
}

fuzz_operation *const fuzz_rows[] = {embed_learned, embed_sinusoidal, rope_apply,  rope_rerotate,
                                     kv_append,     rope_append,      rms_norm,    layer_norm,
                                     glu,           mx_dequantize,    mx_quantize, NULL};
