/* Shared addresses, cp.async, named barriers and mbarriers of hip_hopper.h: what PTX defines, in
 * every order of threads, and each of their errors is reported; barriers are refused on AMD's
 * architectures. */
#include "emulator_test.h"

static bool has_barriers; /* whether the architecture does */

/* ---- shared addresses ---- */

static __global__ void address_kernel(uint32_t *out, int beyond) {
    HIP_DYNAMIC_SHARED(uint8_t, raw)
    out[0] = hip_emulator_shared_address(raw);
    out[1] = hip_emulator_shared_address(raw + 100);
    out[2] = (uint32_t)((uintptr_t)raw % 1024);
    out[3] = beyond ? hip_emulator_shared_address(raw + beyond) : 0;
}

static void test_shared_addresses(void **) {
    device_array<uint32_t> out(4);
    hipLaunchKernelGGL(address_kernel, dim3(1), dim3(1), 4096, nullptr, out.data, 4096);
    assert_int_equal(hipDeviceSynchronize(), hipSuccess);
    assert_int_equal(out.data[0], 0);
    assert_int_equal(out.data[1], 100);
    assert_int_equal(out.data[2], 0);
    assert_int_equal(out.data[3], 4096);
    const int beyond[] = {-1, 4097};
    for (int bytes : beyond)
        assert_launch_with_shared_fails("address_kernel", address_kernel, 1, 4096,
                                        "outside of the block's dynamic shared memory", out.data,
                                        bytes);
}

static void test_shared_bytes(void **) {
    hipDeviceProp_t properties;
    assert_int_equal(hipGetDeviceProperties(&properties, 0), hipSuccess);
    assert_int_equal(properties.sharedMemPerBlock, has_barriers ? 232448 : 65536);
}

/* ---- cp.async ---- */

/* Three groups: what is there after none, after waits that leave two and one, and after all. */
static __global__ void copy_kernel(const float *from, float *out) {
    HIP_DYNAMIC_SHARED(float, tile)
    for (int i = 0; i < 12; i++)
        tile[i] = 0.0f; /* not NaN */
    for (int i = 0; i < 3; i++) {
        hip_emulator_cp_async_16(tile + 4 * i, from + 4 * i, i < 2);
        if (i < 2)
            hip_emulator_cp_async_commit();
    }
    for (int step = 0; step < 4; step++) {
        if (step == 3)
            hip_emulator_cp_async_wait_all();
        else if (step > 0)
            hip_emulator_cp_async_wait(2 - step);
        for (int i = 0; i < 3; i++)
            *out++ = tile[4 * i + 3];
    }
}

static void test_copies(void **) {
    device_array<float> from(12), out(12);
    for (int i = 0; i < 12; i++)
        from.data[i] = (float)(1 + i);
    hipLaunchKernelGGL(copy_kernel, dim3(1), dim3(1), 48, nullptr, from.data, out.data);
    assert_int_equal(hipDeviceSynchronize(), hipSuccess);
    const float copied[] = {4.0f, 8.0f, 0.0f};
    for (int step = 0; step < 4; step++)
        for (int i = 0; i < 3; i++) {
            const float got = out.data[3 * step + i];
            assert_true(step > i || !has_barriers ? got == copied[i] : isnan(got));
        }
    assert_launch_with_shared_fails("copy_kernel", copy_kernel, 1, 48, "not aligned to 16 bytes",
                                    from.data + 1, out.data);
}

/* ---- named barriers ---- */

/* Every wave waits in a place of its own. */
static __global__ void places_kernel(int *out) {
    HIP_DYNAMIC_SHARED(int, tile)
    tile[threadIdx.x] = (int)threadIdx.x;
    if (threadIdx.x < 64)
        __syncthreads();
    else
        __syncthreads();
    out[threadIdx.x] = tile[(threadIdx.x + 64) % 128];
}

static void check_places(void) {
    device_array<int> out(128);
    hipLaunchKernelGGL(places_kernel, dim3(1), dim3(128), 128 * sizeof(int), nullptr, out.data);
    assert_int_equal(hipDeviceSynchronize(), hipSuccess);
    for (int i = 0; i < 128; i++)
        assert_int_equal(out.data[i], (i + 64) % 128);
}

static void test_syncthreads_in_two_places(void **) {
    device_array<int> out(128);
    if (has_barriers)
        in_all_orders(check_places);
    else
        assert_launch_with_shared_fails("places_kernel", places_kernel, 128, 128 * sizeof(int),
                                        "thread 64 waits for __syncthreads", out.data);
}

/* Two groups of 128 threads take turns. */
static __global__ void turns_kernel(int *turns, int count, int skip) {
    const int group = (int)threadIdx.x / 128;
    if (group == 1)
        hip_emulator_bar_arrive(1, 256);
    for (int i = 0; i < count; i++) {
        if (!skip)
            hip_emulator_bar_sync(1 + group, 256);
        if (threadIdx.x % 128 == 0)
            turns[++turns[0]] = group;
        __ballot(1);
        if (!skip)
            hip_emulator_bar_arrive(2 - group, 256);
    }
}

static bool turns_alternate(int skip) {
    device_array<int> turns(21);
    turns.data[0] = 0;
    hipLaunchKernelGGL(turns_kernel, dim3(1), dim3(256), 0, nullptr, turns.data, 10, skip);
    assert_int_equal(hipDeviceSynchronize(), hipSuccess);
    assert_int_equal(turns.data[0], 20);
    bool alternate = true;
    for (int i = 0; i < 20; i++)
        alternate = alternate && turns.data[1 + i] == i % 2;
    return alternate;
}

static int wrong_turns;

static void check_turns(void) {
    assert_true(turns_alternate(0));
    wrong_turns += !turns_alternate(1);
}

static void test_turns(void **) {
    if (!has_barriers)
        skip();
    in_all_orders(check_turns);
    assert_true(wrong_turns > 0);
}

/* bar.sync 0 of all threads is __syncthreads(). */
static __global__ void number_0_kernel(void) {
    if (threadIdx.x < 32)
        hip_emulator_bar_sync(0, 128);
    else
        __syncthreads();
}

static void check_number_0(void) {
    hipLaunchKernelGGL(number_0_kernel, dim3(1), dim3(128), 0, nullptr);
    assert_int_equal(hipDeviceSynchronize(), hipSuccess);
}

static void test_number_0(void **) {
    if (has_barriers)
        in_all_orders(check_number_0);
    else
        assert_launch_fails("number_0_kernel", number_0_kernel, 128,
                            "does not have this instruction");
}

static __global__ void sync_kernel(int id, int threads, int id_of_others, int threads_of_others) {
    const bool other = threadIdx.x >= 64;
    hip_emulator_bar_sync(other ? id_of_others : id, other ? threads_of_others : threads);
}

static __global__ void arrival_of_lanes_kernel(int absent) {
    if ((int)threadIdx.x == absent)
        return;
    hip_emulator_bar_arrive(absent < 0 ? 1 + (int)threadIdx.x % 2 : 1, 64);
}

static void test_errors_of_named_barriers(void **) {
    if (!has_barriers)
        skip();
    const char *name = "sync_kernel";
    assert_launch_fails(name, sync_kernel, 128, "in use with ", 3, 128, 3, 96);
    assert_launch_fails(name, sync_kernel, 128, "one of 0 to 15", 16, 128, 3, 128);
    assert_launch_fails(name, sync_kernel, 128, "one of 0 to 15", -1, 128, 3, 128);
    assert_launch_fails(name, sync_kernel, 128, "multiple of 32", 3, 100, 3, 128);
    assert_launch_fails(name, sync_kernel, 128, "multiple of 32", 3, 0, 3, 128);
    assert_launch_fails(name, sync_kernel, 128,
                        "threads 0 to 63 wait for bar.sync 3, 128 (64 there)", 3, 128, 4, 128);
    assert_launch_fails(name, sync_kernel, 128,
                        "threads 64 to 127 wait for bar.sync 4, 128 (64 there)", 3, 128, 4, 128);
    assert_launch_fails("lanes", arrival_of_lanes_kernel, 64, "name different barriers", -1);
    assert_launch_fails("lanes", arrival_of_lanes_kernel, 64, "thread 5 has exited", 5);
}

/* ---- mbarriers ---- */

enum defect {
    NO_DEFECT,
    NO_WAIT_FOR_FULL,
    NO_WAIT_FOR_EMPTY,
    TOO_FEW_ARRIVALS
};

#define CONSUMERS 256
#define PRODUCERS 128
#define STAGES 2

struct stages {
    uint64_t full[STAGES], empty[STAGES];
    int tile[STAGES][PRODUCERS];
};

static __device__ void produce(stages *shared, int count, defect defect) {
    const int t = (int)threadIdx.x - CONSUMERS;
    for (int i = 0; i < count; i++) {
        const int stage = i % STAGES, use = i / STAGES;
        if (use > 0 && defect != NO_WAIT_FOR_EMPTY) {
            while (t % 3 == 0 && !hip_emulator_mbarrier_test(&shared->empty[stage], (use - 1) & 1))
                ;
            hip_emulator_mbarrier_wait(&shared->empty[stage], (use - 1) & 1);
        }
        shared->tile[stage][t] = 1000 * i + t;
        if (defect != TOO_FEW_ARRIVALS || t > 0)
            hip_emulator_mbarrier_arrive(&shared->full[stage]);
    }
}

static __device__ void consume(stages *shared, int count, int *out, defect defect) {
    const int t = (int)threadIdx.x;
    for (int i = 0; i < count; i++) {
        const int stage = i % STAGES, use = i / STAGES;
        if (defect != NO_WAIT_FOR_FULL)
            hip_emulator_mbarrier_wait(&shared->full[stage], use & 1);
        out[i * CONSUMERS + t] = shared->tile[stage][(t + 1) % PRODUCERS];
        __ballot(1);
        if (t % 32 == 0)
            hip_emulator_mbarrier_arrive(&shared->empty[stage]);
    }
}

static __global__ void pipeline_kernel(int *out, int count, defect defect) {
    HIP_DYNAMIC_SHARED(stages, shared)
    if (threadIdx.x == 0)
        for (int i = 0; i < STAGES; i++) {
            hip_emulator_mbarrier_init(&shared->full[i], PRODUCERS);
            hip_emulator_mbarrier_init(&shared->empty[i], CONSUMERS / 32);
        }
    __syncthreads();
    if (threadIdx.x >= CONSUMERS)
        produce(shared, count, defect);
    else
        consume(shared, count, out, defect);
}

/* The results are right; errors are not reported. */
static bool pipeline_is_right(defect defect) {
    const int count = 9;
    device_array<int> out(count * CONSUMERS);
    const capture capture = capture_stderr();
    hipLaunchKernelGGL(pipeline_kernel, dim3(2), dim3(CONSUMERS + PRODUCERS), sizeof(stages),
                       nullptr, out.data, count, defect);
    bool right = hipDeviceSynchronize() == hipSuccess;
    release_stderr(capture);
    hipGetLastError();
    for (int i = 0; i < count * CONSUMERS; i++)
        right = right && out.data[i] == i / CONSUMERS * 1000 + (i + 1) % PRODUCERS;
    return right;
}

static int missed_full, missed_empty;

static void check_pipeline(void) {
    assert_true(pipeline_is_right(NO_DEFECT));
    missed_full += !pipeline_is_right(NO_WAIT_FOR_FULL);
    missed_empty += !pipeline_is_right(NO_WAIT_FOR_EMPTY);
}

static void test_pipeline(void **) {
    if (!has_barriers)
        skip();
    in_all_orders(check_pipeline);
    assert_true(missed_full > 0);
    assert_true(missed_empty > 0);
    device_array<int> out(9 * CONSUMERS);
    const char *const parts[] = {
        "threads 0 to 255 wait for mbarrier.try_wait.parity 0 of shared + 0x0 (1 of 128 pending)",
        "of shared + 0x10 (8 of 8 pending)"};
    for (const char *part : parts)
        assert_launch_with_shared_fails("pipeline_kernel", pipeline_kernel, CONSUMERS + PRODUCERS,
                                        sizeof(stages), part, out.data, 9, TOO_FEW_ARRIVALS);
}

/* Phases of one thread: two arrivals complete one. */
static __global__ void phases_kernel(bool *seen) {
    HIP_DYNAMIC_SHARED(uint64_t, barrier)
    hip_emulator_mbarrier_init(barrier, 2);
    for (int i = 0; i < 4; i++) {
        for (int arrivals = 0; arrivals < 2; arrivals++) {
            *seen++ = hip_emulator_mbarrier_test(barrier, 0);
            *seen++ = hip_emulator_mbarrier_test(barrier, 1);
            hip_emulator_mbarrier_arrive(barrier);
        }
        hip_emulator_mbarrier_wait(barrier, i & 1);
    }
}

static void test_phases(void **) {
    if (!has_barriers)
        skip();
    device_array<bool> seen(16);
    hipLaunchKernelGGL(phases_kernel, dim3(1), dim3(1), 8, nullptr, seen.data);
    assert_int_equal(hipDeviceSynchronize(), hipSuccess);
    for (int i = 0; i < 16; i++)
        assert_int_equal(seen.data[i], (i / 4 + i) % 2 != 0);
}

enum misuse {
    NO_INIT_ARRIVE,
    NO_INIT_WAIT,
    NO_INIT_TEST,
    BAD_COUNT,
    BAD_PARITY,
    MISALIGNED,
    NOBODY_LOOKED,
    OVERTAKEN,
    TESTS_FOREVER
};

static __global__ void misuse_kernel(misuse misuse) {
    HIP_DYNAMIC_SHARED(uint64_t, barrier)
    if (misuse > NO_INIT_TEST && threadIdx.x == 0)
        hip_emulator_mbarrier_init(barrier, misuse == BAD_COUNT ? 0 : 1);
    __syncthreads();
    if (misuse == NO_INIT_WAIT || misuse == BAD_PARITY)
        hip_emulator_mbarrier_wait(barrier, misuse == BAD_PARITY ? 2 : 0);
    if (misuse == NO_INIT_TEST)
        hip_emulator_mbarrier_test(barrier, 0);
    if (misuse == MISALIGNED)
        hip_emulator_mbarrier_arrive((uint64_t *)((char *)barrier + 4));
    while (misuse == TESTS_FOREVER)
        if (hip_emulator_mbarrier_test(barrier, 0))
            return;
    if (misuse == OVERTAKEN && threadIdx.x > 0) {
        hip_emulator_mbarrier_wait(barrier, 0);
        return;
    }
    if (misuse == OVERTAKEN)
        hip_emulator_mbarrier_test(barrier, 0); /* the other threads run */
    hip_emulator_mbarrier_arrive(barrier);
    if (misuse == OVERTAKEN)
        hip_emulator_mbarrier_test(barrier, 0);
    hip_emulator_mbarrier_arrive(barrier);
}

static void assert_misuse(misuse misuse, int threads, const char *part) {
    assert_launch_with_shared_fails("misuse_kernel", misuse_kernel, threads, 16, part, misuse);
}

static void test_errors_of_mbarriers(void **) {
    if (!has_barriers) {
        assert_misuse(NO_INIT_ARRIVE, 1, "does not have this instruction");
        return;
    }
    assert_misuse(NO_INIT_ARRIVE, 1, "is not initialized");
    assert_misuse(NO_INIT_WAIT, 1, "is not initialized");
    assert_misuse(NO_INIT_TEST, 1, "is not initialized");
    assert_misuse(BAD_COUNT, 1, "the count must be 1 to 16383");
    assert_misuse(BAD_PARITY, 1, "the parity must be 0 or 1");
    assert_misuse(MISALIGNED, 1, "not aligned to 8 bytes");
    assert_misuse(NOBODY_LOOKED, 1, "before any thread saw the one before complete");
    assert_misuse(OVERTAKEN, 2, "while thread 1 still waits for the one before");
    assert_misuse(TESTS_FOREVER, 40, "wait for mbarrier.test_wait.parity 0");
}

/* ---- tensor copies ---- */

enum copy_defect {
    COPY_RIGHT,
    COPY_UNEXPECTED,
    COPY_MISALIGNED,
    COPY_NOT_AWAITED
};

#define BOX_ROWS 16

/* `out`: the first element before the wait, then the box. */
static __global__ void tensor_kernel(hip_emulator_tensor_map map, hip_emulator_corner corner,
                                     uint16_t *out, copy_defect defect) {
    HIP_DYNAMIC_SHARED(uint16_t, tile)
    uint64_t *barrier = (uint64_t *)(tile + 64 * BOX_ROWS);
    hip_emulator_mbarrier_init(barrier, 1);
    for (int i = 0; i < 64 * BOX_ROWS; i++)
        tile[i] = 0;
    hip_emulator_mbarrier_expect(barrier, defect == COPY_UNEXPECTED ? 128 : 128 * BOX_ROWS);
    hip_emulator_tensor_copy(tile + (defect == COPY_MISALIGNED ? 8 : 0), map, corner, barrier);
    *out++ = tile[0];
    if (defect == COPY_NOT_AWAITED)
        hip_emulator_mbarrier_expect(barrier, 128 * BOX_ROWS);
    hip_emulator_mbarrier_wait(barrier, 0);
    for (int r = 0; r < BOX_ROWS; r++)
        for (int c = 0; c < 64; c++)
            *out++ = tile[r * 64 + ((c / 8) ^ (r % 8)) * 8 + c % 8];
}

#define TENSOR_BYTES (128 * BOX_ROWS + 16)

/* Boxes within a tensor, beyond its ends and before its start; strides with gaps. */
static void check_boxes(const hip_emulator_tensor_map &map, uint16_t *out) {
    const hip_emulator_corner corners[] = {
        {{0, 0, 0, 0}}, {{64, 12, 2, 1}}, {{0, -4, 1, 1}}, {{0, 0, 0, -1}}};
    for (const hip_emulator_corner &corner : corners) {
        hipLaunchKernelGGL(tensor_kernel, dim3(1), dim3(1), TENSOR_BYTES, nullptr, map, corner, out,
                           COPY_RIGHT);
        assert_int_equal(hipDeviceSynchronize(), hipSuccess);
        assert_int_equal(out[0], 0xFFFF);
        for (int i = 0; i < 64 * BOX_ROWS; i++) {
            const int row = i / 64;
            const int at[4] = {corner.at[0] + i % 64, corner.at[1] + row % map.box[0],
                               corner.at[2] + row / map.box[0] % map.box[1],
                               corner.at[3] + row / map.box[0] / map.box[1]};
            bool inside = true;
            int64_t place = at[0];
            for (int axis = 0; axis < 4; axis++)
                inside = inside && at[axis] >= 0 && at[axis] < map.size[axis];
            for (int axis = 1; axis < 4; axis++)
                place += at[axis] * map.stride[axis - 1];
            assert_int_equal(out[1 + i], inside ? (uint16_t)(place + 1) : 0);
        }
    }
}

static void test_tensor_copies(void **) {
    device_array<uint16_t> data(2 * 20 * 3 * 80), out(1 + 64 * BOX_ROWS);
    for (int i = 0; i < 2 * 20 * 3 * 80; i++)
        data.data[i] = (uint16_t)(i + 1);
    hip_emulator_tensor_map map = {
        data.data, {72, 20, 3, 2}, {3 * 80, 80, 20 * 3 * 80}, {BOX_ROWS, 1, 1}};
    if (!has_barriers) {
        assert_launch_with_shared_fails("tensor_kernel", tensor_kernel, 1, TENSOR_BYTES,
                                        "does not have this instruction", map,
                                        hip_emulator_corner(), out.data, COPY_RIGHT);
        return;
    }
    check_boxes(map, out.data);
    map.box[0] = 4;
    map.box[1] = 2;
    map.box[2] = 2;
    check_boxes(map, out.data);
    const char *const parts[] = {"does not wait for so many bytes", "not aligned to 1024 bytes",
                                 "no thread has waited for the copies"};
    for (int defect = COPY_UNEXPECTED; defect <= COPY_NOT_AWAITED; defect++)
        assert_launch_with_shared_fails("tensor_kernel", tensor_kernel, 1, TENSOR_BYTES,
                                        parts[defect - 1], map, hip_emulator_corner(), out.data,
                                        (copy_defect)defect);
}

int main(void) {
    hipDeviceProp_t properties;
    if (hipGetDeviceProperties(&properties, 0) != hipSuccess)
        return 1;
    warpSize = properties.warpSize;
    has_barriers = strncmp(properties.gcnArchName, "sm_90", 5) == 0;
    const CMUnitTest tests[] = {
        cmocka_unit_test(test_shared_addresses),
        cmocka_unit_test(test_shared_bytes),
        cmocka_unit_test(test_copies),
        cmocka_unit_test(test_syncthreads_in_two_places),
        cmocka_unit_test(test_turns),
        cmocka_unit_test(test_number_0),
        cmocka_unit_test(test_errors_of_named_barriers),
        cmocka_unit_test(test_pipeline),
        cmocka_unit_test(test_phases),
        cmocka_unit_test(test_errors_of_mbarriers),
        cmocka_unit_test(test_tensor_copies),
    };
    return cmocka_run_group_tests(tests, nullptr, nullptr);
}
