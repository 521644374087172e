/* Checks on numbers of the caller's, shared by every entry point. */
#ifndef RWI_NUMBERS_H
#define RWI_NUMBERS_H

#include "call.h"

/* Whether rounding to f32 costs at most half of its last bit: below its normal numbers it may cost
 * all. */
bool rwi_f32_holds(double value);

/* A number that kernels take as f32: finite, from `least` on (-INFINITY: any), and held by f32 as
 * exactly as any other, so that it neither becomes Inf nor a 0 with a meaning of its own. */
rw_status rwi_check_number(const rwi_call *call, const char *name, double value, double least);

#endif
