/* Barriers of a block: __syncthreads(), named barriers, and mbarriers in shared memory. */
#include <stdio.h>

#include "emulator_threads.h"

static hip_emulator_block_state &block = hip_emulator_block;

/* ---- named barriers; __syncthreads() is number 0 with all threads ---- */

#define BARRIERS 16

/* Counts whole waves, as hardware does. */
struct named_barrier {
    int expected; /* 0: no thread is there */
    int arrived;
};

static named_barrier barriers[BARRIERS];

void hip_emulator_reset_barriers(void) {
    memset(barriers, 0, sizeof barriers);
}

static int threads_of(const hip_emulator_call *call) {
    return call->width ? call->width : (block.num_threads + warpSize - 1) / warpSize * warpSize;
}

/* Waves may wait for __syncthreads() in different places where it is an instruction that counts;
 * false, and a line, if they may not but do. */
static bool places_are_valid(int id) {
    int first = -1;
    if (block.arch & HIP_EMULATOR_NVIDIA)
        return true;
    for (int i = 0; i < block.num_threads; i++) {
        const hip_emulator_thread *thread = &block.threads[i];
        if (!thread->arrived || thread->call.lane != id)
            continue;
        if (first < 0)
            first = i;
        else if (!hip_emulator_same_call(&block.threads[first].call, &thread->call))
            return hip_emulator_report_divergence(first, i, "block");
    }
    return true;
}

/* Counts a wave, and releases the threads of the barrier if it is complete. */
static bool count_wave(int first) {
    const hip_emulator_call *call = &block.threads[first].call;
    named_barrier *barrier = &barriers[call->lane];
    const int expected = threads_of(call);
    if (barrier->expected != 0 && barrier->expected != expected) {
        char what[128];
        snprintf(what, sizeof what, "barrier %d is in use with %d threads, not %d", call->lane,
                 barrier->expected, expected);
        return hip_emulator_report_call(first, what);
    }
    barrier->expected = expected;
    barrier->arrived += warpSize;
    if (barrier->arrived < expected)
        return true;
    if (!places_are_valid(call->lane))
        return false;
    const int id = call->lane;
    *barrier = {};
    for (int i = 0; i < block.num_threads; i++) {
        hip_emulator_thread *thread = &block.threads[i];
        if (!thread->arrived || thread->call.lane != id)
            continue;
        thread->arrived = false;
        thread->state = HIP_EMULATOR_READY;
    }
    return true;
}

/* The lanes of a wave must name the same barrier. */
static bool lanes_agree(int first, int end) {
    const hip_emulator_call *call = &block.threads[first].call;
    for (int i = first; i < end; i++) {
        const hip_emulator_call *other = &block.threads[i].call;
        if (other->lane != call->lane || other->width != call->width)
            return hip_emulator_report_call(i, "lanes of a wave name different barriers");
    }
    return true;
}

bool hip_emulator_arrive_wave(int first, int end) {
    for (int i = first; i < end; i++)
        if (block.threads[i].state == HIP_EMULATOR_DONE)
            return hip_emulator_report_divergence(first == i ? end - 1 : first, i, "wave");
    return lanes_agree(first, end) && count_wave(first);
}

static bool wave_is_at_barrier(int first, int end) {
    for (int i = first; i < end; i++) {
        const hip_emulator_thread *thread = &block.threads[i];
        if (thread->state != HIP_EMULATOR_WAITING || thread->arrived ||
            thread->call.op != HIP_EMULATOR_BARRIER ||
            !hip_emulator_same_call(&thread->call, &block.threads[first].call))
            return false;
    }
    return true;
}

bool hip_emulator_match_barriers(void) {
    for (int first = 0; first < block.num_threads; first += warpSize) {
        const int end = first + warpSize < block.num_threads ? first + warpSize : block.num_threads;
        if (!wave_is_at_barrier(first, end))
            continue;
        if (!lanes_agree(first, end))
            return false;
        for (int i = first; i < end; i++)
            block.threads[i].arrived = true;
        if (!count_wave(first))
            return false;
    }
    return true;
}

static void require_barrier(int id, int threads, const hip_emulator_site &site,
                            const char *operation) {
    hip_emulator_require_arch(HIP_EMULATOR_NVIDIA, site, operation);
    if (id < 0 || id >= BARRIERS)
        hip_emulator_fail(site, operation, "the barrier must be one of 0 to 15");
    if (threads < 1 || threads % 32 != 0)
        hip_emulator_fail(site, operation, "the number of threads must be a multiple of 32");
}

void hip_emulator_bar_sync(int id, int threads, hip_emulator_site site) {
    require_barrier(id, threads, site, "bar.sync");
    hip_emulator_join({HIP_EMULATOR_BARRIER, site, 0, id, threads});
}

void hip_emulator_bar_arrive(int id, int threads, hip_emulator_site site) {
    require_barrier(id, threads, site, "bar.arrive");
    hip_emulator_join({HIP_EMULATOR_ARRIVE, site, 0, id, threads});
}

/* ---- mbarriers ---- */

/* Shared memory starts as all bits set, which is no initialized barrier. */
#define INITIALIZED 0x2B5Au

struct mbarrier {
    uint64_t pending : 14; /* arrivals that complete the phase */
    uint64_t count : 14;   /* of every phase */
    uint64_t bytes : 20;   /* that the phase waits for */
    uint64_t parity : 1;   /* of the phase */
    uint64_t seen : 1;     /* whether a thread knows that the phase before has completed */
    uint64_t initialized : 14;
};

static_assert(sizeof(mbarrier) == sizeof(uint64_t), "8 bytes of shared memory");

/* Hardware counts to 2^20 - 1. No block has so many threads. */
#define MAX_COUNT ((1 << 14) - 1)
#define MAX_BYTES ((1 << 20) - 1)

static mbarrier load(const void *at) {
    mbarrier barrier;
    memcpy(&barrier, at, sizeof barrier);
    return barrier;
}

static void store(void *at, const mbarrier &barrier) {
    memcpy(at, &barrier, sizeof barrier);
}

static void require_aligned(const uint64_t *at, const hip_emulator_site &site,
                            const char *operation) {
    hip_emulator_require_arch(HIP_EMULATOR_NVIDIA, site, operation);
    if ((uintptr_t)at % sizeof *at != 0)
        hip_emulator_fail(site, operation, "the mbarrier is not aligned to 8 bytes");
}

static mbarrier require_initialized(const uint64_t *at, const hip_emulator_site &site,
                                    const char *operation) {
    require_aligned(at, site, operation);
    const mbarrier barrier = load(at);
    if (barrier.initialized != INITIALIZED)
        hip_emulator_fail(site, operation, "the mbarrier is not initialized");
    return barrier;
}

void hip_emulator_mbarrier_init(uint64_t *at, int count, hip_emulator_site site) {
    require_aligned(at, site, "mbarrier.init");
    if (count < 1 || count > MAX_COUNT)
        hip_emulator_fail(site, "mbarrier.init", "the count must be 1 to 16383");
    mbarrier barrier = {};
    barrier.pending = barrier.count = (unsigned)count;
    barrier.seen = 1;
    barrier.initialized = INITIALIZED;
    store(at, barrier);
}

/* A thread that still waits for the phase before `barrier`'s, which has completed; -1 if none. */
static int find_late_thread(const uint64_t *at, const mbarrier &barrier) {
    for (int i = 0; i < block.num_threads; i++) {
        const hip_emulator_thread *thread = &block.threads[i];
        if (thread->state == HIP_EMULATOR_WAITING && thread->call.op == HIP_EMULATOR_MBARRIER &&
            thread->call.brought == at && (unsigned)thread->call.lane != barrier.parity)
            return i;
    }
    return -1;
}

/* Before a phase completes. */
static void require_seen(const uint64_t *at, const mbarrier &barrier, const hip_emulator_site &site,
                         const char *operation) {
    const int late = find_late_thread(at, barrier);
    if (late >= 0) {
        char what[128];
        snprintf(what, sizeof what,
                 "a phase completes while thread %d still waits for the one before", late);
        hip_emulator_fail(site, operation, what);
    }
    if (!barrier.seen)
        hip_emulator_fail(site, operation,
                          "a phase completes before any thread saw the one before complete");
}

/* Ends the phase if nothing is left that it waits for. */
static void end_phase(mbarrier *barrier) {
    if (barrier->pending > 0 || barrier->bytes > 0)
        return;
    barrier->pending = barrier->count;
    barrier->parity ^= 1;
    barrier->seen = 0;
}

/* An arrival; the phase also waits for copies of `bytes` bytes, which end when a thread looks. */
static void arrive(uint64_t *at, int bytes, const hip_emulator_site &site, const char *operation) {
    mbarrier barrier = require_initialized(at, site, operation);
    if (bytes < 0 || (int)barrier.bytes + bytes > MAX_BYTES)
        hip_emulator_fail(site, operation, "a phase waits for less than 2^20 bytes");
    if (barrier.pending == 0)
        hip_emulator_fail(site, operation,
                          "no thread has waited for the copies of the phase before");
    barrier.bytes += (unsigned)bytes;
    barrier.pending--;
    if (barrier.pending == 0)
        require_seen(at, barrier, site, operation);
    end_phase(&barrier);
    store(at, barrier);
}

void hip_emulator_mbarrier_arrive(uint64_t *at, hip_emulator_site site) {
    arrive(at, 0, site, "mbarrier.arrive");
}

void hip_emulator_mbarrier_expect(uint64_t *at, int bytes, hip_emulator_site site) {
    arrive(at, bytes, site, "mbarrier.arrive.expect_tx");
}

/* Whether the phase of this parity has completed; notes that a thread has seen it. The copies that
 * the barrier waits for end. */
static bool look(void *at, int parity) {
    mbarrier barrier = load(at);
    const int bytes = hip_emulator_end_tensor_copies(at);
    if (bytes > 0) {
        barrier.bytes -= (unsigned)bytes;
        end_phase(&barrier);
    }
    const bool completed = barrier.parity != (unsigned)parity;
    if (completed)
        barrier.seen = 1;
    store(at, barrier);
    return completed;
}

int hip_emulator_mbarrier_bytes(const uint64_t *at, const hip_emulator_site &site,
                                const char *operation) {
    return (int)require_initialized(at, site, operation).bytes;
}

static void require_phase(const uint64_t *at, int parity, const hip_emulator_site &site,
                          const char *operation) {
    require_initialized(at, site, operation);
    if (parity != 0 && parity != 1)
        hip_emulator_fail(site, operation, "the parity must be 0 or 1");
}

bool hip_emulator_mbarrier_test(const uint64_t *at, int parity, hip_emulator_site site) {
    void *barrier = const_cast<uint64_t *>(at);
    require_phase(at, parity, site, "mbarrier.test_wait.parity");
    if (look(barrier, parity))
        return true;
    hip_emulator_join(
        {HIP_EMULATOR_TESTED, site, 0, parity, 0, nullptr, const_cast<uint64_t *>(at)});
    return false;
}

void hip_emulator_mbarrier_wait(const uint64_t *at, int parity, hip_emulator_site site) {
    void *barrier = const_cast<uint64_t *>(at);
    require_phase(at, parity, site, "mbarrier.try_wait.parity");
    if (!look(barrier, parity))
        hip_emulator_join({HIP_EMULATOR_MBARRIER, site, 0, parity, 0, nullptr, barrier});
}

bool hip_emulator_mbarrier_completed(const hip_emulator_call *call) {
    return look(call->brought, call->lane);
}

/* ---- names ---- */

void hip_emulator_describe_barrier(const hip_emulator_call *call, char *buffer, size_t bytes) {
    if (call->op == HIP_EMULATOR_ARRIVE) {
        snprintf(buffer, bytes, "bar.arrive %d, %d", call->lane, call->width);
        return;
    }
    if (call->op == HIP_EMULATOR_BARRIER) {
        snprintf(buffer, bytes, "bar.sync %d, %d (%d there)", call->lane, call->width,
                 barriers[call->lane].arrived);
        return;
    }
    const mbarrier barrier = load(call->brought);
    const uintptr_t offset = (uintptr_t)call->brought - (uintptr_t)block.dynamic_shared;
    char place[32] = "static shared memory";
    if (offset < block.launch->shared_bytes)
        snprintf(place, sizeof place, "shared + 0x%x", (unsigned)offset);
    snprintf(buffer, bytes, "mbarrier.%s_wait.parity %d of %s (%u of %u pending)",
             call->op == HIP_EMULATOR_TESTED ? "test" : "try", call->lane, place,
             (unsigned)barrier.pending, (unsigned)barrier.count);
}
