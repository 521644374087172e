/* Streams: what the runtime, the queues of work and captured graphs share. */
#ifndef HIP_EMULATOR_STREAMS_H
#define HIP_EMULATOR_STREAMS_H

#include <pthread.h>

#include <deque>
#include <functional>
#include <vector>

#include "emulator_state.h"

using hip_emulator_work = std::function<void()>;

struct hip_emulator_graph {
    std::vector<hip_emulator_work> nodes; /* one after another */
};

/* A place in a stream: the first `count` commands. */
struct hip_emulator_mark {
    hip_emulator_stream *stream;
    uint64_t count;
};

struct hip_emulator_command {
    std::vector<hip_emulator_mark> after; /* in other streams */
    hip_emulator_work work;
};

struct hip_emulator_stream {
    unsigned flags;
    bool destroyed; /* the memory is kept, for marks */
    uint64_t queued;
    uint64_t done;
    std::deque<hip_emulator_command> commands; /* queued - done */

    hip_emulator_graph *graph; /* being captured; else NULL */
    hipStreamCaptureMode capture_mode;
    pthread_t capture_thread;
    bool capture_invalid;
};

/* Held by every call of the runtime that concerns streams, also while kernels run. `error`: the
 * call is not allowed here. */
class hip_emulator_lock {
  public:
    hipError_t error;
    hip_emulator_lock();
    ~hip_emulator_lock();
    hip_emulator_lock(const hip_emulator_lock &) = delete;
    hip_emulator_lock &operator=(const hip_emulator_lock &) = delete;
};

/* The same for a call on a stream; `error` also says that the handle is of none. */
class hip_emulator_stream_lock : public hip_emulator_lock {
  public:
    hip_emulator_stream *stream;
    explicit hip_emulator_stream_lock(hipStream_t handle);
};

/* Keeps an error for hipGetLastError(), and returns it. */
hipError_t hip_emulator_keep_error(hipError_t error);

/* Every stream that is not destroyed, the newest first, then the default stream. */
std::vector<hip_emulator_stream *> hip_emulator_streams(void);

/* The stream of a handle; NULL if it was destroyed. */
hip_emulator_stream *hip_emulator_find_stream(hipStream_t handle);

/* Adds work to a stream or, during a capture, to its graph. */
hipError_t hip_emulator_enqueue(hip_emulator_stream *stream, hip_emulator_work work);

/* Runs everything, and whatever it must come after. */
void hip_emulator_run_all(void);

/* Fails, and invalidates captures, if a capture forbids a call that might wait for its stream
 * (hipMalloc, hipFree, ...). */
hipError_t hip_emulator_check_captures(void);

/* The same for a call that waits for, or runs in order with, `stream`. */
hipError_t hip_emulator_check_capture_of(hip_emulator_stream *stream);

/* Marks a capture as failed; returns `error`, kept. */
hipError_t hip_emulator_invalidate(hip_emulator_stream *stream, hipError_t error);

#endif
