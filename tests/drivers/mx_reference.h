/* Microscaling formats by their definition, in double: OCP Microscaling Formats (MX) Specification
 * 1.0, sections 5 and 6. */
#ifndef RWT_MX_REFERENCE_H
#define RWT_MX_REFERENCE_H

#include "harness/harness.h"

/* Bits of a code. */
int rwt_mx_bits(rw_mx_format format);

/* The element that a code stands for; of the spare bits of `code` nothing is read. */
double rwt_mx_element(rw_mx_format format, unsigned code);

/* X of a scale byte. */
double rwt_mx_scale(unsigned e);

/* The scale byte and the codes of 32 values. */
void rwt_mx_quantize(rw_mx_format format, const double *values, unsigned *scale, unsigned *codes);

/* The code of element i, and putting it there; `block` starts with the codes, all bits of which are
 * zero before rwt_mx_put(). */
unsigned rwt_mx_get(const rw_mx_layout *layout, const unsigned char *block, int i);
void rwt_mx_put(const rw_mx_layout *layout, unsigned char *block, int i, unsigned code);

#endif
