/* The functions of libamdhip64 that the module and the tests call, for one device, whose
 * architecture is ROPEWALK_ISA_ARCH. Launches and copies are complete when they return. */
#define __HIP_PLATFORM_AMD__ 1
#include <hip/hip_runtime_api.h>

#include "isa_machine.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define API __attribute__((visibility("default")))

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* guards all state below and the memory */
static char failure[2048];                               /* text of hipGetErrorString() */
static _Thread_local hipError_t last_error;

static hipError_t told(hipError_t error) {
    if (error != hipSuccess)
        last_error = error;
    return error;
}

/* Records an error, described by the text in `failure`. */
static hipError_t failed(hipError_t error) {
    fprintf(stderr, "amd_isa: %s\n", failure);
    return told(error);
}

static const char *architecture(void) {
    const char *name = getenv("ROPEWALK_ISA_ARCH");
    return name ? name : "";
}

/* ---- code ---- */

typedef struct isa_fat_binary {
    uint32_t magic, version;
    const void *binary, *unused;
} isa_fat_binary;

typedef struct isa_kernel {
    const void *host, *binary;
    const char *name;
} isa_kernel;

static isa_kernel *kernels;
static size_t num_kernels, kernel_capacity;

API void **__hipRegisterFatBinary(const void *data) {
    return (void **)(uintptr_t)((const isa_fat_binary *)data)->binary;
}

API void __hipUnregisterFatBinary(void **binary) {
    (void)binary;
}

API void __hipRegisterFunction(void **binary, const void *host, char *device, const char *name,
                               unsigned limit, void *tid, void *bid, void *block, void *grid,
                               int *wave) {
    (void)device, (void)limit, (void)tid, (void)bid, (void)block, (void)grid, (void)wave;
    if (num_kernels == kernel_capacity) {
        kernel_capacity = kernel_capacity ? 2 * kernel_capacity : 1024;
        kernels = realloc(kernels, kernel_capacity * sizeof *kernels);
        if (!kernels)
            abort(); /* before main: no caller to report it to */
    }
    kernels[num_kernels++] = (isa_kernel){host, binary, name};
}

API void __hipRegisterVar(void **binary, void *var, char *host, char *device, int external,
                          size_t bytes, int constant, int global) {
    (void)binary, (void)var, (void)host, (void)device;
    (void)external, (void)bytes, (void)constant, (void)global;
}

/* ---- launches ---- */

static _Thread_local struct {
    dim3 grid, block;
    size_t shared_bytes;
    hipStream_t stream;
} pushed;

API hipError_t __hipPushCallConfiguration(dim3 grid, dim3 block, size_t shared_bytes,
                                          hipStream_t stream) {
    pushed.grid = grid;
    pushed.block = block;
    pushed.shared_bytes = shared_bytes;
    pushed.stream = stream;
    return hipSuccess;
}

API hipError_t __hipPopCallConfiguration(dim3 *grid, dim3 *block, size_t *shared_bytes,
                                         hipStream_t *stream) {
    *grid = pushed.grid;
    *block = pushed.block;
    *shared_bytes = pushed.shared_bytes;
    *stream = pushed.stream;
    return hipSuccess;
}

static const isa_kernel *find_kernel(const void *host) {
    for (size_t i = 0; i < num_kernels; i++)
        if (kernels[i].host == host)
            return &kernels[i];
    return NULL;
}

static bool shape_is_valid(dim3 grid, dim3 block) {
    return grid.x && grid.y && grid.z && block.x && block.y && block.z &&
           (uint64_t)block.x * block.y * block.z <= 1024 && (uint64_t)grid.x * block.x >> 32 == 0 &&
           grid.y <= 65535 && grid.z <= 65535;
}

API hipError_t hipLaunchKernel(const void *function, dim3 grid, dim3 block, void **arguments,
                               size_t shared_bytes, hipStream_t stream) {
    (void)stream;
    pthread_mutex_lock(&lock);
    const isa_kernel *kernel = find_kernel(function);
    hipError_t error = hipSuccess;
    if (!kernel) {
        error = told(hipErrorInvalidDeviceFunction);
    } else if (!shape_is_valid(grid, block)) {
        error = told(hipErrorInvalidConfiguration);
    } else {
        const isa_call call = {.binary = kernel->binary,
                               .kernel = kernel->name,
                               .grid = {grid.x, grid.y, grid.z},
                               .block = {block.x, block.y, block.z},
                               .arguments = arguments,
                               .shared_bytes = shared_bytes};
        if (!isa_python_launch(&call, failure, sizeof failure))
            error = failed(hipErrorLaunchFailure);
    }
    pthread_mutex_unlock(&lock);
    return error;
}

API hipError_t hipFuncSetAttribute(const void *function, hipFuncAttribute attribute, int value) {
    (void)function, (void)attribute, (void)value;
    return hipSuccess;
}

/* ---- errors ---- */

API hipError_t hipGetLastError(void) {
    const hipError_t error = last_error;
    last_error = hipSuccess;
    return error;
}

API hipError_t hipPeekAtLastError(void) {
    return last_error;
}

API const char *hipGetErrorString(hipError_t error) {
    switch ((int)error) {
    case hipSuccess:
        return "no error";
    case hipErrorOutOfMemory:
        return "out of memory";
    case hipErrorInvalidConfiguration:
        return "invalid configuration argument";
    case hipErrorInvalidDevice:
        return "invalid device ordinal";
    case hipErrorInvalidDeviceFunction:
        return "invalid device function";
    }
    return failure;
}

/* ---- devices ---- */

API hipError_t hipGetDeviceCount(int *count) {
    *count = *architecture() ? 1 : 0;
    return *count ? hipSuccess : told(hipErrorNoDevice);
}

API hipError_t hipGetDevice(int *device) {
    *device = 0;
    return hipSuccess;
}

API hipError_t hipSetDevice(int device) {
    return device == 0 ? hipSuccess : told(hipErrorInvalidDevice);
}

API hipError_t hipGetDeviceProperties(hipDeviceProp_t *p, int device) {
    if (device != 0)
        return told(hipErrorInvalidDevice);
    memset(p, 0, sizeof *p);
    snprintf(p->name, sizeof p->name, "%s, emulated", architecture());
    snprintf(p->gcnArchName, sizeof p->gcnArchName, "%s", architecture());
    p->warpSize = strncmp(architecture(), "gfx9", 4) ? 32 : 64;
    p->multiProcessorCount = 96;
    p->maxThreadsPerBlock = 1024;
    p->sharedMemPerBlock = ISA_LDS_BYTES;
    p->totalGlobalMem = (size_t)8 << 30;
    return hipSuccess;
}

/* ---- memory ---- */

API hipError_t hipMalloc(void **pointer, size_t bytes) {
    *pointer = NULL;
    if (bytes == 0)
        return hipSuccess;
    pthread_mutex_lock(&lock);
    void *host = isa_memory_take(bytes);
    pthread_mutex_unlock(&lock);
    if (!host)
        return told(hipErrorOutOfMemory);
    *pointer = (void *)(uintptr_t)isa_to_device(host);
    return hipSuccess;
}

static hipError_t give(void *host, const char *function) {
    if (!host)
        return hipSuccess;
    pthread_mutex_lock(&lock);
    hipError_t error = hipSuccess;
    if (!isa_memory_give(host)) {
        snprintf(failure, sizeof failure, "%s of %p, which it did not give", function, host);
        error = failed(hipErrorInvalidValue);
    }
    pthread_mutex_unlock(&lock);
    return error;
}

API hipError_t hipFree(void *pointer) {
    return give(pointer ? isa_to_host((uintptr_t)pointer) : NULL, "hipFree");
}

API hipError_t hipHostMalloc(void **pointer, size_t bytes, unsigned flags) {
    (void)flags;
    pthread_mutex_lock(&lock);
    *pointer = isa_memory_take(bytes);
    pthread_mutex_unlock(&lock);
    return *pointer ? hipSuccess : told(hipErrorOutOfMemory);
}

API hipError_t hipHostFree(void *pointer) {
    return give(pointer, "hipHostFree");
}

API hipError_t hipHostGetDevicePointer(void **device, void *host, unsigned flags) {
    (void)flags;
    *device = (void *)(uintptr_t)isa_to_device(host);
    return hipSuccess;
}

/* The host's address of `bytes` of the device, or NULL, reported as an error of `function`. */
static void *on_device(const void *pointer, size_t bytes, const char *function) {
    void *host = isa_to_host((uintptr_t)pointer);
    char why[256];
    if (isa_memory_holds(host, bytes, why, sizeof why))
        return host;
    snprintf(failure, sizeof failure, "%s of %s", function, why);
    failed(hipErrorInvalidValue);
    return NULL;
}

API hipError_t hipMemcpyAsync(void *to, const void *from, size_t bytes, hipMemcpyKind kind,
                              hipStream_t stream) {
    (void)stream;
    if (bytes == 0)
        return hipSuccess;
    pthread_mutex_lock(&lock);
    if (kind == hipMemcpyHostToDevice || kind == hipMemcpyDeviceToDevice)
        to = on_device(to, bytes, "hipMemcpy to the device");
    if (to && (kind == hipMemcpyDeviceToHost || kind == hipMemcpyDeviceToDevice))
        from = on_device(from, bytes, "hipMemcpy from the device");
    if (to && from)
        memmove(to, from, bytes);
    pthread_mutex_unlock(&lock);
    return to && from ? hipSuccess : hipErrorInvalidValue;
}

API hipError_t hipMemcpy(void *to, const void *from, size_t bytes, hipMemcpyKind kind) {
    return hipMemcpyAsync(to, from, bytes, kind, NULL);
}

API hipError_t hipMemsetAsync(void *pointer, int value, size_t bytes, hipStream_t stream) {
    (void)stream;
    if (bytes == 0)
        return hipSuccess;
    pthread_mutex_lock(&lock);
    void *host = on_device(pointer, bytes, "hipMemset");
    if (host)
        memset(host, value, bytes);
    pthread_mutex_unlock(&lock);
    return host ? hipSuccess : hipErrorInvalidValue;
}

API hipError_t hipMemset(void *pointer, int value, size_t bytes) {
    return hipMemsetAsync(pointer, value, bytes, NULL);
}

API hipError_t hipStreamSynchronize(hipStream_t stream) {
    (void)stream;
    return hipSuccess;
}

API hipError_t hipDeviceSynchronize(void) {
    return hipSuccess;
}
