/* Parallel loops over several threads. */
#ifndef RWI_PARALLEL_H
#define RWI_PARALLEL_H

#include <stdint.h>

/* Runs body(task, begin, end) over [0, items), divided into one contiguous range per thread. With
 * one thread it runs in the calling thread. */
void rwi_parallel_for(int num_threads, int64_t items,
                      void (*body)(const void *task, int64_t begin, int64_t end), const void *task);

/* The number of cores that this process may use. */
int rwi_parallel_max_threads(void);

#endif
