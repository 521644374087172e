/* Offsets of rows on a GPU. */
#ifndef RWI_ROW_OFFSETS_H
#define RWI_ROW_OFFSETS_H

#include "shared/rows.h"

/* The start of a row in N tensors. 64-bit products are slow on a GPU: with a single row axis, the
 * common case, there is one product for each tensor. */
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
