/* The visibility predicate for the keys of a vector, for .hip files. */
#ifndef RWI_VISIBLE_H
#define RWI_VISIBLE_H

#include "pattern_params.h"

/* Bits 0 .. VEC - 1. */
template <int VEC> inline constexpr unsigned rwi_all_visible = (1u << VEC) - 1;

/* Whether a span holds keys j .. j + VEC - 1. */
template <int VEC> __device__ static inline bool rwi_span_covers(rwi_span span, int32_t j) {
    return j >= span.begin && j <= span.end - VEC;
}

/* Whether a span holds none of the keys j .. j + VEC - 1. */
template <int VEC> __device__ static inline bool rwi_span_misses(rwi_span span, int32_t j) {
    return j >= span.end || j <= span.begin - VEC;
}

/* Bit n: key j + n is visible. Most vectors are wholly inside or outside a span. Keys of other
 * vectors are tested one after another: interleaved branches would use too many scalar registers.
 */
template <int VEC, bool CELLS>
__device__ static inline unsigned rwi_find_visible(const rwi_pattern &pattern,
                                                   const rwi_pattern_row &row, int32_t j) {
    const bool cells = CELLS && rwi_pattern_has_cells(&pattern);
    if (!cells && (rwi_span_covers<VEC>(row.window, j) || rwi_span_covers<VEC>(row.prefix, j)))
        return rwi_all_visible<VEC>;
    if (rwi_span_misses<VEC>(row.window, j) && rwi_span_misses<VEC>(row.prefix, j) &&
        (!CELLS || rwi_span_misses<VEC>(row.global, j)))
        return 0;
    unsigned seen = 0;
#pragma unroll 1
    for (int n = 0; n < VEC; n++)
        seen |= (unsigned)rwi_pattern_visible(&pattern, &row, cells, j + n) << n;
    return seen;
}

#endif
