/* Offsets of rows on a GPU. */
#ifndef RWI_ROW_OFFSETS_H
#define RWI_ROW_OFFSETS_H

#include "shared/rows.h"

/* Where a row starts in N tensors. A GPU feels products of 64 bits: where the rows have one axis,
 * as they mostly do, there is one for each tensor. */
template <int N>
__device__ inline void rwi_row_offsets(const rwi_row_axes &axes, int64_t row,
                                       const int64_t *const (&strides)[N], int64_t (&offsets)[N]) {
    if (axes.single) {
#pragma unroll
        for (int n = 0; n < N; n++)
            offsets[n] = row * strides[n][2];
    } else {
        const rwi_row_index index = rwi_row_find(&axes, row);
#pragma unroll
        for (int n = 0; n < N; n++)
            offsets[n] = rwi_row_offset(&index, strides[n]);
    }
}

#endif
