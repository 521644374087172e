/* The emulator: the order of streams, captures and graphs. */
#include <hip/hip_runtime.h>

#include "emulator_test.h"

static __global__ void add_kernel(int *x, int value) {
    *x += value;
}

static __global__ void copy_kernel(const int *from, int *to) {
    *to = *from;
}

static void add(int *x, int value, hipStream_t stream) {
    hipLaunchKernelGGL(add_kernel, dim3(1), dim3(1), 0, stream, x, value);
    assert_int_equal(hipGetLastError(), hipSuccess);
}

struct fixture {
    device_array<int> x;
    hipStream_t blocking, other, free;
    fixture() : x(4) {
        assert_int_equal(hipStreamCreate(&blocking), hipSuccess);
        assert_int_equal(hipStreamCreateWithFlags(&other, hipStreamNonBlocking), hipSuccess);
        assert_int_equal(hipStreamCreateWithFlags(&free, hipStreamNonBlocking), hipSuccess);
        for (int i = 0; i < 4; i++)
            x.data[i] = 0;
    }
    ~fixture() {
        assert_int_equal(hipStreamDestroy(blocking), hipSuccess);
        assert_int_equal(hipStreamDestroy(other), hipSuccess);
        assert_int_equal(hipStreamDestroy(free), hipSuccess);
    }
};

/* ---- order ---- */

static void test_work_runs_when_it_is_waited_for(void **) {
    fixture f;
    int *x = f.x.data, host = 7;
    add(x, 1, f.other);
    assert_int_equal(hipMemcpyAsync(&x[1], &host, sizeof host, hipMemcpyHostToDevice, f.other),
                     hipSuccess);
    assert_int_equal(hipMemsetAsync(&x[2], 1, sizeof *x, f.free), hipSuccess);
    host = 8;
    assert_int_equal(x[0] | x[1] | x[2], 0);
    assert_int_equal(hipStreamSynchronize(f.other), hipSuccess);
    assert_int_equal(x[0], 1);
    assert_int_equal(x[1], 8);
    assert_int_equal(x[2], 0);
    assert_int_equal(hipDeviceSynchronize(), hipSuccess);
    assert_int_equal(x[2], 0x01010101);
}

/* Two streams without an order: the consumer reads what was there before. */
static void test_missing_order_shows(void **) {
    fixture f;
    int *x = f.x.data;
    add(&x[0], 5, f.other);
    hipLaunchKernelGGL(copy_kernel, dim3(1), dim3(1), 0, f.free, &x[0], &x[1]);
    assert_int_equal(hipStreamSynchronize(f.free), hipSuccess);
    assert_int_equal(x[1], 0);
    assert_int_equal(hipDeviceSynchronize(), hipSuccess);
    assert_int_equal(x[0], 5);
}

static void test_event_orders_streams(void **) {
    fixture f;
    int *x = f.x.data;
    hipEvent_t event;
    float milliseconds = -1.0f;
    assert_int_equal(hipEventCreate(&event), hipSuccess);
    add(&x[0], 5, f.other);
    assert_int_equal(hipEventRecord(event, f.other), hipSuccess);
    add(&x[0], 1, f.other); /* after the event */
    assert_int_equal(hipStreamWaitEvent(f.free, event, 0), hipSuccess);
    hipLaunchKernelGGL(copy_kernel, dim3(1), dim3(1), 0, f.free, &x[0], &x[1]);
    assert_int_equal(hipEventElapsedTime(&milliseconds, event, event), hipErrorNotReady);
    assert_int_equal(hipGetLastError(), hipErrorNotReady);
    assert_int_equal(hipStreamSynchronize(f.free), hipSuccess);
    assert_int_equal(x[1], 5);
    assert_int_equal(x[0], 5);
    assert_int_equal(hipEventSynchronize(event), hipSuccess);
    assert_int_equal(hipEventElapsedTime(&milliseconds, event, event), hipSuccess);
    assert_true(milliseconds == 0.0f);
    assert_int_equal(hipEventDestroy(event), hipSuccess);
}

/* The default stream comes after blocking streams and before them, and ignores the others. */
static void test_default_stream(void **) {
    fixture f;
    int *x = f.x.data;
    add(&x[0], 1, f.blocking);
    add(&x[1], 1, f.other);
    add(&x[2], 1, nullptr);
    assert_int_equal(hipStreamSynchronize(nullptr), hipSuccess);
    assert_int_equal(x[0], 1);
    assert_int_equal(x[1], 0);
    assert_int_equal(x[2], 1);
    add(&x[2], 1, nullptr);
    add(&x[0], 1, f.blocking);
    assert_int_equal(hipStreamSynchronize(f.blocking), hipSuccess);
    assert_int_equal(x[2], 2);
}

static void store(void *user) {
    *(int *)user = hipDeviceSynchronize() == hipErrorNotSupported ? 1 : -1;
}

/* In its stream's order; it may not call the runtime. */
static void test_host_function(void **) {
    fixture f;
    int *x = f.x.data;
    assert_int_equal(hipLaunchHostFunc(f.other, store, &x[0]), hipSuccess);
    hipLaunchKernelGGL(copy_kernel, dim3(1), dim3(1), 0, f.other, &x[0], &x[1]);
    assert_int_equal(x[0], 0);
    assert_int_equal(hipStreamSynchronize(f.other), hipSuccess);
    assert_int_equal(x[1], 1);
    hipGetLastError();
}

static void test_destroyed_stream(void **) {
    fixture f;
    hipStream_t stream;
    assert_int_equal(hipStreamCreate(&stream), hipSuccess);
    add(f.x.data, 1, stream);
    assert_int_equal(hipStreamDestroy(stream), hipSuccess);
    assert_int_equal(f.x.data[0], 1);
    assert_int_equal(hipStreamSynchronize(stream), hipErrorInvalidHandle);
    hipLaunchKernelGGL(add_kernel, dim3(1), dim3(1), 0, stream, f.x.data, 1);
    assert_int_equal(hipGetLastError(), hipErrorInvalidHandle);
}

/* ---- captures ---- */

static hipGraphExec_t end_capture(hipStream_t stream) {
    hipGraph_t graph;
    hipGraphExec_t exec;
    assert_int_equal(hipStreamEndCapture(stream, &graph), hipSuccess);
    assert_int_equal(hipGraphInstantiate(&exec, graph, nullptr, nullptr, 0), hipSuccess);
    assert_int_equal(hipGraphDestroy(graph), hipSuccess);
    return exec;
}

static void test_graph_replays(void **) {
    fixture f;
    int *x = f.x.data, host = 3;
    assert_int_equal(hipStreamBeginCapture(f.other, hipStreamCaptureModeGlobal), hipSuccess);
    assert_int_equal(hipMemcpyAsync(&x[0], &host, sizeof host, hipMemcpyHostToDevice, f.other),
                     hipSuccess);
    add(&x[0], 10, f.other);
    add(&x[1], 1, f.other);
    assert_int_equal(hipStreamBeginCapture(f.other, hipStreamCaptureModeGlobal),
                     hipErrorIllegalState);
    const hipGraphExec_t exec = end_capture(f.other);
    assert_int_equal(hipDeviceSynchronize(), hipSuccess);
    assert_int_equal(x[0] | x[1], 0); /* a capture runs nothing */
    for (int replay = 1; replay <= 2; replay++) {
        host = 100 * replay;
        assert_int_equal(hipGraphLaunch(exec, replay == 1 ? f.other : f.free), hipSuccess);
        assert_int_equal(x[1], replay - 1);
        assert_int_equal(hipDeviceSynchronize(), hipSuccess);
        assert_int_equal(x[0], host + 10);
        assert_int_equal(x[1], replay);
    }
    assert_int_equal(hipGraphExecDestroy(exec), hipSuccess);
    hipGetLastError();
}

static hipError_t call_malloc(hipStream_t) {
    void *pointer;
    return hipMalloc(&pointer, 8);
}

static hipError_t call_free(hipStream_t) {
    return hipFree(nullptr);
}

static hipError_t call_copy(hipStream_t) {
    int a = 0, b = 0;
    return hipMemcpy(&a, &b, sizeof a, hipMemcpyHostToHost);
}

static hipError_t call_device_synchronize(hipStream_t) {
    return hipDeviceSynchronize();
}

static hipError_t call_default_stream(hipStream_t) {
    static int x;
    return hipMemsetAsync(&x, 0, sizeof x, nullptr);
}

/* Calls that a capture forbids fail, and so does the end of the capture. */
static void test_what_a_capture_forbids(void **) {
    const struct {
        hipError_t (*call)(hipStream_t stream);
        hipError_t expected;
    } calls[] = {{call_malloc, hipErrorStreamCaptureUnsupported},
                 {call_free, hipErrorStreamCaptureUnsupported},
                 {call_copy, hipErrorStreamCaptureUnsupported},
                 {call_device_synchronize, hipErrorStreamCaptureUnsupported},
                 {hipStreamSynchronize, hipErrorStreamCaptureUnsupported},
                 {call_default_stream, hipErrorStreamCaptureImplicit}};
    fixture f;
    for (const auto &c : calls) {
        hipGraph_t graph = nullptr;
        assert_int_equal(hipStreamBeginCapture(f.blocking, hipStreamCaptureModeGlobal), hipSuccess);
        assert_int_equal(c.call(f.blocking), c.expected);
        assert_int_equal(hipGetLastError(), c.expected);
        assert_int_equal(hipStreamEndCapture(f.blocking, &graph), hipErrorStreamCaptureInvalidated);
        assert_null(graph);
        assert_int_equal(hipStreamEndCapture(f.blocking, &graph), hipErrorIllegalState);
        hipGetLastError();
    }
}

static void test_modes_of_capture(void **) {
    fixture f;
    hipGraph_t graph;
    assert_int_equal(hipStreamBeginCapture(nullptr, hipStreamCaptureModeGlobal),
                     hipErrorStreamCaptureUnsupported);
    assert_int_equal(hipStreamBeginCapture(f.blocking, hipStreamCaptureModeRelaxed), hipSuccess);
    assert_int_equal(call_free(nullptr), hipSuccess);
    assert_int_equal(hipStreamEndCapture(f.blocking, &graph), hipSuccess);
    assert_int_equal(hipGraphDestroy(graph), hipSuccess);
    assert_int_equal(hipStreamBeginCapture(f.other, hipStreamCaptureModeThreadLocal), hipSuccess);
    assert_int_equal(call_default_stream(nullptr), hipSuccess);
    assert_int_equal(call_free(nullptr), hipErrorStreamCaptureUnsupported);
    assert_int_equal(hipStreamEndCapture(f.other, &graph), hipErrorStreamCaptureInvalidated);
    hipGetLastError();
}

/* An event cannot order a captured stream with another. */
static void test_capture_of_one_stream(void **) {
    fixture f;
    hipEvent_t event;
    hipGraph_t graph;
    assert_int_equal(hipEventCreate(&event), hipSuccess);
    assert_int_equal(hipStreamBeginCapture(f.other, hipStreamCaptureModeGlobal), hipSuccess);
    assert_int_equal(hipEventRecord(event, f.other), hipSuccess);
    assert_int_equal(hipStreamWaitEvent(f.other, event, 0), hipSuccess);
    assert_int_equal(hipEventSynchronize(event), hipErrorCapturedEvent);
    assert_int_equal(hipStreamWaitEvent(f.free, event, 0), hipErrorStreamCaptureIsolation);
    assert_int_equal(hipStreamEndCapture(f.other, &graph), hipErrorStreamCaptureInvalidated);
    assert_int_equal(hipEventDestroy(event), hipSuccess);
    hipGetLastError();
}

int main(void) {
    const CMUnitTest tests[] = {
        cmocka_unit_test(test_work_runs_when_it_is_waited_for),
        cmocka_unit_test(test_missing_order_shows),
        cmocka_unit_test(test_event_orders_streams),
        cmocka_unit_test(test_default_stream),
        cmocka_unit_test(test_host_function),
        cmocka_unit_test(test_destroyed_stream),
        cmocka_unit_test(test_graph_replays),
        cmocka_unit_test(test_what_a_capture_forbids),
        cmocka_unit_test(test_modes_of_capture),
        cmocka_unit_test(test_capture_of_one_stream),
    };
    return cmocka_run_group_tests(tests, nullptr, nullptr);
}
