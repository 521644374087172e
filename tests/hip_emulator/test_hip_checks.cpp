/* The emulator: each of its checks reports errors. */
#include <hip/hip_runtime.h>

#include "emulator_test.h"

#define BLOCK 256

/* ---- divergence and absent lanes ---- */

static __global__ void divergent_barrier_kernel(void) {
    if (threadIdx.x < 100)
        __syncthreads();
    else
        __syncthreads();
}

static void test_divergent_barrier(void **) {
    assert_launch_fails("divergent_barrier_kernel", divergent_barrier_kernel, BLOCK,
                        "threads 100 to 255 wait for __syncthreads");
}

static __global__ void exited_kernel(void) {
    if (threadIdx.x >= 77)
        return;
    __syncthreads();
}

static void test_exited_thread_at_barrier(void **) {
    assert_launch_fails("exited_kernel", exited_kernel, BLOCK, "threads 77 to 255 have exited");
}

static __global__ void partial_wave_kernel(int *out) {
    out[threadIdx.x] = __shfl_down((int)threadIdx.x, 1u);
}

static void test_shuffle_outside_the_block(void **) {
    device_array<int> out(BLOCK);
    assert_launch_fails("partial_wave_kernel", partial_wave_kernel, 20, "reads the absent lane 20",
                        out.data);
}

static __global__ void exited_lane_kernel(int *out) {
    if (threadIdx.x == 4)
        return;
    out[threadIdx.x] = __shfl((int)threadIdx.x, 4);
}

static void test_shuffle_of_exited_lane(void **) {
    device_array<int> out(BLOCK);
    assert_launch_fails("exited_lane_kernel", exited_lane_kernel, BLOCK, "reads the absent lane 4",
                        out.data);
}

static __global__ void inactive_lane_kernel(int *out) {
    int value = (int)threadIdx.x;
    if (threadIdx.x % 2 == 0)
        value = __shfl_xor(value, 1);
    __syncthreads();
    out[threadIdx.x] = value;
}

static void test_shuffle_of_inactive_lane(void **) {
    device_array<int> out(BLOCK);
    assert_launch_fails("inactive_lane_kernel", inactive_lane_kernel, BLOCK,
                        "thread 1 waits for __syncthreads", out.data);
}

static __global__ void divergent_vote_kernel(int *out) {
    out[threadIdx.x] = threadIdx.x < 8 ? __any(1) : __all(1);
}

static void test_divergent_vote(void **) {
    device_array<int> out(BLOCK);
    assert_launch_fails("divergent_vote_kernel", divergent_vote_kernel, BLOCK,
                        "is not reached by every thread of the wave", out.data);
}

static __global__ void bad_width_kernel(int *out) {
    out[threadIdx.x] = __shfl_down((int)threadIdx.x, 1u, 12);
}

static void test_shuffle_width(void **) {
    device_array<int> out(BLOCK);
    assert_launch_fails("bad_width_kernel", bad_width_kernel, BLOCK, "power of two", out.data);
}

/* ---- after a failure ---- */

static __global__ void mark_kernel(int *out) {
    if (threadIdx.x == 0)
        *out = 1;
}

/* Nothing runs after a failure until the error has been queried. */
static void test_failure_is_sticky(void **) {
    device_array<int> out(1);
    *out.data = -1;
    const capture capture = capture_stderr();
    hipLaunchKernelGGL(exited_kernel, dim3(1), dim3(BLOCK), 0, nullptr);
    hipLaunchKernelGGL(mark_kernel, dim3(1), dim3(BLOCK), 0, nullptr, out.data);
    const hipError_t synchronized = hipDeviceSynchronize();
    release_stderr(capture);
    assert_int_equal(synchronized, hipErrorAssert);
    assert_int_equal(*out.data, -1);
    hipLaunchKernelGGL(mark_kernel, dim3(1), dim3(BLOCK), 0, nullptr, out.data);
    assert_int_equal(hipDeviceSynchronize(), hipSuccess);
    assert_int_equal(*out.data, 1);
    assert_int_equal(hipGetLastError(), hipErrorAssert);
}

/* ---- missing barriers, unwritten memory ---- */

/* The last steps of a tree without barriers, as if waves ran in lockstep. */
static __global__ void lockstep_kernel(int *out) {
    HIP_DYNAMIC_SHARED(int, tile)
    tile[threadIdx.x] = 1;
    __syncthreads();
    for (unsigned distance = 16; distance > 0; distance /= 2)
        if (threadIdx.x < distance)
            tile[threadIdx.x] += tile[threadIdx.x + distance];
    __syncthreads();
    if (threadIdx.x == 0)
        *out = tile[0];
}

/* Reads a neighbour's value without waiting until the neighbour has written it. */
static __global__ void no_barrier_kernel(int *out, int step) {
    HIP_DYNAMIC_SHARED(int, tile)
    tile[threadIdx.x] = (int)threadIdx.x;
    out[threadIdx.x] = tile[(threadIdx.x + (unsigned)step) % blockDim.x];
}

static bool no_barrier_is_right(const char *order, int step) {
    device_array<int> out(BLOCK);
    setenv("ROPEWALK_EMULATED_ORDER", order, 1);
    hipLaunchKernelGGL(no_barrier_kernel, dim3(1), dim3(BLOCK), BLOCK * sizeof(int), nullptr,
                       out.data, step);
    assert_int_equal(hipDeviceSynchronize(), hipSuccess);
    bool right = true;
    for (int i = step; i < BLOCK - step; i++)
        right = right && out.data[i] == (i + step + BLOCK) % BLOCK;
    return right;
}

static void test_order_shows_missing_barrier(void **) {
    const char *before = getenv("ROPEWALK_EMULATED_ORDER");
    char *kept = before ? strdup(before) : nullptr;
    assert_false(no_barrier_is_right("forward", 1));
    assert_true(no_barrier_is_right("reverse", 1));
    assert_false(no_barrier_is_right("shuffle", 1));

    device_array<int> out(1);
    const char *const orders[] = {"forward", "reverse", "shuffle"};
    int wrong = 0;
    for (const char *order : orders) {
        setenv("ROPEWALK_EMULATED_ORDER", order, 1);
        hipLaunchKernelGGL(lockstep_kernel, dim3(1), dim3(32), 32 * sizeof(int), nullptr, out.data);
        assert_int_equal(hipDeviceSynchronize(), hipSuccess);
        wrong += *out.data != 32;
    }
    assert_true(wrong > 0);
    if (kept)
        setenv("ROPEWALK_EMULATED_ORDER", kept, 1);
    else
        unsetenv("ROPEWALK_EMULATED_ORDER");
    free(kept);
}

static __global__ void unwritten_kernel(float *out) {
    HIP_DYNAMIC_SHARED(float, tile)
    __shared__ float fixed[4];
    out[0] = tile[0];
    out[1] = fixed[0];
    tile[0] = fixed[0] = 1.0f;
}

static void test_shared_memory_starts_as_nan(void **) {
    device_array<float> out(2);
    for (int launch = 0; launch < 2; launch++) {
        out.data[0] = out.data[1] = 0.0f;
        hipLaunchKernelGGL(unwritten_kernel, dim3(1), dim3(1), sizeof(float), nullptr, out.data);
        assert_int_equal(hipDeviceSynchronize(), hipSuccess);
        assert_true(isnan(out.data[0]));
#if !defined(__SANITIZE_ADDRESS__)
#if defined(__has_feature)
#if !__has_feature(address_sanitizer)
        assert_true(isnan(out.data[1]));
#endif
#else
        assert_true(isnan(out.data[1]));
#endif
#endif
    }
}

/* ---- the runtime ---- */

static void test_too_much_memory(void **) {
    const size_t sizes[] = {SIZE_MAX, (size_t)1 << 60, ((size_t)64 << 30) + 1};
    for (size_t bytes : sizes) {
        void *pointer = &pointer;
        assert_int_equal(hipMalloc(&pointer, bytes), hipErrorOutOfMemory);
        assert_null(pointer);
        assert_int_equal(hipGetLastError(), hipErrorOutOfMemory);
    }
}

static void test_invalid_shapes(void **) {
    device_array<int> out(1);
    const dim3 grids[] = {dim3(0), dim3(1, 65536), dim3(1), dim3(1)};
    const dim3 blocks[] = {dim3(1), dim3(1), dim3(1025), dim3(64, 32)};
    for (int i = 0; i < 4; i++) {
        hipLaunchKernelGGL(mark_kernel, grids[i], blocks[i], 0, nullptr, out.data);
        assert_int_equal(hipGetLastError(), hipErrorInvalidConfiguration);
        assert_int_equal(hipDeviceSynchronize(), hipSuccess);
    }
    hipLaunchKernelGGL(mark_kernel, dim3(1), dim3(1), 65537, nullptr, out.data);
    assert_int_equal(hipGetLastError(), hipErrorInvalidConfiguration);
}

static void test_unknown_settings(void **) {
    const char *const names[] = {"ROPEWALK_EMULATED_WAVE", "ROPEWALK_EMULATED_ARCH",
                                 "ROPEWALK_EMULATED_ORDER"};
    for (const char *name : names) {
        const char *before = getenv(name);
        char *kept = before ? strdup(before) : nullptr;
        setenv(name, "48", 1);
        int count = -1;
        const capture capture = capture_stderr();
        assert_int_equal(hipGetDeviceCount(&count), hipErrorInvalidValue);
        const output output = release_stderr(capture);
        assert_int_equal(count, 0);
        assert_contains(output.text, name);
        assert_contains(output.text, "\"48\", expected");
        if (kept)
            setenv(name, kept, 1);
        else
            unsetenv(name);
        free(kept);
        assert_int_equal(hipGetLastError(), hipErrorInvalidValue);
    }
}

int main(void) {
    int count;
    if (hipGetDeviceCount(&count) != hipSuccess)
        return 1;
    const CMUnitTest tests[] = {
        cmocka_unit_test(test_divergent_barrier),
        cmocka_unit_test(test_exited_thread_at_barrier),
        cmocka_unit_test(test_shuffle_outside_the_block),
        cmocka_unit_test(test_shuffle_of_exited_lane),
        cmocka_unit_test(test_shuffle_of_inactive_lane),
        cmocka_unit_test(test_divergent_vote),
        cmocka_unit_test(test_shuffle_width),
        cmocka_unit_test(test_failure_is_sticky),
        cmocka_unit_test(test_order_shows_missing_barrier),
        cmocka_unit_test(test_shared_memory_starts_as_nan),
        cmocka_unit_test(test_too_much_memory),
        cmocka_unit_test(test_invalid_shapes),
        cmocka_unit_test(test_unknown_settings),
    };
    return cmocka_run_group_tests(tests, nullptr, nullptr);
}
