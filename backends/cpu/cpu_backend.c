/* The CPU backend: host memory, a team of threads, kernels by instruction set. */
#include "backend.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "cpu_isa.h"
#include "parallel.h"

/* The record of faults; `launch` identifies an operation. */
struct rwi_fault_sink {
    atomic_flag busy;
    uint64_t launch;        /* the current operation */
    uint64_t raised_launch; /* the operation that reported a fault */
    int32_t op;
    rwi_fault fault;
};

typedef struct cpu_device {
    rwi_device base;
    const rwi_cpu_kernels *kernels;
    rwi_threads threads;
    rwi_fault_sink sink;
} cpu_device;

#define ALIGNMENT ((size_t)256)

/* Pieces of work: enough to occupy many cores, at little cost for few. */
#define PARTS 64

/* Waking a thread takes as long as one core needs to stream this much memory; below it for each
 * thread, fewer threads are faster. */
#define BYTES_PER_THREAD ((int64_t)128 * 1024)

void rwi_cpu_fault_raise(rwi_fault_sink *sink, int64_t token, rwi_bad_id bad) {
    while (atomic_flag_test_and_set_explicit(&sink->busy, memory_order_acquire))
        ;
    bool first = sink->fault.bad.kind == RW_FAULT_NONE;
    bool lower = sink->raised_launch == sink->launch && token < sink->fault.token;
    if (first || lower) {
        sink->raised_launch = sink->launch;
        sink->fault = (rwi_fault){.op = sink->op, .token = token, .bad = bad};
    }
    atomic_flag_clear_explicit(&sink->busy, memory_order_release);
}

static rw_status cpu_device_count(int32_t *count, char platform[16], rw_message *message) {
    (void)message;
    *count = 1;
    snprintf(platform, 16, "%s", rwi_cpu_isa_name(rwi_cpu_isa_best(RW_CPU_ISA_DEFAULT)));
    return RW_OK;
}

static rw_status cpu_open(const rwi_open_options *options, rwi_device **device,
                          rw_message *message) {
    cpu_device *cpu = calloc(1, sizeof *cpu);
    if (!cpu) {
        snprintf(message->text, sizeof message->text, "out of memory");
        return RW_OUT_OF_MEMORY;
    }
    rwi_parallel_prepare_for_fork();
    rw_cpu_isa isa = rwi_cpu_isa_best(options->isa);
    cpu->kernels = rwi_cpu_isa_kernels(isa);
    atomic_flag_clear(&cpu->sink.busy);
    cpu->base.num_threads =
        options->num_threads > 0 ? options->num_threads : rwi_parallel_max_threads();
    cpu->threads =
        (rwi_threads){cpu->base.num_threads, options->parallel_for, options->parallel_for_user};
    cpu->base.parts = PARTS;
    snprintf(cpu->base.platform, sizeof cpu->base.platform, "%s", rwi_cpu_isa_name(isa));
    snprintf(cpu->base.name, sizeof cpu->base.name, "%d threads, %s", cpu->base.num_threads,
             rwi_cpu_isa_name(isa));
    *device = &cpu->base;
    return RW_OK;
}

static void cpu_close(rwi_device *device) {
    free(device);
}

static rw_status cpu_alloc(rwi_device *device, size_t bytes, void **pointer) {
    size_t rounded = bytes <= SIZE_MAX - ALIGNMENT ? (bytes / ALIGNMENT + 1) * ALIGNMENT : 0;
    *pointer = rounded ? aligned_alloc(ALIGNMENT, rounded) : NULL;
    if (*pointer)
        return RW_OK;
    snprintf(device->error.text, sizeof device->error.text, "out of memory: %zu bytes", bytes);
    return RW_OUT_OF_MEMORY;
}

static rw_status cpu_free(rwi_device *device, void *pointer) {
    (void)device;
    free(pointer);
    return RW_OK;
}

static rw_status cpu_copy(rwi_device *device, const rw_copy_args *args) {
    (void)device;
    memmove(args->destination, args->source, args->bytes);
    return RW_OK;
}

static rw_status cpu_synchronize(rwi_device *device, rwi_fault *fault) {
    rwi_fault_sink *sink = &((cpu_device *)device)->sink;
    *fault = sink->fault;
    sink->fault.bad.kind = RW_FAULT_NONE;
    return RW_OK;
}

static rw_status cpu_set_stream(rwi_device *device, void *stream) {
    (void)device;
    (void)stream;
    return RW_OK;
}

/* The current operation. */
typedef struct cpu_task {
    cpu_device *cpu;
    const void *params;
} cpu_task;

static rw_status cpu_run(rwi_device *device, rwi_op op, rwi_work work, const void *params,
                         void (*body)(const void *task, int64_t begin, int64_t end)) {
    cpu_device *cpu = (cpu_device *)device;
    cpu_task task = {cpu, params};
    cpu->sink.launch++;
    cpu->sink.op = (int32_t)op;
    int64_t items_per_thread = rwi_max(1, BYTES_PER_THREAD / rwi_max(1, work.bytes_per_item));
    int64_t useful = rwi_ceil_div(work.items, items_per_thread);
    /* Items of attention take long, and some, of causal patterns, longer than others. */
    const rwi_loop loop = {work.items, op == RWI_OP_attention, body, &task};
    if (rwi_parallel_for(&cpu->threads, useful, &loop))
        return RW_OK;
    snprintf(device->error.text, sizeof device->error.text,
             "options.parallel_for did not run every task exactly once before it returned");
    return RW_INVALID_ARGUMENT;
}

/* An operation's range and its slot: only the types differ. */
#define RW_OP(op, dtypes)                                                                          \
    static void op##_range(const void *opaque, int64_t begin, int64_t end) {                       \
        const cpu_task *task = opaque;                                                             \
        task->cpu->kernels->op(task->params, begin, end, &task->cpu->sink);                        \
    }                                                                                              \
    static rw_status cpu_##op(rwi_device *device, const rw_##op##_params *params) {                \
        return cpu_run(device, RWI_OP_##op, op##_work(params), params, op##_range);                \
    }
#include "ops.def"
#undef RW_OP

const rwi_backend rwi_cpu_backend = {
    .abi = RWI_BACKEND_ABI,
    .name = "cpu",
    .device_count = cpu_device_count,
    .open = cpu_open,
    .close = cpu_close,
    .alloc = cpu_alloc,
    .free = cpu_free,
    .copy = cpu_copy,
    .synchronize = cpu_synchronize,
    .set_stream = cpu_set_stream,
#define RW_OP(op, dtypes) .op = cpu_##op,
#include "ops.def"
#undef RW_OP
};
