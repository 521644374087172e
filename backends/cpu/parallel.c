/* The only file that uses OpenMP. */
#include "parallel.h"

#include <omp.h>

int rwi_parallel_max_threads(void) {
    return omp_get_num_procs();
}

/* The range [begin, end) of thread `index` of `count`; sizes differ by at most one. */
static int64_t range_begin(int64_t items, int index, int count) {
    return items / count * index + items % count * index / count;
}

void rwi_parallel_for(int num_threads, int64_t items,
                      void (*body)(const void *task, int64_t begin, int64_t end),
                      const void *task) {
    if (num_threads > items)
        num_threads = (int)items;
    if (num_threads <= 1) {
        body(task, 0, items);
        return;
    }
#pragma omp parallel num_threads(num_threads)
    {
        int index = omp_get_thread_num();
        int count = omp_get_num_threads();
        body(task, range_begin(items, index, count), range_begin(items, index + 1, count));
    }
}
