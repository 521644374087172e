/* The emulator's matrix instructions: compared with a plain product, or refused where the emulated
 * architecture (ROPEWALK_EMULATED_ARCH) lacks them. */
#include <hip/hip_fp16.h>

#include "emulator_test.h"

#define SIDE 16
#define MAX_LANES 64

/* The elements of a lane. */
struct lane_elements {
    uint16_t a[SIDE], b[SIDE];
    float c[SIDE];
};

/* The place of an element of a matrix: in this lane and, for gfx11's a and b, also 16 lanes
 * further. */
struct seat {
    int lane;
    int element;
};

template <typename T, int N> struct vector { T x[N]; };

/* ---- instructions: the places of their elements, and the call ---- */

struct mfma {
    static constexpr unsigned archs = HIP_EMULATOR_GFX90A | HIP_EMULATOR_GFX942;
    static constexpr int columns = 16, copies = 1;
    static seat a(int i, int k) {
        return {i + k / 4 * 16, k % 4};
    }
    static seat b(int k, int j) {
        return {j + k / 4 * 16, k % 4};
    }
    static seat c(int i, int j) {
        return {j + i / 4 * 16, i % 4};
    }
    typedef vector<uint16_t, 4> factor;
    typedef vector<float, 4> sum;
};

struct mfma_f16 : mfma {
    static constexpr const char *name = "__builtin_amdgcn_mfma_f32_16x16x16f16";
    static sum call(const factor &a, const factor &b, const sum &c) {
        return __builtin_amdgcn_mfma_f32_16x16x16f16(a, b, c, 0, 0, 0);
    }
};

struct mfma_bf16 : mfma {
    static constexpr const char *name = "__builtin_amdgcn_mfma_f32_16x16x16bf16_1k";
    static sum call(const factor &a, const factor &b, const sum &c) {
        return __builtin_amdgcn_mfma_f32_16x16x16bf16_1k(a, b, c, 0, 0, 0);
    }
};

struct wmma {
    static constexpr unsigned archs = HIP_EMULATOR_GFX1100;
    static constexpr int columns = 16, copies = 2;
    static seat a(int i, int k) {
        return {i, k};
    }
    static seat b(int k, int j) {
        return {j, k};
    }
    static seat c(int i, int j) {
        return {j + i % 2 * 16, i / 2};
    }
    typedef vector<uint16_t, 16> factor;
    typedef vector<float, 8> sum;
};

struct wmma_f16 : wmma {
    static constexpr const char *name = "__builtin_amdgcn_wmma_f32_16x16x16_f16_w32";
    static sum call(const factor &a, const factor &b, const sum &c) {
        return __builtin_amdgcn_wmma_f32_16x16x16_f16_w32(a, b, c);
    }
};

struct wmma_bf16 : wmma {
    static constexpr const char *name = "__builtin_amdgcn_wmma_f32_16x16x16_bf16_w32";
    static sum call(const factor &a, const factor &b, const sum &c) {
        return __builtin_amdgcn_wmma_f32_16x16x16_bf16_w32(a, b, c);
    }
};

struct wmma12 {
    static constexpr unsigned archs = HIP_EMULATOR_GFX1201;
    static constexpr int columns = 16, copies = 1;
    static seat a(int i, int k) {
        return {i + k / 4 % 2 * 16, k % 4 + k / 8 * 4};
    }
    static seat b(int k, int j) {
        return {j + k / 4 % 2 * 16, k % 4 + k / 8 * 4};
    }
    static seat c(int i, int j) {
        return {j + i / 8 * 16, i % 8};
    }
    typedef vector<uint16_t, 8> factor;
    typedef vector<float, 8> sum;
};

struct wmma12_f16 : wmma12 {
    static constexpr const char *name = "__builtin_amdgcn_wmma_f32_16x16x16_f16_w32_gfx12";
    static sum call(const factor &a, const factor &b, const sum &c) {
        return __builtin_amdgcn_wmma_f32_16x16x16_f16_w32_gfx12(a, b, c);
    }
};

struct wmma12_bf16 : wmma12 {
    static constexpr const char *name = "__builtin_amdgcn_wmma_f32_16x16x16_bf16_w32_gfx12";
    static sum call(const factor &a, const factor &b, const sum &c) {
        return __builtin_amdgcn_wmma_f32_16x16x16_bf16_w32_gfx12(a, b, c);
    }
};

struct mma {
    static constexpr unsigned archs = HIP_EMULATOR_SM_90 | HIP_EMULATOR_SM_90A;
    static constexpr int columns = 8, copies = 1;
    static seat a(int i, int k) {
        return {i % 8 * 4 + k % 8 / 2, k % 2 + i / 8 * 2 + k / 8 * 4};
    }
    static seat b(int k, int j) {
        return {j * 4 + k % 8 / 2, k % 2 + k / 8 * 2};
    }
    static seat c(int i, int j) {
        return {i % 8 * 4 + j / 2, j % 2 + i / 8 * 2};
    }
    struct factor {
        uint32_t x[4];
    };
    struct sum {
        float x[4];
    };
};

struct mma_f16 : mma {
    static constexpr const char *name = "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32";
    static sum call(const factor &a, const factor &b, sum c) {
        hip_emulator_mma_m16n8k16_f16(c.x, a.x, b.x[0], b.x[1]);
        return c;
    }
};

struct mma_bf16 : mma {
    static constexpr const char *name = "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32";
    static sum call(const factor &a, const factor &b, sum c) {
        hip_emulator_mma_m16n8k16_bf16(c.x, a.x, b.x[0], b.x[1]);
        return c;
    }
};

/* ---- products ---- */

static hip_emulator_arch emulated_arch;

template <typename Instruction>
static __global__ void product_kernel(lane_elements *lanes, int absent) {
    lane_elements &lane = lanes[threadIdx.x];
    if ((int)threadIdx.x == absent)
        return;
    typename Instruction::factor a, b;
    typename Instruction::sum c;
    memcpy(&a, lane.a, sizeof a);
    memcpy(&b, lane.b, sizeof b);
    memcpy(&c, lane.c, sizeof c);
    c = Instruction::call(a, b, c);
    memcpy(lane.c, &c, sizeof c);
}

/* Multiples of 1/8, few enough that every sum of products is exact. */
static float random_eighths(void) {
    static uint32_t state = 12345;
    state = state * 1664525u + 1013904223u;
    return (float)((int)(state >> 16) % 101 - 50) / 8.0f;
}

static uint16_t to_bits(const char *name, float value) {
    if (strstr(name, "bf16"))
        return (uint16_t)(__float_as_uint(value) >> 16); /* exact: few bits */
    return __half_as_ushort(__float2half_rn(value));
}

struct matrices {
    float a[SIDE][SIDE], b[SIDE][SIDE], c[SIDE][SIDE];
};

template <typename Instruction>
static void scatter(const matrices &m, device_array<lane_elements> &lanes) {
    memset(lanes.data, 0, MAX_LANES * sizeof *lanes.data);
    for (int copy = 0; copy < Instruction::copies; copy++)
        for (int i = 0; i < SIDE; i++)
            for (int k = 0; k < SIDE; k++) {
                const seat a = Instruction::a(i, k);
                lanes.data[a.lane + copy * 16].a[a.element] = to_bits(Instruction::name, m.a[i][k]);
                if (i >= Instruction::columns)
                    continue;
                const seat b = Instruction::b(k, i);
                lanes.data[b.lane + copy * 16].b[b.element] = to_bits(Instruction::name, m.b[k][i]);
            }
    for (int i = 0; i < SIDE; i++)
        for (int j = 0; j < Instruction::columns; j++) {
            const seat c = Instruction::c(i, j);
            lanes.data[c.lane].c[c.element] = m.c[i][j];
        }
}

template <typename Instruction> static void test_product(void **) {
    matrices m;
    for (int i = 0; i < SIDE; i++)
        for (int j = 0; j < SIDE; j++) {
            m.a[i][j] = random_eighths();
            m.b[i][j] = random_eighths();
            m.c[i][j] = random_eighths();
        }
    device_array<lane_elements> lanes(2 * MAX_LANES);
    scatter<Instruction>(m, lanes);
    if (!(Instruction::archs & emulated_arch)) {
        assert_launch_fails(Instruction::name, product_kernel<Instruction>, warpSize,
                            "does not have this instruction", lanes.data, -1);
        return;
    }
    /* The second wave gets the same. */
    memcpy(lanes.data + warpSize, lanes.data, (size_t)warpSize * sizeof *lanes.data);
    hipLaunchKernelGGL(product_kernel<Instruction>, dim3(1), dim3(2 * (unsigned)warpSize), 0,
                       nullptr, lanes.data, -1);
    assert_int_equal(hipDeviceSynchronize(), hipSuccess);
    for (int i = 0; i < SIDE; i++)
        for (int j = 0; j < Instruction::columns; j++) {
            double expected = m.c[i][j];
            for (int k = 0; k < SIDE; k++)
                expected += (double)m.a[i][k] * m.b[k][j];
            const seat c = Instruction::c(i, j);
            assert_true(lanes.data[c.lane].c[c.element] == expected);
            assert_true(lanes.data[c.lane + warpSize].c[c.element] == expected);
        }
    assert_launch_fails(Instruction::name, product_kernel<Instruction>, warpSize,
                        "thread 5 has exited", lanes.data, 5);
    assert_launch_fails(Instruction::name, product_kernel<Instruction>, 8, "the wave has 8 of ",
                        lanes.data, -1);
}

/* ---- other errors ---- */

static void test_copies_that_differ(void **) {
    if (emulated_arch != HIP_EMULATOR_GFX1100)
        skip();
    const matrices m = {};
    device_array<lane_elements> lanes(MAX_LANES);
    scatter<wmma_f16>(m, lanes);
    lanes.data[19].b[7] = 1;
    assert_launch_fails("copies", product_kernel<wmma_f16>, warpSize,
                        "lanes 16 to 31 must have the a and b of lanes 0 to 15", lanes.data, -1);
}

static __global__ void modifiers_kernel(void) {
    const mfma::factor a = {}, b = {};
    const mfma::sum c = {};
    __builtin_amdgcn_mfma_f32_16x16x16f16(a, b, c, 0, 0, 1);
}

static void test_modifiers(void **) {
    if (!(mfma::archs & emulated_arch))
        skip();
    assert_launch_fails("modifiers", modifiers_kernel, warpSize, "must be 0");
}

/* ---- ldmatrix ---- */

struct loaded {
    uint32_t rows[4];
    uint32_t transposed[4];
};

/* Row r of four matrices of 8 x 8 holds 100 * r + column; rows are in another order, with gaps. */
static __global__ void ldmatrix_kernel(loaded *out, int offset) {
    HIP_DYNAMIC_SHARED(uint16_t, tile)
    const int at = (int)(threadIdx.x * 7 % 32) * 24;
    for (int i = 0; i < 8; i++)
        tile[at + i] = (uint16_t)(100 * threadIdx.x + (unsigned)i);
    __syncthreads();
    hip_emulator_ldmatrix_x4(out[threadIdx.x].rows, tile + at + offset);
    hip_emulator_ldmatrix_x4_trans(out[threadIdx.x].transposed, tile + at + offset);
}

static void test_ldmatrix(void **) {
    const size_t shared_bytes = MAX_LANES * 24 * sizeof(uint16_t);
    device_array<loaded> out(MAX_LANES);
    if (!(mma::archs & emulated_arch)) {
        const capture capture = capture_stderr();
        hipLaunchKernelGGL(ldmatrix_kernel, dim3(1), dim3((unsigned)warpSize), shared_bytes,
                           nullptr, out.data, 0);
        const hipError_t synchronized = hipDeviceSynchronize();
        const output output = release_stderr(capture);
        assert_int_equal(synchronized, hipErrorAssert);
        assert_contains(output.text, "does not have this instruction");
        return;
    }
    hipLaunchKernelGGL(ldmatrix_kernel, dim3(1), dim3(32), shared_bytes, nullptr, out.data, 0);
    assert_int_equal(hipDeviceSynchronize(), hipSuccess);
    for (unsigned lane = 0; lane < 32; lane++)
        for (unsigned i = 0; i < 4; i++)
            for (unsigned half = 0; half < 2; half++) {
                const unsigned row = lane / 4, column = lane % 4 * 2 + half;
                const loaded &got = out.data[lane];
                assert_int_equal(got.rows[i] >> 16 * half & 0xFFFF, 100 * (8 * i + row) + column);
                assert_int_equal(got.transposed[i] >> 16 * half & 0xFFFF,
                                 100 * (8 * i + column) + row);
            }
}

static void test_ldmatrix_alignment(void **) {
    if (!(mma::archs & emulated_arch))
        skip();
    device_array<loaded> out(MAX_LANES);
    const capture capture = capture_stderr();
    hipLaunchKernelGGL(ldmatrix_kernel, dim3(1), dim3(32), 32 * 24 * sizeof(uint16_t), nullptr,
                       out.data, 4);
    const hipError_t synchronized = hipDeviceSynchronize();
    const output output = release_stderr(capture);
    assert_int_equal(synchronized, hipErrorAssert);
    assert_contains(output.text, "a row is not aligned to 16 bytes");
}

/* ---- architectures ---- */

struct known_arch {
    const char *name;
    hip_emulator_arch arch;
    const char *wave;
    const char *other_wave;
};

static const known_arch known_archs[] = {
    {"gfx90a", HIP_EMULATOR_GFX90A, "64", "32"},   {"gfx942", HIP_EMULATOR_GFX942, "64", "32"},
    {"gfx1030", HIP_EMULATOR_GFX1030, "32", "64"}, {"gfx1100", HIP_EMULATOR_GFX1100, "32", "64"},
    {"gfx1201", HIP_EMULATOR_GFX1201, "32", "64"}, {"sm_90", HIP_EMULATOR_SM_90, "32", "64"},
    {"sm_90a", HIP_EMULATOR_SM_90A, "32", "64"},
};

static void set(const char *name, const char *value) {
    if (value)
        setenv(name, value, 1);
    else
        unsetenv(name);
}

static void assert_arch(const char *arch, const char *wave, const char *name, int lanes) {
    set("ROPEWALK_EMULATED_ARCH", arch);
    set("ROPEWALK_EMULATED_WAVE", wave);
    hipDeviceProp_t properties;
    assert_int_equal(hipGetDeviceProperties(&properties, 0), hipSuccess);
    assert_string_equal(properties.gcnArchName, name);
    assert_int_equal(properties.warpSize, lanes);
}

static void test_settings(void **) {
    const char *kept = getenv("ROPEWALK_EMULATED_ARCH");
    char *before = kept ? strdup(kept) : nullptr;
    assert_arch(nullptr, nullptr, "gfx1100", 32);
    assert_arch(nullptr, "32", "gfx1100", 32);
    assert_arch(nullptr, "64", "gfx942", 64);
    for (const known_arch &known : known_archs) {
        assert_arch(known.name, nullptr, known.name, atoi(known.wave));
        assert_arch(known.name, known.wave, known.name, atoi(known.wave));
        set("ROPEWALK_EMULATED_WAVE", known.other_wave);
        int count = -1;
        const capture capture = capture_stderr();
        assert_int_equal(hipGetDeviceCount(&count), hipErrorInvalidValue);
        const output output = release_stderr(capture);
        assert_int_equal(count, 0);
        assert_contains(output.text, known.other_wave);
        assert_contains(output.text, "the lanes of ROPEWALK_EMULATED_ARCH's waves");
    }
    set("ROPEWALK_EMULATED_WAVE", nullptr);
    set("ROPEWALK_EMULATED_ARCH", before);
    free(before);
    assert_int_equal(hipGetLastError(), hipErrorInvalidValue);
}

static bool find_arch(void) {
    hipDeviceProp_t properties;
    if (hipGetDeviceProperties(&properties, 0) != hipSuccess)
        return false;
    warpSize = properties.warpSize;
    for (const known_arch &known : known_archs)
        if (strcmp(known.name, properties.gcnArchName) == 0)
            emulated_arch = known.arch;
    return true;
}

int main(void) {
    if (!find_arch())
        return 1;
    const CMUnitTest tests[] = {
        cmocka_unit_test(test_product<mfma_f16>),
        cmocka_unit_test(test_product<mfma_bf16>),
        cmocka_unit_test(test_product<wmma_f16>),
        cmocka_unit_test(test_product<wmma_bf16>),
        cmocka_unit_test(test_product<wmma12_f16>),
        cmocka_unit_test(test_product<wmma12_bf16>),
        cmocka_unit_test(test_product<mma_f16>),
        cmocka_unit_test(test_product<mma_bf16>),
        cmocka_unit_test(test_copies_that_differ),
        cmocka_unit_test(test_modifiers),
        cmocka_unit_test(test_ldmatrix),
        cmocka_unit_test(test_ldmatrix_alignment),
        cmocka_unit_test(test_settings),
    };
    return cmocka_run_group_tests(tests, nullptr, nullptr);
}
