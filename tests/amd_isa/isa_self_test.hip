/* Self-test of the machine code emulation: kernels that are correct, that are broken, and that use
 * what the emulator does not model.
 *
 *   isa_self_test NAME...     reports of each test whether it passed: the kernel ran, the runtime
 *                             reported no error, and the results are correct; exits with 1 unless
 *                             all passed
 *
 * isa_suite.py lists which of them must fail, how, and in which order of the waves.
 */
#include "isa_self_test_kernels.h"

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- host ---- */

static bool good = true;

static void check(hipError_t error, const char *what) {
    if (error == hipSuccess)
        return;
    fprintf(stderr, "%s: %s\n", what, hipGetErrorString(error));
    (void)hipGetLastError(); /* so that the next launch does not report it again */
    good = false;
}

static void expect(bool is, const char *what) {
    if (is)
        return;
    if (good)
        fprintf(stderr, "a result is wrong: %s\n", what);
    good = false;
}

template <typename T> struct device_array {
    T *data = nullptr;
    size_t count;
    explicit device_array(size_t n) : count(n) {
        check(hipMalloc((void **)&data, n * sizeof(T)), "hipMalloc");
    }
    device_array(const T *from, size_t n) : device_array(n) {
        check(hipMemcpy(data, from, n * sizeof(T), hipMemcpyHostToDevice), "hipMemcpy");
    }
    ~device_array() {
        check(hipFree(data), "hipFree");
    }
    void read(T *to) const {
        check(hipMemcpy(to, data, count * sizeof(T), hipMemcpyDeviceToHost), "hipMemcpy");
    }
};

#define LAUNCH(kernel, blocks, threads, shared, ...)                                               \
    do {                                                                                           \
        hipLaunchKernelGGL(kernel, dim3(blocks), dim3(threads), shared, nullptr, __VA_ARGS__);     \
        check(hipGetLastError(), "a launch");                                                      \
    } while (0)

static void test_sum() {
    static int in[5000];
    int expected = 0, got = 0;
    for (int i = 0; i < 5000; i++)
        expected += in[i] = i * 7 % 1000;
    device_array<int> d_in(in, 5000), d_out(&got, 1);
    LAUNCH(sum_kernel, 3, THREADS, 0, (const int *)d_in.data, d_out.data, 5000);
    d_out.read(&got);
    expect(got == expected, "the sum");
}

static void try_unaligned(void (*kernel)(const uint8_t *, uint8_t *, int), int bytes) {
    uint8_t in[THREADS * 8 + 8], got[sizeof in];
    for (size_t i = 0; i < sizeof in; i++)
        in[i] = (uint8_t)(i * 37 + 11);
    for (int shift = 0; shift < 8; shift++) {
        memset(got, 0, sizeof got);
        device_array<uint8_t> d_in(in, sizeof in), d_out(got, sizeof got);
        LAUNCH(kernel, 1, THREADS, 0, (const uint8_t *)d_in.data, d_out.data, shift);
        d_out.read(got);
        for (int i = 0; i < (int)sizeof got; i++) {
            const int at = i - shift;
            const bool copied = at >= 0 && at % 16 < bytes && at < THREADS * 8;
            expect(got[i] == (copied ? in[i] : 0), "a copy at some alignment");
        }
    }
}

static void test_unaligned() {
    try_unaligned(unaligned_kernel<unaligned16>, 2);
    try_unaligned(unaligned_kernel<unaligned32>, 4);
    try_unaligned(unaligned_kernel<unaligned64>, 8);
    try_unaligned(unaligned_shared_kernel<unaligned16>, 2);
    try_unaligned(unaligned_shared_kernel<unaligned32>, 4);
    try_unaligned(unaligned_shared_kernel<unaligned64>, 8);
}

static void test_tickets() {
    const unsigned none = 0;
    unsigned got[THREADS];
    device_array<unsigned> d_counter(&none, 1), d_out(THREADS);
    LAUNCH(tickets_kernel, 1, THREADS, 0, d_counter.data, d_out.data);
    d_out.read(got);
    for (int half = 0; half < 2; half++) {
        bool given[THREADS / 2] = {false};
        for (int i = 0; i < THREADS / 2; i++) {
            const unsigned ticket = got[half * THREADS / 2 + i];
            expect(ticket < THREADS / 2 && !given[ticket], "a ticket");
            if (ticket < THREADS / 2)
                given[ticket] = true;
        }
    }
}

static void test_wide_atomics() {
    const unsigned long long none[2] = {~0ull, ~0ull};
    unsigned long long words[2], found[THREADS], claims = 0;
    device_array<unsigned long long> d_words(none, 2), d_found(THREADS);
    LAUNCH(wide_atomics_kernel, 1, THREADS, 0, d_words.data, d_found.data);
    d_words.read(words);
    d_found.read(found);
    for (int i = 0; i < THREADS; i += 2) {
        claims += found[i] == ~0ull;
        expect(found[i] == ~0ull || found[i] == words[0], "what a claim found");
        expect(found[i + 1] >= words[1], "what a bid found");
    }
    expect(claims == 1 && words[0] != ~0ull, "one claim");
    expect(words[1] == (2ull << 33 | (THREADS - 2)), "the lowest bid");
}

static void test_masked() {
    int got[THREADS];
    device_array<int> d_out(THREADS);
    LAUNCH(masked_kernel, 1, THREADS, 0, d_out.data, 1 << 28);
    d_out.read(got);
    for (int i = 0; i < THREADS; i++) {
        /* The neighbour of a wave's last pair belongs to another wave. */
        const int expected = i % 2 ? 0 : (i + 2 + 1000) + (i + 1000);
        if (got[i] != expected && good && i % 32 != 30)
            fprintf(stderr, "thread %d has %d, expected %d\n", i, got[i], expected);
        expect(got[i] == expected || i % 32 == 30, "LDS, or a neighbour's value");
    }
}

static void test_wmma() {
    float got[32 * 8];
    device_array<float> d_out(32 * 8);
    LAUNCH(wmma_kernel, 1, 32, 0, d_out.data);
    d_out.read(got);
    for (float value : got)
        expect(value == 16, "a product of WMMA");
}

static void test_flat() {
    int got[THREADS] = {0};
    device_array<int> d_out(got, THREADS);
    LAUNCH(flat_kernel, 1, THREADS, 0, d_out.data, 1);
    d_out.read(got);
    for (int i = 0; i < THREADS; i++)
        expect(got[i] == THREADS - 1 - i, "LDS through a flat pointer");
}

/* Divides operands of every exponent, with quotients of about 2^-`apart`; returns the number of
 * wrong results and reports the first. */
template <typename T, typename Kernel>
static int try_divide(Kernel kernel, int least, int most, int apart) {
    const int count = 4096;
    T *a = (T *)malloc(3 * count * sizeof(T)), *b = a + count, *got = b + count;
    unsigned state = 12345;
    for (int i = 0; i < count; i++) {
        const int low = least + (i * 7) % (most - least - apart);
        state = state * 1664525u + 1013904223u;
        a[i] = (T)ldexp(1 + (state >> 9) / 8388608.0, low + i % 3 - 1);
        state = state * 1664525u + 1013904223u;
        b[i] = (T)ldexp(1 + (state >> 9) / 8388608.0, low + apart);
    }
    device_array<T> d_a(a, count), d_b(b, count), d_out(count);
    LAUNCH(kernel, count / THREADS, THREADS, 0, (const T *)d_a.data, (const T *)d_b.data,
           d_out.data, count);
    d_out.read(got);
    int wrong = 0;
    for (int i = 0; i < count; i++) {
        const volatile T quotient = a[i] / b[i];
        if (got[i] != quotient && wrong++ == 0)
            fprintf(stderr, "%a / %a is %a, expected %a\n", (double)a[i], (double)b[i],
                    (double)got[i], (double)quotient);
    }
    free(a);
    return wrong;
}

static void test_divide() {
    static const int f32_apart[] = {0, 30, 125, 126, 127, 140, 149, 150, 151, 200, 250};
    for (int apart : f32_apart)
        expect(try_divide<float>(divide_kernel, -125, 127, apart) == 0, "a quotient");
    static const int f64_apart[] = {0, 500, 1020};
    for (int apart : f64_apart)
        expect(try_divide<double>(divide64_kernel, -1021, 1023, apart) == 0, "a quotient");
}

static void test_divide64_subnormal() {
    expect(try_divide<double>(divide64_kernel, -1021, 1023, 1030) > 0,
           "subnormal quotients of f64 are rounded once now");
}

static void try_lost_barrier(void (*kernel)(int *, int), int distance, int rounds) {
    int got[THREADS] = {0};
    device_array<int> d_out(got, THREADS);
    LAUNCH(kernel, 1, THREADS, 0, d_out.data, distance);
    d_out.read(got);
    for (int i = 0; i < THREADS; i++) {
        const int other = neighbour(i, distance);
        expect(got[i] == (rounds == 1 ? other : 2 * other + THREADS), "a neighbour's value");
    }
}

static void test_lost_barrier_next() {
    try_lost_barrier(lost_barrier_kernel, 64, 1);
}

static void test_lost_barrier_previous() {
    try_lost_barrier(lost_barrier_kernel, -64, 1);
}

static void test_lost_second_barrier_next() {
    try_lost_barrier(lost_second_barrier_kernel, 64, 2);
}

static void test_lost_second_barrier_previous() {
    try_lost_barrier(lost_second_barrier_kernel, -64, 2);
}

static void test_spin() {
    const unsigned lock = 0;
    const int none = 0;
    device_array<unsigned> d_lock(&lock, 1);
    device_array<int> d_out(&none, 1);
    LAUNCH(spin_kernel, 1, 64, 0, d_lock.data, d_out.data);
}

static void try_store(int64_t at) {
    device_array<int> d_out(64);
    LAUNCH(store_kernel, 1, 64, 0, d_out.data, at);
}

static void test_store_past_end() {
    try_store(1);
}

static void test_store_before_start() {
    try_store(-1);
}

/* 61 words: 12 bytes remain before the guard page. */
static void test_store_into_slack() {
    device_array<int> d_out(61);
    LAUNCH(store_kernel, 1, 62, 0, d_out.data, (int64_t)0);
}

static void test_load_past_end() {
    device_array<int> d_in(64), d_out(64);
    LAUNCH(load_kernel, 1, 64, 0, (const int *)d_in.data, d_out.data, (int64_t)1);
}

static void test_load_after_free() {
    device_array<int> d_out(64);
    int *freed = nullptr;
    check(hipMalloc((void **)&freed, 64 * sizeof *freed), "hipMalloc");
    check(hipFree(freed), "hipFree");
    LAUNCH(load_kernel, 1, 64, 0, (const int *)freed, d_out.data, (int64_t)0);
}

static void test_host_pointer() {
    static int of_the_host[64];
    device_array<int> d_out(64);
    LAUNCH(load_kernel, 1, 64, 0, (const int *)of_the_host, d_out.data, (int64_t)0);
}

static void try_shared_overrun(int past) {
    device_array<int> d_out(64);
    LAUNCH(shared_overrun_kernel, 1, 64, 64 * sizeof(int), d_out.data, past);
}

static void test_shared_overrun() {
    try_shared_overrun(16);
}

static void test_shared_overrun_far() {
    try_shared_overrun(4096 / 4);
}

static void test_unwritten() {
    float got[THREADS];
    device_array<float> d_out(THREADS);
    LAUNCH(unwritten_kernel, 1, THREADS, 0, d_out.data, 0);
    d_out.read(got);
    for (int i = 0; i < THREADS; i++)
        expect(got[i] == 0, "of LDS that nobody wrote");
}

static void test_copy_past_end() {
    int values[65] = {0};
    device_array<int> d_out(64);
    check(hipMemcpy(d_out.data, values, sizeof values, hipMemcpyHostToDevice), "a copy");
}

static void test_missing_wait() {
    int in[64], got[64];
    for (int i = 0; i < 64; i++)
        in[i] = i;
    device_array<int> d_in(in, 64), d_out(64);
    LAUNCH(missing_wait_kernel, 1, 64, 0, (const int *)d_in.data, d_out.data);
    d_out.read(got);
    for (int i = 0; i < 64; i++)
        expect(got[i] == i + 1, "of a load without a wait: waits are modelled now");
}

static void test_missing_fence() {
    const int none = 0;
    int got = 0;
    device_array<int> d_data(&none, 1), d_flag(&none, 1), d_out(&none, 1);
    LAUNCH(missing_fence_kernel, 1, THREADS, 0, d_data.data, d_flag.data, d_out.data);
    d_out.read(&got);
    expect(got == 7, "of data behind a flag: memory is not coherent now");
}

/* 61 words: a load of the 62nd does not reach the guard page. */
static void test_load_into_slack() {
    device_array<int> d_in(61), d_out(64);
    LAUNCH(load_kernel, 1, 62, 0, (const int *)d_in.data, d_out.data, (int64_t)0);
}

static void test_mode() {
    float got[64];
    device_array<float> d_out(64);
    LAUNCH(mode_kernel, 1, 64, 0, d_out.data, 1.0f, 0x1p-24f + 0x1p-30f);
    d_out.read(got);
    expect(got[0] == 1 + 0x1p-23f, "of a sum toward zero: MODE is modelled now");
}

static void test_mfma_f16() {
    static const float values[] = {1.5f,     -0x1p-14f, 0x1.8p-15f, -0x1p-20f,
                                   0x1p-24f, 0,         INFINITY,   NAN};
    for (float value : values) {
        float got[64];
        device_array<float> d_out(64);
        LAUNCH(mfma_kernel, 1, 64, 0, d_out.data, value);
        d_out.read(got);
        expect(isnan(value) ? isnan(got[0]) : got[0] == value * 0x1p10f, "a product of MFMA");
    }
}

static void test_upper_register() {
    float got[64];
    device_array<float> d_out(64);
    LAUNCH(upper_register_kernel, 1, 64, 0, d_out.data, 1.5f);
    d_out.read(got);
    expect(got[0] == 1.5f, "f16 in register 134");
}

static const struct {
    const char *name;
    void (*run)();
} tests[] = {
#define TEST(name)                                                                                 \
    { #name, test_##name }
    TEST(sum),
    TEST(unaligned),
    TEST(tickets),
    TEST(wide_atomics),
    TEST(masked),
    TEST(wmma),
    TEST(flat),
    TEST(divide),
    TEST(lost_barrier_next),
    TEST(lost_barrier_previous),
    TEST(lost_second_barrier_next),
    TEST(lost_second_barrier_previous),
    TEST(spin),
    TEST(store_past_end),
    TEST(store_before_start),
    TEST(store_into_slack),
    TEST(load_past_end),
    TEST(load_after_free),
    TEST(host_pointer),
    TEST(shared_overrun),
    TEST(shared_overrun_far),
    TEST(unwritten),
    TEST(copy_past_end),
    TEST(missing_wait),
    TEST(missing_fence),
    TEST(load_into_slack),
    TEST(divide64_subnormal),
    TEST(mode),
    TEST(mfma_f16),
    TEST(upper_register),
#undef TEST
};

static bool run_test(const char *name) {
    for (const auto &test : tests) {
        if (strcmp(name, test.name))
            continue;
        fprintf(stderr, "== %s\n", name);
        good = true;
        test.run();
        fprintf(stderr, "== %s %s\n", name, good ? "passed" : "failed");
        return good;
    }
    fprintf(stderr, "no test is \"%s\", expected one of:", name);
    for (const auto &test : tests)
        fprintf(stderr, " %s", test.name);
    fprintf(stderr, "\n");
    return false;
}

int main(int argc, char **argv) {
    bool all = argc > 1;
    for (int i = 1; i < argc; i++)
        all = run_test(argv[i]) && all;
    return all ? 0 : 1;
}
