/* Arithmetic of the matrix instructions. */
#ifndef HIP_EMULATOR_PRODUCT_H
#define HIP_EMULATOR_PRODUCT_H

#include "hip/hip_fp16.h"

inline void hip_emulator_to_floats(const uint16_t *from, float *to, int count, bool bf16) {
    if (bf16)
        for (int i = 0; i < count; i++)
            to[i] = __uint_as_float((uint32_t)from[i] << 16);
    else
        for (int i = 0; i < count; i++)
            to[i] = __half2float(__ushort_as_half(from[i]));
}

/* c += a b, rows x COLUMNS += rows x 16 * 16 x COLUMNS, with rows of 16, b_pitch and c_pitch
 * elements. Every sum is in the order of its terms. The arrays are the emulator's own: sanitizers'
 * checks would only prevent vectorization. */
template <int COLUMNS>
__attribute__((no_sanitize("address", "undefined"))) inline void
hip_emulator_multiply_add(int rows, const float *a, const float *b, int b_pitch, float *c,
                          int c_pitch) {
    for (int row = 0; row < rows; row++) {
        float sums[COLUMNS];
        memcpy(sums, c + row * c_pitch, sizeof sums);
        for (int k = 0; k < 16; k++)
            for (int column = 0; column < COLUMNS; column++)
                sums[column] += a[row * 16 + k] * b[k * b_pitch + column];
        memcpy(c + row * c_pitch, sums, sizeof sums);
    }
}

#endif
