#include "array_compare.h"

#include <math.h>

#include "dtype.h"

static double epsilon(rw_dtype dtype) {
    return dtype == RW_F32 ? 0x1p-23 : dtype == RW_F16 ? 0x1p-10 : 0x1p-7;
}

static double distance(double a, double b) {
    if (a == b || (isnan(a) && isnan(b)))
        return 0;
    return isfinite(a) && isfinite(b) ? fabs(a - b) : INFINITY;
}

cli_difference cli_array_compare(const cli_array *a, const cli_array *b,
                                 const cli_tolerance *tolerance) {
    cli_difference worst = {0, 0, true};
    int64_t width = a->shape[a->rank - 1];
    int64_t count = (int64_t)(a->bytes / rw_dtype_size(a->dtype));
    for (int64_t row = 0; row < count; row += width) {
        double apart = 0, scale = tolerance->least;
        for (int64_t i = row; i < row + width; i++) {
            double x = rwi_load(a->dtype, a->data, i), y = rwi_load(b->dtype, b->data, i);
            apart = fmax(apart, distance(x, y));
            if (isfinite(x))
                scale = fmax(scale, fabs(x));
        }
        worst.absolute = fmax(worst.absolute, apart);
        if (apart > 0)
            worst.relative = fmax(worst.relative, scale > 0 ? apart / scale : INFINITY);
    }
    worst.agrees = worst.relative <= tolerance->units * epsilon(a->dtype) + tolerance->share;
    return worst;
}
