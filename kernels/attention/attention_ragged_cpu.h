/* Attention on the CPU: which of the sequences of different lengths an item or a token is of. */
#ifndef RWI_ATTENTION_RAGGED_CPU_H
#define RWI_ATTENTION_RAGGED_CPU_H

#include "attention/attention_ragged.h"

/* Whether the bounds of all sequences are valid; else the first that is not is reported, unless
 * `sink` is NULL. */
static inline bool rwi_attention_check_sequences(const rw_attention_params *p,
                                                 rwi_fault_sink *sink) {
    rwi_attention_sequence sequence;
    rwi_bad_id bad;
    for (int64_t b = 0; b < p->ragged.batch; b++) {
        if (rwi_attention_load_sequence(p, b, &sequence, &bad))
            continue;
        if (sink)
            rwi_cpu_fault_raise(sink, rwi_attention_bad_token(p, &sequence), bad);
        return false;
    }
    return true;
}

/* The last sequence whose first token is at or before `token`. */
static inline int64_t rwi_attention_sequence_of_token(const rw_attention_params *p, int64_t token) {
    int64_t low = 0, high = p->ragged.batch;
    while (high - low > 1) {
        const int64_t middle = low + (high - low) / 2;
        if (rwi_ids_load(&p->ragged.queries, 0, 0, middle) <= token)
            low = middle;
        else
            high = middle;
    }
    return low;
}

/* The last sequence whose first slot is at or before `slot`. */
static inline int64_t rwi_attention_sequence_of_slot(const rw_attention_params *p,
                                                     const rwi_attention_slots *slots,
                                                     int64_t slot) {
    int64_t low = 0, high = p->ragged.batch;
    while (high - low > 1) {
        const int64_t middle = low + (high - low) / 2;
        const int64_t q_begin = rwi_ids_load(&p->ragged.queries, 0, 0, middle);
        if (rwi_attention_first_slot(p, slots, middle, q_begin) <= slot)
            low = middle;
        else
            high = middle;
    }
    return low;
}

#endif
