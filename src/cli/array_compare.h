/* How far two results of the same operation lie apart. */
#ifndef CLI_ARRAY_COMPARE_H
#define CLI_ARRAY_COMPARE_H

#include "array.h"

/* How far they may lie apart: so many units of rounding of their dtype, and a share, of the largest
 * value of the same row of the last axis (`least` where that is smaller): a value that cancels to
 * nearly nothing says nothing about the operation. */
typedef struct cli_tolerance {
    double units;
    double share;
    double least;
} cli_tolerance;

/* Equal infinities, and NaNs, are no distance apart; any other of those is an infinite one. */
typedef struct cli_difference {
    double absolute; /* the largest */
    double relative;
    bool agrees;
} cli_difference;

/* Two arrays of one shape and one dtype of floats. */
cli_difference cli_array_compare(const cli_array *a, const cli_array *b,
                                 const cli_tolerance *tolerance);

#endif
