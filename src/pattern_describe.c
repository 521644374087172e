/* Patterns: their checks and their description for kernels. */
#include "pattern_describe.h"

static const int64_t too_long = (int64_t)1 << 31;

rw_status rwi_check_pattern_shape(const rwi_call *call, const rw_pattern_shape *shape) {
    const int64_t lengths[] = {shape->batch, shape->seq_q, shape->seq_k};
    static const char *const names[] = {"batch", "seq_q", "seq_k"};
    for (int i = 0; i < 3; i++)
        if (lengths[i] < 0 || (i > 0 && lengths[i] >= too_long))
            return rwi_fail(call, RW_INVALID_ARGUMENT, "%s is %lld, expected 0 to 2^31 - 1",
                            names[i], (long long)lengths[i]);
    return RW_OK;
}

rw_status rwi_check_alignment(const rwi_call *call, rw_alignment alignment,
                              const rw_pattern_shape *shape, int64_t *shift) {
    if ((unsigned)alignment > RW_ALIGN_KEY_END)
        return rwi_fail(call, RW_INVALID_ARGUMENT, "alignment is %d, expected one of rw_alignment",
                        (int)alignment);
    switch (alignment) {
    case RW_ALIGN_BOTTOM_RIGHT:
        *shift = shape->seq_k - shape->seq_q;
        break;
    case RW_ALIGN_TOP_LEFT:
        *shift = 0;
        break;
    case RW_ALIGN_KEY_END:
        *shift = -shape->seq_q;
        break;
    }
    return RW_OK;
}

const char *rwi_alignment_name(rw_alignment alignment) {
    switch (alignment) {
    case RW_ALIGN_BOTTOM_RIGHT:
        return "RW_ALIGN_BOTTOM_RIGHT";
    case RW_ALIGN_TOP_LEFT:
        return "RW_ALIGN_TOP_LEFT";
    case RW_ALIGN_KEY_END:
        return "RW_ALIGN_KEY_END";
    }
    return "no alignment";
}

rw_status rwi_check_key_end(const rwi_call *call, rw_alignment alignment,
                            const rw_pattern *pattern) {
    if (alignment != RW_ALIGN_KEY_END || (pattern && !rwi_absent(&pattern->key_end)))
        return RW_OK;
    return rwi_fail(call, RW_INVALID_ARGUMENT,
                    "alignment is RW_ALIGN_KEY_END and pattern.key_end is absent, expected it or "
                    "another alignment");
}

static rw_status check_side(const rwi_call *call, const char *name, const rw_window_side *side,
                            int64_t *keys) {
    *keys = side->given ? rwi_min(side->keys, RWI_OPEN) : RWI_OPEN;
    if (!side->given && side->keys > 0)
        return rwi_fail(call, RW_INVALID_ARGUMENT,
                        "pattern.%s.keys is %lld, but pattern.%s.given is false, expected both or "
                        "neither",
                        name, (long long)side->keys, name);
    if (!side->given || side->keys >= 0)
        return RW_OK;
    return rwi_fail(call, RW_INVALID_ARGUMENT, "pattern.%s.keys is %lld, expected 0 or more", name,
                    (long long)side->keys);
}

/* [batch] ids, or absent. */
static rw_status check_lengths(const rwi_call *call, rwi_argument lengths, int64_t batch,
                               rwi_ids *ids) {
    if (rwi_absent(lengths.tensor))
        return RW_OK;
    RWI_TRY(rwi_check_tensor(call, lengths, (rwi_tensor_rule){1, 1, RWI_IDS}));
    RWI_TRY(rwi_check_length(call, lengths, 0, batch));
    *ids = rwi_ids_vector_view(lengths.tensor);
    return RW_OK;
}

rw_status rwi_describe_documents(const rwi_call *call, const rw_tensor *cu_seqlens, int64_t batch,
                                 rwi_documents *documents) {
    rwi_argument argument = {"cu_seqlens", cu_seqlens};
    if (rwi_absent(cu_seqlens))
        return RW_OK;
    RWI_TRY(rwi_check_tensor(call, argument, (rwi_tensor_rule){1, 2, RWI_IDS}));
    if (cu_seqlens->rank == 2)
        RWI_TRY(rwi_check_length(call, argument, 0, batch));
    int64_t length = cu_seqlens->shape[cu_seqlens->rank - 1];
    if (length < 2)
        return rwi_fail(call, RW_INVALID_ARGUMENT,
                        "cu_seqlens has %lld values a row, expected documents + 1, 2 or more",
                        (long long)length);
    *documents = (rwi_documents){rwi_ids_view(cu_seqlens), length - 1};
    return RW_OK;
}

/* [seq_q, columns] or [batch, seq_q, columns]; every axis but the last may be 1 (broadcast). */
static rw_status check_cells(const rwi_call *call, rwi_argument cells, unsigned dtypes,
                             const int64_t *lengths, int64_t stride[2]) {
    RWI_TRY(rwi_check_tensor(call, cells, (rwi_tensor_rule){2, 3, dtypes}));
    for (int axis = 0; axis < cells.tensor->rank; axis++) {
        int place = axis + 3 - cells.tensor->rank;
        bool serves_all = place < 2 && cells.tensor->shape[axis] == 1;
        if (!serves_all)
            RWI_TRY(rwi_check_length(call, cells, axis, lengths[place]));
        if (place < 2)
            stride[place] = serves_all ? 0 : cells.tensor->stride[axis];
    }
    return RW_OK;
}

rw_status rwi_check_function(const rwi_call *call, bool given, const char *advice) {
    const rwi_backend *backend = call->context->backend;
    if (!given || !backend || backend == &rwi_cpu_backend)
        return RW_OK;
    return rwi_fail(call, RW_UNSUPPORTED, "the backend %s cannot call a function of the caller: %s",
                    backend->name, advice);
}

/* The parts that are read for each key. */
static rw_status describe_cells(const rwi_call *call, const rw_pattern *pattern,
                                const rw_pattern_shape *shape, rwi_pattern *described) {
    int64_t bytes = rwi_ceil_div(shape->seq_k, 8);
    const int64_t bits_lengths[] = {shape->batch, shape->seq_q, bytes};
    const int64_t mask_lengths[] = {shape->batch, shape->seq_q, shape->seq_k};
    rwi_argument globals = {"pattern.globals", &pattern->globals};
    rwi_argument bits = {"pattern.bits", &pattern->bits};
    rwi_argument mask = {"pattern.mask", &pattern->mask};
    if (!rwi_absent(globals.tensor)) {
        RWI_TRY(rwi_check_tensor(call, globals, (rwi_tensor_rule){1, 1, RWI_BYTES}));
        RWI_TRY(rwi_check_length(call, globals, 0, bytes));
        bool window = pattern->left.given || pattern->right.given;
        described->globals = window ? pattern->globals.data : NULL;
    }
    if (!rwi_absent(bits.tensor)) {
        RWI_TRY(check_cells(call, bits, RWI_BYTES, bits_lengths, described->bits_stride));
        described->bits = pattern->bits.data;
    }
    if (!rwi_absent(mask.tensor)) {
        RWI_TRY(check_cells(call, mask, RWI_MASKS, mask_lengths, described->mask_stride));
        described->mask = pattern->mask.data;
        described->mask_dtype = pattern->mask.dtype;
    }
    described->function = pattern->function;
    described->function_user = pattern->function_user;
    return rwi_check_function(call, pattern->function != NULL,
                              "convert the pattern to bits with rw_pattern_bake()");
}

rw_status rwi_describe_pattern(const rwi_call *call, const rw_pattern *pattern,
                               const rw_pattern_shape *shape, rwi_pattern *described) {
    static const rw_pattern everything;
    if (!pattern)
        pattern = &everything;
    *described = (rwi_pattern){
        .seq_k = (int32_t)shape->seq_k,
        .causal = pattern->causal,
        .prefix_length = pattern->prefix_length,
    };
    int64_t shift = 0;
    RWI_TRY(rwi_check_alignment(call, pattern->alignment, shape, &shift));
    described->shift = (int32_t)shift;
    described->shift_from_key_end = pattern->alignment == RW_ALIGN_KEY_END;
    RWI_TRY(rwi_check_key_end(call, pattern->alignment, pattern));
    RWI_TRY(check_side(call, "left", &pattern->left, &described->left));
    RWI_TRY(check_side(call, "right", &pattern->right, &described->right));
    if (pattern->prefix_length < 0)
        return rwi_fail(call, RW_INVALID_ARGUMENT,
                        "pattern.prefix_length is %lld, expected 0 or more",
                        (long long)pattern->prefix_length);
    if (pattern->prefix_length > 0 && !rwi_absent(&pattern->prefix))
        return rwi_fail(call, RW_INVALID_ARGUMENT,
                        "pattern.prefix_length is %lld and pattern.prefix is given too, expected "
                        "one of them",
                        (long long)pattern->prefix_length);
    RWI_TRY(check_lengths(call, (rwi_argument){"pattern.prefix", &pattern->prefix}, shape->batch,
                          &described->prefix));
    RWI_TRY(check_lengths(call, (rwi_argument){"pattern.key_begin", &pattern->key_begin},
                          shape->batch, &described->key_begin));
    RWI_TRY(check_lengths(call, (rwi_argument){"pattern.key_end", &pattern->key_end}, shape->batch,
                          &described->key_end));
    RWI_TRY(
        rwi_describe_documents(call, &pattern->cu_seqlens, shape->batch, &described->documents));
    RWI_TRY(describe_cells(call, pattern, shape, described));
    rwi_pattern_find_band(described);
    return RW_OK;
}

rw_status rwi_check_apart_from_pattern(const rwi_call *call, rwi_argument output,
                                       const rw_pattern *pattern) {
    if (!pattern)
        return RW_OK;
    const rwi_argument inputs[] = {
        {"pattern.prefix", &pattern->prefix},
        {"pattern.globals", &pattern->globals},
        {"pattern.cu_seqlens", &pattern->cu_seqlens},
        {"pattern.key_begin", &pattern->key_begin},
        {"pattern.key_end", &pattern->key_end},
        {"pattern.bits", &pattern->bits},
        {"pattern.mask", &pattern->mask},
    };
    for (size_t n = 0; n < sizeof inputs / sizeof *inputs; n++)
        RWI_TRY(rwi_check_apart(call, output, inputs[n], false));
    return RW_OK;
}
