/* HIP on the CPU, for hosts without a GPU: .hip files compile as plain C++17 against this folder.
 *
 * Blocks run one after another, the threads of a block as fibers. Barriers, shuffles, votes, shared
 * memory and atomics have the semantics of a GPU, and behaviour that is undefined on a GPU is an
 * error: one line on stderr, and the next synchronizing call returns hipErrorAssert (once):
 *   - a barrier that some threads of the block do not reach: exited, or waiting elsewhere. On
 *     NVIDIA's architectures, waves may wait at __syncthreads() in different places;
 *   - a shuffle or vote that some lanes of the wave do not reach (exited lanes are ignored);
 *   - a shuffle that reads a lane that has exited or is outside the block;
 *   - lanes that wait for another lane of their wave: lanes may run in lockstep, where the lane
 *     that took a lock is masked off until the others leave their loop. A lane is therefore held
 *     back after its atomicCAS() or atomicExch() until no other lane of its wave can continue
 *     without it;
 *   - an instruction of the whole wave (hip_matrix.h) or warpgroup (hip_hopper.h) that a lane does
 *     not reach, or that the architecture lacks.
 *
 * Streams are queues: a launch, copy or fill runs when something waits for it (hipStreamSynchronize,
 * hipDeviceSynchronize, hipEventSynchronize, hipMemcpy, hipFree), after what it must come after and
 * nothing else, so that a missing order of streams shows. Captured graphs are supported, and calls
 * that a capture forbids fail and invalidate it.
 *
 * Environment variables, with defaults in brackets:
 *   ROPEWALK_EMULATED_ARCH   gfx90a, gfx942 (waves of 64), gfx1030, gfx1100, gfx1201, sm_90, sm_90a
 *                            (waves of 32): the architecture, which determines the matrix
 *                            instructions [gfx1100; for waves of 64 gfx942]
 *   ROPEWALK_EMULATED_WAVE   32 or 64: lanes of a wave [those of the architecture]
 *   ROPEWALK_EMULATED_ORDER  forward, reverse or shuffle: the order in which the threads of a block
 *                            run between barriers; a missing barrier changes the results in one of
 *                            them [forward]
 *   ROPEWALK_EMULATED_MULTIPROCESSORS  1 to 1024: what the device's properties say [8]
 *
 * Device memory is the host's heap, so that AddressSanitizer guards every tensor. Unwritten memory
 * reads as NaN (all bits set), and so does shared memory at the start of each block. Static shared
 * arrays are an exception: with AddressSanitizer they have its redzones instead, and g++ cannot
 * fill those of templates with NaN (clang can). HIP_DYNAMIC_SHARED always has both.
 */
#ifndef HIP_EMULATOR_RUNTIME_H
#define HIP_EMULATOR_RUNTIME_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define __HIP_PLATFORM_EMULATED__ 1

#define __global__
#define __device__
#define __host__
#define __constant__ static const
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)

/* In a separate section, so that the start of a block can poison it. */
#if defined(__SANITIZE_ADDRESS__)
#define __shared__ static
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define __shared__ static
#endif
#endif
#ifndef __shared__
#define __shared__ static __attribute__((section("hip_emulator_shared")))
#endif

/* ---- vectors ---- */

struct alignas(8) int2 {
    int x, y;
};
struct alignas(16) int4 {
    int x, y, z, w;
};
struct alignas(8) uint2 {
    unsigned x, y;
};
struct uint3 {
    unsigned x, y, z;
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};
struct alignas(8) float2 {
    float x, y;
};
struct alignas(16) float4 {
    float x, y, z, w;
};

inline int2 make_int2(int x, int y) {
    return {x, y};
}
inline int4 make_int4(int x, int y, int z, int w) {
    return {x, y, z, w};
}
inline uint2 make_uint2(unsigned x, unsigned y) {
    return {x, y};
}
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) {
    return {x, y, z, w};
}
inline float2 make_float2(float x, float y) {
    return {x, y};
}
inline float4 make_float4(float x, float y, float z, float w) {
    return {x, y, z, w};
}

struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

/* ---- the running thread ---- */

extern uint3 threadIdx;
extern uint3 blockIdx;
extern dim3 blockDim;
extern dim3 gridDim;
extern int warpSize;

/* The place of a call: default arguments are evaluated at the caller. Calls of one kind on one line
 * are considered the same. */
struct hip_emulator_site {
    const char *file;
    const char *function;
    int line;
    static constexpr hip_emulator_site here(const char *file = __builtin_FILE(),
                                            const char *function = __builtin_FUNCTION(),
                                            int line = __builtin_LINE()) {
        return {file, function, line};
    }
};

/* The values of ROPEWALK_EMULATED_ARCH. */
enum hip_emulator_arch {
    HIP_EMULATOR_GFX90A = 1,
    HIP_EMULATOR_GFX942 = 2,
    HIP_EMULATOR_GFX1030 = 4,
    HIP_EMULATOR_GFX1100 = 8,
    HIP_EMULATOR_GFX1201 = 16,
    HIP_EMULATOR_SM_90 = 32,
    HIP_EMULATOR_SM_90A = 64
};

#define HIP_EMULATOR_MAX_LANES 128 /* a warpgroup */

/* An operation of a whole wave or warpgroup; every lane passes its own struct. */
struct hip_emulator_instruction {
    const char *name;
    unsigned archs; /* architectures that have it */
    /* Runs once, over the operands of the lanes, in their order; returns an error text, or NULL. */
    const char *(*run)(void *const *lanes);
    int lanes = 0; /* HIP_EMULATOR_MAX_LANES, or 0: those of a wave */
};

/* Shuffles before votes. */
enum hip_emulator_op {
    HIP_EMULATOR_HELD,     /* after an atomic operation that can implement a lock */
    HIP_EMULATOR_MBARRIER, /* until a phase of the mbarrier `brought` has completed */
    HIP_EMULATOR_TESTED,   /* after a test in vain: lets the other threads run */
    HIP_EMULATOR_BARRIER,
    HIP_EMULATOR_ARRIVE,
    HIP_EMULATOR_SHFL,
    HIP_EMULATOR_SHFL_UP,
    HIP_EMULATOR_SHFL_DOWN,
    HIP_EMULATOR_SHFL_XOR,
    HIP_EMULATOR_INSTRUCTION,
    HIP_EMULATOR_BALLOT,
    HIP_EMULATOR_ANY,
    HIP_EMULATOR_ALL,
    HIP_EMULATOR_ACTIVEMASK
};

/* The arguments of a thread for a collective operation, which returns one value. */
struct hip_emulator_call {
    hip_emulator_op op;
    hip_emulator_site site;
    uint64_t value;
    int lane;  /* shuffles: source lane, distance or mask; barriers: id; mbarriers: parity */
    int width; /* shuffles: lanes of a group, a power of two; barriers: threads, 0 for all */
    const hip_emulator_instruction *instruction = nullptr;
    void *brought = nullptr; /* for the instruction */
};

/* Suspends the thread until all threads of the operation have reached it. */
uint64_t hip_emulator_join(const hip_emulator_call &call);
unsigned hip_emulator_lane(void);
void *hip_emulator_dynamic_shared(void);

#define HIP_DYNAMIC_SHARED(type, name) type *name = (type *)hip_emulator_dynamic_shared();

inline void __syncthreads(hip_emulator_site site = hip_emulator_site::here()) {
    hip_emulator_join({HIP_EMULATOR_BARRIER, site, 0, 0, 0});
}

inline unsigned __lane_id(void) {
    return hip_emulator_lane();
}

template <typename T>
inline T hip_emulator_shuffle(hip_emulator_op op, T value, int lane, int width,
                              const hip_emulator_site &site) {
    static_assert(sizeof(T) <= sizeof(uint64_t), "a shuffle moves 64 bits at most");
    uint64_t bits = 0;
    memcpy(&bits, &value, sizeof value);
    bits = hip_emulator_join({op, site, bits, lane, width});
    memcpy(&value, &bits, sizeof value);
    return value;
}

template <typename T>
inline T __shfl(T value, int lane, int width = warpSize,
                hip_emulator_site site = hip_emulator_site::here()) {
    return hip_emulator_shuffle(HIP_EMULATOR_SHFL, value, lane, width, site);
}
template <typename T>
inline T __shfl_up(T value, unsigned distance, int width = warpSize,
                   hip_emulator_site site = hip_emulator_site::here()) {
    return hip_emulator_shuffle(HIP_EMULATOR_SHFL_UP, value, (int)distance, width, site);
}
template <typename T>
inline T __shfl_down(T value, unsigned distance, int width = warpSize,
                     hip_emulator_site site = hip_emulator_site::here()) {
    return hip_emulator_shuffle(HIP_EMULATOR_SHFL_DOWN, value, (int)distance, width, site);
}
template <typename T>
inline T __shfl_xor(T value, int mask, int width = warpSize,
                    hip_emulator_site site = hip_emulator_site::here()) {
    return hip_emulator_shuffle(HIP_EMULATOR_SHFL_XOR, value, mask, width, site);
}

inline unsigned long long __ballot(int predicate,
                                   hip_emulator_site site = hip_emulator_site::here()) {
    return hip_emulator_join({HIP_EMULATOR_BALLOT, site, predicate != 0, 0, 0});
}
inline int __any(int predicate, hip_emulator_site site = hip_emulator_site::here()) {
    return hip_emulator_join({HIP_EMULATOR_ANY, site, predicate != 0, 0, 0}) != 0;
}
inline int __all(int predicate, hip_emulator_site site = hip_emulator_site::here()) {
    return hip_emulator_join({HIP_EMULATOR_ALL, site, predicate == 0, 0, 0}) == 0;
}
/* The lanes that wait here when no other thread of the wave can continue. */
inline unsigned long long __activemask(hip_emulator_site site = hip_emulator_site::here()) {
    return hip_emulator_join({HIP_EMULATOR_ACTIVEMASK, site, 1, 0, 0});
}

/* Every lane of the wave must call this, and the wave must be full. */
inline void hip_emulator_execute(const hip_emulator_instruction &instruction, void *brought,
                                 const hip_emulator_site &site) {
    hip_emulator_join({HIP_EMULATOR_INSTRUCTION, site, 0, 0, 0, &instruction, brought});
}

/* ---- atomics: one thread runs at a time ---- */

template <typename T> inline T hip_emulator_exchange(T *address, T value) {
    const T old = *address;
    *address = value;
    return old;
}

/* Prevents deduction, so that a literal converts as for HIP's overloads. */
template <typename T> struct hip_emulator_type { using same = T; };

template <typename T>
inline T atomicExch(T *address, typename hip_emulator_type<T>::same value,
                    hip_emulator_site site = hip_emulator_site::here()) {
    const T old = hip_emulator_exchange(address, value);
    hip_emulator_join({HIP_EMULATOR_HELD, site, 0, 0, 0});
    return old;
}
template <typename T>
inline T atomicCAS(T *address, typename hip_emulator_type<T>::same expected,
                   typename hip_emulator_type<T>::same value,
                   hip_emulator_site site = hip_emulator_site::here()) {
    const T old = hip_emulator_exchange(address, *address == expected ? value : *address);
    hip_emulator_join({HIP_EMULATOR_HELD, site, 0, 0, 0});
    return old;
}
template <typename T> inline T atomicMin(T *address, typename hip_emulator_type<T>::same value) {
    return hip_emulator_exchange(address, value < *address ? value : *address);
}
template <typename T> inline T atomicMax(T *address, typename hip_emulator_type<T>::same value) {
    return hip_emulator_exchange(address, value > *address ? value : *address);
}
template <typename T> inline T atomicAdd(T *address, typename hip_emulator_type<T>::same value) {
    return hip_emulator_exchange(address, (T)(*address + value));
}
/* Wraps, as on a GPU. */
inline int atomicAdd(int *address, int value) {
    return (int)atomicAdd((unsigned *)address, (unsigned)value);
}

inline void __threadfence_block(void) {}
inline void __threadfence(void) {}
inline void __threadfence_system(void) {}

/* ---- bits and arithmetic ---- */

inline unsigned __float_as_uint(float value) {
    unsigned bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}
inline float __uint_as_float(unsigned bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}
inline int __popc(unsigned bits) {
    return __builtin_popcount(bits);
}
inline int __popcll(unsigned long long bits) {
    return __builtin_popcountll(bits);
}
inline int __ffs(unsigned bits) {
    return __builtin_ffs((int)bits);
}
inline int __ffsll(unsigned long long bits) {
    return __builtin_ffsll((long long)bits);
}
inline int __clz(int bits) {
    return bits == 0 ? 32 : __builtin_clz((unsigned)bits);
}
inline float rsqrtf(float value) {
    return 1.0f / sqrtf(value);
}
inline float __fdividef(float a, float b) {
    return a / b;
}
/* Macros, since the C library declares functions with these names. */
#define __expf(x) expf(x)
#define __logf(x) logf(x)
#define __powf(x, y) powf(x, y)
#define __cosf(x) cosf(x)
#define __sinf(x) sinf(x)

/* ---- the runtime ---- */

enum hipError_t {
    hipSuccess = 0,
    hipErrorInvalidValue = 1,
    hipErrorOutOfMemory = 2,
    hipErrorInvalidConfiguration = 9,
    hipErrorNoDevice = 100,
    hipErrorInvalidDevice = 101,
    hipErrorInvalidHandle = 400,
    hipErrorIllegalState = 401,
    hipErrorNotReady = 600,
    hipErrorAssert = 710,
    hipErrorNotSupported = 801,
    hipErrorStreamCaptureUnsupported = 900,
    hipErrorStreamCaptureInvalidated = 901,
    hipErrorStreamCaptureIsolation = 905,
    hipErrorStreamCaptureImplicit = 906,
    hipErrorCapturedEvent = 907,
    hipErrorStreamCaptureWrongThread = 908
};

enum hipMemcpyKind {
    hipMemcpyHostToHost,
    hipMemcpyHostToDevice,
    hipMemcpyDeviceToHost,
    hipMemcpyDeviceToDevice,
    hipMemcpyDefault
};

enum hipStreamCaptureMode {
    hipStreamCaptureModeGlobal,
    hipStreamCaptureModeThreadLocal,
    hipStreamCaptureModeRelaxed
};

enum {
    hipHostMallocDefault = 0,
    hipHostMallocPortable = 1,
    hipHostMallocMapped = 2
};
enum {
    hipStreamDefault = 0,
    hipStreamNonBlocking = 1
};
enum {
    hipEventDefault = 0,
    hipEventDisableTiming = 2
};

typedef struct hip_emulator_stream *hipStream_t;
typedef struct hip_emulator_event *hipEvent_t;
typedef struct hip_emulator_graph *hipGraph_t;
typedef struct hip_emulator_graph_exec *hipGraphExec_t;
typedef struct hip_emulator_graph_node *hipGraphNode_t;
typedef void (*hipHostFn_t)(void *user);

struct hipDeviceProp_t {
    char name[256];
    char gcnArchName[256];
    size_t totalGlobalMem;
    size_t sharedMemPerBlock;
    int warpSize;
    int maxThreadsPerBlock;
    int multiProcessorCount;
};

/* Exported by a module that contains the emulator, so that tests share its streams. */
#pragma GCC visibility push(default)
extern "C" {

hipError_t hipGetDeviceCount(int *count);
hipError_t hipGetDevice(int *device);
hipError_t hipSetDevice(int device);
hipError_t hipGetDeviceProperties(hipDeviceProp_t *properties, int device);
hipError_t hipDeviceSynchronize(void);
hipError_t hipGetLastError(void);
hipError_t hipPeekAtLastError(void);
const char *hipGetErrorString(hipError_t error);
const char *hipGetErrorName(hipError_t error);

hipError_t hipMalloc(void **pointer, size_t bytes);
hipError_t hipFree(void *pointer);
hipError_t hipHostMalloc(void **pointer, size_t bytes, unsigned flags = hipHostMallocDefault);
hipError_t hipHostGetDevicePointer(void **pointer, void *host, unsigned flags);
hipError_t hipHostFree(void *pointer);
hipError_t hipMemcpy(void *to, const void *from, size_t bytes, hipMemcpyKind kind);
hipError_t hipMemcpyAsync(void *to, const void *from, size_t bytes, hipMemcpyKind kind,
                          hipStream_t stream = nullptr);
hipError_t hipMemset(void *pointer, int value, size_t bytes);
hipError_t hipMemsetAsync(void *pointer, int value, size_t bytes, hipStream_t stream = nullptr);

hipError_t hipStreamCreate(hipStream_t *stream);
hipError_t hipStreamCreateWithFlags(hipStream_t *stream, unsigned flags);
hipError_t hipStreamDestroy(hipStream_t stream);
hipError_t hipStreamSynchronize(hipStream_t stream);
hipError_t hipStreamWaitEvent(hipStream_t stream, hipEvent_t event, unsigned flags);

hipError_t hipEventCreate(hipEvent_t *event);
hipError_t hipEventCreateWithFlags(hipEvent_t *event, unsigned flags);
hipError_t hipEventDestroy(hipEvent_t event);
hipError_t hipEventRecord(hipEvent_t event, hipStream_t stream = nullptr);
hipError_t hipEventSynchronize(hipEvent_t event);
hipError_t hipEventElapsedTime(float *milliseconds, hipEvent_t start, hipEvent_t stop);

hipError_t hipLaunchHostFunc(hipStream_t stream, hipHostFn_t function, void *user);

/* Graphs hold the work of one stream: a capture fails where an event would order it with another
 * stream. */
hipError_t hipStreamBeginCapture(hipStream_t stream, hipStreamCaptureMode mode);
hipError_t hipStreamEndCapture(hipStream_t stream, hipGraph_t *graph);
hipError_t hipGraphInstantiate(hipGraphExec_t *exec, hipGraph_t graph, hipGraphNode_t *node,
                               char *log, size_t log_bytes);
hipError_t hipGraphLaunch(hipGraphExec_t exec, hipStream_t stream);
hipError_t hipGraphExecDestroy(hipGraphExec_t exec);
hipError_t hipGraphDestroy(hipGraph_t graph);

} /* extern "C" */
#pragma GCC visibility pop

/* Shared memory is as large as a launch requires. */
enum hipFuncAttribute {
    hipFuncAttributeMaxDynamicSharedMemorySize = 8
};

inline hipError_t hipFuncSetAttribute(const void *, hipFuncAttribute, int) {
    return hipSuccess;
}

struct hip_emulator_launch {
    const char *kernel; /* as written at the launch */
    dim3 grid;
    dim3 block;
    size_t shared_bytes;
    void (*run_thread)(const void *body);
    const void *body;
};

/* Copies the body and adds the grid to a stream; errors are returned by hipGetLastError() and the
 * synchronizing calls. */
void hip_emulator_launch_async(const hip_emulator_launch &launch, size_t body_bytes,
                               hipStream_t stream);

template <typename... Parameters, typename... Arguments>
inline void hip_emulator_launch_kernel(const char *name, void (*kernel)(Parameters...), dim3 grid,
                                       dim3 block, size_t shared_bytes, hipStream_t stream,
                                       const Arguments &...arguments) {
    const auto body = [kernel, arguments...]() { kernel(arguments...); };
    static_assert(__is_trivially_copyable(decltype(body)), "arguments are copied as bytes");
    static_assert(alignof(decltype(body)) <= 64, "bodies are aligned to 64 bytes");
    const auto run_thread = [](const void *self) { (*(decltype(&body))self)(); };
    hip_emulator_launch_async({name, grid, block, shared_bytes, run_thread, &body}, sizeof body,
                              stream);
}

#define hipLaunchKernelGGL(kernel, ...) hip_emulator_launch_kernel(#kernel, (kernel), __VA_ARGS__)

template <typename T> inline hipError_t hipMalloc(T **pointer, size_t bytes) {
    return hipMalloc((void **)pointer, bytes);
}
template <typename T>
inline hipError_t hipHostMalloc(T **pointer, size_t bytes, unsigned flags = hipHostMallocDefault) {
    return hipHostMalloc((void **)pointer, bytes, flags);
}

#include "hip_matrix.h"
#include "hip_hopper.h"

#endif
