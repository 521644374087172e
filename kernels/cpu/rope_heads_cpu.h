/* Rotations of the heads of a token in vectors, on the CPU; shared by rope_cpu.c and
 * rope_append_cpu.c. */
#ifndef RWI_ROPE_HEADS_CPU_H
#define RWI_ROPE_HEADS_CPU_H

#include "cpu/lanes_cpu.h"
#include "cpu/rope_pairs_cpu.h"

/* The rotations of a chunk, and as vectors read them: half-split in the order of the dtype's
 * elements, interleaved f32 and f16 (c0, c0, c1, c1, ...) and (-s0, s0, -s1, s1, ...). */
typedef struct rwi_rope_chunk {
    rwi_rope_turns turns;
    float cos[2 * RWI_ROPE_CHUNK];
    float sin[2 * RWI_ROPE_CHUNK];
} rwi_rope_chunk;

RWI_INLINE void rwi_rope_arrange(rw_dtype dtype, bool interleaved, int64_t count,
                                 rwi_rope_chunk *t) {
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
#define RWI_ROPE_BLOCK(interleaved) ((interleaved) ? RWI_LANES : RWI_TWO_LANES)

/* The rotations of a block. */
typedef struct rwi_rope_block {
    rwi_two_lanes cos;
    rwi_two_lanes sin;
} rwi_rope_block;

/* Those of pairs [i, i + RWI_ROPE_BLOCK). */
RWI_INLINE rwi_rope_block rwi_rope_load_block(rw_dtype dtype, bool interleaved,
                                              const rwi_rope_chunk *t, int64_t i) {
    if (interleaved && dtype == RW_BF16) {
        const rwi_lanes c = rwi_lanes_load(t->cos + i), s = rwi_lanes_load(t->sin + i);
        return (rwi_rope_block){{c, c}, {s, s}};
    }
    const int64_t at = interleaved ? 2 * i : i;
    return (rwi_rope_block){rwi_two_lanes_load(RW_F32, t->cos + at),
                            rwi_two_lanes_load(RW_F32, t->sin + at)};
}

/* Rotates pairs [i, i + RWI_ROPE_BLOCK). */
RWI_INLINE void rwi_rope_turn_block(rw_dtype dtype, bool interleaved, const char *in, char *out,
                                    const rwi_rope_block *t, int64_t i, int64_t apart) {
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
RWI_INLINE void rwi_rope_turn_rest(rw_dtype dtype, bool interleaved, const char *in, char *out,
                                   const rwi_rope_turns *t, int64_t begin, int64_t end,
                                   int64_t apart) {
    for (int64_t i = begin; i < end; i++) {
        rwi_cos_sin turn = {t->cos[i], t->sin[i]};
        int64_t at = interleaved ? 2 * i : i, other = interleaved ? at + 1 : at + apart;
        float x1 = rwi_load(dtype, in, at), x2 = rwi_load(dtype, in, other);
        rope_rotate(&x1, &x2, turn);
        rwi_store(dtype, out, at, x1);
        rwi_store(dtype, out, other, x2);
    }
}

/* How far ahead of a head its memory is prefetched. */
#define RWI_ROPE_AHEAD 2048

RWI_INLINE void rwi_rope_prefetch(const char *in, int64_t bytes) {
    for (int64_t at = 0; at < bytes; at += 64)
        __builtin_prefetch(in + at + RWI_ROPE_AHEAD);
}

/* Rotates the chunk of one head; columns count from its first pair. */
RWI_INLINE void rwi_rope_turn_head(rw_dtype dtype, bool interleaved, const char *in, char *out,
                                   const rwi_rope_chunk *t, int64_t count, int64_t apart) {
    int64_t i = 0, block = RWI_ROPE_BLOCK(interleaved);
    for (; i + block <= count; i += block) {
        const rwi_rope_block turns = rwi_rope_load_block(dtype, interleaved, t, i);
        rwi_rope_turn_block(dtype, interleaved, in, out, &turns, i, apart);
    }
    rwi_rope_turn_rest(dtype, interleaved, in, out, &t->turns, i, count, apart);
}

/* The columns outside the rotary window. */
static inline void rwi_rope_copy_rest(const rw_rope_params *p, const char *in, char *out) {
    size_t size = rwi_dtype_size(p->dtype);
    size_t before = (size_t)p->start * size;
    size_t end = (size_t)(p->start + 2 * p->num_frequencies) * size;
    memcpy(out, in, before);
    memcpy(out + end, in + end, (size_t)p->head_dim * size - end);
}

/* Some heads of a token. */
typedef struct rwi_rope_token {
    const char *in;
    char *out;
    int64_t heads;
    int64_t in_stride;
    int64_t out_stride;
} rwi_rope_token;

/* The most pairs of a head whose rotations stay in registers, of 32. */
#define RWI_ROPE_KEPT 64

/* rwi_rope_turn_heads() of `count` pairs. `kept`: that is constant, and the rotations stay in
 * registers from one head to the next. */
RWI_INLINE void rwi_rope_turn_heads_of(const rw_rope_params *p, const rwi_rope_token *token,
                                       rw_dtype dtype, bool interleaved, bool kept, bool ahead,
                                       const rwi_rope_chunk *t, int64_t first, int64_t count) {
    const int64_t column = rwi_rope_first_column(p, interleaved, first);
    const int64_t block = RWI_ROPE_BLOCK(interleaved);
    rwi_rope_block turns[RWI_ROPE_KEPT / RWI_LANES];
    for (int n = 0; kept && n < count / block; n++)
        turns[n] = rwi_rope_load_block(dtype, interleaved, t, n * block);
    for (int64_t h = 0; h < token->heads; h++) {
        const char *x = rwi_element(dtype, token->in, h * token->in_stride);
        char *y = rwi_element(dtype, token->out, h * token->out_stride);
        if (x != y && first == 0)
            rwi_rope_copy_rest(p, x, y);
        x = rwi_element(dtype, x, column);
        y = rwi_element(dtype, y, column);
        if (ahead)
            rwi_rope_prefetch(x, 2 * count * (int64_t)rwi_dtype_size(dtype));
        if (!kept) {
            rwi_rope_turn_head(dtype, interleaved, x, y, t, count, p->num_frequencies);
            continue;
        }
        for (int n = 0; n < count / block; n++) /* gcc unrolls it: `count` is constant */
            rwi_rope_turn_block(dtype, interleaved, x, y, &turns[n], n * block, p->num_frequencies);
    }
}

/* Rotates the chunk of pairs [first, first + count) of a token's heads and, before the first one,
 * copies the columns that are not rotated. `ahead`: prefetches heads. */
RWI_INLINE void rwi_rope_turn_heads(const rw_rope_params *p, const rwi_rope_token *token,
                                    rw_dtype dtype, bool interleaved, bool ahead,
                                    const rwi_rope_chunk *t, int64_t first, int64_t count) {
    if (RWI_LANES == 16 && count == RWI_ROPE_KEPT)
        rwi_rope_turn_heads_of(p, token, dtype, interleaved, true, ahead, t, first, RWI_ROPE_KEPT);
    else if (RWI_LANES == 16 && count == RWI_ROPE_KEPT / 2)
        rwi_rope_turn_heads_of(p, token, dtype, interleaved, true, ahead, t, first,
                               RWI_ROPE_KEPT / 2);
    else
        rwi_rope_turn_heads_of(p, token, dtype, interleaved, false, ahead, t, first, count);
}

#endif
