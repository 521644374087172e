/* The emulator: results, operations of whole waves, and lanes in lockstep. */
#include <hip/hip_fp16.h>
#include <hip/hip_runtime.h>

#include "emulator_test.h"

#define BLOCK 256

/* ---- results ---- */

static __device__ float reduce_block(float value) {
    __shared__ float partial[64];
    for (int distance = warpSize / 2; distance > 0; distance /= 2)
        value += __shfl_down(value, (unsigned)distance);
    if (threadIdx.x % (unsigned)warpSize == 0)
        partial[threadIdx.x / (unsigned)warpSize] = value;
    __syncthreads();
    float sum = 0.0f;
    for (unsigned i = 0; i < blockDim.x / (unsigned)warpSize; i++)
        sum += partial[i];
    __syncthreads();
    return sum;
}

static __global__ void sum_kernel(const float *in, float *out) {
    const float sum = reduce_block(in[blockIdx.x * blockDim.x + threadIdx.x]);
    if (threadIdx.x == 0)
        out[blockIdx.x] = sum;
}

static void test_block_reduction(void **) {
    const int blocks = 7;
    device_array<float> in(blocks * BLOCK), out(blocks);
    for (int i = 0; i < blocks * BLOCK; i++)
        in.data[i] = (float)(i % 97);
    hipLaunchKernelGGL(sum_kernel, dim3(blocks), dim3(BLOCK), 0, nullptr, in.data, out.data);
    assert_int_equal(hipDeviceSynchronize(), hipSuccess);
    for (int block = 0; block < blocks; block++) {
        float expected = 0.0f;
        for (int i = 0; i < BLOCK; i++)
            expected += in.data[block * BLOCK + i];
        assert_true(out.data[block] == expected);
    }
}

static __global__ void index_kernel(int *seen) {
    const unsigned block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
    const unsigned thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
    atomicAdd(&seen[block * blockDim.x * blockDim.y * blockDim.z + thread], 1);
}

static void test_every_thread_runs_once(void **) {
    const dim3 grid(3, 2, 2), block(5, 3, 2);
    const int threads = 3 * 2 * 2 * 5 * 3 * 2;
    device_array<int> seen(threads);
    for (int i = 0; i < threads; i++)
        seen.data[i] = 0;
    hipLaunchKernelGGL(index_kernel, grid, block, 0, nullptr, seen.data);
    assert_int_equal(hipDeviceSynchronize(), hipSuccess);
    for (int i = 0; i < threads; i++)
        assert_int_equal(seen.data[i], 1);
}

/* Threads that finish between the barriers of others would be an error; here all take part, and
 * half of them write only after two barriers. */
static __global__ void rotate_kernel(int *out) {
    HIP_DYNAMIC_SHARED(int, tile)
    tile[threadIdx.x] = (int)threadIdx.x;
    __syncthreads();
    const int next = tile[(threadIdx.x + 1) % blockDim.x];
    __syncthreads();
    tile[threadIdx.x] = next;
    __syncthreads();
    out[threadIdx.x] = tile[(threadIdx.x + 1) % blockDim.x];
}

static void test_dynamic_shared_memory(void **) {
    device_array<int> out(BLOCK);
    hipLaunchKernelGGL(rotate_kernel, dim3(1), dim3(BLOCK), BLOCK * sizeof(int), nullptr, out.data);
    assert_int_equal(hipDeviceSynchronize(), hipSuccess);
    for (int i = 0; i < BLOCK; i++)
        assert_int_equal(out.data[i], (i + 2) % BLOCK);
}

struct wave_result {
    int shfl, up, down, exchanged, any, all, lane;
    unsigned long long ballot, active;
};

static __global__ void wave_kernel(wave_result *out, int width) {
    wave_result *r = &out[threadIdx.x];
    const int value = 1000 + (int)threadIdx.x;
    r->lane = (int)__lane_id();
    r->shfl = __shfl(value, 3, width);
    r->up = __shfl_up(value, 2u, width);
    r->down = __shfl_down(value, 2u, width);
    r->exchanged = __shfl_xor(value, 5, width);
    r->ballot = __ballot(threadIdx.x % 3 == 0);
    r->any = __any(threadIdx.x == 1);
    r->all = __all(threadIdx.x < 40);
    r->active = 0;
    if (threadIdx.x % 2 == 0)
        r->active = __activemask();
}

static void test_wave_operations(void **) {
    const int wave = warpSize, width = 8;
    device_array<wave_result> out(BLOCK);
    hipLaunchKernelGGL(wave_kernel, dim3(1), dim3(BLOCK), 0, nullptr, out.data, width);
    assert_int_equal(hipDeviceSynchronize(), hipSuccess);
    for (int i = 0; i < BLOCK; i++) {
        const wave_result &r = out.data[i];
        const int first = i / width * width, first_of_wave = i / wave * wave;
        unsigned long long ballot = 0, even = 0;
        bool all = true;
        for (int lane = 0; lane < wave; lane++) {
            ballot |= (unsigned long long)((first_of_wave + lane) % 3 == 0) << lane;
            even |= (unsigned long long)(lane % 2 == 0) << lane;
            all = all && first_of_wave + lane < 40;
        }
        assert_int_equal(r.lane, i % wave);
        assert_int_equal(r.shfl, 1000 + first + 3);
        assert_int_equal(r.up, 1000 + (i - 2 < first ? i : i - 2));
        assert_int_equal(r.down, 1000 + (i + 2 >= first + width ? i : i + 2));
        assert_int_equal(r.exchanged, 1000 + (i ^ 5));
        assert_true(r.ballot == ballot);
        assert_int_equal(r.any, first_of_wave == 0);
        assert_int_equal(r.all, all);
        assert_true(r.active == (i % 2 == 0 ? even : 0));
    }
}

static __global__ void wave_size_kernel(int *out) {
    const int sum = __popcll(__ballot(1));
    if (threadIdx.x == 0)
        *out = sum;
}

static void test_wave_size(void **) {
    const char *asked = getenv("ROPEWALK_EMULATED_WAVE");
    const int expected = asked ? atoi(asked) : 32;
    device_array<int> out(1);
    hipLaunchKernelGGL(wave_size_kernel, dim3(1), dim3(BLOCK), 0, nullptr, out.data);
    assert_int_equal(hipDeviceSynchronize(), hipSuccess);
    assert_int_equal(*out.data, expected);
    assert_int_equal(warpSize, expected);
    hipDeviceProp_t properties;
    assert_int_equal(hipGetDeviceProperties(&properties, 0), hipSuccess);
    assert_int_equal(properties.warpSize, expected);
}

static __global__ void atomics_kernel(unsigned *sum, int *low, unsigned long long *high,
                                      float *total, unsigned *first) {
    atomicAdd(sum, 1u);
    atomicMin(low, -(int)threadIdx.x);
    atomicMax(high, (unsigned long long)threadIdx.x << 40);
    atomicAdd(total, 0.5f);
    if (atomicCAS(first, 0u, 1u) == 0u)
        atomicExch(first, 7u);
}

static void test_atomics(void **) {
    device_array<unsigned> words(2);
    device_array<int> low(1);
    device_array<unsigned long long> high(1);
    device_array<float> total(1);
    words.data[0] = words.data[1] = 0;
    *low.data = 0;
    *high.data = 0;
    *total.data = 0.0f;
    hipLaunchKernelGGL(atomics_kernel, dim3(2), dim3(BLOCK), 0, nullptr, words.data, low.data,
                       high.data, total.data, words.data + 1);
    assert_int_equal(hipDeviceSynchronize(), hipSuccess);
    assert_int_equal(words.data[0], 2 * BLOCK);
    assert_int_equal(words.data[1], 7);
    assert_int_equal(*low.data, -(BLOCK - 1));
    assert_true(*high.data == (unsigned long long)(BLOCK - 1) << 40);
    assert_true(*total.data == (float)BLOCK);
}

/* Compares with a search for the nearest half, ties to even, independent of the code under test. */
static double half_value(unsigned bits) {
    const int exponent = (int)(bits >> 10 & 31), mantissa = (int)(bits & 1023);
    const double magnitude =
        exponent == 0 ? ldexp(mantissa, -24) : ldexp(1024 + mantissa, exponent - 25);
    return bits & 0x8000u ? -magnitude : magnitude;
}

static void test_half_conversions(void **) {
    for (unsigned bits = 0; bits < 0x10000u; bits++) {
        const float value = __half2float(__ushort_as_half((unsigned short)bits));
        const unsigned back = __half_as_ushort(__float2half_rn(value));
        if ((bits & 0x7FFFu) > 0x7C00u) {
            assert_true(isnan(value));
            assert_true((back & 0x7FFFu) > 0x7C00u);
        } else {
            assert_int_equal(back, bits);
            if ((bits & 0x7FFFu) == 0x7C00u)
                assert_true(isinf(value) && signbit(value) == (bits > 0x8000u));
            else
                assert_true((double)value == half_value(bits) &&
                            signbit(value) == (bits >= 0x8000u));
        }
    }
    for (unsigned bits = 0; bits < 0x7BFFu; bits++) {
        const double low = half_value(bits), high = half_value(bits + 1);
        const float middle = (float)((low + high) / 2);
        const unsigned even = bits % 2 == 0 ? bits : bits + 1;
        assert_int_equal(__half_as_ushort(__float2half_rn(middle)), even);
        assert_int_equal(__half_as_ushort(__float2half_rn(nextafterf(middle, 0.0f))), bits);
        assert_int_equal(__half_as_ushort(__float2half_rn(nextafterf(middle, 1e9f))), bits + 1);
    }
    assert_int_equal(__half_as_ushort(__float2half_rn(65519.996f)), 0x7BFF);
    assert_int_equal(__half_as_ushort(__float2half_rn(65520.0f)), 0x7C00);
    assert_int_equal(__half_as_ushort(__float2half_rn(-1e30f)), 0xFC00);
}

/* ---- an operation of the whole wave ---- */

struct rotation {
    int value;
    int rotated;
};

static const char *rotate_lanes(void *const *lanes) {
    for (int i = 0; i < warpSize; i++)
        ((rotation *)lanes[i])->rotated = ((rotation *)lanes[(i + 1) % warpSize])->value;
    return ((rotation *)lanes[0])->value < 0 ? "lane 0 is negative" : nullptr;
}

static const hip_emulator_instruction rotate = {"rotate", ~0u, rotate_lanes};

/* Twice on one line, since loops are unrolled; some threads may be late or absent. */
static __global__ void rotation_kernel(int *out, int negative, int absent) {
    rotation lane = {negative == (int)threadIdx.x ? -1 : (int)threadIdx.x, 0};
    if ((int)threadIdx.x == absent)
        return;
    for (int i = 0; i < 2; i++) {
        hip_emulator_execute(rotate, &lane, hip_emulator_site::here());
        lane.value = lane.rotated;
    }
    out[threadIdx.x] = lane.value;
}

static void test_instruction(void **) {
    device_array<int> out(BLOCK);
    hipLaunchKernelGGL(rotation_kernel, dim3(1), dim3(BLOCK), 0, nullptr, out.data, -1, -1);
    assert_int_equal(hipDeviceSynchronize(), hipSuccess);
    for (int i = 0; i < BLOCK; i++)
        assert_int_equal(out.data[i], i / warpSize * warpSize + (i + 2) % warpSize);
    assert_launch_fails("rotation_kernel", rotation_kernel, BLOCK, "lane 0 is negative", out.data,
                        0, -1);
}

static void test_instruction_of_part_of_a_wave(void **) {
    device_array<int> out(BLOCK);
    assert_launch_fails("rotation_kernel", rotation_kernel, BLOCK, "thread 77 has exited", out.data,
                        -1, 77);
    assert_launch_fails("rotation_kernel", rotation_kernel, 20, "the wave has 20 of ", out.data, -1,
                        -1);
}

static __global__ void divergent_instruction_kernel(int *out) {
    rotation lane = {(int)threadIdx.x, 0};
    if (threadIdx.x % 2 == 0)
        hip_emulator_execute(rotate, &lane, hip_emulator_site::here());
    else
        lane.value = __shfl_xor(lane.value, 1);
    out[threadIdx.x] = lane.value;
}

static void test_divergent_instruction(void **) {
    device_array<int> out(BLOCK);
    assert_launch_fails("divergent_instruction_kernel", divergent_instruction_kernel, BLOCK,
                        "is not reached by every thread of the wave", out.data);
}

/* ---- lanes in lockstep ---- */

/* A lock that every lane takes: correct if lanes run one after another, a hang in lockstep. */
static __global__ void locked_kernel(unsigned *lock, int *count) {
    bool done = false;
    while (!done) {
        if (atomicCAS(lock, 0u, 1u) != 0u)
            continue;
        *count += 1;
        atomicExch(lock, 0u);
        done = true;
    }
}

static void test_lock_among_lanes(void **) {
    device_array<unsigned> lock(1);
    device_array<int> count(1);
    *lock.data = 0;
    *count.data = 0;
    assert_launch_fails("locked_kernel", locked_kernel, 2, "lanes of a wave wait for thread",
                        lock.data, count.data);
    *lock.data = 0;
    *count.data = 0;
    hipLaunchKernelGGL(locked_kernel, dim3(3), dim3(1), 0, nullptr, lock.data, count.data);
    assert_int_equal(hipDeviceSynchronize(), hipSuccess);
    assert_int_equal(*count.data, 3);
}

/* One lane of each wave takes the lock: no lane waits for another lane of its own wave. */
static __global__ void wave_lock_kernel(unsigned *lock, int *count) {
    if (threadIdx.x % (unsigned)warpSize == 0)
        locked_kernel(lock, count);
    __syncthreads();
}

static void test_lock_among_waves(void **) {
    device_array<unsigned> lock(1);
    device_array<int> count(1);
    *lock.data = 0;
    *count.data = 0;
    hipLaunchKernelGGL(wave_lock_kernel, dim3(1), dim3(BLOCK), 0, nullptr, lock.data, count.data);
    assert_int_equal(hipDeviceSynchronize(), hipSuccess);
    assert_int_equal(*count.data, BLOCK / warpSize);
}

/* Every lane exchanges once, and the wave shuffles after that. */
static __global__ void swap_kernel(int *last, int *out) {
    const int before = atomicExch(last, (int)threadIdx.x);
    out[threadIdx.x] = __shfl_xor(before, 1) + atomicCAS(&last[1], 0, 1);
}

static void test_atomics_without_waiting(void **) {
    device_array<int> last(2), out(BLOCK);
    last.data[0] = last.data[1] = 0;
    hipLaunchKernelGGL(swap_kernel, dim3(1), dim3(BLOCK), 0, nullptr, last.data, out.data);
    assert_int_equal(hipDeviceSynchronize(), hipSuccess);
    assert_int_equal(last.data[1], 1);
}

int main(void) {
    int count;
    if (hipGetDeviceCount(&count) != hipSuccess)
        return 1;
    const CMUnitTest tests[] = {
        cmocka_unit_test(test_wave_size),
        cmocka_unit_test(test_block_reduction),
        cmocka_unit_test(test_every_thread_runs_once),
        cmocka_unit_test(test_dynamic_shared_memory),
        cmocka_unit_test(test_wave_operations),
        cmocka_unit_test(test_atomics),
        cmocka_unit_test(test_half_conversions),
        cmocka_unit_test(test_instruction),
        cmocka_unit_test(test_instruction_of_part_of_a_wave),
        cmocka_unit_test(test_divergent_instruction),
        cmocka_unit_test(test_lock_among_lanes),
        cmocka_unit_test(test_lock_among_waves),
        cmocka_unit_test(test_atomics_without_waiting),
    };
    return cmocka_run_group_tests(tests, nullptr, nullptr);
}
