/* The HIP backend: devices, memory, copies and errors. */
#include "hip_device.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "attention/attention_params.h"

#if defined(__HIP_PLATFORM_EMULATED__)
#define PLATFORM "emulated"
#elif defined(__HIP_PLATFORM_NVIDIA__)
#define PLATFORM "nvidia"
#else
#define PLATFORM "amd"
#endif

/* Blocks a multiprocessor that reach full memory bandwidth. */
#define BLOCKS_A_MULTIPROCESSOR 2

/* ---- errors ---- */

static rw_status status_of(hipError_t error) {
    if (error == hipSuccess)
        return RW_OK;
    return error == hipErrorOutOfMemory ? RW_OUT_OF_MEMORY : RW_DEVICE_ERROR;
}

rw_status rwi_hip_status(rwi_device *device, hipError_t error, const char *what) {
    const rw_status status = status_of(error);
    if (status != RW_OK) {
        snprintf(device->error.text, sizeof device->error.text, "%s failed on device %d: %s", what,
                 device->index, hipGetErrorString(error));
        (void)hipGetLastError(); /* so that the next launch does not report it again */
    }
    return status;
}

rw_status rwi_hip_unsupported_dtype(rwi_device *device, rw_dtype dtype) {
    snprintf(device->error.text, sizeof device->error.text,
             "dtype %d is not supported, expected f32, f16 or bf16", (int)dtype);
    return RW_UNSUPPORTED;
}

/* ---- fork() ---- */

/* Whether the parent of this process used the runtime before fork(). */
static bool forked;

static void note_fork(void) {
    forked = true;
}

static void watch_forks(void) {
    (void)pthread_atfork(NULL, NULL, note_fork);
}

/* ---- the current device ---- */

rwi_device_scope::rwi_device_scope(rwi_device *device) : before(0), changed(false) {
    if (forked) {
        snprintf(device->error.text, sizeof device->error.text,
                 "the context was created before fork(), expected one of this process");
        status = RW_DEVICE_ERROR;
        return;
    }
    status = rwi_hip_status(device, hipGetDevice(&before), "hipGetDevice");
    if (status != RW_OK || before == device->index)
        return;
    status = rwi_hip_status(device, hipSetDevice(device->index), "hipSetDevice");
    changed = status == RW_OK;
}

rwi_device_scope::~rwi_device_scope() {
    if (changed)
        (void)hipSetDevice(before);
}

/* ---- opening ---- */

static rw_status hip_device_count(int32_t *count, char platform[16], rw_message *message) {
    snprintf(platform, 16, "%s", PLATFORM);
    *count = 0;
    static pthread_once_t watched = PTHREAD_ONCE_INIT;
    pthread_once(&watched, watch_forks);
    if (forked) {
        snprintf(message->text, sizeof message->text,
                 "the GPU runtime was used before fork(), expected a process that was not forked");
        return RW_BACKEND_UNAVAILABLE;
    }
    const hipError_t error = hipGetDeviceCount(count);
    if (error == hipSuccess && *count > 0)
        return RW_OK;
    *count = 0;
    (void)hipGetLastError();
    snprintf(message->text, sizeof message->text, "no GPU answers on HIP's %s platform: %s",
             PLATFORM,
             error == hipSuccess ? "the runtime counts 0 devices" : hipGetErrorString(error));
    return RW_BACKEND_UNAVAILABLE;
}

static void release(rwi_hip_device *hip) {
    if (hip->record)
        (void)hipFree(hip->record);
    if (hip->raised)
        (void)hipHostFree((void *)hip->raised);
    if (hip->counters)
        (void)hipFree(hip->counters);
    (void)hipGetLastError();
    free(hip);
}

#if defined(__HIP_PLATFORM_NVIDIA__)
/* Whether there is code for just this compute capability, 900 for 9.0, which waits in
 * rwi_begin_kernel(). Others may run older code, which does not. */
static bool is_compiled_for(int capability) {
    const int list[] = {__CUDA_ARCH_LIST__};
    for (const int architecture : list)
        if (architecture == capability)
            return capability >= 900;
    return false;
}
#endif

static rw_status describe_device(rwi_hip_device *hip) {
    hipDeviceProp_t properties;
    const hipError_t error = hipGetDeviceProperties(&properties, hip->base.index);
    if (error == hipSuccess)
        snprintf(hip->base.name, sizeof hip->base.name, "%.120s", properties.name);
    snprintf(hip->base.platform, sizeof hip->base.platform, "%s", PLATFORM);
    if (error == hipSuccess) {
        hip->multiprocessors = properties.multiProcessorCount;
        hip->base.parts = BLOCKS_A_MULTIPROCESSOR * hip->multiprocessors;
        hip->wave = properties.warpSize;
#if defined(__HIP_PLATFORM_NVIDIA__)
        snprintf(hip->architecture, sizeof hip->architecture, "sm_%d%d", properties.major,
                 properties.minor);
        hip->starts_early = is_compiled_for(100 * properties.major + 10 * properties.minor);
#else
        snprintf(hip->architecture, sizeof hip->architecture, "%.15s", properties.gcnArchName);
#endif
        if (rwi_hip_has_wgmma(hip)) { /* attention_roles.h */
            hip->base.tall_parts = hip->multiprocessors;
            hip->base.tall_rows = RWI_ATTENTION_TALL_ROWS;
        }
    }
    return rwi_hip_status(&hip->base, error, "hipGetDeviceProperties");
}

/* Clears the fault record, in stream order. */
static rw_status clear_record(rwi_hip_device *hip) {
    *hip->raised = 0;
    return rwi_hip_status(&hip->base,
                          hipMemsetAsync(hip->record, 0xFF, sizeof *hip->record, hip->stream),
                          "hipMemsetAsync of the fault record");
}

static rw_status create_record(rwi_hip_device *hip) {
    rwi_device *device = &hip->base;
    rw_status status = rwi_hip_status(device, hipMalloc((void **)&hip->record, sizeof *hip->record),
                                      "hipMalloc of the fault record");
    if (status == RW_OK)
        status = rwi_hip_status(
            device, hipHostMalloc((void **)&hip->raised, sizeof *hip->raised, hipHostMallocMapped),
            "hipHostMalloc of the fault flag");
    if (status == RW_OK)
        status = rwi_hip_status(
            device,
            hipHostGetDevicePointer((void **)&hip->raised_on_device, (void *)hip->raised, 0),
            "hipHostGetDevicePointer of the fault flag");
    if (status == RW_OK)
        status = clear_record(hip);
    if (status == RW_OK)
        status = rwi_hip_status(device, hipStreamSynchronize(hip->stream), "hipStreamSynchronize");
    return status;
}

static rw_status create_counters(rwi_hip_device *hip) {
    const size_t bytes = RWI_HIP_COUNTERS * sizeof *hip->counters;
    rwi_device *device = &hip->base;
    rw_status status =
        rwi_hip_status(device, hipMalloc((void **)&hip->counters, bytes), "hipMalloc of counters");
    if (status == RW_OK)
        status = rwi_hip_status(device, hipMemsetAsync(hip->counters, 0, bytes, hip->stream),
                                "hipMemsetAsync of counters");
    return status;
}

static rw_status hip_open(const rwi_open_options *options, rwi_device **device,
                          rw_message *message) {
    char platform[16];
    int32_t count;
    rw_status status = hip_device_count(&count, platform, message);
    if (status != RW_OK)
        return status;
    if (options->index < 0 || options->index >= count) {
        snprintf(message->text, sizeof message->text, "device is %d, expected 0 to %d",
                 options->index, count - 1);
        return RW_BACKEND_UNAVAILABLE;
    }
    rwi_hip_device *hip = (rwi_hip_device *)calloc(1, sizeof *hip);
    if (!hip) {
        snprintf(message->text, sizeof message->text, "out of memory");
        return RW_OUT_OF_MEMORY;
    }
    hip->base.index = options->index;
    const rwi_device_scope scope(&hip->base);
    status = scope.status;
    if (status == RW_OK)
        status = describe_device(hip);
    if (status == RW_OK)
        status = create_counters(hip);
    if (status == RW_OK)
        status = create_record(hip); /* and waits */
    if (status != RW_OK) {
        *message = hip->base.error;
        release(hip);
        return status;
    }
    *device = &hip->base;
    return RW_OK;
}

static void hip_close(rwi_device *device) {
    rwi_hip_device *hip = (rwi_hip_device *)device;
    if (forked) {
        free(hip); /* the rest is the parent's */
        return;
    }
    const rwi_device_scope scope(device);
    if (scope.status == RW_OK)
        (void)hipStreamSynchronize(hip->stream);
    release(hip);
}

/* ---- memory ---- */

static rw_status hip_alloc(rwi_device *device, size_t bytes, void **pointer) {
    const rwi_device_scope scope(device);
    if (scope.status != RW_OK)
        return scope.status;
    char what[64];
    snprintf(what, sizeof what, "hipMalloc of %zu bytes", bytes);
    /* HIP returns NULL for 0 bytes. */
    return rwi_hip_status(device, hipMalloc(pointer, bytes > 0 ? bytes : 1), what);
}

static rw_status hip_free(rwi_device *device, void *pointer) {
    const rwi_device_scope scope(device);
    return scope.status == RW_OK ? rwi_hip_status(device, hipFree(pointer), "hipFree")
                                 : scope.status;
}

static hipMemcpyKind copy_kind(rw_copy_kind kind) {
    switch (kind) {
    case RW_COPY_HOST_TO_DEVICE:
        return hipMemcpyHostToDevice;
    case RW_COPY_DEVICE_TO_HOST:
        return hipMemcpyDeviceToHost;
    case RW_COPY_DEVICE_TO_DEVICE:
        break;
    }
    return hipMemcpyDeviceToDevice;
}

static rw_status hip_copy(rwi_device *device, const rw_copy_args *args) {
    const hipStream_t stream = ((rwi_hip_device *)device)->stream;
    const rwi_device_scope scope(device);
    if (scope.status != RW_OK || args->bytes == 0)
        return scope.status;
    char what[64];
    snprintf(what, sizeof what, "hipMemcpyAsync of %zu bytes", args->bytes);
    rw_status status = rwi_hip_status(
        device,
        hipMemcpyAsync(args->destination, args->source, args->bytes, copy_kind(args->kind), stream),
        what);
    if (status == RW_OK)
        status = rwi_hip_status(device, hipStreamSynchronize(stream), "hipStreamSynchronize");
    return status;
}

/* ---- streams ---- */

static_assert(RWI_NUM_OPS <= 256, "a claim holds an operation in 8 bits");

/* Copies from the device only if a fault was raised. */
static rw_status read_fault(rwi_hip_device *hip, rwi_fault *fault) {
    rwi_fault_record record;
    rw_status status = rwi_hip_status(
        &hip->base,
        hipMemcpyAsync(&record, hip->record, sizeof record, hipMemcpyDeviceToHost, hip->stream),
        "hipMemcpyAsync of the fault record");
    if (status == RW_OK)
        status =
            rwi_hip_status(&hip->base, hipStreamSynchronize(hip->stream), "hipStreamSynchronize");
    if (status != RW_OK)
        return status;
    uint64_t id = 0;
    for (int part = 0; part < RWI_FAULT_ID_PARTS; part++)
        id |= (uint64_t)(record.parts[part] & 0xFFFFu) << (16 * part);
    fault->op = (int32_t)(record.claim & 0xFFu);
    fault->token = (int64_t)record.token;
    fault->bad.id = (int64_t)id;
    fault->bad.kind = (rw_fault_kind)(record.parts[RWI_FAULT_ID_PARTS] & 0xFFFFu);
    return clear_record(hip);
}

static rw_status hip_synchronize(rwi_device *device, rwi_fault *fault) {
    rwi_hip_device *hip = (rwi_hip_device *)device;
    fault->bad.kind = RW_FAULT_NONE;
    const rwi_device_scope scope(device);
    rw_status status = scope.status;
    if (status == RW_OK)
        status = rwi_hip_status(device, hipStreamSynchronize(hip->stream), "hipStreamSynchronize");
    return status == RW_OK && *hip->raised ? read_fault(hip, fault) : status;
}

static rw_status hip_set_stream(rwi_device *device, void *stream) {
    ((rwi_hip_device *)device)->stream = (hipStream_t)stream;
    return RW_OK;
}

/* ---- the table ---- */

static constexpr rwi_backend make_backend(void) {
    rwi_backend backend = {};
    backend.abi = RWI_BACKEND_ABI;
    backend.name = "hip";
#if defined(__HIP_PLATFORM_EMULATED__)
    backend.emulated = true;
#endif
    backend.device_count = hip_device_count;
    backend.open = hip_open;
    backend.close = hip_close;
    backend.alloc = hip_alloc;
    backend.free = hip_free;
    backend.copy = hip_copy;
    backend.synchronize = hip_synchronize;
    backend.set_stream = hip_set_stream;
#define RW_OP(op, dtypes) backend.op = rwi_hip_##op;
#include "ops.def"
#undef RW_OP
    return backend;
}

extern "C" const rwi_backend *rw_backend_entry(uint32_t abi) {
    static constexpr rwi_backend backend = make_backend();
    return abi == RWI_BACKEND_ABI ? &backend : NULL;
}
