/* Rows of tensors that share their outer axes. */
#ifndef RWI_ROWS_H
#define RWI_ROWS_H

#include "shared/kernel.h"

/* The outer axes; 1 where there are fewer. src/row_views.c merges axes that have a common stride,
 * so that the leading ones are mostly 1. */
typedef struct rwi_row_axes {
    int64_t length[3];
    int64_t count; /* of all rows */
    bool single;   /* axis: length[0] and length[1] are 1 */
} rwi_row_axes;

typedef struct rwi_row_index {
    int64_t at[3];
} rwi_row_index;

RWI_INLINE int64_t rwi_row_count(const rwi_row_axes *axes) {
    return axes->count;
}

RWI_INLINE rwi_row_index rwi_row_find(const rwi_row_axes *axes, int64_t row) {
    rwi_row_index index = {{0, 0, row}};
    if (!axes->single) {
        rwi_split_index(row, axes->length[2], &row, &index.at[2]);
        rwi_split_index(row, axes->length[1], &index.at[0], &index.at[1]);
    }
    return index;
}

/* The first element of a row. */
RWI_INLINE int64_t rwi_row_offset(const rwi_row_index *index, const int64_t *stride) {
    return index->at[0] * stride[0] + index->at[1] * stride[1] + index->at[2] * stride[2];
}

#endif
