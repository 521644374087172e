/* Common to the tests of the emulator. */
#ifndef HIP_EMULATOR_TEST_H
#define HIP_EMULATOR_TEST_H

#include <hip/hip_runtime.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

extern "C" {
#include <cmocka.h>
}

/* Captures the output to stderr. */
struct capture {
    FILE *file;
    int kept;
};

static inline capture capture_stderr(void) {
    fflush(stderr);
    const capture capture = {tmpfile(), dup(STDERR_FILENO)};
    assert_non_null(capture.file);
    assert_true(dup2(fileno(capture.file), STDERR_FILENO) >= 0);
    return capture;
}

struct output {
    char text[2048];
};

static inline output release_stderr(const capture &capture) {
    fflush(stderr);
    dup2(capture.kept, STDERR_FILENO);
    close(capture.kept);
    output output = {};
    rewind(capture.file);
    assert_int_equal(ferror(capture.file), 0);
    fread(output.text, 1, sizeof output.text - 1, capture.file);
    fclose(capture.file);
    return output;
}

static inline void assert_contains(const char *text, const char *part) {
    if (!strstr(text, part))
        fail_msg("\"%s\" does not contain \"%s\"", text, part);
}

template <typename T> struct device_array {
    T *data;
    explicit device_array(size_t count) : data(nullptr) {
        assert_int_equal(hipMalloc(&data, count * sizeof(T)), hipSuccess);
    }
    ~device_array() {
        hipFree(data);
    }
};

/* Launches one block, expects it to fail with a line that contains both parts, and expects the next
 * launch to run. */
template <typename... Parameters, typename... Arguments>
static void assert_launch_with_shared_fails(const char *name, void (*kernel)(Parameters...),
                                            int block, size_t shared_bytes, const char *part,
                                            Arguments... arguments) {
    const capture capture = capture_stderr();
    hip_emulator_launch_kernel(name, kernel, dim3(1), dim3((unsigned)block), shared_bytes, nullptr,
                               arguments...);
    const hipError_t launched = hipGetLastError();
    const hipError_t synchronized = hipStreamSynchronize(nullptr);
    const output output = release_stderr(capture);
    assert_int_equal(launched, hipSuccess);
    assert_int_equal(synchronized, hipErrorAssert);
    assert_contains(output.text, name);
    assert_contains(output.text, strrchr(__BASE_FILE__, '/') + 1);
    assert_contains(output.text, part);
    assert_int_equal(hipStreamSynchronize(nullptr), hipSuccess);
    assert_int_equal(hipGetLastError(), hipErrorAssert);
}

template <typename... Parameters, typename... Arguments>
static void assert_launch_fails(const char *name, void (*kernel)(Parameters...), int block,
                                const char *part, Arguments... arguments) {
    assert_launch_with_shared_fails(name, kernel, block, 0, part, arguments...);
}

static inline void set_order(const char *order) {
    setenv("ROPEWALK_EMULATED_ORDER", order, 1);
}

/* Runs `check` in every order of threads. */
static inline void in_all_orders(void (*check)(void)) {
    const char *before = getenv("ROPEWALK_EMULATED_ORDER");
    char *kept = before ? strdup(before) : nullptr;
    const char *const orders[] = {"forward", "reverse", "shuffle", "shuffle", "shuffle"};
    for (const char *order : orders) {
        set_order(order);
        check();
    }
    if (kept)
        set_order(kept);
    else
        unsetenv("ROPEWALK_EMULATED_ORDER");
    free(kept);
}

#endif
