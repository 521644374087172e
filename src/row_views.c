/* Tensors as rows: merging their outer axes. */
#include "row_views.h"

/* Whether the stride of `before` is that of `axis` times its length, in every view. */
static bool continues(const rwi_row_view *views, int num_views, int axis, int before) {
    for (int i = 0; i < num_views; i++) {
        const rw_tensor *tensor = views[i].tensor;
        int64_t span;
        if (__builtin_mul_overflow(tensor->shape[axis], tensor->stride[axis], &span) ||
            tensor->stride[before] != span)
            return false;
    }
    return true;
}

rwi_row_axes rwi_rows_describe(const rwi_row_view *views, int num_views, int num_axes) {
    rwi_row_axes axes = {.length = {1, 1, 1}};
    for (int i = 0; i < num_views; i++)
        for (int place = 0; place < 3; place++)
            views[i].stride[place] = 0;
    int place = 3;
    int last = -1; /* the last described axis */
    for (int axis = num_axes - 1; axis >= 0; axis--) {
        int64_t length = views[0].tensor->shape[axis];
        if (length == 1)
            continue;
        if (last >= 0 && continues(views, num_views, last, axis)) {
            axes.length[place] *= length;
        } else {
            place--;
            axes.length[place] = length;
            for (int i = 0; i < num_views; i++)
                views[i].stride[place] = views[i].tensor->stride[axis];
        }
        last = axis;
    }
    axes.count = axes.length[0] * axes.length[1] * axes.length[2];
    axes.single = axes.length[0] == 1 && axes.length[1] == 1;
    return axes;
}
