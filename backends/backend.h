/* The vtable between the library and a backend. */
#ifndef RWI_BACKEND_H
#define RWI_BACKEND_H

#include <ropewalk/context.h>

#include "kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum rwi_op {
#define RW_OP(op, dtypes) RWI_OP_##op,
#include "ops.def"
#undef RW_OP
    RWI_NUM_OPS
} rwi_op;

/* The ABI of modules: a version, which is raised when the functions in this file change, and the
 * size of every operation's params, so that a module built from other sources is not loaded. */
enum {
    RWI_BACKEND_ABI = 2 * 1000000
#define RW_OP(op, dtypes) +(RWI_OP_##op + 1) * (int)sizeof(rw_##op##_params)
#include "ops.def"
#undef RW_OP
};

typedef struct rwi_backend rwi_backend;

/* The largest valid number of threads. */
#define RWI_MAX_THREADS 1024

/* The first member of every backend's device; the backend appends its own state. */
typedef struct rwi_device {
    const rwi_backend *backend;
    rw_message error; /* error sentence of the last call that failed */
    char name[128];   /* the device's own name */
    char platform[16];
    int index;
    int num_threads; /* CPU backend */
    int parts;       /* pieces of work that keep it busy; independent of num_threads */
    int tall_parts;  /* the same for attention in 16 bits of more than few rows: tiles of */
    int tall_rows;   /* so many rows; 0: as all others */
} rwi_device;

/* The first fault since the last synchronize. */
typedef struct rwi_fault {
    int32_t op; /* rwi_op */
    int64_t token;
    rwi_bad_id bad; /* RW_FAULT_NONE: there was none */
} rwi_fault;

typedef struct rwi_open_options {
    int index;
    int num_threads; /* 0: every core that the process may use */
    rw_cpu_isa isa;  /* DEFAULT: the best */
    void (*parallel_for)(void *user, int32_t num_tasks, void (*task)(void *data, int32_t index),
                         void *data); /* of rw_context_options; NULL: OpenMP */
    void *parallel_for_user;
} rwi_open_options;

/* Every function that returns a status writes a sentence to device->error when it fails (open and
 * device_count: to `message`). */
struct rwi_backend {
    uint32_t abi;
    const char *name; /* "cpu", "hip" */
    bool emulated;    /* no real device: never chosen by auto */

    rw_status (*device_count)(int32_t *count, char platform[16], rw_message *message);
    rw_status (*open)(const rwi_open_options *options, rwi_device **device, rw_message *message);
    void (*close)(rwi_device *device);

    rw_status (*alloc)(rwi_device *device, size_t bytes, void **pointer);
    rw_status (*free)(rwi_device *device, void *pointer);
    rw_status (*copy)(rwi_device *device, const rw_copy_args *args);
    rw_status (*synchronize)(rwi_device *device, rwi_fault *fault);
    rw_status (*set_stream)(rwi_device *device, void *stream);

    /* The operations: asynchronous on a GPU. Params are valid: the entry points checked them. */
#define RW_OP(op, dtypes) rw_status (*op)(rwi_device * device, const rw_##op##_params *params);
#include "ops.def"
#undef RW_OP
};

extern const rwi_backend rwi_cpu_backend;

/* The only symbol that a backend module exports; returns NULL if `abi` is not the module's ABI. */
RW_API const rwi_backend *rw_backend_entry(uint32_t abi);

#ifdef __cplusplus
}
#endif
#endif
