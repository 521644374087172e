/* wgmma of hip_hopper.h: compared with a plain product in every order of threads, and each of its
 * errors is reported; refused on other architectures. */
#include <hip/hip_fp16.h>

#include "emulator_test.h"

static bool has_wgmma; /* whether the architecture does */

/* ---- products ---- */

#define ROWS 128 /* of two warpgroups */
#define DEPTH 128

/* Where a tile of rows of 64-column panels has an element, in the 128-byte swizzle. */
static int place(int rows, int row, int column) {
    return column / 64 * rows * 128 + row * 128 + ((column / 8 % 8 ^ row % 8) << 4) +
           column % 8 * 2;
}

static uint64_t describe(uint32_t address, int leading) {
    return (uint64_t)(address >> 4) | (uint64_t)(leading >> 4) << 16 | (uint64_t)(1024 >> 4) << 32 |
           (uint64_t)1 << 62;
}

/* Writes rows x columns elements to a tile, all threads together. */
static __device__ void store_tile(uint8_t *tile, const uint16_t *from, int rows, int columns) {
    for (int i = (int)threadIdx.x; i < rows * columns; i += (int)blockDim.x)
        memcpy(tile + place(rows, i / columns, i % columns), from + i, sizeof *from);
}

template <int N> struct product {
    float x[N / 16][2][4];

    void fill(float value) {
        for (int i = 0; i < N / 2; i++)
            (&x[0][0][0])[i] = value;
    }
    /* To the rows of this wave, `out` of N columns. */
    void store(float *out) const {
        const int lane = (int)threadIdx.x % 32, row = (int)threadIdx.x / 32 * 16 + lane / 4;
        for (int p = 0; p < N / 16; p++)
            for (int i = 0; i < 8; i++)
                out[(row + i / 4 * 8) * N + p * 16 + i % 4 / 2 * 8 + lane % 4 * 2 + i % 2] =
                    x[p][i / 4][i % 4];
    }
};

struct operands {
    const uint16_t *a, *b;
    float *out;
    const hip_emulator_instruction *instruction;
    bool add;
};

/* out = a b^T (+ 1), ROWS x N, with b of N rows. */
template <int N> static __global__ void scores_kernel(operands o) {
    HIP_DYNAMIC_SHARED(uint8_t, raw)
    uint8_t *b = raw + ROWS * DEPTH * 2;
    store_tile(raw, o.a, ROWS, DEPTH);
    store_tile(b, o.b, N, DEPTH);
    __syncthreads();
    const uint32_t own = (uint32_t)threadIdx.x / 128 * 64 * 128;
    const uint64_t ad = describe(hip_emulator_shared_address(raw) + own, 16);
    const uint64_t bd = describe(hip_emulator_shared_address(b), 16);
    product<N> d;
    d.fill(1.0f);
    hip_emulator_wgmma_fence();
    for (int k = 0; k < DEPTH / 16; k++)
        hip_emulator_wgmma_shared(*o.instruction, &d.x[0][0][0], N,
                                  ad + (uint64_t)(k / 4 * (ROWS * 128 >> 4) + k % 4 * 2),
                                  bd + (uint64_t)(k / 4 * (N * 128 >> 4) + k % 4 * 2), false,
                                  o.add || k > 0);
    hip_emulator_wgmma_commit();
    hip_emulator_wgmma_wait(0);
    d.store(o.out);
}

/* out = a b + 1, ROWS x N, a in registers, b of DEPTH rows; a second group follows at once. */
template <int N> static __global__ void values_kernel(operands o) {
    HIP_DYNAMIC_SHARED(uint8_t, raw)
    store_tile(raw, o.b, DEPTH, N);
    __syncthreads();
    const int lane = (int)threadIdx.x % 32, row = (int)threadIdx.x / 32 * 16 + lane / 4;
    uint32_t a[DEPTH / 16][4];
    for (int k = 0; k < DEPTH / 16; k++)
        for (int i = 0; i < 4; i++)
            memcpy(&a[k][i], o.a + (row + i % 2 * 8) * DEPTH + k * 16 + lane % 4 * 2 + i / 2 * 8,
                   4);
    const uint64_t bd = describe(hip_emulator_shared_address(raw), DEPTH * 128);
    product<N> d;
    d.fill(1.0f);
    hip_emulator_wgmma_fence();
    for (int k = 0; k < DEPTH / 16; k++) {
        hip_emulator_wgmma_registers(*o.instruction, &d.x[0][0][0], N, a[k],
                                     bd + (uint64_t)(k * (2048 >> 4)), true);
        if (k % 3 == 2)
            hip_emulator_wgmma_commit();
    }
    hip_emulator_wgmma_commit();
    hip_emulator_wgmma_wait(0);
    d.store(o.out);
}

/* Multiples of 1/8, few enough that every sum of products is exact. */
static float random_eighths(void) {
    static uint32_t state = 12345;
    state = state * 1664525u + 1013904223u;
    return (float)((int)(state >> 16) % 101 - 50) / 8.0f;
}

static uint16_t to_bits(bool bf16, float value) {
    if (bf16)
        return (uint16_t)(__float_as_uint(value) >> 16); /* exact: few bits */
    return __half_as_ushort(__float2half_rn(value));
}

struct matrix {
    device_array<uint16_t> bits;
    double values[ROWS * DEPTH];

    matrix(int rows, int columns, bool bf16) : bits((size_t)(rows * columns)) {
        for (int i = 0; i < rows * columns; i++) {
            const float value = random_eighths();
            values[i] = value;
            bits.data[i] = to_bits(bf16, value);
        }
    }
};

#define SHARED_BYTES (2 * ROWS * DEPTH * 2)

template <int N> static void check_products(bool bf16, bool values, bool add) {
    const hip_emulator_instruction *instruction =
        bf16 ? &hip_emulator_wgmma_bf16 : &hip_emulator_wgmma_f16;
    const matrix a(ROWS, DEPTH, bf16), b(DEPTH, N, bf16); /* for scores N x DEPTH */
    device_array<float> out(ROWS * N);
    hipLaunchKernelGGL(values ? values_kernel<N> : scores_kernel<N>, dim3(1), dim3(256),
                       values ? (size_t)place(DEPTH, DEPTH - 1, N - 1) / 16 * 16 + 16 + 1024
                              : SHARED_BYTES,
                       nullptr, operands{a.bits.data, b.bits.data, out.data, instruction, add});
    assert_int_equal(hipDeviceSynchronize(), hipSuccess);
    for (int i = 0; i < ROWS; i++)
        for (int j = 0; j < N; j++) {
            double expected = add;
            for (int k = 0; k < DEPTH; k++)
                expected += a.values[i * DEPTH + k] * b.values[values ? k * N + j : j * DEPTH + k];
            assert_true(out.data[i * N + j] == expected);
        }
}

static void check_all_products(void) {
    for (int bf16 = 0; bf16 < 2; bf16++) {
        check_products<64>(bf16, false, false);
        check_products<80>(bf16, false, true);
        check_products<128>(bf16, false, false);
        check_products<64>(bf16, true, true);
        check_products<80>(bf16, true, true);
        check_products<128>(bf16, true, true);
    }
}

static void test_products(void **) {
    if (!has_wgmma)
        skip();
    in_all_orders(check_all_products);
}

/* Two groups on the way: the first wait covers the first only. */
static __global__ void groups_kernel(float *out) {
    HIP_DYNAMIC_SHARED(uint8_t, raw)
    for (int i = (int)threadIdx.x; i < 8192; i += 128)
        raw[i] = (uint8_t)(i % 2 ? 0x3F : 0x80); /* 1.0 in bf16 */
    __syncthreads();
    product<16> first, second;
    first.fill(0.0f);
    second.fill(2.0f);
    const uint64_t d = describe(hip_emulator_shared_address(raw), 16);
    hip_emulator_wgmma_fence();
    hip_emulator_wgmma_shared(hip_emulator_wgmma_bf16, &first.x[0][0][0], 16, d, d, false, true);
    hip_emulator_wgmma_commit();
    hip_emulator_wgmma_shared(hip_emulator_wgmma_bf16, &second.x[0][0][0], 16, d, d, false, true);
    hip_emulator_wgmma_commit();
    out[0] = first.x[0][1][3];
    hip_emulator_wgmma_wait(1);
    out[1] = first.x[0][1][3];
    out[2] = second.x[0][1][3];
    hip_emulator_wgmma_wait(0);
    out[3] = second.x[0][1][3];
}

static void test_groups(void **) {
    if (!has_wgmma)
        skip();
    device_array<float> out(4);
    hipLaunchKernelGGL(groups_kernel, dim3(1), dim3(128), 8192, nullptr, out.data);
    assert_int_equal(hipDeviceSynchronize(), hipSuccess);
    assert_true(isnan(out.data[0]));
    assert_true(out.data[1] == 16.0f);
    assert_true(isnan(out.data[2]));
    assert_true(out.data[3] == 18.0f);
}

/* ---- errors ---- */

enum mistake {
    NO_MISTAKE,
    OTHER_SWIZZLE,
    BASE_OFFSET,
    BEYOND_BY_START,
    BEYOND_BY_STRIDE,
    BAD_N,
    OTHER_DESCRIPTOR,
    OTHER_REGISTERS,
    OTHER_COUNT,
    OTHER_LEFT,
    NO_FENCE,
    NO_FENCE_AFTER_WAIT,
    NO_COMMIT,
    NO_WAIT,
    SHARED_CHANGED,
    REGISTERS_CHANGED,
    HALF_A_WARPGROUP
};

static __global__ void mistake_kernel(mistake mistake) {
    HIP_DYNAMIC_SHARED(uint8_t, raw)
    const int t = (int)threadIdx.x;
    if (mistake == HALF_A_WARPGROUP && t >= 64)
        return;
    product<16> d[2];
    uint32_t a[4] = {};
    uint64_t ad = describe(hip_emulator_shared_address(raw), 16), bd = ad;
    ad ^= mistake == OTHER_SWIZZLE ? (uint64_t)3 << 62 : 0;
    bd |= mistake == BASE_OFFSET ? (uint64_t)1 << 49 : 0;
    ad += mistake == BEYOND_BY_START ? 8 : 0;
    bd += mistake == BEYOND_BY_STRIDE ? (uint64_t)(8192 - 1024) >> 4 << 32 : 0;
    bd += mistake == OTHER_DESCRIPTOR && t == 77 ? 2 : 0;
    const int n = mistake == BAD_N ? 24 : 16, other = mistake == OTHER_REGISTERS && t == 77;
    const hip_emulator_instruction &bf16 = hip_emulator_wgmma_bf16;
    if (mistake != NO_FENCE)
        hip_emulator_wgmma_fence();
    hip_emulator_wgmma_shared(bf16, &d[0].x[0][0][0], n, ad, bd, false, false);
    hip_emulator_wgmma_shared(bf16, &d[1 - other].x[0][0][0], 16, ad, bd, false, false);
    if (mistake != OTHER_COUNT || t != 77)
        hip_emulator_wgmma_registers(bf16, &d[0].x[0][0][0], 16, a, bd, true);
    if (mistake == NO_COMMIT)
        return;
    hip_emulator_wgmma_commit();
    if (mistake == NO_WAIT)
        return;
    if (mistake == SHARED_CHANGED && t == 77)
        raw[0] = 1;
    a[2] = mistake == REGISTERS_CHANGED && t == 77;
    hip_emulator_wgmma_wait(mistake == OTHER_LEFT && t == 77);
    if (mistake == NO_FENCE_AFTER_WAIT)
        hip_emulator_wgmma_registers(bf16, &d[0].x[0][0][0], 16, a, bd, true);
}

static void assert_mistake(mistake mistake, const char *part) {
    assert_launch_with_shared_fails("mistake_kernel", mistake_kernel, 128, 8192, part, mistake);
}

static void test_errors_of_wgmma(void **) {
    if (!has_wgmma) {
        assert_mistake(NO_MISTAKE, "does not have this instruction");
        return;
    }
    hipLaunchKernelGGL(mistake_kernel, dim3(1), dim3(128), 8192, nullptr, NO_MISTAKE);
    assert_int_equal(hipDeviceSynchronize(), hipSuccess);
    assert_mistake(OTHER_SWIZZLE, "another swizzle");
    assert_mistake(BASE_OFFSET, "bits set that must be 0");
    assert_mistake(BEYOND_BY_START, "beyond the dynamic shared memory");
    assert_mistake(BEYOND_BY_STRIDE, "beyond the dynamic shared memory");
    assert_mistake(BAD_N, "multiple of 16");
    assert_mistake(OTHER_DESCRIPTOR, "another descriptor or shape");
    assert_mistake(OTHER_REGISTERS, "multiplies to other registers");
    assert_mistake(OTHER_COUNT, "different numbers of wgmma.mma_async");
    assert_mistake(OTHER_LEFT, "leave different numbers of groups");
    assert_mistake(NO_FENCE, "no wgmma.fence");
    assert_mistake(NO_FENCE_AFTER_WAIT, "no wgmma.fence since the last wgmma.wait_group");
    assert_mistake(NO_COMMIT, "exits before a wgmma.wait_group");
    assert_mistake(NO_WAIT, "exits before a wgmma.wait_group");
    assert_mistake(SHARED_CHANGED, "shared memory that a product reads changed");
    assert_mistake(REGISTERS_CHANGED, "registers of a that a product reads changed");
    assert_mistake(HALF_A_WARPGROUP, "threads 0 to 63 wait for wgmma.commit_group");
    assert_launch_with_shared_fails("mistake_kernel", mistake_kernel, 96, 8192,
                                    "the warpgroup has 96 of 128 lanes", NO_MISTAKE);
}

int main(void) {
    hipDeviceProp_t properties;
    if (hipGetDeviceProperties(&properties, 0) != hipSuccess)
        return 1;
    warpSize = properties.warpSize;
    has_wgmma = strcmp(properties.gcnArchName, "sm_90a") == 0;
    const CMUnitTest tests[] = {
        cmocka_unit_test(test_products),
        cmocka_unit_test(test_groups),
        cmocka_unit_test(test_errors_of_wgmma),
    };
    return cmocka_run_group_tests(tests, nullptr, nullptr);
}
