/* Checks on the caller's numbers, shared by every entry point. */
#ifndef RWI_NUMBERS_H
#define RWI_NUMBERS_H

#include "call.h"

/* Whether rounding to f32 has a relative error of at most half a unit in the last place; that of
 * subnormal results may be larger, up to 1. */
bool rwi_f32_holds(double value);

/* A number that kernels read as f32: finite, at least `least` (-INFINITY: any), and
 * rwi_f32_holds(), so that it becomes neither Inf nor 0, which may have another meaning. */
rw_status rwi_check_number(const rwi_call *call, const char *name, double value, double least);

#endif
