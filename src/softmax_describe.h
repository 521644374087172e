/* Softmax as a part of other operations. */
#ifndef RWI_SOFTMAX_DESCRIBE_H
#define RWI_SOFTMAX_DESCRIBE_H

#include <ropewalk/softmax.h>

#include "tensor.h"

/* Scores, of which only the shape is read, and the outputs, which must not overlap any input. */
typedef struct rwi_softmax_tensors {
    rwi_argument x;
    const rwi_argument *outputs; /* checked; absent ones are skipped */
    int num_outputs;
} rwi_softmax_tensors;

/* Checks and describes all arguments except x and out, for scores with the lengths of
 * params->scores. */
rw_status rwi_describe_softmax(const rwi_call *call, const rw_softmax_args *args,
                               const rwi_softmax_tensors *tensors, rw_softmax_params *params);

#endif
