/* The difference between two results of the same operation. */
#ifndef CLI_ARRAY_COMPARE_H
#define CLI_ARRAY_COMPARE_H

#include "array.h"

/* The maximum allowed difference: a number of units of rounding of the dtype, and a share, of the
 * largest value of the same row of the last axis (at least `least`). A single value is not a
 * suitable scale, since it may nearly cancel. */
typedef struct cli_tolerance {
    double units;
    double share;
    double least;
} cli_tolerance;

/* The difference of equal infinities, and of NaNs, is 0; any other difference with them is
 * infinite. */
typedef struct cli_difference {
    double absolute; /* the largest */
    double relative;
    bool agrees;
} cli_difference;

/* Compares two arrays of the same shape and float dtype. */
cli_difference cli_array_compare(const cli_array *a, const cli_array *b,
                                 const cli_tolerance *tolerance);

#endif
