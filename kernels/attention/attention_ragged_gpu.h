/* Attention on a GPU: sequences of different lengths. A block finds the sequence of its item and
 * narrows a copy of the parameters, in shared memory, to it: the item is then one of a batch of 1.
 * Bounds are loaded by all threads at once: each load of a search would wait for the previous one. */
#ifndef RWI_ATTENTION_RAGGED_GPU_H
#define RWI_ATTENTION_RAGGED_GPU_H

#include "attention/attention_ragged.h"
#include "gpu/faults.h"

/* In shared memory. */
struct attention_found {
    rwi_fault_word b;   /* the sequence; ATTENTION_NO_SEQUENCE: none */
    rwi_fault_word bad; /* the first sequence with an invalid bound; as above */
    int64_t item;       /* of the sequence; -1: none */
};

#define ATTENTION_NO_SEQUENCE (~(rwi_fault_word)0)

/* Finds the sequence for which holds(sequence), which is true of at most one, by `count` threads,
 * `thread` of them; sync() is their barrier. False if there is none, or if a bound is invalid, which
 * is reported if `reports`. */
template <typename Holds, typename Sync>
__device__ static inline bool
attention_find_sequence(const rw_attention_params &p, attention_found &found, int thread, int count,
                        bool reports, const rwi_fault_sink &sink, Holds holds, Sync sync) {
    rwi_attention_sequence sequence;
    rwi_bad_id bad;
    if (thread == 0)
        found.b = found.bad = ATTENTION_NO_SEQUENCE;
    sync();
#pragma unroll 1
    for (int64_t b = thread; b < p.ragged.batch; b += count) {
        if (!rwi_attention_load_sequence(&p, b, &sequence, &bad))
            atomicMin(&found.bad, (rwi_fault_word)b);
        else if (holds(sequence))
            found.b = (rwi_fault_word)b;
    }
    sync();
    if (found.bad == ATTENTION_NO_SEQUENCE)
        return found.b != ATTENTION_NO_SEQUENCE;
    if (reports && thread == 0) {
        (void)rwi_attention_load_sequence(&p, (int64_t)found.bad, &sequence, &bad);
        rwi_fault_raise(sink, rwi_attention_bad_token(&p, &sequence), bad);
    }
    return false;
}

#endif
