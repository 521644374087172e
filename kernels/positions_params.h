/* Position ids: parameters and formulas, for positions_cpu.c and positions.hip.
 *
 * Each formula writes the ids of one token, or returns false and the invalid value.
 */
#ifndef RWI_POSITIONS_PARAMS_H
#define RWI_POSITIONS_PARAMS_H

#include "shared/document.h"
#include "shared/ids.h"

/* Memory traffic of one token's id, including lookups. */
#define RWI_BYTES_PER_ID 64

typedef struct rw_positions_sequential_params {
    rwi_ids out; /* [1, batch, seq] */
    int64_t batch;
    int64_t seq;
    rwi_token_ids ids;
} rw_positions_sequential_params;

typedef struct rw_positions_left_padded_params {
    rwi_ids out; /* [1, batch, seq] */
    int64_t batch;
    int64_t seq;
    rwi_ids padding; /* [batch] */
    int64_t padding_id;
} rw_positions_left_padded_params;

typedef struct rw_positions_packed_params {
    rwi_ids out; /* [tokens] */
    int64_t tokens;
    rwi_documents documents;
} rw_positions_packed_params;

typedef struct rw_positions_mrope_params {
    rwi_ids out; /* [3, batch, seq] */
    int64_t batch;
    int64_t seq;
    rwi_ids segments; /* [batch, num_segments, 3] */
    int64_t num_segments;
    bool past_largest;  /* RW_MROPE_ADVANCE_LARGEST */
    const float *steps; /* [batch, num_segments]; NULL: 1 */
    int64_t steps_stride[2];
    rwi_ids rope_delta; /* [batch]; absent: not requested */
} rw_positions_mrope_params;

typedef struct rw_positions_glm_params {
    rwi_ids out; /* [2, batch, seq] */
    int64_t batch;
    int64_t seq;
    rwi_ids context_length; /* [batch] */
    rwi_ids mask_position;  /* [batch] */
} rw_positions_glm_params;

/* sequential */

RWI_INLINE rwi_work positions_sequential_work(const rw_positions_sequential_params *p) {
    rwi_work work = {p->batch * p->seq, RWI_BYTES_PER_ID};
    return work;
}

RWI_INLINE bool positions_sequential_token(const rw_positions_sequential_params *p, int64_t token,
                                           rwi_bad_id *bad) {
    int64_t b, s;
    rwi_split_index(token, p->seq, &b, &s);
    *bad = rwi_bad(RW_FAULT_OVERFLOW, rwi_token_id(&p->ids, 0, b, s));
    return rwi_ids_store(&p->out, 0, b, s, bad->id);
}

/* left-padded */

RWI_INLINE rwi_work positions_left_padded_work(const rw_positions_left_padded_params *p) {
    rwi_work work = {p->batch * p->seq, RWI_BYTES_PER_ID};
    return work;
}

RWI_INLINE bool positions_left_padded_token(const rw_positions_left_padded_params *p, int64_t token,
                                            rwi_bad_id *bad) {
    int64_t b, s;
    rwi_split_index(token, p->seq, &b, &s);
    int64_t padding = rwi_ids_load(&p->padding, b, 0, 0);
    *bad = rwi_bad(RW_FAULT_LENGTH, padding);
    if (padding < 0)
        return false;
    *bad = rwi_bad(RW_FAULT_OVERFLOW, s >= padding ? s - padding : p->padding_id);
    return rwi_ids_store(&p->out, 0, b, s, bad->id);
}

/* packed */

RWI_INLINE rwi_work positions_packed_work(const rw_positions_packed_params *p) {
    rwi_work work = {p->tokens, RWI_BYTES_PER_ID};
    return work;
}

RWI_INLINE bool positions_packed_token(const rw_positions_packed_params *p, int64_t token,
                                       rwi_bad_id *bad) {
    rwi_document document;
    if (!rwi_document_find(&p->documents, 0, token, &document, bad))
        return false;
    *bad = rwi_bad(RW_FAULT_OVERFLOW, token - document.begin);
    return rwi_ids_store(&p->out, token, 0, 0, bad->id);
}

/* M-RoPE */

/* The items are the tokens, followed by one item for each row that writes its rope_delta. */
RWI_INLINE rwi_work positions_mrope_work(const rw_positions_mrope_params *p) {
    rwi_work work = {p->batch * p->seq + (p->rope_delta.data ? p->batch : 0),
                     RWI_BYTES_PER_ID * rwi_max(1, p->num_segments)};
    return work;
}

/* The current segment of the loop over a row's segments. */
typedef struct rwi_mrope_segment {
    int64_t t, h, w; /* h = w = 0: text of t tokens */
    int64_t tokens;  /* of this segment */
    int64_t token;   /* the index of its first token */
    int64_t id;      /* its first id */
    int64_t end;     /* one past the largest id before it */
    float step;
} rwi_mrope_segment;

/* Reads segment n of row b; `at` holds the tokens and ids before it. False, with *bad set, if it
 * has a negative length, an invalid step, or more tokens than any row can have. */
RWI_INLINE bool positions_mrope_read(const rw_positions_mrope_params *p, int64_t b, int64_t n,
                                     rwi_mrope_segment *at, rwi_bad_id *bad) {
    const int64_t limit = (int64_t)1 << 31;
    int64_t lengths[3];
    for (int i = 0; i < 3; i++) {
        lengths[i] = rwi_ids_load(&p->segments, b, n, i);
        *bad = rwi_bad(RW_FAULT_LENGTH, lengths[i]);
        if (lengths[i] < 0 || lengths[i] > limit)
            return false;
    }
    at->t = lengths[0];
    at->h = lengths[1];
    at->w = lengths[2];
    at->step = p->steps ? p->steps[b * p->steps_stride[0] + n * p->steps_stride[1]] : 1.0f;
    *bad = rwi_bad(RW_FAULT_SEGMENT, n); /* whose step is invalid */
    if (!(at->step >= 0.0f && at->step <= 65536.0f))
        return false;
    at->tokens = at->t;
    if (at->h == 0 && at->w == 0)
        return true;
    *bad = rwi_bad(RW_FAULT_LENGTH, at->h * at->w); /* at most 2^62, and so the number of tokens */
    if (at->t > 0 && bad->id > limit)
        return false;
    at->tokens = at->t * bad->id;
    return at->tokens <= limit;
}

/* The id along t of a frame, less that of the first. */
RWI_INLINE int64_t positions_mrope_frame(const rwi_mrope_segment *at, int64_t frame) {
    return (int64_t)((float)frame * at->step);
}

/* Advances past a segment: its tokens, the end of its ids and the next free id. */
RWI_INLINE void positions_mrope_advance(const rw_positions_mrope_params *p, rwi_mrope_segment *at) {
    if (at->tokens == 0)
        return;
    int64_t extent = at->t; /* largest id - first id + 1 */
    int64_t step = at->t;
    if (at->h != 0 || at->w != 0) {
        step = rwi_max(at->h, at->w);
        extent = rwi_max(positions_mrope_frame(at, at->t - 1) + 1, step);
    }
    at->token += at->tokens;
    at->end = rwi_max(at->end, at->id + extent);
    at->id += p->past_largest ? extent : step;
}

/* Advances to the segment that contains token s of row b; past the last one, `at` is text. */
RWI_INLINE bool positions_mrope_find(const rw_positions_mrope_params *p, int64_t b, int64_t s,
                                     rwi_mrope_segment *at, rwi_bad_id *bad) {
    at->token = 0;
    at->id = 0;
    at->end = 0;
    at->step = 1.0f;
    for (int64_t n = 0; n < p->num_segments; n++) {
        if (!positions_mrope_read(p, b, n, at, bad))
            return false;
        if (s - at->token < at->tokens)
            return true;
        positions_mrope_advance(p, at);
    }
    at->h = 0;
    at->w = 0;
    return true;
}

RWI_INLINE bool positions_mrope_token(const rw_positions_mrope_params *p, int64_t item,
                                      rwi_bad_id *bad) {
    rwi_mrope_segment at;
    int64_t tokens = p->batch * p->seq;
    int64_t b = item - tokens, s = INT64_MAX; /* rope_delta: advance past the last segment */
    if (item < tokens)
        rwi_split_index(item, p->seq, &b, &s);
    if (!positions_mrope_find(p, b, s, &at, bad))
        return false;
    if (item >= tokens) {
        *bad = rwi_bad(RW_FAULT_OVERFLOW, at.end - at.token);
        return rwi_ids_store(&p->rope_delta, b, 0, 0, bad->id);
    }
    int64_t n = s - at.token;
    int64_t ids[3] = {n, n, n};
    if (at.h != 0 || at.w != 0) {
        /* Grids have at most 2^31 tokens; 64-bit divisions are slow. */
        uint32_t row = (uint32_t)n / (uint32_t)at.w;
        ids[0] = positions_mrope_frame(&at, row / (uint32_t)at.h);
        ids[1] = row % (uint32_t)at.h;
        ids[2] = (uint32_t)n % (uint32_t)at.w;
    }
    for (int axis = 0; axis < 3; axis++) { /* if one does not fit, none is written */
        *bad = rwi_bad(RW_FAULT_OVERFLOW, at.id + ids[axis]);
        if (!rwi_ids_fit(&p->out, bad->id))
            return false;
    }
    for (int axis = 0; axis < 3; axis++)
        rwi_ids_store(&p->out, axis, b, s, at.id + ids[axis]);
    return true;
}

/* GLM */

RWI_INLINE rwi_work positions_glm_work(const rw_positions_glm_params *p) {
    rwi_work work = {p->batch * p->seq, RWI_BYTES_PER_ID};
    return work;
}

RWI_INLINE bool positions_glm_token(const rw_positions_glm_params *p, int64_t token,
                                    rwi_bad_id *bad) {
    int64_t b, s;
    rwi_split_index(token, p->seq, &b, &s);
    int64_t context_length = rwi_ids_load(&p->context_length, b, 0, 0);
    int64_t mask_position = rwi_ids_load(&p->mask_position, b, 0, 0);
    bool in_context = s < context_length;
    *bad = rwi_bad(context_length < 0 ? RW_FAULT_LENGTH : RW_FAULT_POSITION,
                   context_length < 0 ? context_length : mask_position);
    if (bad->id < 0 || !rwi_ids_fit(&p->out, mask_position))
        return false;
    *bad = rwi_bad(RW_FAULT_OVERFLOW, s);
    if (!rwi_ids_store(&p->out, 0, b, s, in_context ? s : mask_position))
        return false;
    return rwi_ids_store(&p->out, 1, b, s, in_context ? 0 : s - context_length + 1);
}

#endif
