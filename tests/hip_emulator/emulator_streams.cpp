/* Streams: queues of work, which runs when something waits for it, in the order that streams and
 * events demand and no other. */
#include <stdlib.h>
#include <time.h>

#include <memory>

#include "emulator_streams.h"

#define BODY_ALIGNMENT ((size_t)64)

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static thread_local bool in_host_function;

/* The error of a kernel, until a synchronizing call; nothing runs on a device after a failure. */
static hipError_t kernel_error;

static hip_emulator_stream default_stream;

struct stream_list {
    std::vector<hip_emulator_stream *> all;
    ~stream_list() {
        for (hip_emulator_stream *stream : all)
            delete stream;
    }
};
static stream_list streams;

hip_emulator_lock::hip_emulator_lock() : error(hipSuccess) {
    if (in_host_function)
        error = hip_emulator_keep_error(hipErrorNotSupported);
    else
        pthread_mutex_lock(&lock);
}

hip_emulator_lock::~hip_emulator_lock() {
    if (!in_host_function)
        pthread_mutex_unlock(&lock);
}

std::vector<hip_emulator_stream *> hip_emulator_streams(void) {
    std::vector<hip_emulator_stream *> found;
    for (size_t i = streams.all.size(); i-- > 0;)
        if (!streams.all[i]->destroyed)
            found.push_back(streams.all[i]);
    found.push_back(&default_stream);
    return found;
}

hip_emulator_stream *hip_emulator_find_stream(hipStream_t handle) {
    if (!handle)
        return &default_stream;
    for (hip_emulator_stream *stream : streams.all)
        if (stream == handle)
            return stream->destroyed ? nullptr : stream;
    return nullptr;
}

hip_emulator_stream_lock::hip_emulator_stream_lock(hipStream_t handle) : stream(nullptr) {
    if (error != hipSuccess)
        return;
    stream = hip_emulator_find_stream(handle);
    if (!stream)
        error = hip_emulator_keep_error(hipErrorInvalidHandle);
}

/* ---- queues ---- */

static bool is_blocking(const hip_emulator_stream *stream) {
    return stream != &default_stream && !(stream->flags & hipStreamNonBlocking);
}

/* The default stream runs in order with every stream that is not hipStreamNonBlocking. */
static std::vector<hip_emulator_mark> implicit_order(const hip_emulator_stream *stream) {
    std::vector<hip_emulator_mark> after;
    if (stream == &default_stream) {
        for (hip_emulator_stream *other : hip_emulator_streams())
            if (is_blocking(other))
                after.push_back({other, other->queued});
    } else if (is_blocking(stream)) {
        after.push_back({&default_stream, default_stream.queued});
    }
    return after;
}

hipError_t hip_emulator_enqueue(hip_emulator_stream *stream, hip_emulator_work work) {
    if (stream->graph) {
        if (stream->capture_invalid)
            return hip_emulator_keep_error(hipErrorStreamCaptureInvalidated);
        stream->graph->nodes.push_back(work);
        return hipSuccess;
    }
    const hipError_t error = hip_emulator_check_capture_of(stream);
    if (error != hipSuccess)
        return error;
    stream->commands.push_back({implicit_order(stream), work});
    stream->queued++;
    return hipSuccess;
}

static void run_until(const hip_emulator_mark &mark) {
    hip_emulator_stream *stream = mark.stream;
    while (stream->done < mark.count) {
        const hip_emulator_command command = stream->commands.front();
        stream->commands.pop_front();
        for (const hip_emulator_mark &before : command.after)
            run_until(before);
        if (command.work)
            command.work();
        stream->done++;
    }
}

void hip_emulator_run_all(void) {
    for (hip_emulator_stream *stream : hip_emulator_streams())
        run_until({stream, stream->queued});
}

/* What a synchronizing call returns. */
static hipError_t take_kernel_error(void) {
    const hipError_t error = kernel_error;
    kernel_error = hipSuccess;
    return error == hipSuccess ? hipSuccess : hip_emulator_keep_error(error);
}

/* ---- streams ---- */

hipError_t hipStreamCreateWithFlags(hipStream_t *stream, unsigned flags) {
    const hip_emulator_lock held;
    if (held.error != hipSuccess)
        return held.error;
    *stream = new hip_emulator_stream();
    (*stream)->flags = flags;
    streams.all.push_back(*stream);
    return hipSuccess;
}

hipError_t hipStreamCreate(hipStream_t *stream) {
    return hipStreamCreateWithFlags(stream, hipStreamDefault);
}

/* What the stream was given still runs. */
hipError_t hipStreamDestroy(hipStream_t handle) {
    const hip_emulator_stream_lock held(handle);
    if (held.error != hipSuccess)
        return held.error;
    if (held.stream == &default_stream)
        return hip_emulator_keep_error(hipErrorInvalidHandle);
    delete held.stream->graph;
    held.stream->graph = nullptr;
    run_until({held.stream, held.stream->queued});
    held.stream->destroyed = true;
    return hipSuccess;
}

hipError_t hipStreamSynchronize(hipStream_t handle) {
    const hip_emulator_stream_lock held(handle);
    if (held.error != hipSuccess)
        return held.error;
    const hipError_t error = hip_emulator_check_capture_of(held.stream);
    if (error != hipSuccess)
        return error;
    run_until({held.stream, held.stream->queued});
    return take_kernel_error();
}

hipError_t hipDeviceSynchronize(void) {
    const hip_emulator_lock held;
    if (held.error != hipSuccess)
        return held.error;
    for (hip_emulator_stream *stream : hip_emulator_streams())
        if (stream->graph)
            return hip_emulator_invalidate(stream, hipErrorStreamCaptureUnsupported);
    hip_emulator_run_all();
    return take_kernel_error();
}

/* ---- events ---- */

struct hip_emulator_event {
    hip_emulator_mark mark;         /* stream is NULL: not recorded */
    hip_emulator_graph *graph;      /* recorded in the capture of this graph */
    std::shared_ptr<timespec> time; /* empty until it has run */
};

hipError_t hipEventCreateWithFlags(hipEvent_t *event, unsigned) {
    *event = new hip_emulator_event();
    return hipSuccess;
}

hipError_t hipEventCreate(hipEvent_t *event) {
    return hipEventCreateWithFlags(event, hipEventDefault);
}

hipError_t hipEventDestroy(hipEvent_t event) {
    delete event;
    return hipSuccess;
}

hipError_t hipEventRecord(hipEvent_t event, hipStream_t handle) {
    const hip_emulator_stream_lock held(handle);
    if (held.error != hipSuccess)
        return held.error;
    const std::shared_ptr<timespec> time = std::make_shared<timespec>();
    const hipError_t error =
        hip_emulator_enqueue(held.stream, [time]() { clock_gettime(CLOCK_MONOTONIC, time.get()); });
    if (error != hipSuccess)
        return error;
    *event = {{held.stream, held.stream->queued}, held.stream->graph, time};
    return hipSuccess;
}

/* Captures of several streams as one graph are not supported. */
hipError_t hipStreamWaitEvent(hipStream_t handle, hipEvent_t event, unsigned) {
    const hip_emulator_stream_lock held(handle);
    if (held.error != hipSuccess)
        return held.error;
    if (!event->mark.stream || event->mark.stream == held.stream)
        return hipSuccess;
    if (held.stream->graph || event->graph)
        return hip_emulator_invalidate(held.stream->graph ? held.stream : event->mark.stream,
                                       hipErrorStreamCaptureIsolation);
    const hipError_t error = hip_emulator_enqueue(held.stream, nullptr);
    if (error == hipSuccess)
        held.stream->commands.back().after.push_back(event->mark);
    return error;
}

hipError_t hipEventSynchronize(hipEvent_t event) {
    const hip_emulator_lock held;
    if (held.error != hipSuccess)
        return held.error;
    if (event->graph)
        return hip_emulator_keep_error(hipErrorCapturedEvent);
    if (event->mark.stream)
        run_until(event->mark);
    return take_kernel_error();
}

hipError_t hipEventElapsedTime(float *milliseconds, hipEvent_t start, hipEvent_t stop) {
    const hip_emulator_lock held;
    if (held.error != hipSuccess)
        return held.error;
    for (const hip_emulator_event *event : {start, stop}) {
        if (!event->mark.stream || event->graph)
            return hip_emulator_keep_error(hipErrorInvalidHandle);
        if (event->mark.stream->done < event->mark.count)
            return hip_emulator_keep_error(hipErrorNotReady);
    }
    *milliseconds = (float)((double)(stop->time->tv_sec - start->time->tv_sec) * 1e3 +
                            (double)(stop->time->tv_nsec - start->time->tv_nsec) * 1e-6);
    return hipSuccess;
}

/* ---- what streams run ---- */

hipError_t hipMemcpyAsync(void *to, const void *from, size_t bytes, hipMemcpyKind,
                          hipStream_t stream) {
    const hip_emulator_stream_lock held(stream);
    if (held.error != hipSuccess)
        return held.error;
    return hip_emulator_enqueue(held.stream, [=]() {
        if (bytes > 0)
            memmove(to, from, bytes);
    });
}

hipError_t hipMemcpy(void *to, const void *from, size_t bytes, hipMemcpyKind kind) {
    {
        const hip_emulator_lock held;
        const hipError_t error =
            held.error != hipSuccess ? held.error : hip_emulator_check_captures();
        if (error != hipSuccess)
            return error;
    }
    const hipError_t error = hipMemcpyAsync(to, from, bytes, kind, nullptr);
    return error == hipSuccess ? hipStreamSynchronize(nullptr) : error;
}

hipError_t hipMemsetAsync(void *pointer, int value, size_t bytes, hipStream_t stream) {
    const hip_emulator_stream_lock held(stream);
    if (held.error != hipSuccess)
        return held.error;
    return hip_emulator_enqueue(held.stream, [=]() {
        if (bytes > 0)
            memset(pointer, value, bytes);
    });
}

hipError_t hipMemset(void *pointer, int value, size_t bytes) {
    return hipMemsetAsync(pointer, value, bytes, nullptr);
}

hipError_t hipLaunchHostFunc(hipStream_t stream, hipHostFn_t function, void *user) {
    const hip_emulator_stream_lock held(stream);
    if (held.error != hipSuccess)
        return held.error;
    return hip_emulator_enqueue(held.stream, [=]() {
        in_host_function = true;
        function(user);
        in_host_function = false;
    });
}

void hip_emulator_launch_async(const hip_emulator_launch &launch, size_t body_bytes,
                               hipStream_t stream) {
    const hip_emulator_stream_lock held(stream);
    if (held.error != hipSuccess)
        return;
    if (!hip_emulator_shape_is_valid(launch)) {
        hip_emulator_keep_error(hipErrorInvalidConfiguration);
        return;
    }
    const size_t bytes = (body_bytes + BODY_ALIGNMENT - 1) / BODY_ALIGNMENT * BODY_ALIGNMENT;
    const std::shared_ptr<void> body(aligned_alloc(BODY_ALIGNMENT, bytes), free);
    if (!body) {
        hip_emulator_keep_error(hipErrorOutOfMemory);
        return;
    }
    memcpy(body.get(), launch.body, body_bytes);
    hip_emulator_enqueue(held.stream, [launch, body]() {
        hip_emulator_launch copy = launch;
        copy.body = body.get();
        if (kernel_error == hipSuccess)
            kernel_error = hip_emulator_run_launch(copy);
    });
}
