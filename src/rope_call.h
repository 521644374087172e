/* Rotary embedding as a part of other operations. */
#ifndef RWI_ROPE_CALL_H
#define RWI_ROPE_CALL_H

#include <ropewalk/rope.h>

#include "call.h"

/* Checks all that rw_rope_apply() checks and describes it to a kernel. */
rw_status rwi_rope_describe(const rwi_call *call, const rw_rope *rope, const rw_rope_args *args,
                            rw_rope_params *params);

/* The same without a rotation: q alone, without ids. */
rw_status rwi_rope_describe_unrotated(const rwi_call *call, const rw_rope_args *args,
                                      rw_rope_params *params);

#endif
