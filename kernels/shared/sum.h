/* Sums over long rows that keep small contributions: the elements of a tile are summed separately,
 * starting from `part`, and then added to the sum. */
#ifndef RWI_SUM_H
#define RWI_SUM_H

#include "shared/kernel.h"

/* Adds `part` to `sum` and leaves the rounding error in `part`, which the next tile starts from (W.
 * Kahan, "Further remarks on reducing truncation errors", 1965). A sum of Inf or NaN stays so. */
RWI_INLINE void rwi_sum_join(float *sum, float *part) {
    float joined = *sum + *part;
    float rest = *part - (joined - *sum);
    *part = rest - rest == 0.0f ? rest : 0.0f;
    *sum = joined;
}

#endif
