/* Attention: sequences of different lengths. Their bounds are on the device, so that the number of
 * items follows from an upper bound: a slot is a tile of rows that a sequence may have, in the order
 * of the sequences, and the items of a slot are its groups of heads and parts of keys. Those of a
 * sequence are consecutive, and numbered within it as if it were alone; slots that it does not need
 * are at its end. */
#ifndef RWI_ATTENTION_RAGGED_H
#define RWI_ATTENTION_RAGGED_H

#include "attention/attention_params.h"

/* A sequence: tokens [q_begin, q_end) of q; keys from k_begin on. */
typedef struct rwi_attention_sequence {
    int64_t b;
    int64_t q_begin;
    int64_t q_end;
    int64_t k_begin;
    int64_t k_end;
} rwi_attention_sequence;

/* Slots begin, for sequence b, at b * each or, if `each` is 0, at
 * floor(q_begin * group / tile_rows) + b * extra. */
typedef struct rwi_attention_slots {
    int64_t count;
    int64_t each;
    int32_t extra;
    int32_t tile_rows;
} rwi_attention_slots;

/* Slots for tiles of `tile_rows` rows. `both`: of RWI_ATTENTION_FEW_ROWS where a sequence has few
 * rows, so that two slots may be needed in place of one. */
RWI_INLINE rwi_attention_slots rwi_attention_find_slots(const rw_attention_params *p,
                                                        int32_t tile_rows, bool both) {
    const rwi_attention_ragged *ragged = &p->ragged;
    const int64_t most = ragged->max_seq_q * p->group;
    const int64_t few = rwi_min(most, 2 * RWI_ATTENTION_FEW_ROWS);
    rwi_attention_slots slots = {0, rwi_ceil_div(most, tile_rows), both ? 2 : 1, tile_rows};
    if (both)
        slots.each = rwi_max(slots.each, rwi_ceil_div(few, RWI_ATTENTION_FEW_ROWS));
    slots.count = ragged->tokens * p->group / tile_rows + ragged->batch * slots.extra;
    if (ragged->batch * slots.each > slots.count)
        slots.each = 0;
    else
        slots.count = ragged->batch * slots.each;
    return slots;
}

/* The first slot of a sequence whose first token is `q_begin`. */
RWI_INLINE int64_t rwi_attention_first_slot(const rw_attention_params *p,
                                            const rwi_attention_slots *slots, int64_t b,
                                            int64_t q_begin) {
    if (slots->each > 0)
        return b * slots->each;
    int64_t tile, row;
    rwi_split_index(q_begin * p->group, slots->tile_rows, &tile, &row);
    return tile + b * slots->extra;
}

/* Loads the bounds of a sequence. False where one is invalid: *bad receives it. */
RWI_INLINE bool rwi_attention_load_sequence(const rw_attention_params *p, int64_t b,
                                            rwi_attention_sequence *sequence, rwi_bad_id *bad) {
    const rwi_attention_ragged *ragged = &p->ragged;
    sequence->b = b;
    sequence->q_begin = rwi_ids_load(&ragged->queries, 0, 0, b);
    sequence->q_end = rwi_ids_load(&ragged->queries, 0, 0, b + 1);
    sequence->k_begin = ragged->keys.data ? rwi_ids_load(&ragged->keys, 0, 0, b) : 0;
    sequence->k_end = ragged->keys.data ? rwi_ids_load(&ragged->keys, 0, 0, b + 1) : 0;
    *bad = rwi_bad(RW_FAULT_LENGTH, sequence->q_begin);
    if (sequence->q_begin < 0 || (b == 0 && sequence->q_begin != 0))
        return false;
    *bad = rwi_bad(RW_FAULT_LENGTH, sequence->q_end);
    if (sequence->q_end < sequence->q_begin || sequence->q_end > ragged->tokens)
        return false;
    *bad = rwi_bad(RW_FAULT_LENGTH, sequence->q_end - sequence->q_begin);
    if (sequence->q_end - sequence->q_begin > ragged->max_seq_q)
        return false;
    *bad = rwi_bad(RW_FAULT_LENGTH, sequence->k_begin);
    if (sequence->k_begin < 0)
        return false;
    *bad = rwi_bad(RW_FAULT_LENGTH, sequence->k_end);
    return sequence->k_end >= sequence->k_begin && sequence->k_end <= ragged->key_tokens;
}

/* The token that is reported for a sequence with an invalid bound: its first one, or the nearest. */
RWI_INLINE int64_t rwi_attention_bad_token(const rw_attention_params *p,
                                           const rwi_attention_sequence *sequence) {
    return rwi_max(0, rwi_min(sequence->q_begin, p->ragged.tokens - 1));
}

RWI_INLINE int64_t rwi_attention_shift(rw_alignment alignment, int64_t seq_q, int64_t seq_k) {
    if (alignment == RW_ALIGN_TOP_LEFT)
        return 0;
    return (alignment == RW_ALIGN_KEY_END ? 0 : seq_k) - seq_q;
}

/* Makes the pattern of all sequences that of one, with `seq_q` queries. */
RWI_INLINE void rwi_attention_narrow_pattern(rwi_pattern *pattern, rw_alignment alignment,
                                             const rwi_attention_sequence *sequence, int64_t seq_q,
                                             int64_t seq_k) {
    const int64_t b = sequence->b, first = sequence->q_begin;
    pattern->seq_k = (int32_t)seq_k;
    pattern->shift = (int32_t)rwi_attention_shift(alignment, seq_q, seq_k);
    rwi_ids_begin_at(&pattern->prefix, 0, b);
    rwi_ids_begin_at(&pattern->key_begin, 0, b);
    rwi_ids_begin_at(&pattern->key_end, 0, b);
    rwi_ids_begin_at(&pattern->documents.cu_seqlens, 1, b);
    if (pattern->bits)
        pattern->bits += b * pattern->bits_stride[0] + first * pattern->bits_stride[1];
    if (pattern->mask)
        pattern->mask = rwi_element(pattern->mask_dtype, pattern->mask,
                                    b * pattern->mask_stride[0] + first * pattern->mask_stride[1]);
    pattern->function_b = b;
    rwi_pattern_find_band(pattern);
}

RWI_INLINE void rwi_attention_begin_at(rwi_attention_tensor *tensor, rw_dtype dtype, int axis,
                                       int64_t n) {
    if (tensor->data)
        tensor->data = rwi_element(dtype, tensor->data, n * tensor->stride[axis]);
}

/* Makes the parameters of all sequences those of one. */
RWI_INLINE void rwi_attention_narrow(rw_attention_params *p,
                                     const rwi_attention_sequence *sequence) {
    const int64_t b = sequence->b, first = sequence->q_begin;
    const int64_t rows = first * p->rules.scores.heads;
    rw_softmax_params *rules = &p->rules;
    rwi_scores *scores = &rules->scores;
    scores->batch = 1;
    scores->seq_q = sequence->q_end - first;
    if (p->ragged.keys.data)
        p->pages.length = scores->seq_k = sequence->k_end - sequence->k_begin;
    rwi_attention_narrow_pattern(&rules->pattern, p->ragged.alignment, sequence, scores->seq_q,
                                 scores->seq_k);
    rules->alibi.shift =
        rwi_attention_shift(p->ragged.alibi_alignment, scores->seq_q, scores->seq_k);
    if (rules->mask.data)
        rules->mask.data = rwi_element(rules->mask.dtype, rules->mask.data,
                                       b * rules->mask.stride[0] + first * rules->mask.stride[2]);
    rwi_attention_begin_at(&p->q, p->dtype, 1, first);
    rwi_attention_begin_at(&p->out, p->out_dtype, 1, first);
    rwi_attention_begin_at(&p->lse, RW_F32, 2, first);
    if (!p->pages.table.data) {
        rwi_attention_begin_at(&p->k, p->kv_dtype, p->ragged.keys.data ? 1 : 0,
                               p->ragged.keys.data ? sequence->k_begin : b);
        rwi_attention_begin_at(&p->v, p->kv_dtype, p->ragged.keys.data ? 1 : 0,
                               p->ragged.keys.data ? sequence->k_begin : b);
    }
    rwi_ids_begin_at(&p->pages.table, 1, b);
    if (p->parts.count > 1) {
        p->parts.out += rows * rwi_attention_part_width(p);
        p->parts.largest += rows;
        p->parts.sum += rows;
    }
    p->first_token = first;
}

/* Items of a slot. */
RWI_INLINE int64_t rwi_attention_slot_items(const rw_attention_params *p) {
    return p->kv_heads * p->parts.count;
}

/* CPU: an item of a group as above, or of a slot. */
RWI_INLINE rwi_work attention_work(const rw_attention_params *p) {
    const bool ragged = p->ragged.queries.data;
    int32_t tile_rows =
        ragged ? RWI_ATTENTION_ROWS : rwi_attention_tile_rows(p, RWI_ATTENTION_ROWS);
    int64_t rows = rwi_min(rwi_attention_group_rows(p), tile_rows);
    int64_t keys = rwi_min(p->rules.scores.seq_k, p->parts.keys);
    rwi_work work = {0, (rows + keys * (1 + rows / 8)) * (p->head_dim + p->v_dim)};
    work.items =
        ragged ? rwi_attention_find_slots(p, tile_rows, true).count * rwi_attention_slot_items(p)
               : rwi_attention_items(p, tile_rows);
    return work;
}

#endif
