/* The runtime calls that concern no stream: device memory is host memory, errors are kept until they
 * are queried. */
#include <stdio.h>
#include <stdlib.h>

#include "emulator_streams.h"

#define ALIGNMENT ((size_t)256)
#define MAX_GRID_YZ 65535u

/* Shared memory of a block. */
#define AMD_SHARED_BYTES ((size_t)64 * 1024)
#define NVIDIA_SHARED_BYTES ((size_t)227 * 1024)

/* The device's memory; larger allocations fail, whatever the host's allocator supports. */
#define DEVICE_BYTES ((size_t)64 << 30)

/* The last failed call of a thread. */
static thread_local hipError_t last_error;

hipError_t hip_emulator_keep_error(hipError_t error) {
    last_error = error;
    return error;
}

/* ---- settings ---- */

#define MAX_MULTIPROCESSORS 1024

struct arch_entry {
    const char *name;
    hip_emulator_arch arch;
    int wave;
};

/* The first of its wave is the default for that wave. */
static const arch_entry archs[] = {
    {"gfx1100", HIP_EMULATOR_GFX1100, 32}, {"gfx942", HIP_EMULATOR_GFX942, 64},
    {"gfx90a", HIP_EMULATOR_GFX90A, 64},   {"gfx1030", HIP_EMULATOR_GFX1030, 32},
    {"gfx1201", HIP_EMULATOR_GFX1201, 32}, {"sm_90", HIP_EMULATOR_SM_90, 32},
    {"sm_90a", HIP_EMULATOR_SM_90A, 32},
};

const char *hip_emulator_arch_name(hip_emulator_arch arch) {
    for (const arch_entry &entry : archs)
        if (entry.arch == arch)
            return entry.name;
    return "?";
}

static bool refuse(const char *name, const char *value, const char *expected) {
    fprintf(stderr, "hip emulator: %s is \"%s\", expected %s\n", name, value, expected);
    return false;
}

static bool read_arch(hip_emulator_settings *settings) {
    const char *wave = getenv("ROPEWALK_EMULATED_WAVE");
    const char *name = getenv("ROPEWALK_EMULATED_ARCH");
    if (wave && strcmp(wave, "32") != 0 && strcmp(wave, "64") != 0)
        return refuse("ROPEWALK_EMULATED_WAVE", wave, "32 or 64");
    const arch_entry *chosen = nullptr;
    for (const arch_entry &entry : archs)
        if (!chosen && (name ? strcmp(name, entry.name) == 0 : !wave || atoi(wave) == entry.wave))
            chosen = &entry;
    if (!chosen)
        return refuse("ROPEWALK_EMULATED_ARCH", name,
                      "gfx90a, gfx942, gfx1030, gfx1100, gfx1201, sm_90 or sm_90a");
    if (wave && atoi(wave) != chosen->wave)
        return refuse("ROPEWALK_EMULATED_WAVE", wave,
                      chosen->wave == 64 ? "64, the lanes of ROPEWALK_EMULATED_ARCH's waves"
                                         : "32, the lanes of ROPEWALK_EMULATED_ARCH's waves");
    settings->arch = chosen->arch;
    settings->wave = chosen->wave;
    settings->shared_bytes =
        chosen->arch & HIP_EMULATOR_NVIDIA ? NVIDIA_SHARED_BYTES : AMD_SHARED_BYTES;
    return true;
}

bool hip_emulator_read_settings(hip_emulator_settings *settings) {
    const char *order = getenv("ROPEWALK_EMULATED_ORDER");
    const char *multiprocessors = getenv("ROPEWALK_EMULATED_MULTIPROCESSORS");
    settings->order = HIP_EMULATOR_FORWARD;
    if (!read_arch(settings))
        return false;
    settings->multiprocessors = multiprocessors ? atoi(multiprocessors) : 8;
    if (settings->multiprocessors < 1 || settings->multiprocessors > MAX_MULTIPROCESSORS)
        return refuse("ROPEWALK_EMULATED_MULTIPROCESSORS", multiprocessors, "1 to 1024");
    if (order && strcmp(order, "reverse") == 0)
        settings->order = HIP_EMULATOR_REVERSE;
    else if (order && strcmp(order, "shuffle") == 0)
        settings->order = HIP_EMULATOR_SHUFFLE;
    else if (order && strcmp(order, "forward") != 0)
        return refuse("ROPEWALK_EMULATED_ORDER", order, "forward, reverse or shuffle");
    return true;
}

/* ---- devices and errors ---- */

hipError_t hipGetDeviceCount(int *count) {
    hip_emulator_settings settings;
    *count = 0;
    if (!hip_emulator_read_settings(&settings))
        return hip_emulator_keep_error(hipErrorInvalidValue);
    *count = 1;
    return hipSuccess;
}

hipError_t hipGetDevice(int *device) {
    *device = 0;
    return hipSuccess;
}

hipError_t hipSetDevice(int device) {
    return device == 0 ? hipSuccess : hip_emulator_keep_error(hipErrorInvalidDevice);
}

hipError_t hipGetDeviceProperties(hipDeviceProp_t *properties, int device) {
    hip_emulator_settings settings;
    if (device != 0)
        return hip_emulator_keep_error(hipErrorInvalidDevice);
    if (!hip_emulator_read_settings(&settings))
        return hip_emulator_keep_error(hipErrorInvalidValue);
    *properties = {};
    snprintf(properties->name, sizeof properties->name, "HIP on the CPU, waves of %d",
             settings.wave);
    snprintf(properties->gcnArchName, sizeof properties->gcnArchName, "%s",
             hip_emulator_arch_name(settings.arch));
    properties->totalGlobalMem = DEVICE_BYTES;
    properties->sharedMemPerBlock = settings.shared_bytes;
    properties->warpSize = settings.wave;
    properties->maxThreadsPerBlock = HIP_EMULATOR_MAX_THREADS;
    properties->multiProcessorCount = settings.multiprocessors;
    return hipSuccess;
}

hipError_t hipPeekAtLastError(void) {
    return last_error;
}

hipError_t hipGetLastError(void) {
    const hipError_t error = last_error;
    last_error = hipSuccess;
    return error;
}

const char *hipGetErrorName(hipError_t error) {
    switch (error) {
    case hipSuccess:
        return "hipSuccess";
    case hipErrorInvalidValue:
        return "hipErrorInvalidValue";
    case hipErrorOutOfMemory:
        return "hipErrorOutOfMemory";
    case hipErrorInvalidConfiguration:
        return "hipErrorInvalidConfiguration";
    case hipErrorNoDevice:
        return "hipErrorNoDevice";
    case hipErrorInvalidDevice:
        return "hipErrorInvalidDevice";
    case hipErrorAssert:
        return "hipErrorAssert";
    case hipErrorNotSupported:
        return "hipErrorNotSupported";
    case hipErrorInvalidHandle:
        return "hipErrorInvalidHandle";
    case hipErrorIllegalState:
        return "hipErrorIllegalState";
    case hipErrorNotReady:
        return "hipErrorNotReady";
    case hipErrorStreamCaptureUnsupported:
        return "hipErrorStreamCaptureUnsupported";
    case hipErrorStreamCaptureInvalidated:
        return "hipErrorStreamCaptureInvalidated";
    case hipErrorStreamCaptureIsolation:
        return "hipErrorStreamCaptureIsolation";
    case hipErrorStreamCaptureImplicit:
        return "hipErrorStreamCaptureImplicit";
    case hipErrorCapturedEvent:
        return "hipErrorCapturedEvent";
    case hipErrorStreamCaptureWrongThread:
        return "hipErrorStreamCaptureWrongThread";
    }
    return "unknown error";
}

const char *hipGetErrorString(hipError_t error) {
    return error == hipErrorAssert ? "a kernel broke a rule; stderr says which"
                                   : hipGetErrorName(error);
}

/* ---- memory ---- */

hipError_t hipMalloc(void **pointer, size_t bytes) {
    const hip_emulator_lock held;
    *pointer = nullptr;
    const hipError_t error = held.error != hipSuccess ? held.error : hip_emulator_check_captures();
    if (error != hipSuccess || bytes == 0)
        return error;
    if (bytes > DEVICE_BYTES || posix_memalign(pointer, ALIGNMENT, bytes) != 0) {
        *pointer = nullptr;
        return hip_emulator_keep_error(hipErrorOutOfMemory);
    }
    memset(*pointer, 0xFF, bytes);
    return hipSuccess;
}

/* Waits for the device. */
hipError_t hipFree(void *pointer) {
    const hip_emulator_lock held;
    const hipError_t error = held.error != hipSuccess ? held.error : hip_emulator_check_captures();
    if (error != hipSuccess)
        return error;
    hip_emulator_run_all();
    free(pointer);
    return hipSuccess;
}

hipError_t hipHostMalloc(void **pointer, size_t bytes, unsigned) {
    return hipMalloc(pointer, bytes);
}

hipError_t hipHostGetDevicePointer(void **pointer, void *host, unsigned) {
    *pointer = host;
    return hipSuccess;
}

hipError_t hipHostFree(void *pointer) {
    return hipFree(pointer);
}

/* ---- launches ---- */

bool hip_emulator_shape_is_valid(const hip_emulator_launch &launch) {
    const dim3 &grid = launch.grid, &block = launch.block;
    hip_emulator_settings settings;
    if (!hip_emulator_read_settings(&settings))
        return false;
    if (grid.x < 1 || grid.y < 1 || grid.z < 1 || block.x < 1 || block.y < 1 || block.z < 1)
        return false;
    if (grid.x > INT32_MAX || grid.y > MAX_GRID_YZ || grid.z > MAX_GRID_YZ)
        return false;
    if (block.x > HIP_EMULATOR_MAX_THREADS || block.y > HIP_EMULATOR_MAX_THREADS ||
        block.z > HIP_EMULATOR_MAX_THREADS)
        return false;
    return (uint64_t)block.x * block.y * block.z <= HIP_EMULATOR_MAX_THREADS &&
           launch.shared_bytes <= settings.shared_bytes;
}
