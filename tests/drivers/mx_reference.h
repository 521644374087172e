/* Microscaling formats according to their definition, in double: OCP Microscaling Formats (MX)
 * Specification 1.0, sections 5 and 6. */
#ifndef RWT_MX_REFERENCE_H
#define RWT_MX_REFERENCE_H

#include "harness/harness.h"

/* Bits of a code. */
int rwt_mx_bits(rw_mx_format format);

/* The value of a code; spare bits of `code` are ignored. */
double rwt_mx_element(rw_mx_format format, unsigned code);

/* The scale X of a scale byte. */
double rwt_mx_scale(unsigned e);

/* The scale byte and the codes of 32 values. */
void rwt_mx_quantize(rw_mx_format format, const double *values, unsigned *scale, unsigned *codes);

/* Reads or writes the code of element i; `block` starts with the codes. All bits of the codes must
 * be zero before rwt_mx_put(). */
unsigned rwt_mx_get(const rw_mx_layout *layout, const unsigned char *block, int i);
void rwt_mx_put(const rw_mx_layout *layout, unsigned char *block, int i, unsigned code);

#endif
