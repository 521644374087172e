/* A kernel's view of tensors as rows: the last axis or the last two are a row, the axes before it
 * are iterated. */
#ifndef RWI_ROW_VIEWS_H
#define RWI_ROW_VIEWS_H

#include "call.h"

/* One tensor of several with the same outer axes. */
typedef struct rwi_row_view {
    const rw_tensor *tensor;
    int64_t *stride; /* receives three */
} rwi_row_view;

/* Describes the leading `num_axes` axes, at most three, of all the views. Axes that are contiguous
 * with each other in every view are merged. */
rwi_row_axes rwi_rows_describe(const rwi_row_view *views, int num_views, int num_axes);

#endif
