/* How kernels report ids that are out of range. */
#ifndef RWI_FAULTS_H
#define RWI_FAULTS_H

#include "hip/hip_device.h"

#include "shared/kernel.h"

/* A rarely called function. It is not inlined where a call needs no stack memory (AMD's uses
 * scratch), so that its registers do not add to those of its callers. */
#if defined(__CUDA_ARCH__)
#define RWI_RARE __noinline__
#else
#define RWI_RARE
#endif

/* Reports that token `token` (b * seq + s, below 2^48) has the invalid id `bad`. The record keeps
 * the first launch that reports and in it the lowest token, in whatever order the threads run; all
 * threads that report one token must report the same id and kind.
 *
 * No thread waits for another: lanes of a wave may run in lockstep, where one that waits for its
 * neighbour would wait forever. Each part of the id is kept in one word below the token, so that
 * the lowest token decides every word by itself. The launches of a stream run one after another, so
 * that the first to report is the earliest. */
RWI_RARE __device__ inline void rwi_fault_raise(rwi_fault_sink sink, int64_t token,
                                                rwi_bad_id bad) {
    rwi_fault_record *record = sink.record;
    const rwi_fault_word claim = RWI_FAULT_CLAIM(sink.launch, sink.op);
    const rwi_fault_word claimed = atomicCAS(&record->claim, RWI_NO_FAULT, claim);
    if (claimed != RWI_NO_FAULT && claimed != claim)
        return;
    if (atomicMin(&record->token, (rwi_fault_word)token) <= (rwi_fault_word)token)
        return;
#pragma unroll
    for (int part = 0; part < RWI_FAULT_PARTS; part++) {
        const rwi_fault_word bits = part < RWI_FAULT_ID_PARTS
                                        ? (rwi_fault_word)bad.id >> (16 * part) & 0xFFFFu
                                        : (rwi_fault_word)bad.kind;
        atomicMin(&record->parts[part], (rwi_fault_word)token << 16 | bits);
    }
    *(volatile uint32_t *)rwi_global((const void *)sink.raised) = 1;
}

#endif
