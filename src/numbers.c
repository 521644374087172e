/* Checks on the caller's numbers, shared by every entry point. */
#include "numbers.h"

#include <float.h>
#include <math.h>

bool rwi_f32_holds(double value) {
    double rounded = (double)(float)value;
    return isfinite(rounded) && fabs(rounded - value) <= fabs(value) * (FLT_EPSILON / 2);
}

rw_status rwi_check_number(const rwi_call *call, const char *name, double value, double least) {
    if (rwi_f32_holds(value) && value >= least)
        return RW_OK;
    if (least < 0.0)
        return rwi_fail(call, RW_INVALID_ARGUMENT,
                        "%s is %g, expected 0 or a number of %g to %g, or its negative", name,
                        value, (double)FLT_MIN, (double)FLT_MAX);
    return rwi_fail(call, RW_INVALID_ARGUMENT, "%s is %g, expected %s%g to %g", name, value,
                    least == 0.0 ? "0 or a number of " : "a number of ",
                    least == 0.0 ? (double)FLT_MIN : least, (double)FLT_MAX);
}
