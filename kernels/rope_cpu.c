/* Rotary position embedding on the CPU; the twin of rope.hip. An item is a token. */
#include "cpu/lanes_cpu.h"
#include "cpu/rope_pairs_cpu.h"

/* The rotations of a chunk, and as vectors read them: half-split in the order of the dtype's
 * elements, interleaved f32 and f16 (c0, c0, c1, c1, ...) and (-s0, s0, -s1, s1, ...). */
typedef struct chunk_turns {
    rwi_rope_turns turns;
    float cos[2 * RWI_ROPE_CHUNK];
    float sin[2 * RWI_ROPE_CHUNK];
} chunk_turns;

RWI_INLINE void arrange_turns(rw_dtype dtype, bool interleaved, int64_t count, chunk_turns *t) {
    if (!interleaved || dtype == RW_BF16) {
        rw_dtype order = interleaved ? RW_F32 : dtype;
        rwi_lanes_arrange(order, t->turns.cos, count, t->cos);
        rwi_lanes_arrange(order, t->turns.sin, count, t->sin);
        return;
    }
#pragma omp simd
    for (int64_t i = 0; i < count; i++) {
        t->cos[2 * i] = t->cos[2 * i + 1] = t->turns.cos[i];
        t->sin[2 * i] = -t->turns.sin[i];
        t->sin[2 * i + 1] = t->turns.sin[i];
    }
}

/* Pairs of a block. */
#define BLOCK_PAIRS(interleaved) ((interleaved) ? RWI_LANES : RWI_TWO_LANES)

/* The rotations of a block. */
typedef struct block_turns {
    rwi_two_lanes cos;
    rwi_two_lanes sin;
} block_turns;

/* Those of pairs [i, i + BLOCK_PAIRS). */
RWI_INLINE block_turns load_turns(rw_dtype dtype, bool interleaved, const chunk_turns *t,
                                  int64_t i) {
    if (interleaved && dtype == RW_BF16) {
        const rwi_lanes c = rwi_lanes_load(t->cos + i), s = rwi_lanes_load(t->sin + i);
        return (block_turns){{c, c}, {s, s}};
    }
    const int64_t at = interleaved ? 2 * i : i;
    return (block_turns){rwi_two_lanes_load(RW_F32, t->cos + at),
                         rwi_two_lanes_load(RW_F32, t->sin + at)};
}

/* Rotates pairs [i, i + BLOCK_PAIRS). */
RWI_INLINE void rotate_block(rw_dtype dtype, bool interleaved, const char *in, char *out,
                             const block_turns *t, int64_t i, int64_t apart) {
    const rwi_two_lanes c = t->cos, s = t->sin;
    if (!interleaved) {
        rwi_two_lanes x = rwi_two_lanes_load(dtype, rwi_element(dtype, in, i));
        rwi_two_lanes y = rwi_two_lanes_load(dtype, rwi_element(dtype, in, i + apart));
        rwi_two_lanes first = {x.a * c.a - y.a * s.a, x.b * c.b - y.b * s.b};
        rwi_two_lanes second = {y.a * c.a + x.a * s.a, y.b * c.b + x.b * s.b};
        rwi_two_lanes_store(dtype, rwi_element(dtype, out, i), first);
        rwi_two_lanes_store(dtype, rwi_element(dtype, out, i + apart), second);
        return;
    }
    rwi_two_lanes x = rwi_two_lanes_load(dtype, rwi_element(dtype, in, 2 * i)), turned;
    if (dtype == RW_BF16)
        turned = (rwi_two_lanes){x.a * c.a - x.b * s.a, x.b * c.a + x.a * s.a};
    else
        turned = (rwi_two_lanes){x.a * c.a + rwi_lanes_swap(x.a) * s.a,
                                 x.b * c.b + rwi_lanes_swap(x.b) * s.b};
    rwi_two_lanes_store(dtype, rwi_element(dtype, out, 2 * i), turned);
}

/* Rotates the pairs of a chunk behind the last whole block. */
RWI_INLINE void rotate_rest(rw_dtype dtype, bool interleaved, const char *in, char *out,
                            const rwi_rope_turns *t, int64_t begin, int64_t end, int64_t apart) {
    for (int64_t i = begin; i < end; i++) {
        rwi_cos_sin turn = {t->cos[i], t->sin[i]};
        int64_t at = interleaved ? 2 * i : i, other = interleaved ? at + 1 : at + apart;
        float x1 = rwi_load(dtype, in, at), x2 = rwi_load(dtype, in, other);
        rope_rotate(&x1, &x2, turn);
        rwi_store(dtype, out, at, x1);
        rwi_store(dtype, out, other, x2);
    }
}

/* f32 in place is read 5% faster from memory with prefetches, half-split heads being two streams;
 * 16-bit heads are not, and few tokens, in the second-level cache, take 5% longer. */
#define AHEAD_BYTES 2048
#define CACHED_BYTES ((int64_t)1024 * 1024)

RWI_INLINE bool reads_ahead(const rw_rope_params *p) {
    const rwi_work work = rope_work(p);
    return work.items * work.bytes_per_item > CACHED_BYTES;
}

RWI_INLINE void prefetch(const char *in, int64_t columns) {
    for (int64_t at = 0; at < columns; at += 64 / (int64_t)sizeof(float))
        __builtin_prefetch((const float *)(const void *)in + at + AHEAD_BYTES / sizeof(float));
}

/* Rotates the chunk of one head; columns count from its first pair. */
RWI_INLINE void rotate_head(rw_dtype dtype, bool interleaved, const char *in, char *out,
                            const chunk_turns *t, int64_t count, int64_t apart) {
    int64_t i = 0, block = BLOCK_PAIRS(interleaved);
    for (; i + block <= count; i += block) {
        const block_turns turns = load_turns(dtype, interleaved, t, i);
        rotate_block(dtype, interleaved, in, out, &turns, i, apart);
    }
    rotate_rest(dtype, interleaved, in, out, &t->turns, i, count, apart);
}

/* The columns outside the rotary window. */
static void copy_rest(const rw_rope_params *p, const char *in, char *out) {
    size_t size = rwi_dtype_size(p->dtype);
    size_t before = (size_t)p->start * size;
    size_t end = (size_t)(p->start + 2 * p->num_frequencies) * size;
    memcpy(out, in, before);
    memcpy(out + end, in + end, (size_t)p->head_dim * size - end);
}

/* The most pairs of a head whose rotations stay in registers, of 32. */
#define KEPT_PAIRS 64

/* Rotates the chunk of some heads, whose pairs from `first` on are `count`. `kept`: that is constant,
 * and the rotations stay in registers from one head to the next. */
RWI_INLINE void rotate_heads(const rw_rope_params *p, const rwi_rope_heads *heads, rw_dtype dtype,
                             bool interleaved, bool kept, const char *in, char *out,
                             const chunk_turns *t, int64_t first, int64_t count) {
    const int64_t column = rwi_rope_first_column(p, interleaved, first);
    const int64_t block = BLOCK_PAIRS(interleaved);
    const bool ahead = dtype == RW_F32 && reads_ahead(p);
    block_turns turns[KEPT_PAIRS / RWI_LANES];
    for (int n = 0; kept && n < count / block; n++)
        turns[n] = load_turns(dtype, interleaved, t, n * block);
    for (int64_t h = 0; h < heads->heads; h++) {
        const char *x = rwi_element(dtype, in, h * heads->in_stride[2]);
        char *y = rwi_element(dtype, out, h * heads->out_stride[2]);
        if (x != y && first == 0)
            copy_rest(p, x, y);
        x = rwi_element(dtype, x, column);
        y = rwi_element(dtype, y, column);
        if (ahead)
            prefetch(x, 2 * count);
        if (!kept) {
            rotate_head(dtype, interleaved, x, y, t, count, p->num_frequencies);
            continue;
        }
#pragma GCC unroll 4
        for (int n = 0; n < count / block; n++)
            rotate_block(dtype, interleaved, x, y, &turns[n], n * block, p->num_frequencies);
    }
}

RWI_INLINE void rotate_token(const rw_rope_params *p, rw_dtype dtype, bool interleaved, int64_t b,
                             int64_t s, const int64_t *ids) {
    _Alignas(64) chunk_turns t;
    for (int64_t first = 0; first < p->num_frequencies; first += RWI_ROPE_CHUNK) {
        int64_t count = rwi_min(RWI_ROPE_CHUNK, p->num_frequencies - first);
        rwi_rope_compute_turns(p, ids, first, count, &t.turns);
        arrange_turns(dtype, interleaved, count, &t);
        for (int which = 0; which < 2; which++) {
            const rwi_rope_heads *heads = &p->heads[which];
            const char *in =
                rwi_element(dtype, heads->in, b * heads->in_stride[0] + s * heads->in_stride[1]);
            char *out =
                rwi_element(dtype, heads->out, b * heads->out_stride[0] + s * heads->out_stride[1]);
            if (RWI_LANES == 16 && count == KEPT_PAIRS)
                rotate_heads(p, heads, dtype, interleaved, true, in, out, &t, first, KEPT_PAIRS);
            else if (RWI_LANES == 16 && count == KEPT_PAIRS / 2)
                rotate_heads(p, heads, dtype, interleaved, true, in, out, &t, first,
                             KEPT_PAIRS / 2);
            else
                rotate_heads(p, heads, dtype, interleaved, false, in, out, &t, first, count);
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
    case RW_F8_E4M3:
    case RW_F8_E5M2:
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
