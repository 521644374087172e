/* The HIP backend's state of a GPU: its stream and its record of the first fault. */
#ifndef RWI_HIP_DEVICE_H
#define RWI_HIP_DEVICE_H

#include <hip/hip_fp16.h>
#include <hip/hip_runtime.h>
#include <string.h>

#include "backend.h"

/* The type of 64-bit atomics. */
typedef unsigned long long rwi_fault_word;

#define RWI_NO_FAULT (~(rwi_fault_word)0)
#define RWI_FAULT_CLAIM(launch, op) ((rwi_fault_word)(launch) << 8 | (rwi_fault_word)(op))
/* Words that hold an id, 16 bits each, and one more for its kind. */
#define RWI_FAULT_ID_PARTS 4
#define RWI_FAULT_PARTS (RWI_FAULT_ID_PARTS + 1)

/* The first fault since the last synchronize, in device memory; every word is RWI_NO_FAULT where
 * there is none. Written by rwi_fault_raise() in kernels/gpu/faults.h. */
typedef struct rwi_fault_record {
    rwi_fault_word claim;                  /* RWI_FAULT_CLAIM() of the launch that reports */
    rwi_fault_word token;                  /* the lowest */
    rwi_fault_word parts[RWI_FAULT_PARTS]; /* token << 16 | 16 bits of its id, the lowest first,
                                            * and at the end its kind */
} rwi_fault_record;

/* Where a kernel reports faults. */
struct rwi_fault_sink {
    rwi_fault_record *record;
    volatile uint32_t *raised; /* pinned host memory, which synchronize checks */
    uint64_t launch;           /* number of this launch on its device, from 1 */
    int32_t op;
};

typedef struct rwi_hip_device {
    rwi_device base;
    hipStream_t stream; /* the caller's; NULL: the device's default stream */
    uint64_t launches;
    int wave; /* lanes */
    int multiprocessors;
    bool starts_early;     /* kernels, see rwi_begin_kernel() */
    char architecture[16]; /* "gfx90a", "sm_90" */
    rwi_fault_record *record;
    volatile uint32_t *raised;           /* pinned host memory: whether the record holds a fault */
    volatile uint32_t *raised_on_device; /* device address of the same memory */
    uint32_t *counters;                  /* see rwi_hip_counter() */
    const void *large_kernel;            /* the last one that was allowed much shared memory, */
    size_t large_bytes;                  /* and how much */
} rwi_hip_device;

/* Whether a device has wgmma, which only kernels whose waves have roles use. */
static inline bool rwi_hip_has_wgmma(const rwi_hip_device *hip) {
#if defined(__HIP_PLATFORM_EMULATED__)
    return strcmp(hip->architecture, "sm_90a") == 0;
#else
    return strcmp(hip->architecture, "sm_90") == 0;
#endif
}

#if defined(__HIP_PLATFORM_EMULATED__)
#define RWI_HIP_COUNTERS 1 /* a counter that is not left 0 shows in the next launch */
#else
#define RWI_HIP_COUNTERS 1024
#endif

/* A counter in device memory for the next launch, which is 0 then; the kernel must leave it 0. The
 * launches of a device run one after another; were two to overlap, they would share a counter only
 * if RWI_HIP_COUNTERS launches apart. */
static inline uint32_t *rwi_hip_counter(const rwi_hip_device *hip) {
    return hip->counters + hip->launches % RWI_HIP_COUNTERS;
}

/* RW_OK for hipSuccess; else the status, with "<what> failed: <HIP's text>" in device->error. */
rw_status rwi_hip_status(rwi_device *device, hipError_t error, const char *what);

/* Returns RW_UNSUPPORTED and writes the sentence to device->error. */
rw_status rwi_hip_unsupported_dtype(rwi_device *device, rw_dtype dtype);

/* Makes a device the thread's current one, if status is RW_OK, and restores the caller's at the end
 * of the scope. Fails in a process that was forked after the runtime was used: GPU runtimes do not
 * work there, and some hang. */
struct rwi_device_scope {
    rw_status status;
    int before;
    bool changed;

    explicit rwi_device_scope(rwi_device *device);
    ~rwi_device_scope();
    rwi_device_scope(const rwi_device_scope &) = delete;
    rwi_device_scope &operator=(const rwi_device_scope &) = delete;
};

/* The entries of kernels/<family>.hip. */
#define RW_OP(op, dtypes)                                                                          \
    extern "C" rw_status rwi_hip_##op(rwi_device *device, const rw_##op##_params *params);
#include "ops.def"
#undef RW_OP

#endif
