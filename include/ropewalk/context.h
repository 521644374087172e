/* A context: one device of one backend, its stream, its errors.
 *
 * Contexts are independent of each other; a context must be used by one thread at a time.
 *
 * fork(): in the child, a context of the CPU backend works, with new OpenMP threads, unless another
 * thread was using it during fork(); the threads of a caller's pool are the caller's concern. In a
 * child of a process that had no context, operations may wait forever if the thread that forked had
 * used OpenMP itself: GNU's does not survive fork() unless a context exists. A GPU
 * does not survive fork(): in the child of a process that had created a GPU context or probed for
 * one, functions on the parent's GPU contexts return RW_DEVICE_ERROR, rw_context_destroy() releases
 * host memory only, and the backend hip is not usable; auto chooses the CPU.
 */
#ifndef ROPEWALK_CONTEXT_H
#define ROPEWALK_CONTEXT_H

#include <ropewalk/base.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct rw_context rw_context;

/* The backend to open. The default is the value of the environment variable ROPEWALK_BACKEND
 * (auto|cpu|hip[:device]) or, if that is unset, auto. */
typedef enum rw_backend_kind {
    RW_BACKEND_DEFAULT = 0,
    RW_BACKEND_AUTO, /* hip if a real device is usable, else cpu */
    RW_BACKEND_CPU,  /* OpenMP, or the caller's threads */
    RW_BACKEND_HIP   /* a GPU; an error if none is usable, never the CPU instead */
} rw_backend_kind;

/* The maximum instruction set of the CPU backend's kernels. The default is the value of
 * ROPEWALK_CPU_ISA (baseline|v3|v4|amx) or, if that is unset, the best that the CPU supports. */
typedef enum rw_cpu_isa {
    RW_CPU_ISA_DEFAULT = 0,
    RW_CPU_ISA_BASELINE, /* x86-64, or aarch64 with NEON */
    RW_CPU_ISA_V3,       /* x86-64-v3: AVX2, FMA, F16C */
    RW_CPU_ISA_V4,       /* x86-64-v4: AVX-512 F, BW, CD, DQ, VL */
    RW_CPU_ISA_AMX       /* v4 and, where Linux permits them, tiles of bf16 */
} rw_cpu_isa;

/* 0 selects the default of every field. Values set here override the environment. */
typedef struct rw_context_options {
    rw_backend_kind backend;
    int32_t device;      /* index of the GPU; 0 unless `backend` is RW_BACKEND_HIP */
    int32_t num_threads; /* CPU threads, up to 1024; with parallel_for, the most tasks of one loop.
                            0: ROPEWALK_NUM_THREADS, else the first number of OMP_NUM_THREADS, both
                            as they are when the context is created, else every core that this
                            process may use (its affinity), up to 1024 */
    rw_cpu_isa cpu_isa;
    void (*log)(void *user, const char *line); /* NULL: stderr if ROPEWALK_LOG=1, else silent */
    void *log_user;

    /* The caller's threads for the CPU backend; none of OpenMP's is then started. NULL: OpenMP.
     * Calls task(data, index) exactly once for every index from 0 to num_tasks - 1 and returns when
     * all of these calls have returned.
     *
     * num_tasks  2 to num_threads. Work that is too small to be divided (one token) runs in the
     *            thread that calls the operation, without parallel_for
     * task       may be called from any thread and in any order. No task waits for another: one
     *            thread may run several, or all. It never calls parallel_for, and does not throw
     * data       valid until parallel_for returns
     *
     * It is called by the thread that called the operation, which may itself be a thread of the
     * pool if the pool supports nested loops; what tasks wrote must be visible to that thread when
     * parallel_for returns. Results do not depend on the number of tasks or on their order. If an
     * index was missed, repeated or out of range, the operation returns RW_INVALID_ARGUMENT and its
     * output is undefined. A GPU ignores it. */
    void (*parallel_for)(void *user, int32_t num_tasks, void (*task)(void *data, int32_t index),
                         void *data);
    void *parallel_for_user; /* passed as `user`; NULL without parallel_for */
} rw_context_options;

/* Opens a context.
 *
 * options  may be NULL
 * context  receives the context, or NULL on failure
 * message  receives the error message on failure; may be NULL
 * Returns RW_OK, RW_INVALID_ARGUMENT (an unknown value, in `options` or in the environment),
 * RW_BACKEND_UNAVAILABLE, RW_OUT_OF_MEMORY or RW_DEVICE_ERROR.
 */
RW_API rw_status rw_context_create(const rw_context_options *options, rw_context **context,
                                   rw_message *message);

/* Waits for the device and closes the context. Memory of rw_alloc() and objects created from this
 * context (rw_rope, rw_sinusoid, rw_t5) must be released first. NULL is ignored. */
RW_API void rw_context_destroy(rw_context *context);

/* The error message of the last failed call on this context; "" if no call has failed. The text is
 * valid until the next failure. */
RW_API const char *rw_last_error(const rw_context *context);

/* The device of a context. The strings are valid as long as the context. */
typedef struct rw_context_info {
    const char *backend;  /* "cpu" or "hip" */
    const char *platform; /* cpu: the ISA in use, "baseline", "v3", "v4" or "amx";
                             hip: "amd", "nvidia" or "emulated" */
    const char *device;   /* the name that the device reports */
    int32_t device_index;
    int32_t num_threads; /* CPU backend; 0 on a GPU */
} rw_context_info;

RW_API rw_context_info rw_context_get_info(const rw_context *context);

/* The availability of one backend on this host, without opening a context. */
typedef struct rw_backend_probe_result {
    bool found;     /* the backend is part of this build and its module could be loaded */
    bool usable;    /* at least one device answers */
    bool automatic; /* auto may choose it: usable, and a real device rather than an emulated one */
    int32_t device_count;
    char platform[16]; /* as in rw_context_info; for the CPU the best ISA that it supports */
    rw_message why;    /* why it is not found or not usable; else "" */
} rw_backend_probe_result;

/* kind: RW_BACKEND_CPU or RW_BACKEND_HIP; for any other value `found` is false. */
RW_API rw_backend_probe_result rw_backend_probe(rw_backend_kind kind);

/* Whether this context supports an operation for data of a dtype, for engines that plan ahead.
 *
 * operation  one of rw_operation_name(), e.g. "rope" or "attention"
 * dtype      of what the operation computes on: q, x, scores, the values of a microscaling format,
 *            the ids that positions_* and pattern_positions write, the bytes of pattern_fill_bits.
 *            Other tensors of a call (ids, weights, LSE) have the dtypes documented in its header
 * Returns RW_OK, RW_UNSUPPORTED (rw_last_error() gives the reason) or RW_INVALID_ARGUMENT (an
 * unknown operation or dtype). Shapes are not considered: a call may still fail, for example
 * because of its head_dim.
 */
RW_API rw_status rw_supports(rw_context *context, const char *operation, rw_dtype dtype);

/* The name of the operation with this index, from 0; NULL if the index is out of range. */
RW_API const char *rw_operation_name(int32_t index);

/* Allocates and frees device memory, aligned to 256 bytes; 0 bytes gives a valid pointer. On the
 * CPU backend this is host memory; operations accept any other host memory too. */
RW_API rw_status rw_alloc(rw_context *context, size_t bytes, void **pointer);
RW_API rw_status rw_free(rw_context *context, void *pointer);

typedef enum rw_copy_kind {
    RW_COPY_HOST_TO_DEVICE = 0,
    RW_COPY_DEVICE_TO_HOST,
    RW_COPY_DEVICE_TO_DEVICE
} rw_copy_kind;

typedef struct rw_copy_args {
    void *destination;
    const void *source;
    size_t bytes;
    rw_copy_kind kind;
} rw_copy_args;

/* Copies bytes in stream order and waits until the copy is complete. */
RW_API rw_status rw_copy(rw_context *context, const rw_copy_args *args);

/* Waits until every operation on this context's stream is complete.
 *
 * Returns RW_OUT_OF_RANGE if an operation since the last call read an out-of-range value (a
 * position id, a page number, ...) from device memory and skipped its token. rw_last_error() and
 * rw_last_fault() then give the operation, the token and the value, for the lowest token of the
 * first such operation. The error is reported once. Returns RW_DEVICE_ERROR if the device failed.
 */
RW_API rw_status rw_synchronize(rw_context *context);

/* What was out of range. */
typedef enum rw_fault_kind {
    RW_FAULT_NONE = 0,
    RW_FAULT_POSITION,       /* a position id outside its table */
    RW_FAULT_CACHE_POSITION, /* a position outside the KV cache */
    RW_FAULT_PAGE,           /* a page number outside the pages of the KV cache */
    RW_FAULT_SLOT,           /* a slot outside the pages of the KV cache */
    RW_FAULT_LENGTH,         /* a length or bound of cu_seqlens, padding, a prefix, key_end, ... */
    RW_FAULT_SEGMENT,        /* the number of an M-RoPE segment whose step is invalid */
    RW_FAULT_OVERFLOW        /* a result that the dtype of an integer output cannot represent */
} rw_fault_kind;

typedef struct rw_fault {
    rw_fault_kind kind;
    const char *operation; /* "rope_append"; a static string; NULL without a fault */
    int64_t token;         /* b * seq + s, or as documented for the operation */
    int64_t id;            /* the out-of-range value */
} rw_fault;

/* The fault that the last rw_synchronize() on this context reported; RW_FAULT_NONE if it reported
 * none, or if `context` is NULL. */
RW_API rw_fault rw_last_fault(const rw_context *context);

/* Runs every later operation on the caller's stream (hipStream_t; cudaStream_t on HIP's NVIDIA
 * platform); NULL selects the device's default stream again. Ignored by the CPU backend. The caller
 * keeps ownership of the stream and must order work across the change.
 *
 * The stream must not be destroyed while it is the context's: first select another one, or NULL, or
 * destroy the context, which waits for its stream. Otherwise functions on the context return
 * RW_DEVICE_ERROR, and rw_context_destroy() releases everything without waiting for the stream,
 * where the runtime knows the handles of its streams (AMD's, the emulator); on NVIDIA's platform
 * the use of such a handle is undefined.
 *
 * Operations can be captured in a graph. Functions that wait or allocate (rw_synchronize, rw_copy,
 * rw_alloc, rw_free, rw_rope_create, ...) must not be called during a capture: the runtime returns
 * an error, RW_DEVICE_ERROR here, and may invalidate the capture. Replays of a graph that was
 * captured with this context count as its operations: they and its other operations must run one
 * after another, and rw_synchronize() reports their faults. The graph must not be replayed after
 * rw_context_destroy(). */
RW_API rw_status rw_context_set_stream(rw_context *context, void *stream);

/* Bytes that this context has moved between host and device since it was created. Operations never
 * move data; only rw_copy() and the creation of tables (rw_rope_create, ...) do. */
typedef struct rw_transfers {
    uint64_t host_to_device_bytes;
    uint64_t device_to_host_bytes;
} rw_transfers;

RW_API rw_transfers rw_context_transfers(const rw_context *context);

#ifdef __cplusplus
}
#endif
#endif
