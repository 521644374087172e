/* A caller's pool of threads for tests: one thread a task. */
#ifndef RWT_TASK_THREADS_H
#define RWT_TASK_THREADS_H

#include <stdint.h>

/* Runs task(data, index) for every index from 0 to num_tasks - 1, at most 16, each in a thread of its
 * own; exits on failure. */
void rwt_run_threads(int32_t num_tasks, void (*task)(void *data, int32_t index), void *data);

#endif
