/* rope_append on the CPU; the twin of rope_append.hip. An item is a token. */
#include "cpu/block_cpu.h"
#include "kv_params.h"
#include "cpu/rope_heads_cpu.h"

/* The heads of q, k or v of one token. */
typedef struct token_heads {
    const char *in;
    char *out;
    int64_t heads;
    int64_t in_stride;
    int64_t out_stride;
    rw_dtype out_dtype;        /* that of `in`, or of 8 bits */
    const rwi_kv_side *scales; /* of 8 bits */
} token_heads;

/* Where a head is written. */
typedef struct head_target {
    char *out;
    rw_dtype dtype;
    float scale; /* of 8 bits */
} head_target;

RWI_INLINE head_target find_target(const token_heads *heads, rw_dtype dtype, int64_t head) {
    const bool same = heads->out_dtype == dtype;
    return (head_target){rwi_element(heads->out_dtype, heads->out, head * heads->out_stride),
                         same ? dtype : heads->out_dtype,
                         same ? 1.0f : rwi_kv_scale(heads->scales, head)};
}

/* Norm weights for the columns of a chunk, in the layout of its pairs. Not inlined: it does not
 * depend on the dtype of q and k, and would be compiled for each. */
static void load_weights(const rw_rope_append_params *p, const rwi_head_norm *norm,
                         bool interleaved, int64_t first, int64_t count, rwi_rope_pairs *weights) {
    int64_t column = rwi_rope_first_column(&p->rope, interleaved, first);
    if (norm->weight)
        rwi_rope_load_pairs(norm->dtype, interleaved,
                            rwi_element(norm->dtype, norm->weight, column), count,
                            p->rope.num_frequencies, weights);
    for (int64_t run = 0; run < 2; run++) {
        int64_t at = run * (interleaved ? count : RWI_ROPE_CHUNK);
        for (int64_t i = at; i < at + count; i++)
            weights->x[i] = norm->weight ? weights->x[i] + p->norm_offset : 1.0f;
    }
}

/* Not inlined for the same reason. */
static void compute_turns(const rw_rope_params *p, const int64_t *ids, int64_t first, int64_t count,
                          rwi_rope_turns *turns) {
    rwi_rope_compute_turns(p, ids, first, count, turns);
}

RWI_INLINE rwi_rms_factor head_factor(const rw_rope_append_params *p, rw_dtype dtype,
                                      const rwi_head_norm *norm, const char *in, int64_t width) {
    double sum = 0.0;
    for (int64_t first = 0; first < width; first += RWI_ROPE_CHUNK) {
        float x[RWI_ROPE_CHUNK];
        int64_t count = rwi_min(RWI_ROPE_CHUNK, width - first);
        rwi_load_many(dtype, rwi_element(dtype, in, first), count, x);
#pragma omp simd reduction(+ : sum)
        for (int64_t i = 0; i < count; i++)
            sum += (double)x[i] * (double)x[i];
    }
    return rope_append_factor(p, norm->per_column, sum);
}

/* Columns [begin, end) of a head, without rotation. */
static void finish_rest(const rw_rope_append_params *p, const rwi_head_norm *norm,
                        rwi_rms_factor factor, const char *in, head_target to, int64_t begin,
                        int64_t end) {
    rw_dtype dtype = p->rope.dtype;
    size_t size = rwi_dtype_size(dtype);
    if (!norm->present && to.dtype == dtype) {
        if (in != to.out)
            memcpy(to.out + (size_t)begin * size, in + (size_t)begin * size,
                   (size_t)(end - begin) * size);
        return;
    }
    for (int64_t column = begin; column < end; column++) {
        float x = rwi_load(dtype, in, column);
        if (norm->present)
            x = rope_append_norm(p, dtype, x, factor, rope_append_weight(p, norm, column));
        rwi_store(to.dtype, to.out, column, to.dtype == dtype ? x : x / to.scale);
    }
}

/* A chunk of a token: its rotations and, with a norm, its weights. */
typedef struct chunk {
    int64_t first;
    int64_t count;
    rwi_rope_turns turns;
    rwi_rope_pairs weights;
} chunk;

/* Not inlined: it does not depend on the dtype of q and k. */
static void quantize_pairs(const head_target *to, bool interleaved, int64_t column, int64_t count,
                           int64_t apart, const rwi_rope_pairs *pairs) {
    char *out = to->out + column;
    if (interleaved) {
        rwi_cpu_quantize(to->dtype, out, 2 * count, to->scale, pairs->x);
    } else {
        rwi_cpu_quantize(to->dtype, out, count, to->scale, pairs->x);
        rwi_cpu_quantize(to->dtype, out + apart, count, to->scale, pairs->x + RWI_ROPE_CHUNK);
    }
}

RWI_INLINE void turn_chunk(const rw_rope_append_params *p, rw_dtype dtype, bool interleaved,
                           const chunk *c, bool normed, rwi_rms_factor factor, const char *in,
                           const head_target *to) {
    rwi_rope_pairs pairs;
    int64_t apart = p->rope.num_frequencies;
    int64_t column = rwi_rope_first_column(&p->rope, interleaved, c->first);
    rwi_rope_load_pairs(dtype, interleaved, rwi_element(dtype, in, column), c->count, apart,
                        &pairs);
    for (int64_t run = 0; normed && run < 2; run++) {
        int64_t at = run * (interleaved ? c->count : RWI_ROPE_CHUNK);
#pragma omp simd
        for (int64_t i = at; i < at + c->count; i++)
            pairs.x[i] = rope_append_norm(p, dtype, pairs.x[i], factor, c->weights.x[i]);
    }
    rwi_rope_rotate_pairs(interleaved, &c->turns, c->count, &pairs);
    if (to->dtype != dtype)
        quantize_pairs(to, interleaved, column, c->count, apart, &pairs);
    else
        rwi_rope_store_pairs(dtype, interleaved, rwi_element(dtype, to->out, column), c->count,
                             apart, &pairs);
}

/* Rotates heads that have no norm and are not quantized, as rope does. */
RWI_INLINE void turn_heads(const rw_rope_append_params *p, rw_dtype dtype, bool interleaved,
                           const int64_t *ids, const token_heads *heads) {
    const rw_rope_params *rope = &p->rope;
    const rwi_rope_token token = {heads->in, heads->out, heads->heads, heads->in_stride,
                                  heads->out_stride};
    _Alignas(64) rwi_rope_chunk t;
    for (int64_t first = 0; first < rope->num_frequencies; first += RWI_ROPE_CHUNK) {
        const int64_t count = rwi_min(RWI_ROPE_CHUNK, rope->num_frequencies - first);
        compute_turns(rope, ids, first, count, &t.turns);
        rwi_rope_arrange(dtype, interleaved, count, &t);
        rwi_rope_turn_heads(rope, &token, dtype, interleaved, true, &t, first, count);
    }
}

/* Rotates all chunks of a head before the next head: in place, the norm factor must be computed
 * before the head is overwritten. For heads of one chunk, the common case, rotations and weights
 * are computed once and reused. */
RWI_INLINE void finish_heads(const rw_rope_append_params *p, rw_dtype dtype, bool interleaved,
                             int which, const int64_t *ids, const token_heads *heads) {
    const rw_rope_params *rope = &p->rope;
    const rwi_head_norm *norm = &p->norms[which];
    chunk c;
    for (int64_t head = 0; head < heads->heads; head++) {
        const char *in = rwi_element(dtype, heads->in, head * heads->in_stride);
        head_target to = find_target(heads, dtype, head);
        rwi_rms_factor factor = {1.0f, 1.0f};
        if (norm->present)
            factor = head_factor(p, dtype, norm, in, rope->head_dim);
        for (int64_t first = 0; first < rope->num_frequencies; first += RWI_ROPE_CHUNK) {
            c.first = first;
            c.count = rwi_min(RWI_ROPE_CHUNK, rope->num_frequencies - first);
            bool ready = head > 0 && rope->num_frequencies <= RWI_ROPE_CHUNK;
            if (!ready)
                compute_turns(rope, ids, first, c.count, &c.turns);
            if (!ready && norm->present)
                load_weights(p, norm, interleaved, first, c.count, &c.weights);
            turn_chunk(p, dtype, interleaved, &c, norm->present, factor, in, &to);
        }
        finish_rest(p, norm, factor, in, to, 0, rope->start);
        finish_rest(p, norm, factor, in, to, rope->start + 2 * rope->num_frequencies,
                    rope->head_dim);
    }
}

/* The heads of v, which are not rotated. */
RWI_INLINE void finish_v(const rw_rope_append_params *p, rw_dtype dtype, const token_heads *heads) {
    const rwi_head_norm *norm = &p->norms[2];
    const int64_t width = p->kv.sides[1].width;
    for (int64_t head = 0; head < heads->heads; head++) {
        const char *in = rwi_element(dtype, heads->in, head * heads->in_stride);
        rwi_rms_factor factor = {1.0f, 1.0f};
        if (norm->present)
            factor = head_factor(p, dtype, norm, in, width);
        finish_rest(p, norm, factor, in, find_target(heads, dtype, head), 0, width);
    }
}

static token_heads find_side(const rw_kv_append_params *p, int side, int64_t b, int64_t s,
                             rwi_kv_place place) {
    const rwi_kv_side *kv = &p->sides[side];
    return (token_heads){rwi_kv_source(p, side, b, s),
                         rwi_kv_target(p, side, place),
                         kv->heads,
                         kv->in_stride[2],
                         kv->cache_stride[2],
                         p->cache_dtype,
                         kv};
}

/* q of a token and, unless it is replaced, its k and v. */
RWI_INLINE void append_token(const rw_rope_append_params *p, rw_dtype dtype, bool interleaved,
                             int64_t b, int64_t s, const int64_t *ids, bool written,
                             rwi_kv_place place) {
    const rwi_rope_heads *q = &p->rope.heads[0];
    token_heads heads = {rwi_element(dtype, q->in, b * q->in_stride[0] + s * q->in_stride[1]),
                         rwi_element(dtype, q->out, b * q->out_stride[0] + s * q->out_stride[1]),
                         q->heads,
                         q->in_stride[2],
                         q->out_stride[2],
                         dtype,
                         NULL};
    for (int which = 0; which < (written ? 2 : 1); which++) {
        if (which == 1)
            heads = find_side(&p->kv, 0, b, s, place);
        if (p->norms[which].present || heads.out_dtype != dtype || p->rope.num_frequencies == 0)
            finish_heads(p, dtype, interleaved, which, ids, &heads);
        else
            turn_heads(p, dtype, interleaved, ids, &heads);
    }
    if (!written)
        return;
    heads = find_side(&p->kv, 1, b, s, place);
    finish_v(p, dtype, &heads);
}

RWI_INLINE void append_tokens(const rw_rope_append_params *p, rw_dtype dtype, int64_t begin,
                              int64_t end, rwi_fault_sink *sink) {
    for (int64_t token = begin; token < end; token++) {
        int64_t b, s;
        rwi_bad_id bad;
        int64_t ids[RWI_ROPE_MAX_AXES];
        rwi_kv_place place = {0, 0};
        rwi_split_index(token, p->rope.seq, &b, &s);
        rope_find_ids(&p->rope, b, s, ids);
        const rwi_kv_token kind = rope_append_find(p, b, s, ids, &place, &bad);
        const bool written = kind == RWI_KV_WRITTEN;
        if (kind == RWI_KV_INVALID)
            rwi_cpu_fault_raise(sink, token, bad);
        else if (kind != RWI_KV_PADDING && p->rope.interleaved)
            append_token(p, dtype, true, b, s, ids, written, place);
        else if (kind != RWI_KV_PADDING)
            append_token(p, dtype, false, b, s, ids, written, place);
    }
}

void RWI_CPU_KERNEL(rope_append)(const rw_rope_append_params *p, int64_t begin, int64_t end,
                                 rwi_fault_sink *sink) {
    switch (p->rope.dtype) {
    case RW_F32:
        append_tokens(p, RW_F32, begin, end, sink);
        return;
    case RW_F16:
        append_tokens(p, RW_F16, begin, end, sink);
        return;
    case RW_BF16:
        append_tokens(p, RW_BF16, begin, end, sink);
        return;
    case RW_I32:
    case RW_I64:
    case RW_U8:
    case RW_F8_E4M3:
    case RW_F8_E5M2:
        return;
    }
}
