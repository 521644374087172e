/* The T5 bucket of every distance, in exact arithmetic. */
#ifndef RWI_T5_BUCKETS_H
#define RWI_T5_BUCKETS_H

#include <stdint.h>

/* The most buckets on one side, and the longest distance. */
#define RWI_T5_MAX_BUCKETS 512
#define RWI_T5_MAX_DISTANCE ((int64_t)1 << 24)

/* Fills of_distance[0 .. max_distance] for `buckets` buckets of one side: 2 or more, with
 * max_distance above half of them. */
void rwi_t5_fill_buckets(int64_t buckets, int64_t max_distance, int32_t *of_distance);

#endif
