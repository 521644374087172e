/* Vectors of f8_e4m3 and f8_e5m2 as f32 and bf16 on the CPU: every code, at every level, against
 * their definition in double precision. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include <ropewalk/ropewalk.h>

#include "drivers/mx_reference.h"

typedef void convert(int dtype, const uint8_t *codes, int64_t count, float *floats, uint16_t *words,
                     uint16_t *found);

convert f8_lanes_baseline;
#if defined(__x86_64__)
convert f8_lanes_v3, f8_lanes_v4;
#endif

/* Around the lengths of vectors. */
static const int64_t counts[] = {256, 1, 3, 4, 7, 8, 15, 16, 17, 31, 32, 33, 63, 65};

static void check(const char *level, rw_dtype dtype, int first, int64_t count, convert *run) {
    const rw_mx_format format = dtype == RW_F8_E5M2 ? RW_MXFP8_E5M2 : RW_MXFP8_E4M3;
    uint8_t codes[256];
    float floats[257];
    uint16_t words[257], found[257];
    memset(floats, 0x5A, sizeof floats);
    memset(words, 0x5A, sizeof words);
    memset(found, 0x5A, sizeof found);
    for (int n = 0; n < 256; n++)
        codes[n] = (uint8_t)(first + n);
    run((int)dtype, codes, count, floats, words, found);
    for (int64_t n = 0; n < count; n++) {
        const double value = rwt_mx_element(format, codes[n]);
        const float expected = (float)value;
        uint32_t bits, wanted;
        memcpy(&bits, &floats[n], sizeof bits);
        memcpy(&wanted, &expected, sizeof wanted);
        uint16_t word = (uint16_t)(wanted >> 16);
        if (isnan(value)) {
            wanted = 0x7FC00000u;
            word = (uint16_t)(0x7FC0u | (codes[n] & 0x80u) << 8);
        }
        if (bits != wanted || words[n] != word || found[n] != word)
            fail_msg("%s, %s, %lld codes: 0x%02x became 0x%08x, 0x%04x and, by a table, 0x%04x, "
                     "expected 0x%08x and 0x%04x",
                     level, rw_dtype_name(dtype), (long long)count, codes[n], bits, words[n],
                     found[n], wanted, word);
    }
    uint32_t behind;
    memcpy(&behind, &floats[count], sizeof behind);
    assert_int_equal(behind, 0x5A5A5A5Au);
    assert_int_equal(words[count], 0x5A5Au);
    assert_int_equal(found[count], 0x5A5Au);
}

static void check_level(const char *level, convert *run) {
    for (int n = 0; n < (int)(sizeof counts / sizeof *counts); n++)
        for (int first = 0; first < 256; first += counts[n] == 256 ? 256 : 5) {
            check(level, RW_F8_E4M3, first, counts[n], run);
            check(level, RW_F8_E5M2, first, counts[n], run);
        }
}

static void test_every_code(void **state) {
    (void)state;
    check_level("baseline", f8_lanes_baseline);
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("f16c"))
        check_level("v3", f8_lanes_v3);
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl"))
        check_level("v4", f8_lanes_v4);
#endif
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_every_code)};
    return cmocka_run_group_tests_name("vectors of 8-bit floats", tests, NULL, NULL);
}
