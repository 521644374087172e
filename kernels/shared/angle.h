/* Cosines and sines at any position, from a table of two levels.
 *
 * The position is p = coarse * 2^shift + fine. Each level holds (cos, sin) of its part times every
 * frequency, computed in f64 and rounded to f32; the angles are added:
 *
 *   cos(a + b) = cos a * cos b - sin a * sin b
 *   sin(a + b) = sin a * cos b + cos a * sin b
 *
 * An entry has an error of at most 2^-25. The sum of two products of such entries, with its three
 * roundings, has an error of at most (2 * sqrt 2 + 3) * 2^-25 < 2^-22, at any position.
 */
#ifndef RWI_ANGLE_H
#define RWI_ANGLE_H

#include "shared/kernel.h"

typedef struct rwi_cos_sin {
    float cos;
    float sin;
} rwi_cos_sin;

/* The fine rows 0 .. 2^shift-1, then the coarse rows; a row is [cos of every frequency | sin of
 * every frequency]. */
typedef struct rwi_angles {
    const float *rows; /* [2^shift + ceil(max_positions / 2^shift), 2, num_frequencies] */
    int32_t shift;
} rwi_angles;

RWI_INLINE rwi_cos_sin rwi_angle_add(rwi_cos_sin a, rwi_cos_sin b) {
    rwi_cos_sin sum;
    sum.cos = a.cos * b.cos - a.sin * b.sin;
    sum.sin = a.sin * b.cos + a.cos * b.sin;
    return sum;
}

/* The two rows of a position, of n frequencies. */
RWI_INLINE const float *rwi_angles_fine_row(const rwi_angles *angles, int64_t position, int64_t n) {
    return angles->rows + (position & (((int64_t)1 << angles->shift) - 1)) * 2 * n;
}

RWI_INLINE const float *rwi_angles_coarse_row(const rwi_angles *angles, int64_t position,
                                              int64_t n) {
    return angles->rows + (((int64_t)1 << angles->shift) + (position >> angles->shift)) * 2 * n;
}

/* (cos, sin) of position * frequency i, of n frequencies. */
RWI_INLINE rwi_cos_sin rwi_angle_at(const rwi_angles *angles, int64_t position, int64_t i,
                                    int64_t n) {
    const float *coarse = rwi_angles_coarse_row(angles, position, n) + i;
    const float *fine = rwi_angles_fine_row(angles, position, n) + i;
    rwi_cos_sin a = {coarse[0], coarse[n]};
    rwi_cos_sin b = {fine[0], fine[n]};
    return rwi_angle_add(a, b);
}

#endif
