/* Runs a grid: block by block, with the threads of a block as fibers.
 *
 * A fiber runs threads that have not started, one after another, as long as they finish without
 * waiting: a kernel without barriers runs on one fiber. A thread that waits keeps its fiber, and
 * another fiber continues with the remaining threads. When no thread can run, the waiting threads
 * are matched (emulator_match.cpp).
 */
#include <stdio.h>
#include <stdlib.h>

#include "emulator_threads.h"

uint3 threadIdx;
uint3 blockIdx;
dim3 blockDim;
dim3 gridDim;
int warpSize = 32;

hip_emulator_block_state hip_emulator_block;

static hip_emulator_block_state &block = hip_emulator_block;

/* The alignment of a block's shared memory: a 128-byte swizzle's pattern. */
#define SHARED_ALIGNMENT 1024

static uint64_t times_held;

static hip_emulator_order thread_order;
static int order[HIP_EMULATOR_MAX_THREADS];
static int position; /* in `order`: the next thread to consider */
static uint64_t shuffle_state = 0x9E3779B97F4A7C15u;

static hip_emulator_fiber *pool[HIP_EMULATOR_MAX_THREADS];
static int pool_size;

/* The section of the kernels' __shared__ arrays; absent if there are none. */
extern "C" __attribute__((weak, visibility("hidden"))) char __start_hip_emulator_shared[];
extern "C" __attribute__((weak, visibility("hidden"))) char __stop_hip_emulator_shared[];

/* ---- threads ---- */

static void order_threads(void) {
    const int num_threads = block.num_threads;
    for (int i = 0; i < num_threads; i++)
        order[i] = thread_order == HIP_EMULATOR_REVERSE ? num_threads - 1 - i : i;
    if (thread_order != HIP_EMULATOR_SHUFFLE)
        return;
    for (int i = num_threads - 1; i > 0; i--) {
        shuffle_state ^= shuffle_state << 13;
        shuffle_state ^= shuffle_state >> 7;
        shuffle_state ^= shuffle_state << 17;
        const int other = (int)((shuffle_state >> 32) * (uint64_t)(i + 1) >> 32);
        const int kept = order[i];
        order[i] = order[other];
        order[other] = kept;
    }
}

static void select_thread(int index) {
    block.current = index;
    threadIdx = block.threads[index].index;
}

/* The main function of a fiber; leaves where no thread is left to start. */
static void run_threads(void) {
    for (;;) {
        while (position < block.num_threads) {
            const int index = order[position++];
            if (block.threads[index].fiber || block.threads[index].state != HIP_EMULATOR_READY)
                continue;
            select_thread(index);
            block.launch->run_thread(block.launch->body);
            const hip_emulator_site *pending = hip_emulator_wgmma_pending();
            if (pending)
                hip_emulator_fail(*pending, "wgmma.mma_async",
                                  "the thread exits before a wgmma.wait_group that covers it");
            block.threads[block.current].state = HIP_EMULATOR_DONE;
        }
        hip_emulator_fiber_leave();
    }
}

static hip_emulator_fiber *take_fiber(void) {
    if (pool_size > 0)
        return pool[--pool_size];
    return hip_emulator_fiber_new(run_threads);
}

/* False if out of memory. */
static bool start_threads(void) {
    order_threads();
    position = 0;
    while (position < block.num_threads && !block.failed) {
        hip_emulator_fiber *fiber = take_fiber();
        if (!fiber)
            return false;
        hip_emulator_fiber_enter(fiber);
        if (block.threads[block.current].state == HIP_EMULATOR_WAITING)
            block.threads[block.current].fiber = fiber;
        else
            pool[pool_size++] = fiber;
    }
    return true;
}

/* Resumes every thread whose wait is over. */
static void resume_threads(void) {
    order_threads();
    position = block.num_threads;
    for (int i = 0; i < block.num_threads && !block.failed; i++) {
        hip_emulator_thread *thread = &block.threads[order[i]];
        if (thread->state != HIP_EMULATOR_READY)
            continue;
        select_thread(order[i]);
        hip_emulator_fiber_enter(thread->fiber);
        if (thread->state == HIP_EMULATOR_DONE) {
            pool[pool_size++] = thread->fiber;
            thread->fiber = nullptr;
        }
    }
}

static bool all_done(void) {
    for (int i = 0; i < block.num_threads; i++)
        if (block.threads[i].state != HIP_EMULATOR_DONE)
            return false;
    return true;
}

uint64_t hip_emulator_join(const hip_emulator_call &call) {
    hip_emulator_thread *self = &block.threads[block.current];
    self->call = call;
    self->state = HIP_EMULATOR_WAITING;
    self->held_since = times_held++;
    self->held_rounds = 0;
    self->arrived = false;
    hip_emulator_fiber_leave();
    return self->result;
}

void hip_emulator_fail(const hip_emulator_site &site, const char *operation, const char *what) {
    const hip_emulator_instruction named = {operation, 0, nullptr};
    block.threads[block.current].call = {HIP_EMULATOR_INSTRUCTION, site, 0, 0, 0, &named};
    block.threads[block.current].state = HIP_EMULATOR_WAITING;
    hip_emulator_report_call(block.current, what);
    block.failed = true;
    for (;;)
        hip_emulator_fiber_leave();
}

void hip_emulator_require_arch(unsigned archs, const hip_emulator_site &site,
                               const char *operation) {
    if (archs & block.arch)
        return;
    char what[96];
    snprintf(what, sizeof what, "%s does not have this instruction",
             hip_emulator_arch_name(block.arch));
    hip_emulator_fail(site, operation, what);
}

unsigned hip_emulator_lane(void) {
    return (unsigned)(block.current % warpSize);
}

void *hip_emulator_dynamic_shared(void) {
    return block.dynamic_shared;
}

uint32_t hip_emulator_shared_address(const void *pointer, hip_emulator_site site) {
    const uintptr_t offset = (uintptr_t)pointer - (uintptr_t)block.dynamic_shared;
    if (offset > block.launch->shared_bytes)
        hip_emulator_fail(site, "hip_emulator_shared_address",
                          "the address is outside of the block's dynamic shared memory");
    return (uint32_t)offset;
}

/* ---- blocks ---- */

static void poison_shared(void) {
    memset(block.dynamic_shared, 0xFF, block.launch->shared_bytes);
    if (__start_hip_emulator_shared)
        memset(__start_hip_emulator_shared, 0xFF,
               (size_t)(__stop_hip_emulator_shared - __start_hip_emulator_shared));
}

/* Frees the fibers of threads that can never continue. */
static void drop_threads(void) {
    for (int i = 0; i < block.num_threads; i++) {
        hip_emulator_fiber *fiber = block.threads[i].fiber;
        if (!fiber)
            continue;
        hip_emulator_fiber_reset(fiber);
        pool[pool_size++] = fiber;
        block.threads[i].fiber = nullptr;
    }
}

static hipError_t run_block(void) {
    poison_shared();
    for (int i = 0; i < block.num_threads; i++) {
        const unsigned n = (unsigned)i;
        block.threads[i] = {};
        block.threads[i].index = {n % blockDim.x, n / blockDim.x % blockDim.y,
                                  n / blockDim.x / blockDim.y};
    }
    block.failed = false;
    hip_emulator_reset_barriers();
    hip_emulator_reset_copies();
    if (!start_threads()) {
        drop_threads();
        return hipErrorOutOfMemory;
    }
    bool sound = !block.failed;
    while (sound && !all_done()) {
        sound = hip_emulator_match_threads();
        if (sound)
            resume_threads();
        sound = sound && !block.failed;
    }
    drop_threads();
    hip_emulator_reset_wgmma();
    return sound ? hipSuccess : hipErrorAssert;
}

static hipError_t run_grid(void) {
    for (unsigned z = 0; z < gridDim.z; z++)
        for (unsigned y = 0; y < gridDim.y; y++)
            for (unsigned x = 0; x < gridDim.x; x++) {
                blockIdx = {x, y, z};
                const hipError_t error = run_block();
                if (error != hipSuccess)
                    return error;
            }
    return hipSuccess;
}

hipError_t hip_emulator_run_launch(const hip_emulator_launch &requested) {
    hip_emulator_settings settings;
    if (!hip_emulator_read_settings(&settings))
        return hipErrorInvalidValue;
    block.launch = &requested;
    block.arch = settings.arch;
    warpSize = settings.wave;
    thread_order = settings.order;
    gridDim = requested.grid;
    blockDim = requested.block;
    block.num_threads = (int)(blockDim.x * blockDim.y * blockDim.z);
    hipError_t error = hipErrorOutOfMemory;
    void *shared;
    if (posix_memalign(&shared, SHARED_ALIGNMENT, requested.shared_bytes) == 0) {
        block.dynamic_shared = (char *)shared;
        error = run_grid();
        free(shared);
        block.dynamic_shared = nullptr;
    }
    return error;
}

__attribute__((destructor)) static void delete_fibers(void) {
    while (pool_size > 0)
        hip_emulator_fiber_delete(pool[--pool_size]);
}
