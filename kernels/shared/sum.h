/* Sums over long rows that keep their small parts: what a tile of a row adds is summed up by itself,
 * from `part` on, and then joins the sum. */
#ifndef RWI_SUM_H
#define RWI_SUM_H

#include "shared/kernel.h"

/* Adds `part` to `sum` and leaves in `part` what the sum could not hold, for the next tile to begin
 * with (W. Kahan, "Further remarks on reducing truncation errors", 1965). Once the sum is Inf or NaN
 * it stays so. */
RWI_INLINE void rwi_sum_join(float *sum, float *part) {
    float joined = *sum + *part;
    float rest = *part - (joined - *sum);
    *part = rest - rest == 0.0f ? rest : 0.0f;
    *sum = joined;
}

#endif
