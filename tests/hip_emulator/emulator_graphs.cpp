/* Captures of streams, and graphs: a list of work, which runs in the order of its capture. */
#include "emulator_streams.h"

struct hip_emulator_graph_exec {
    std::vector<hip_emulator_work> nodes;
};

/* ---- what a capture forbids ---- */

hipError_t hip_emulator_invalidate(hip_emulator_stream *stream, hipError_t error) {
    stream->capture_invalid = true;
    return hip_emulator_keep_error(error);
}

hipError_t hip_emulator_check_captures(void) {
    for (hip_emulator_stream *stream : hip_emulator_streams()) {
        const bool forbidden = stream->capture_mode == hipStreamCaptureModeGlobal ||
                               (stream->capture_mode == hipStreamCaptureModeThreadLocal &&
                                pthread_equal(stream->capture_thread, pthread_self()));
        if (stream->graph && forbidden)
            return hip_emulator_invalidate(stream, hipErrorStreamCaptureUnsupported);
    }
    return hipSuccess;
}

/* The default stream would run in order with a stream that is captured. */
hipError_t hip_emulator_check_capture_of(hip_emulator_stream *stream) {
    if (stream->graph)
        return hip_emulator_invalidate(stream, hipErrorStreamCaptureUnsupported);
    if (stream != hip_emulator_find_stream(nullptr))
        return hipSuccess;
    for (hip_emulator_stream *other : hip_emulator_streams())
        if (other->graph && !(other->flags & hipStreamNonBlocking))
            return hip_emulator_invalidate(other, hipErrorStreamCaptureImplicit);
    return hipSuccess;
}

/* ---- captures ---- */

hipError_t hipStreamBeginCapture(hipStream_t handle, hipStreamCaptureMode mode) {
    const hip_emulator_stream_lock held(handle);
    hip_emulator_stream *stream = held.stream;
    if (held.error != hipSuccess)
        return held.error;
    if (!handle)
        return hip_emulator_keep_error(hipErrorStreamCaptureUnsupported);
    if (stream->graph)
        return hip_emulator_keep_error(hipErrorIllegalState);
    stream->graph = new hip_emulator_graph();
    stream->capture_mode = mode;
    stream->capture_thread = pthread_self();
    stream->capture_invalid = false;
    return hipSuccess;
}

hipError_t hipStreamEndCapture(hipStream_t handle, hipGraph_t *graph) {
    const hip_emulator_stream_lock held(handle);
    hip_emulator_stream *stream = held.stream;
    *graph = nullptr;
    if (held.error != hipSuccess)
        return held.error;
    if (!stream->graph)
        return hip_emulator_keep_error(hipErrorIllegalState);
    if (stream->capture_mode != hipStreamCaptureModeRelaxed &&
        !pthread_equal(stream->capture_thread, pthread_self()))
        return hip_emulator_invalidate(stream, hipErrorStreamCaptureWrongThread);
    hip_emulator_graph *captured = stream->graph;
    stream->graph = nullptr;
    if (stream->capture_invalid) {
        delete captured;
        return hip_emulator_keep_error(hipErrorStreamCaptureInvalidated);
    }
    *graph = captured;
    return hipSuccess;
}

/* ---- graphs ---- */

hipError_t hipGraphInstantiate(hipGraphExec_t *exec, hipGraph_t graph, hipGraphNode_t *, char *,
                               size_t) {
    *exec = new hip_emulator_graph_exec{graph->nodes};
    return hipSuccess;
}

hipError_t hipGraphLaunch(hipGraphExec_t exec, hipStream_t handle) {
    const hip_emulator_stream_lock held(handle);
    hipError_t error = held.error;
    for (size_t i = 0; i < exec->nodes.size() && error == hipSuccess; i++)
        error = hip_emulator_enqueue(held.stream, exec->nodes[i]);
    return error;
}

hipError_t hipGraphExecDestroy(hipGraphExec_t exec) {
    delete exec;
    return hipSuccess;
}

hipError_t hipGraphDestroy(hipGraph_t graph) {
    delete graph;
    return hipSuccess;
}
