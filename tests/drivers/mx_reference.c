/* A slow, simple implementation of mx_reference.h. */
#include "drivers/mx_reference.h"

#include <math.h>

/* Exponent and mantissa bits, bias, and special values. */
typedef struct format {
    int exponent_bits;
    int mantissa_bits;
    int bias;
    bool ieee;    /* the highest exponent is Inf and NaN */
    bool one_nan; /* all ones are NaN */
} format;

static format format_of(rw_mx_format name) {
    static const format formats[] = {[RW_MXFP4_E2M1] = {2, 1, 1, false, false},
                                     [RW_MXFP6_E2M3] = {2, 3, 1, false, false},
                                     [RW_MXFP6_E3M2] = {3, 2, 3, false, false},
                                     [RW_MXFP8_E4M3] = {4, 3, 7, false, true},
                                     [RW_MXFP8_E5M2] = {5, 2, 15, true, false}};
    return formats[name];
}

int rwt_mx_bits(rw_mx_format name) {
    format f = format_of(name);
    return 1 + f.exponent_bits + f.mantissa_bits;
}

double rwt_mx_element(rw_mx_format name, unsigned code) {
    format f = format_of(name);
    int exponents = 1 << f.exponent_bits, mantissas = 1 << f.mantissa_bits;
    int mantissa = (int)code % mantissas;
    int exponent = (int)code / mantissas % exponents;
    bool negative = (int)code / mantissas / exponents % 2 == 1;
    double value;
    if (f.ieee && exponent == exponents - 1)
        value = mantissa == 0 ? INFINITY : NAN;
    else if (f.one_nan && exponent == exponents - 1 && mantissa == mantissas - 1)
        value = NAN;
    else if (exponent == 0)
        value = ldexp((double)mantissa / mantissas, 1 - f.bias);
    else
        value = ldexp(1.0 + (double)mantissa / mantissas, exponent - f.bias);
    return negative ? -value : value;
}

double rwt_mx_scale(unsigned e) {
    return e == 255 ? NAN : ldexp(1.0, (int)e - 127);
}

/* The code of the number nearest to a magnitude: ties to even, saturating. */
static unsigned nearest(rw_mx_format name, double magnitude) {
    unsigned codes = 1u << (rwt_mx_bits(name) - 1);
    unsigned best = 0;
    for (unsigned code = 1; code < codes; code++) {
        double value = rwt_mx_element(name, code);
        if (isnan(value) || isinf(value))
            continue;
        double distance = fabs(value - magnitude);
        double least = fabs(rwt_mx_element(name, best) - magnitude);
        if (distance < least || (distance == least && code % 2 == 0))
            best = code;
    }
    return best;
}

static int largest_exponent(rw_mx_format name) {
    double largest = 0.0;
    for (unsigned code = 0; code < 1u << (rwt_mx_bits(name) - 1); code++) {
        double value = rwt_mx_element(name, code);
        if (!isnan(value) && !isinf(value) && value > largest)
            largest = value;
    }
    return ilogb(largest);
}

void rwt_mx_quantize(rw_mx_format name, const double *values, unsigned *scale, unsigned *codes) {
    double largest = 0.0;
    bool finite = true;
    for (int i = 0; i < RW_MX_BLOCK; i++) {
        finite = finite && isfinite(values[i]);
        codes[i] = 0;
        if (fabs(values[i]) > largest)
            largest = fabs(values[i]);
    }
    *scale = 255;
    if (!finite)
        return;
    int exponent = largest > 0.0 ? ilogb(largest) - largest_exponent(name) : -127;
    if (exponent < -127)
        exponent = -127;
    *scale = (unsigned)(exponent + 127);
    for (int i = 0; i < RW_MX_BLOCK; i++) {
        codes[i] = nearest(name, ldexp(fabs(values[i]), -exponent));
        if (signbit(values[i]))
            codes[i] |= 1u << (rwt_mx_bits(name) - 1);
    }
}

/* The first bit of element i, counted from the lowest bit of the first byte. */
static int first_bit(const rw_mx_layout *layout, int i) {
    if (layout->format != RW_MXFP4_E2M1 || layout->nibbles == RW_MX_LOW_FIRST)
        return i * rwt_mx_bits(layout->format);
    if (layout->nibbles == RW_MX_HIGH_FIRST)
        return i / 2 * 8 + (i % 2 == 0 ? 4 : 0);
    return i % 16 * 8 + (i >= 16 ? 4 : 0);
}

unsigned rwt_mx_get(const rw_mx_layout *layout, const unsigned char *block, int i) {
    unsigned code = 0;
    for (int bit = 0; bit < rwt_mx_bits(layout->format); bit++) {
        int at = first_bit(layout, i) + bit;
        code |= (unsigned)(block[at / 8] >> at % 8 & 1) << bit;
    }
    return code;
}

void rwt_mx_put(const rw_mx_layout *layout, unsigned char *block, int i, unsigned code) {
    for (int bit = 0; bit < rwt_mx_bits(layout->format); bit++) {
        int at = first_bit(layout, i) + bit;
        block[at / 8] |= (unsigned char)((code >> bit & 1) << at % 8);
    }
}
