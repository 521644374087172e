/* Parallel loops over several threads: those of OpenMP, or the caller's. */
#ifndef RWI_PARALLEL_H
#define RWI_PARALLEL_H

#include <stdbool.h>
#include <stdint.h>

/* The threads of a device. */
typedef struct rwi_threads {
    int team; /* their number */
    void (*parallel_for)(void *user, int32_t num_tasks, void (*task)(void *data, int32_t index),
                         void *data); /* of rw_context_options; NULL: OpenMP */
    void *user;
} rwi_threads;

/* body(task, begin, end) over ranges of [0, items). */
typedef struct rwi_loop {
    int64_t items;
    bool in_turn; /* threads take small ranges in turn, so that none waits long for another */
    void (*body)(const void *task, int64_t begin, int64_t end);
    const void *task;
} rwi_loop;

/* Runs a loop, divided into contiguous ranges, one per thread, or several if they are taken in turn.
 * `useful`: the number of threads for which there is enough work. With one, all runs in the calling
 * thread. With more, OpenMP's whole team runs, since GNU OpenMP ends the threads that a smaller team
 * leaves out, and starts new ones for the next team. False: the caller's parallel_for did not run
 * every range exactly once. */
bool rwi_parallel_for(const rwi_threads *threads, int64_t useful, const rwi_loop *loop);

/* From now on loops also work in the child of fork(). */
void rwi_parallel_prepare_for_fork(void);

/* The number of cores that this process may use, RWI_MAX_THREADS at most. */
int rwi_parallel_max_threads(void);

#endif
