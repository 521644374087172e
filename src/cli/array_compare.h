/* How far two results of the same operation lie apart. */
#ifndef CLI_ARRAY_COMPARE_H
#define CLI_ARRAY_COMPARE_H

#include "array.h"

/* Relative to the largest value of the same row of the last axis: a value that cancels to nearly
 * nothing says nothing about the operation. Equal infinities, and NaNs, are no distance apart; any
 * other of those is an infinite one. */
typedef struct cli_difference {
    double absolute; /* the largest */
    double relative;
    bool agrees; /* relative is at most 4 units of rounding */
} cli_difference;

/* Two arrays of one shape and one dtype of floats. */
cli_difference cli_array_compare(const cli_array *a, const cli_array *b);

#endif
