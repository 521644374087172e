/* Softmax as a part of other operations. */
#ifndef RWI_SOFTMAX_DESCRIBE_H
#define RWI_SOFTMAX_DESCRIBE_H

#include <ropewalk/softmax.h>

#include "tensor.h"

/* Checks all of the arguments but x and out, for scores of the shape of `x` (whose data is not
 * looked at) and lengths params->scores, against the output `out`; describes them. */
rw_status rwi_describe_softmax(const rwi_call *call, const rw_softmax_args *args, rwi_argument x,
                               rwi_argument out, rw_softmax_params *params);

#endif
