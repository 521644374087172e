/* Makes single allocations of the libraries fail: those that the code of libropewalk, its modules,
 * libropewalk-io and jansson requests, in the thread that asks for it. The allocations of others
 * (libc, OpenMP, the C++ library) succeed.
 *
 * jansson's parser counts as one allocation, which fails as a whole: the parser itself aborts where
 * the buffer of its current token cannot grow. */
#ifndef RWT_FAILING_ALLOCATOR_H
#define RWT_FAILING_ALLOCATOR_H

#include <stdint.h>

/* From now on allocations are counted, and number `fail_at`, from 1, fails; 0: none. */
void rwt_allocations_begin(int64_t fail_at);

/* Stops counting; returns the number of allocations. */
int64_t rwt_allocations_end(void);

#endif
