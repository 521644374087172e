/* Softmax as a part of other operations. */
#ifndef RWI_SOFTMAX_DESCRIBE_H
#define RWI_SOFTMAX_DESCRIBE_H

#include <ropewalk/softmax.h>

#include "tensor.h"

/* Scores, whose data is not looked at, and what is written, which overlaps nothing that is read. */
typedef struct rwi_softmax_tensors {
    rwi_argument x;
    const rwi_argument *outputs; /* checked; absent ones are passed over */
    int num_outputs;
} rwi_softmax_tensors;

/* Checks all of the arguments but x and out, for scores of the lengths params->scores; describes
 * them. */
rw_status rwi_describe_softmax(const rwi_call *call, const rw_softmax_args *args,
                               const rwi_softmax_tensors *tensors, rw_softmax_params *params);

#endif
