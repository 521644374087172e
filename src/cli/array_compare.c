#include "array_compare.h"

#include <math.h>

#include "harness/harness.h"

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
        double difference = 0, scale = tolerance->least;
        for (int64_t i = row; i < row + width; i++) {
            double x = rwt_load(a->dtype, a->data, i), y = rwt_load(b->dtype, b->data, i);
            difference = fmax(difference, distance(x, y));
            if (isfinite(x))
                scale = fmax(scale, fabs(x));
        }
        worst.absolute = fmax(worst.absolute, difference);
        if (difference > 0)
            worst.relative = fmax(worst.relative, scale > 0 ? difference / scale : INFINITY);
    }
    worst.agrees =
        worst.relative <= tolerance->units * rwt_dtype_epsilon(a->dtype) + tolerance->share;
    return worst;
}
