/* Runs a grid: block by block, with the threads of a block as fibers.
 *
 * A fiber runs threads that have not started, one after another, as long as they finish without
 * waiting: a kernel without barriers runs on one fiber. A thread that waits keeps its fiber, and
 * another fiber continues with the remaining threads. When no thread can run, the waiting threads
 * are matched: first lanes that are held back, then waves, then the block.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "emulator_fiber.h"
#include "emulator_state.h"
#include "hip/hip_runtime.h"

uint3 threadIdx;
uint3 blockIdx;
dim3 blockDim;
dim3 gridDim;
int warpSize = 32;

enum thread_state {
    READY,
    WAITING,
    DONE
};

struct kernel_thread {
    thread_state state;
    hip_emulator_fiber *fiber; /* NULL: not started */
    hip_emulator_call call;    /* the operation that it waits for */
    uint64_t result;
    uint64_t held_since; /* order of the lanes that are held back */
    int held_rounds;     /* how often other lanes reached an atomic operation meanwhile */
};

/* The maximum number of rounds that lanes of a wave may take while one is held back. */
#define MAX_HELD_ROUNDS 10000

static pthread_mutex_t launch_lock = PTHREAD_MUTEX_INITIALIZER;

static const hip_emulator_launch *launch;
static kernel_thread threads[HIP_EMULATOR_MAX_THREADS];
static int num_threads;
static int current; /* the running thread */
static uint64_t times_held;

static hip_emulator_arch arch;
static hip_emulator_order thread_order;
static int order[HIP_EMULATOR_MAX_THREADS];
static int position; /* in `order`: the next thread to consider */
static uint64_t shuffle_state = 0x9E3779B97F4A7C15u;

static hip_emulator_fiber *pool[HIP_EMULATOR_MAX_THREADS];
static int pool_size;

static void *dynamic_shared;

/* The section of the kernels' __shared__ arrays; absent if there are none. */
extern "C" __attribute__((weak, visibility("hidden"))) char __start_hip_emulator_shared[];
extern "C" __attribute__((weak, visibility("hidden"))) char __stop_hip_emulator_shared[];

/* ---- threads ---- */

static void order_threads(void) {
    for (int i = 0; i < num_threads; i++)
        order[i] = thread_order == HIP_EMULATOR_REVERSE ? num_threads - 1 - i : i;
    if (thread_order != HIP_EMULATOR_SHUFFLE)
        return;
    for (int i = num_threads - 1; i > 0; i--) {
        shuffle_state ^= shuffle_state << 13;
        shuffle_state ^= shuffle_state >> 7;
        shuffle_state ^= shuffle_state << 17;
        const int other = (int)(shuffle_state % (uint64_t)(i + 1));
        const int kept = order[i];
        order[i] = order[other];
        order[other] = kept;
    }
}

static void select_thread(int index) {
    const unsigned i = (unsigned)index;
    current = index;
    threadIdx = {i % blockDim.x, i / blockDim.x % blockDim.y, i / blockDim.x / blockDim.y};
}

/* The main function of a fiber; leaves where no thread is left to start. */
static void run_threads(void) {
    for (;;) {
        while (position < num_threads) {
            const int index = order[position++];
            if (threads[index].fiber || threads[index].state != READY)
                continue;
            select_thread(index);
            launch->run_thread(launch->body);
            threads[current].state = DONE;
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
    while (position < num_threads) {
        hip_emulator_fiber *fiber = take_fiber();
        if (!fiber)
            return false;
        hip_emulator_fiber_enter(fiber);
        if (threads[current].state == WAITING)
            threads[current].fiber = fiber;
        else
            pool[pool_size++] = fiber;
    }
    return true;
}

/* Resumes every thread whose wait is over. */
static void resume_threads(void) {
    order_threads();
    position = num_threads;
    for (int i = 0; i < num_threads; i++) {
        kernel_thread *thread = &threads[order[i]];
        if (thread->state != READY)
            continue;
        select_thread(order[i]);
        hip_emulator_fiber_enter(thread->fiber);
        if (thread->state == DONE) {
            pool[pool_size++] = thread->fiber;
            thread->fiber = nullptr;
        }
    }
}

uint64_t hip_emulator_join(const hip_emulator_call &call) {
    const int self = current;
    threads[self].call = call;
    threads[self].state = WAITING;
    threads[self].held_since = times_held++;
    threads[self].held_rounds = 0;
    hip_emulator_fiber_leave();
    return threads[self].result;
}

unsigned hip_emulator_lane(void) {
    return (unsigned)(current % warpSize);
}

void *hip_emulator_dynamic_shared(void) {
    return dynamic_shared;
}

/* ---- errors ---- */

static const char *op_name(const hip_emulator_call *call) {
    switch (call->op) {
    case HIP_EMULATOR_HELD:
        return "an atomic operation";
    case HIP_EMULATOR_BARRIER:
        return "__syncthreads";
    case HIP_EMULATOR_SHFL:
        return "__shfl";
    case HIP_EMULATOR_SHFL_UP:
        return "__shfl_up";
    case HIP_EMULATOR_SHFL_DOWN:
        return "__shfl_down";
    case HIP_EMULATOR_SHFL_XOR:
        return "__shfl_xor";
    case HIP_EMULATOR_INSTRUCTION:
        return call->instruction->name;
    case HIP_EMULATOR_BALLOT:
        return "__ballot";
    case HIP_EMULATOR_ANY:
        return "__any";
    case HIP_EMULATOR_ALL:
        return "__all";
    case HIP_EMULATOR_ACTIVEMASK:
        return "__activemask";
    }
    return "?";
}

struct text {
    char buffer[320];
};

/* "__shfl at rope.hip:12 in sum" */
static text describe(const hip_emulator_call *call) {
    const char *slash = strrchr(call->site.file, '/');
    text text;
    snprintf(text.buffer, sizeof text.buffer, "%s at %.96s:%d in %.96s", op_name(call),
             slash ? slash + 1 : call->site.file, call->site.line, call->site.function);
    return text;
}

/* "waits for ...", "has exited" */
static text describe_state(int index) {
    text text = {"has exited"};
    if (threads[index].state != DONE)
        snprintf(text.buffer, sizeof text.buffer, "waits for %.300s",
                 describe(&threads[index].call).buffer);
    return text;
}

static void report(const char *sentence) {
    fprintf(stderr, "hip emulator: kernel %s, block (%u, %u, %u): %s\n", launch->kernel, blockIdx.x,
            blockIdx.y, blockIdx.z, sentence);
}

/* Reports that the operation that `index` waits for cannot complete because of thread `other`. */
static bool report_divergence(int index, int other, const char *group) {
    char sentence[900];
    snprintf(sentence, sizeof sentence,
             "%s is not reached by every thread of the %s: thread %d is there, thread %d %s",
             describe(&threads[index].call).buffer, group, index, other,
             describe_state(other).buffer);
    report(sentence);
    return false;
}

static bool report_instruction(int index, const char *what) {
    char sentence[600];
    snprintf(sentence, sizeof sentence, "%s, thread %d: %s", describe(&threads[index].call).buffer,
             index, what);
    report(sentence);
    return false;
}

static bool report_spin(int held) {
    char sentence[600];
    snprintf(sentence, sizeof sentence,
             "lanes of a wave wait for thread %d, which lockstep holds back after %s", held,
             describe(&threads[held].call).buffer);
    report(sentence);
    return false;
}

static bool report_shuffle(int index, const char *what, int number) {
    char sentence[600];
    snprintf(sentence, sizeof sentence, "%s, thread %d: %s %d (wave of %d)",
             describe(&threads[index].call).buffer, index, what, number, warpSize);
    report(sentence);
    return false;
}

/* ---- matching of waiting threads ---- */

static bool same_call(const hip_emulator_call *a, const hip_emulator_call *b) {
    return a->op == b->op && a->instruction == b->instruction && a->site.line == b->site.line &&
           strcmp(a->site.file, b->site.file) == 0;
}

/* The source lane of a shuffle, as HIP defines it. */
static int source_lane(const hip_emulator_call *call, int lane) {
    const int first = lane & ~(call->width - 1);
    const int end = first + call->width;
    int64_t source = lane;
    switch (call->op) {
    case HIP_EMULATOR_SHFL:
        return first + (call->lane & (call->width - 1));
    case HIP_EMULATOR_SHFL_UP:
        source -= (unsigned)call->lane;
        return source < first ? lane : (int)source;
    case HIP_EMULATOR_SHFL_DOWN:
        source += (unsigned)call->lane;
        return source >= end ? lane : (int)source;
    case HIP_EMULATOR_SHFL_XOR:
        source ^= call->lane;
        return source < 0 || source >= end ? lane : (int)source;
    case HIP_EMULATOR_HELD:
    case HIP_EMULATOR_BARRIER:
    case HIP_EMULATOR_INSTRUCTION:
    case HIP_EMULATOR_BALLOT:
    case HIP_EMULATOR_ANY:
    case HIP_EMULATOR_ALL:
    case HIP_EMULATOR_ACTIVEMASK:
        break;
    }
    return lane;
}

static bool complete_shuffle(int first, int end) {
    for (int i = first; i < end; i++) {
        kernel_thread *thread = &threads[i];
        if (thread->state == DONE)
            continue;
        const int width = thread->call.width;
        if (width < 1 || width > warpSize || (width & (width - 1)) != 0)
            return report_shuffle(i, "the width must be a power of two up to the wave, not", width);
        const int source = first + source_lane(&thread->call, i - first);
        if (source >= end || threads[source].state == DONE)
            return report_shuffle(i, "reads the absent lane", source - first);
        thread->result = threads[source].call.value;
    }
    return true;
}

static bool complete_instruction(int first, int end, int chosen) {
    const hip_emulator_instruction *instruction = threads[chosen].call.instruction;
    char what[128];
    if (!(instruction->archs & arch)) {
        snprintf(what, sizeof what, "%s (wave of %d) does not have this instruction",
                 hip_emulator_arch_name(arch), warpSize);
        return report_instruction(chosen, what);
    }
    void *brought[64];
    for (int i = first; i < first + warpSize; i++) {
        if (i >= end) {
            snprintf(what, sizeof what, "the wave has %d of %d lanes", end - first, warpSize);
            return report_instruction(chosen, what);
        }
        if (threads[i].state == DONE)
            return report_divergence(chosen, i, "wave");
        brought[i - first] = threads[i].call.brought;
    }
    const char *wrong = instruction->run(brought);
    return wrong ? report_instruction(chosen, wrong) : true;
}

static void complete_vote(int first, int end, const hip_emulator_call *call) {
    uint64_t votes = 0;
    for (int i = first; i < end; i++)
        if (threads[i].state == WAITING && same_call(&threads[i].call, call))
            votes |= threads[i].call.value << (i - first);
    for (int i = first; i < end; i++)
        threads[i].result = votes;
}

/* Releases the threads of a wave that wait for `call`. */
static void release(int first, int end, hip_emulator_call call) {
    for (int i = first; i < end; i++)
        if (threads[i].state == WAITING && same_call(&threads[i].call, &call))
            threads[i].state = READY;
}

/* The first thread of [first, end) that does not wait for `call`, `end` if none; exited threads
 * count as absent from a wave. */
static int find_divergent(int first, int end, const hip_emulator_call *call) {
    for (int i = first; i < end; i++)
        if (threads[i].state == WAITING && !same_call(&threads[i].call, call))
            return i;
    return end;
}

/* Releases lanes that are held back, except the one held longest, which is released when it is
 * alone. `released`: whether there were any. False: the other lanes do not finish. */
static bool release_held(int first, int end, bool *released) {
    int longest = end;
    for (int i = first; i < end; i++)
        if (threads[i].state == WAITING && threads[i].call.op == HIP_EMULATOR_HELD &&
            (longest == end || threads[i].held_since < threads[longest].held_since))
            longest = i;
    bool others = false;
    for (int i = first; i < end; i++) {
        if (i == longest || threads[i].state != WAITING || threads[i].call.op != HIP_EMULATOR_HELD)
            continue;
        threads[i].state = READY;
        others = true;
    }
    *released = longest != end;
    if (longest != end && !others)
        threads[longest].state = READY;
    return !others || ++threads[longest].held_rounds < MAX_HELD_ROUNDS || report_spin(longest);
}

/* Completes the operation that the wave [first, end) waits for, unless that is a barrier. False: an
 * error. */
static bool match_wave(int first, int end) {
    bool released;
    if (!release_held(first, end, &released))
        return false;
    if (released)
        return true;
    int chosen = end; /* operations of the wave before barriers, masks before all */
    for (int i = end - 1; i >= first; i--) {
        if (threads[i].state != WAITING || threads[i].call.op == HIP_EMULATOR_BARRIER)
            continue;
        if (chosen == end || threads[chosen].call.op != HIP_EMULATOR_ACTIVEMASK ||
            threads[i].call.op == HIP_EMULATOR_ACTIVEMASK)
            chosen = i;
    }
    if (chosen == end)
        return true;
    const hip_emulator_call call = threads[chosen].call;
    const int other = find_divergent(first, end, &call);
    if (other != end && call.op != HIP_EMULATOR_ACTIVEMASK)
        return report_divergence(chosen, other, "wave");
    bool sound = true;
    if (call.op >= HIP_EMULATOR_BALLOT)
        complete_vote(first, end, &call);
    else if (call.op == HIP_EMULATOR_INSTRUCTION)
        sound = complete_instruction(first, end, chosen);
    else
        sound = complete_shuffle(first, end);
    if (!sound)
        return false;
    release(first, end, call);
    return true;
}

static int count_threads(thread_state state) {
    int count = 0;
    for (int i = 0; i < num_threads; i++)
        count += threads[i].state == state;
    return count;
}

/* Releases threads that wait for each other. False: an error. */
static bool match_threads(void) {
    for (int first = 0; first < num_threads; first += warpSize) {
        const int end = first + warpSize < num_threads ? first + warpSize : num_threads;
        if (!match_wave(first, end))
            return false;
    }
    if (count_threads(READY) > 0)
        return true;
    int waiting = 0;
    while (threads[waiting].state != WAITING)
        waiting++;
    for (int i = 0; i < num_threads; i++)
        if (threads[i].state == DONE || !same_call(&threads[i].call, &threads[waiting].call))
            return report_divergence(waiting, i, "block");
    release(0, num_threads, threads[waiting].call);
    return true;
}

/* ---- blocks ---- */

static void poison_shared(void) {
    memset(dynamic_shared, 0xFF, launch->shared_bytes);
    if (__start_hip_emulator_shared)
        memset(__start_hip_emulator_shared, 0xFF,
               (size_t)(__stop_hip_emulator_shared - __start_hip_emulator_shared));
}

/* Frees the fibers of threads that can never continue. */
static void drop_threads(void) {
    for (int i = 0; i < num_threads; i++) {
        if (!threads[i].fiber)
            continue;
        hip_emulator_fiber_reset(threads[i].fiber);
        pool[pool_size++] = threads[i].fiber;
        threads[i].fiber = nullptr;
    }
}

static hipError_t run_block(void) {
    poison_shared();
    for (int i = 0; i < num_threads; i++)
        threads[i] = {};
    bool sound = true;
    if (!start_threads()) {
        drop_threads();
        return hipErrorOutOfMemory;
    }
    while (sound && count_threads(DONE) < num_threads) {
        sound = match_threads();
        if (sound)
            resume_threads();
    }
    drop_threads();
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
    pthread_mutex_lock(&launch_lock);
    launch = &requested;
    warpSize = settings.wave;
    arch = settings.arch;
    thread_order = settings.order;
    gridDim = requested.grid;
    blockDim = requested.block;
    num_threads = (int)(blockDim.x * blockDim.y * blockDim.z);
    hipError_t error = hipErrorOutOfMemory;
    if (posix_memalign(&dynamic_shared, 128, requested.shared_bytes) == 0) {
        error = run_grid();
        free(dynamic_shared);
        dynamic_shared = nullptr;
    }
    pthread_mutex_unlock(&launch_lock);
    return error;
}

__attribute__((destructor)) static void delete_fibers(void) {
    while (pool_size > 0)
        hip_emulator_fiber_delete(pool[--pool_size]);
}
