/* The running block: what its scheduler, the matching of its threads, and the operations that
 * threads carry out on their own share. */
#ifndef HIP_EMULATOR_THREADS_H
#define HIP_EMULATOR_THREADS_H

#include "emulator_fiber.h"
#include "emulator_state.h"

enum hip_emulator_thread_state {
    HIP_EMULATOR_READY,
    HIP_EMULATOR_WAITING,
    HIP_EMULATOR_DONE
};

struct hip_emulator_thread {
    hip_emulator_thread_state state;
    hip_emulator_fiber *fiber; /* NULL: not started */
    uint3 index;               /* threadIdx */
    hip_emulator_call call;    /* the operation that it waits for */
    uint64_t result;
    uint64_t held_since; /* order of the lanes that are held back */
    int held_rounds;     /* how often other lanes reached an atomic operation meanwhile */
    bool arrived;        /* at the barrier that it waits for, together with its wave */
};

struct hip_emulator_block_state {
    const hip_emulator_launch *launch;
    hip_emulator_arch arch;
    hip_emulator_thread threads[HIP_EMULATOR_MAX_THREADS];
    int num_threads;
    int current; /* the running thread */
    char *dynamic_shared;
    bool failed; /* hip_emulator_fail() was called */
};

extern hip_emulator_block_state hip_emulator_block;

/* Reports an error of the running thread, which does not continue. */
[[noreturn]] void hip_emulator_fail(const hip_emulator_site &site, const char *operation,
                                    const char *what);

/* Fails unless the architecture is one of `archs`. */
void hip_emulator_require_arch(unsigned archs, const hip_emulator_site &site,
                               const char *operation);

/* ---- emulator_match.cpp ---- */

/* Prints a line about the running kernel and block. */
void hip_emulator_report(const char *sentence);

/* "__syncthreads at rope.hip:12 in sum" */
struct hip_emulator_text {
    char buffer[320];
};
hip_emulator_text hip_emulator_describe(const hip_emulator_call *call);

bool hip_emulator_same_call(const hip_emulator_call *a, const hip_emulator_call *b);

/* Reports an error of the operation that thread `index` waits for; false. */
bool hip_emulator_report_call(int index, const char *what);

/* Reports that the operation that `index` waits for cannot complete because of thread `other`;
 * false. */
bool hip_emulator_report_divergence(int index, int other, const char *group);

/* When every thread waits or has exited: releases threads that wait for each other. False: an
 * error. */
bool hip_emulator_match_threads(void);

/* ---- emulator_barriers.cpp ---- */

void hip_emulator_reset_barriers(void);

/* The wave [first, end) waits for bar.arrive. False: an error. */
bool hip_emulator_arrive_wave(int first, int end);

/* Counts the waves that have reached a barrier, and releases those of complete barriers. False: an
 * error. */
bool hip_emulator_match_barriers(void);

/* Whether the phase that a thread waits for has completed. */
bool hip_emulator_mbarrier_completed(const hip_emulator_call *call);

/* The bytes of copies that its phase still waits for. */
int hip_emulator_mbarrier_bytes(const uint64_t *barrier, const hip_emulator_site &site,
                                const char *operation);

/* "bar.sync 1, 256 (128 there)", "mbarrier.try_wait.parity 0 of shared + 0x400 (3 of 128 pending)"
 */
void hip_emulator_describe_barrier(const hip_emulator_call *call, char *buffer, size_t bytes);

/* ---- emulator_copy.cpp ---- */

/* Ends the tensor copies of an mbarrier; returns their bytes. */
int hip_emulator_end_tensor_copies(const void *barrier);

/* Forgets the copies of all threads. */
void hip_emulator_reset_copies(void);

/* ---- emulator_wgmma.cpp ---- */

/* The place of a product of the running thread that no wgmma.wait_group has covered; NULL: none. */
const hip_emulator_site *hip_emulator_wgmma_pending(void);

/* Discards those of all threads. */
void hip_emulator_reset_wgmma(void);

#endif
