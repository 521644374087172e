/* Rotary position embedding on the CPU; the twin of rope.hip. An item is a token. */
#include "cpu/rope_pairs_cpu.h"

/* Rotates the chunk of one head; columns count from its first pair. */
RWI_INLINE void rotate_head(rw_dtype dtype, bool interleaved, const char *in, char *out,
                            const rwi_rope_turns *t, int64_t count, int64_t apart) {
    rwi_rope_pairs pairs;
    if (dtype == RW_F32 && interleaved) {
        rwi_rope_rotate_floats((const float *)in, (float *)out, t, count, 2, 1);
    } else if (dtype == RW_F32) {
        rwi_rope_rotate_floats((const float *)in, (float *)out, t, count, 1, apart);
    } else {
        rwi_rope_load_pairs(dtype, interleaved, in, count, apart, &pairs);
        rwi_rope_rotate_pairs(interleaved, t, count, &pairs);
        rwi_rope_store_pairs(dtype, interleaved, out, count, apart, &pairs);
    }
}

/* The columns outside the rotary window. */
static void copy_rest(const rw_rope_params *p, const char *in, char *out) {
    size_t size = rwi_dtype_size(p->dtype);
    size_t before = (size_t)p->start * size;
    size_t end = (size_t)(p->start + 2 * p->num_frequencies) * size;
    memcpy(out, in, before);
    memcpy(out + end, in + end, (size_t)p->head_dim * size - end);
}

RWI_INLINE void rotate_token(const rw_rope_params *p, rw_dtype dtype, bool interleaved, int64_t b,
                             int64_t s, const int64_t *ids) {
    rwi_rope_turns t;
    for (int64_t first = 0; first < p->num_frequencies; first += RWI_ROPE_CHUNK) {
        int64_t count = rwi_min(RWI_ROPE_CHUNK, p->num_frequencies - first);
        int64_t column = rwi_rope_first_column(p, interleaved, first);
        rwi_rope_compute_turns(p, ids, first, count, &t);
        for (int which = 0; which < 2; which++) {
            const rwi_rope_heads *heads = &p->heads[which];
            const char *in =
                rwi_element(dtype, heads->in, b * heads->in_stride[0] + s * heads->in_stride[1]);
            char *out =
                rwi_element(dtype, heads->out, b * heads->out_stride[0] + s * heads->out_stride[1]);
            for (int64_t h = 0; h < heads->heads; h++) {
                const char *x = rwi_element(dtype, in, h * heads->in_stride[2]);
                char *y = rwi_element(dtype, out, h * heads->out_stride[2]);
                if (x != y && first == 0)
                    copy_rest(p, x, y);
                rotate_head(dtype, interleaved, rwi_element(dtype, x, column),
                            rwi_element(dtype, y, column), &t, count, p->num_frequencies);
            }
        }
    }
}

RWI_INLINE void rotate_tokens(const rw_rope_params *p, rw_dtype dtype, bool interleaved,
                              int64_t begin, int64_t end, rwi_fault_sink *sink) {
    for (int64_t token = begin; token < end; token++) {
        int64_t b, s;
        rwi_bad_id bad;
        rwi_split_index(token, p->seq, &b, &s);
        int64_t ids[RWI_ROPE_MAX_AXES];
        rope_find_ids(p, b, s, ids);
        if (rope_ids_valid(p, ids, &bad))
            rotate_token(p, dtype, interleaved, b, s, ids);
        else
            rwi_cpu_fault_raise(sink, token, bad);
    }
}

RWI_INLINE void rotate_pairs(const rw_rope_params *p, bool interleaved, int64_t begin, int64_t end,
                             rwi_fault_sink *sink) {
    switch (p->dtype) {
    case RW_F32:
        rotate_tokens(p, RW_F32, interleaved, begin, end, sink);
        return;
    case RW_F16:
        rotate_tokens(p, RW_F16, interleaved, begin, end, sink);
        return;
    case RW_BF16:
        rotate_tokens(p, RW_BF16, interleaved, begin, end, sink);
        return;
    case RW_I32:
    case RW_I64:
    case RW_U8:
        return;
    }
}

void RWI_CPU_KERNEL(rope)(const rw_rope_params *p, int64_t begin, int64_t end,
                          rwi_fault_sink *sink) {
    if (p->interleaved)
        rotate_pairs(p, true, begin, end, sink);
    else
        rotate_pairs(p, false, begin, end, sink);
}
