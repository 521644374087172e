/* The T5 bucket of every distance, in exact arithmetic.
 *
 * With e buckets of one distance each and w = buckets - e logarithmic ones, the distance n is in
 * the logarithmic bucket k or a later one if
 *
 *   ln(n/e) / ln(d/e) * w >= k   <=>   n^w * e^k >= d^k * e^w        (d: max_distance)
 *
 * where both sides are integers.
 */
#include "t5_buckets.h"

#include <math.h>
#include <string.h>

/* A product of at most 2 * RWI_T5_MAX_BUCKETS factors up to RWI_T5_MAX_DISTANCE, lowest word first.
 */
#define WORDS (2 * RWI_T5_MAX_BUCKETS * 25 / 32 + 2)

typedef struct whole_number {
    uint32_t words[WORDS];
    int used;
} whole_number;

static void multiply(whole_number *number, uint32_t factor) {
    uint64_t carry = 0;
    for (int i = 0; i < number->used; i++) {
        carry += (uint64_t)number->words[i] * factor;
        number->words[i] = (uint32_t)carry;
        carry >>= 32;
    }
    if (carry)
        number->words[number->used++] = (uint32_t)carry;
}

/* a^m * b^n */
static whole_number product(int64_t a, int64_t m, int64_t b, int64_t n) {
    whole_number result = {.words = {1}, .used = 1};
    for (int64_t i = 0; i < m; i++)
        multiply(&result, (uint32_t)a);
    for (int64_t i = 0; i < n; i++)
        multiply(&result, (uint32_t)b);
    return result;
}

static int compare(const whole_number *a, const whole_number *b) {
    if (a->used != b->used)
        return a->used < b->used ? -1 : 1;
    for (int i = a->used - 1; i >= 0; i--)
        if (a->words[i] != b->words[i])
            return a->words[i] < b->words[i] ? -1 : 1;
    return 0;
}

/* The shortest distance in the logarithmic bucket k or later. */
static int64_t threshold(int64_t e, int64_t w, int64_t d, int64_t k) {
    whole_number bound = product(d, k, e, w);
    double guess = (double)e * pow((double)d / (double)e, (double)k / (double)w);
    int64_t n = (int64_t)guess;
    whole_number at = product(n, w, e, k);
    while (compare(&at, &bound) >= 0) {
        n--;
        at = product(n, w, e, k);
    }
    while (compare(&at, &bound) < 0) {
        n++;
        at = product(n, w, e, k);
    }
    return n;
}

void rwi_t5_fill_buckets(int64_t buckets, int64_t max_distance, int32_t *of_distance) {
    int64_t e = buckets / 2, w = buckets - e;
    int64_t n = 0;
    for (; n < e; n++)
        of_distance[n] = (int32_t)n;
    for (int64_t k = 1; k < w; k++)
        for (int64_t end = threshold(e, w, max_distance, k); n < end; n++)
            of_distance[n] = (int32_t)(e + k - 1);
    for (; n <= max_distance; n++)
        of_distance[n] = (int32_t)(buckets - 1);
}
