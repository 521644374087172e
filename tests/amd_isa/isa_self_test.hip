/* What the lane is worth: kernels that are right, kernels that are broken, and kernels that show what
 * the emulator does not model.
 *
 *   isa_self_test NAME     exit 0: the kernel ran, and its results are those expected
 *                          exit 1: the runtime reported an error, or a result is wrong
 *
 * isa_suite.py knows which of them must fail, how, and in which order of the waves. */
#include <hip/hip_runtime.h>

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define THREADS 256

/* Makes a value one of which the compiler knows nothing. */
template <typename T> __device__ static void hide(T &value) {
#if defined(__HIP_DEVICE_COMPILE__)
    asm volatile("" : "+v"(value));
#else
    (void)value;
#endif
}

/* ---- right ---- */

/* Sums by lanes, by LDS and by atomics; every block adds to one word. */
__global__ void sum_kernel(const int *in, int *out, int count) {
    __shared__ int parts[THREADS];
    int mine = 0;
    for (int i = blockIdx.x * THREADS + threadIdx.x; i < count; i += gridDim.x * THREADS)
        mine += in[i];
    mine += __shfl_xor(mine, 1); /* twice the sum of a pair, of which the last step takes one */
    parts[threadIdx.x] = mine;
    __syncthreads();
    for (int half = THREADS / 2; half > 1; half /= 2) {
        if ((int)threadIdx.x < half)
            parts[threadIdx.x] += parts[threadIdx.x + half];
        __syncthreads();
    }
    if (threadIdx.x == 0)
        atomicAdd(out, parts[0]);
}

struct __attribute__((packed)) unaligned16 {
    uint16_t value;
};
struct __attribute__((packed)) unaligned32 {
    uint32_t value;
};
struct __attribute__((packed)) unaligned64 {
    uint64_t value;
};

/* Copies of 16, 32 and 64 bits at any alignment, by half of the lanes: those that are masked off have
 * addresses that are nobody's. */
template <typename T> __global__ void unaligned_kernel(const uint8_t *in, uint8_t *out, int shift) {
    const int64_t nobody = (int64_t)1 << 40;
    int64_t at = threadIdx.x % 2 ? nobody : (int64_t)threadIdx.x * 8 + shift;
    hide(at);
    if (threadIdx.x % 2 == 0)
        ((T *)(out + at))->value = ((const T *)(in + at))->value;
}

/* The same by way of LDS. */
template <typename T>
__global__ void unaligned_shared_kernel(const uint8_t *in, uint8_t *out, int shift) {
    __shared__ uint8_t local[THREADS * 8 + 8];
    int at = threadIdx.x % 2 ? 1 << 28 : (int)threadIdx.x * 8 + shift;
    hide(at);
    if (threadIdx.x % 2 == 0)
        ((T *)(local + at))->value = ((const T *)(in + at))->value;
    __syncthreads();
    if (threadIdx.x % 2 == 0)
        ((T *)(out + at))->value = ((const T *)(local + at))->value;
}

/* What atomics of memory and of LDS found, by half of the lanes: each ticket once. */
__global__ void tickets_kernel(unsigned *counter, unsigned *out) {
    __shared__ unsigned local;
    if (threadIdx.x == 0)
        local = 0;
    __syncthreads();
    int64_t wild = threadIdx.x % 2 ? (int64_t)1 << 40 : 0, wild_local = wild;
    hide(wild);
    hide(wild_local);
    if (threadIdx.x % 2 == 0) {
        out[threadIdx.x / 2] = atomicAdd(counter + wild, 1u);
        out[THREADS / 2 + threadIdx.x / 2] = atomicAdd(&local + wild_local, 1u);
    }
}

/* Accesses of LDS, and of neighbours, by half of the lanes: of the others, the addresses are wild. */
__global__ void masked_kernel(int *out, int wild) {
    __shared__ int values[THREADS];
    const int lane = (int)threadIdx.x;
    int at = lane % 2 ? wild : lane;
    hide(at);
    values[lane] = lane;
    __syncthreads();
    int sum = 0;
    if (lane % 2 == 0) {
        values[at] += 1000;
        sum = __shfl(values[at], at + 2) + values[at];
    }
    out[lane] = sum;
}

/* A matrix of ones by itself, plus 0, which is a constant in the instruction. */
__global__ void wmma_kernel(float *out) {
    typedef float float8_ __attribute__((ext_vector_type(8)));
    float8_ c = {0, 0, 0, 0, 0, 0, 0, 0};
#if defined(__gfx1100__)
    typedef _Float16 half16 __attribute__((ext_vector_type(16)));
    half16 a;
    for (int i = 0; i < 16; i++)
        a[i] = 1;
    c = __builtin_amdgcn_wmma_f32_16x16x16_f16_w32(a, a, c);
#elif defined(__gfx1201__)
    typedef _Float16 half8 __attribute__((ext_vector_type(8)));
    half8 a;
    for (int i = 0; i < 8; i++)
        a[i] = 1;
    c = __builtin_amdgcn_wmma_f32_16x16x16_f16_w32_gfx12(a, a, c);
#endif
    for (int i = 0; i < 8; i++)
        out[threadIdx.x * 8 + i] = c[i];
}

/* LDS through pointers of which the compiler does not know where they point. */
__global__ void flat_kernel(int *out, int which) {
    __shared__ int local[THREADS];
    local[threadIdx.x] = (int)threadIdx.x;
    __syncthreads();
    int *place = which ? local : out;
    hide(place);
    out[threadIdx.x] = place[THREADS - 1 - threadIdx.x];
}

__global__ void divide_kernel(const float *a, const float *b, float *out, int count) {
    const int i = blockIdx.x * THREADS + threadIdx.x;
    if (i < count)
        out[i] = a[i] / b[i];
}

__global__ void divide64_kernel(const double *a, const double *b, double *out, int count) {
    const int i = blockIdx.x * THREADS + threadIdx.x;
    if (i < count)
        out[i] = a[i] / b[i];
}

/* ---- broken ---- */

/* The thread `distance` on, where there is one. */
__host__ __device__ static int neighbour(int thread, int distance) {
    const int other = thread + distance;
    return other >= 0 && other < THREADS ? other : thread;
}

/* Reads what a neighbour has written, without a barrier between. */
__global__ void lost_barrier_kernel(int *out, int distance) {
    __shared__ int values[THREADS];
    values[threadIdx.x] = (int)threadIdx.x;
    out[threadIdx.x] = values[neighbour((int)threadIdx.x, distance)];
}

/* As above, where the second round overwrites what a slower wave has yet to read of the first. */
__global__ void lost_second_barrier_kernel(int *out, int distance) {
    __shared__ int values[THREADS];
    int total = 0;
    for (int round = 0; round < 2; round++) {
        values[threadIdx.x] = (int)threadIdx.x + round * THREADS;
        __syncthreads();
        total += values[neighbour((int)threadIdx.x, distance)];
    }
    out[threadIdx.x] = total;
}

/* A lock for which lanes of one wave contend: the lane that holds it waits for those that spin. */
__global__ void spin_kernel(unsigned *lock, int *out) {
    while (atomicCAS(lock, 0u, 1u) != 0u) {
    }
    out[0]++;
    atomicExch(lock, 0u);
}

__global__ void store_kernel(int *out, int64_t at) {
    out[at + threadIdx.x] = 1;
}

__global__ void load_kernel(const int *in, int *out, int64_t at) {
    out[threadIdx.x] = in[at + threadIdx.x];
}

__global__ void shared_overrun_kernel(int *out, int past) {
    extern __shared__ int dynamic[];
    dynamic[threadIdx.x + past] = 1;
    __syncthreads();
    out[threadIdx.x] = dynamic[threadIdx.x];
}

__global__ void unwritten_kernel(float *out, int sometimes) {
    __shared__ float values[THREADS];
    if (sometimes)
        values[threadIdx.x] = 0;
    __syncthreads();
    out[threadIdx.x] = values[threadIdx.x];
}

/* ---- what is not modelled ---- */

/* A load that is used without a wait for it: a device may read the register too early. */
__global__ void missing_wait_kernel(const int *in, int *out) {
    int value = in[threadIdx.x];
#if defined(__gfx942__) || defined(__gfx90a__)
    asm volatile("global_load_dword %0, %1, off\n\tv_add_u32 %0, %0, 1"
                 : "=&v"(value)
                 : "v"(in + threadIdx.x));
#elif defined(__HIP_DEVICE_COMPILE__)
    asm volatile("global_load_b32 %0, %1, off\n\tv_add_nc_u32 %0, %0, 1"
                 : "=&v"(value)
                 : "v"(in + threadIdx.x));
#endif
    out[threadIdx.x] = value;
}

/* The last wave waits for a flag of the first, then reads what that wave wrote, and no fence lies
 * between: a device may see the flag first. */
__global__ void missing_fence_kernel(volatile int *data, volatile int *flag, int *out) {
    if (threadIdx.x == 0) {
        *data = 7;
        *flag = 1;
    }
    if (threadIdx.x == THREADS - 1) {
        while (*flag == 0) {
        }
        *out = *data;
    }
}

/* A sum toward zero, which MODE asks for: 1 + 2^-24 + 2^-30 is above 1 to the nearest. */
__global__ void mode_kernel(float *out, float one, float little) {
    float sum = one + little;
#if defined(__gfx942__) || defined(__gfx90a__)
    asm volatile("s_setreg_imm32_b32 hwreg(HW_REG_MODE, 0, 4), 15\n\t"
                 "v_add_f32 %0, %1, %2"
                 : "=v"(sum)
                 : "v"(one), "v"(little));
#elif defined(__HIP_DEVICE_COMPILE__)
    asm volatile("s_round_mode 15\n\tv_add_f32 %0, %1, %2" : "=v"(sum) : "v"(one), "v"(little));
#endif
    out[threadIdx.x] = sum;
}

/* A * B of MFMA, 16 by 16: a column of `value` by a row of 2^10. */
__global__ void mfma_kernel(float *out, float value) {
#if defined(__gfx942__)
    typedef _Float16 half4 __attribute__((ext_vector_type(4)));
    typedef float float4_ __attribute__((ext_vector_type(4)));
    const bool first = threadIdx.x < 16;
    const half4 a = {first ? (_Float16)value : (_Float16)0, 0, 0, 0};
    const half4 b = {first ? (_Float16)0x1p10f : (_Float16)0, 0, 0, 0};
    const float4_ c = __builtin_amdgcn_mfma_f32_16x16x16f16(a, b, (float4_){0, 0, 0, 0}, 0, 0, 0);
    if (threadIdx.x == 0)
        out[0] = c[0];
#else
    (void)out, (void)value;
#endif
}

/* ---- the host's side ---- */

static bool good = true;

static void check(hipError_t error, const char *what) {
    if (error == hipSuccess)
        return;
    fprintf(stderr, "%s: %s\n", what, hipGetErrorString(error));
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

static void test_masked() {
    int got[THREADS];
    device_array<int> d_out(THREADS);
    LAUNCH(masked_kernel, 1, THREADS, 0, d_out.data, 1 << 28);
    d_out.read(got);
    for (int i = 0; i < THREADS; i++) {
        /* Of a wave's last pair, the neighbour is another wave's. */
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

/* Divides operands of every exponent, with quotients of about 2^-`apart`; returns how many quotients
 * are wrong and tells the first. */
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

/* 61 words: 12 bytes are left to the guard page. */
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

static const struct {
    const char *name;
    void (*run)();
} tests[] = {
#define TEST(name)                                                                                 \
    { #name, test_##name }
    TEST(sum),
    TEST(unaligned),
    TEST(tickets),
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
#undef TEST
};

int main(int argc, char **argv) {
    for (size_t i = 0; argc == 2 && i < sizeof tests / sizeof *tests; i++) {
        if (strcmp(argv[1], tests[i].name))
            continue;
        tests[i].run();
        return good ? 0 : 1;
    }
    fprintf(stderr, "usage: isa_self_test NAME, one of:");
    for (size_t i = 0; i < sizeof tests / sizeof *tests; i++)
        fprintf(stderr, " %s", tests[i].name);
    fprintf(stderr, "\n");
    return 2;
}
