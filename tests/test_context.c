/* Contexts: which backend opens, the environment, memory, copies, counters, errors. */
#define _GNU_SOURCE /* sched_setaffinity */

#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "harness/test_support.h"

/* ---- the environment ------------------------------------------------------------------------- */

static const char *const variables[] = {"ROPEWALK_BACKEND", "ROPEWALK_NUM_THREADS",
                                        "OMP_NUM_THREADS", "ROPEWALK_CPU_ISA", "ROPEWALK_LOG"};
static char saved[sizeof variables / sizeof *variables][64];

static int clear_environment(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof variables / sizeof *variables; i++) {
        const char *value = getenv(variables[i]);
        snprintf(saved[i], sizeof saved[i], "%s", value ? value : "");
        unsetenv(variables[i]);
    }
    return 0;
}

static int restore_environment(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof variables / sizeof *variables; i++) {
        unsetenv(variables[i]);
        if (saved[i][0])
            setenv(variables[i], saved[i], 1);
    }
    return 0;
}

static rw_context *create(rw_context_options options) {
    rw_context *context = NULL;
    rw_message message = {""};
    rw_status status = rw_context_create(&options, &context, &message);
    if (status != RW_OK)
        print_error("%s\n", message.text);
    assert_int_equal(status, RW_OK);
    assert_non_null(context);
    return context;
}

/* Fails with this status, and a sentence that contains each of the words. */
static void assert_create_fails(rw_context_options options, rw_status expected,
                                const char *const *words) {
    rw_context *context = (rw_context *)&options;
    rw_message message = {""};
    assert_int_equal(rw_context_create(&options, &context, &message), expected);
    assert_null(context);
    for (; *words; words++) {
        assert_true(rwt_test_says(message.text, *words));
    }
    assert_int_equal(rw_context_create(&options, &context, NULL), expected);
}

static void assert_backend(rw_context_options options, const char *backend) {
    rw_context *context = create(options);
    assert_string_equal(rw_context_get_info(context).backend, backend);
    rw_context_destroy(context);
}

static void test_option_wins_over_environment(void **state) {
    (void)state;
    setenv("ROPEWALK_BACKEND", "hip:77", 1);
    assert_backend((rw_context_options){.backend = RW_BACKEND_CPU}, "cpu");
    setenv("ROPEWALK_BACKEND", "cpu", 1);
    rw_backend_probe_result hip = rw_backend_probe(RW_BACKEND_HIP);
    if (hip.usable)
        assert_backend((rw_context_options){.backend = RW_BACKEND_HIP}, "hip");
    assert_backend((rw_context_options){.backend = RW_BACKEND_AUTO}, hip.automatic ? "hip" : "cpu");
}

static void test_environment_wins_over_auto(void **state) {
    (void)state;
    setenv("ROPEWALK_BACKEND", "cpu", 1);
    assert_backend((rw_context_options){0}, "cpu");
    rw_backend_probe_result hip = rw_backend_probe(RW_BACKEND_HIP);
    if (hip.usable) {
        setenv("ROPEWALK_BACKEND", "hip", 1);
        assert_backend((rw_context_options){0}, "hip");
        setenv("ROPEWALK_BACKEND", "hip:0", 1);
        assert_backend((rw_context_options){0}, "hip");
    }
}

static void test_auto_takes_real_devices_only(void **state) {
    (void)state;
    rw_backend_probe_result hip = rw_backend_probe(RW_BACKEND_HIP);
    const char *expected = hip.automatic ? "hip" : "cpu";
    if (!strcmp(hip.platform, "emulated"))
        assert_false(hip.automatic);
    assert_backend((rw_context_options){0}, expected);
    setenv("ROPEWALK_BACKEND", "auto", 1);
    assert_backend((rw_context_options){0}, expected);
    rw_context *context;
    assert_int_equal(rw_context_create(NULL, &context, NULL), RW_OK);
    assert_string_equal(rw_context_get_info(context).backend, expected);
    rw_context_destroy(context);
}

static void test_unknown_backend_lists_the_valid_ones(void **state) {
    (void)state;
    static const char *const values[] = {"gpu",    "CPU",    "hip:", "hip:x",
                                         "hip:-1", "hip:1x", "cpu:0"};
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        setenv("ROPEWALK_BACKEND", values[i], 1);
        const char *const words[] = {"ROPEWALK_BACKEND", values[i], "auto", "cpu", "hip", NULL};
        assert_create_fails((rw_context_options){0}, RW_INVALID_ARGUMENT, words);
    }
    const char *const words[] = {"backend", "99", "auto", "cpu", "hip", NULL};
    unsetenv("ROPEWALK_BACKEND");
    assert_create_fails((rw_context_options){.backend = (rw_backend_kind)99}, RW_INVALID_ARGUMENT,
                        words);
}

static void test_explicit_hip_never_falls_back(void **state) {
    (void)state;
    static const char *const words[] = {"hip", NULL};
    rw_context_options absent = {.backend = RW_BACKEND_HIP, .device = 99};
    assert_create_fails(absent, RW_BACKEND_UNAVAILABLE, words);
    setenv("ROPEWALK_BACKEND", "hip:99", 1);
    assert_create_fails((rw_context_options){0}, RW_BACKEND_UNAVAILABLE, words);
    if (!rw_backend_probe(RW_BACKEND_HIP).usable) {
        setenv("ROPEWALK_BACKEND", "hip", 1);
        assert_create_fails((rw_context_options){0}, RW_BACKEND_UNAVAILABLE, words);
    }
}

static void assert_threads(rw_context_options options, int expected) {
    options.backend = RW_BACKEND_CPU;
    rw_context *context = create(options);
    assert_int_equal(rw_context_get_info(context).num_threads, expected);
    rw_context_destroy(context);
}

static void test_num_threads(void **state) {
    (void)state;
    setenv("ROPEWALK_NUM_THREADS", "3", 1);
    assert_threads((rw_context_options){0}, 3);
    assert_threads((rw_context_options){.num_threads = 2}, 2);
    static const char *const values[] = {"0", "-1", "two", "3x", "99999999999999999999"};
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        setenv("ROPEWALK_NUM_THREADS", values[i], 1);
        const char *const words[] = {"ROPEWALK_NUM_THREADS", values[i], NULL};
        assert_create_fails((rw_context_options){0}, RW_INVALID_ARGUMENT, words);
    }
    unsetenv("ROPEWALK_NUM_THREADS");
    const char *const words[] = {"num_threads", "-4", NULL};
    assert_create_fails((rw_context_options){.num_threads = -4}, RW_INVALID_ARGUMENT, words);
}

static void test_num_threads_of_openmp(void **state) {
    (void)state;
    setenv("OMP_NUM_THREADS", "3", 1);
    assert_threads((rw_context_options){0}, 3);
    setenv("OMP_NUM_THREADS", " 5, 2", 1);
    assert_threads((rw_context_options){0}, 5);
    assert_threads((rw_context_options){.num_threads = 2}, 2);
    setenv("ROPEWALK_NUM_THREADS", "4", 1);
    assert_threads((rw_context_options){0}, 4);
    setenv("OMP_NUM_THREADS", "x", 1);
    assert_threads((rw_context_options){0}, 4);
    unsetenv("ROPEWALK_NUM_THREADS");
    static const char *const values[] = {"x", "0", "1025", ",2", "4x", "1000000000000000000000001"};
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        setenv("OMP_NUM_THREADS", values[i], 1);
        const char *const words[] = {"OMP_NUM_THREADS", values[i], "1 to 1024", NULL};
        assert_create_fails((rw_context_options){0}, RW_INVALID_ARGUMENT, words);
    }
}

/* Without a number, as many threads as the process may use cores. */
static void test_num_threads_of_affinity(void **state) {
    (void)state;
    cpu_set_t before, one;
    assert_int_equal(sched_getaffinity(0, sizeof before, &before), 0);
    assert_threads((rw_context_options){0}, CPU_COUNT(&before));
    CPU_ZERO(&one);
    for (int cpu = 0; cpu < CPU_SETSIZE && CPU_COUNT(&one) == 0; cpu++)
        if (CPU_ISSET(cpu, &before))
            CPU_SET(cpu, &one);
    assert_int_equal(sched_setaffinity(0, sizeof one, &one), 0);
    rw_context *context = create((rw_context_options){.backend = RW_BACKEND_CPU});
    assert_int_equal(sched_setaffinity(0, sizeof before, &before), 0);
    assert_int_equal(rw_context_get_info(context).num_threads, 1);
    rw_context_destroy(context);
}

static void test_cpu_isa(void **state) {
    (void)state;
    rw_context_options cpu = {.backend = RW_BACKEND_CPU};
    setenv("ROPEWALK_CPU_ISA", "baseline", 1);
    rw_context *context = create(cpu);
    assert_string_equal(rw_context_get_info(context).platform, "baseline");
    rw_context_destroy(context);
    cpu.cpu_isa = RW_CPU_ISA_V4; /* a cap: the best that the host supports */
    context = create(cpu);
    assert_string_not_equal(rw_context_get_info(context).platform, "amx");
    rw_context_destroy(context);
    unsetenv("ROPEWALK_CPU_ISA");
    cpu.cpu_isa = RW_CPU_ISA_AMX;
    context = create(cpu);
    rw_context_info best = rw_context_get_info(context);
#if RWI_AMX == 2 /* what stands for AMX in tests is there on request only */
    const bool emulated = true;
#else
    const bool emulated = false;
#endif
    cpu.cpu_isa = RW_CPU_ISA_DEFAULT;
    rw_context *automatic = create(cpu);
    assert_string_equal(rw_context_get_info(automatic).platform,
                        emulated && strcmp(best.platform, "amx") == 0 ? "v4" : best.platform);
    rw_context_destroy(automatic);
    rw_context_destroy(context);
    context = create(cpu);
    rw_backend_probe_result probe = rw_backend_probe(RW_BACKEND_CPU);
    assert_string_equal(rw_context_get_info(context).platform, probe.platform);
    rw_context_destroy(context);
    setenv("ROPEWALK_CPU_ISA", "avx512", 1);
    const char *const words[] = {"ROPEWALK_CPU_ISA", "avx512", "baseline", "v3", "v4", "amx", NULL};
    assert_create_fails((rw_context_options){.backend = RW_BACKEND_CPU}, RW_INVALID_ARGUMENT,
                        words);
}

static void keep_line(void *user, const char *line) {
    char *kept = user;
    snprintf(kept, 512, "%s", line);
}

static void test_log_says_what_opened(void **state) {
    (void)state;
    char line[512] = "";
    rw_context_options options = {.backend = RW_BACKEND_AUTO, .log = keep_line, .log_user = line};
    rw_context *context = create(options);
    assert_true(rwt_test_says(line, rw_context_get_info(context).backend));
    if (!rw_backend_probe(RW_BACKEND_HIP).automatic)
        assert_true(rwt_test_says(line, "hip")); /* and the reason why it is not hip */
    rw_context_destroy(context);
}

static void test_probe(void **state) {
    (void)state;
    rw_backend_probe_result cpu = rw_backend_probe(RW_BACKEND_CPU);
    assert_true(cpu.found && cpu.usable && cpu.device_count >= 1);
    assert_string_equal(cpu.why.text, "");
    rw_backend_probe_result hip = rw_backend_probe(RW_BACKEND_HIP);
    assert_true(hip.usable ? hip.found && hip.device_count > 0 : hip.why.text[0] != '\0');
    assert_true(!hip.automatic || hip.usable);
    rw_backend_probe_result none = rw_backend_probe(RW_BACKEND_AUTO);
    assert_false(none.found || none.usable);
}

/* ---- memory, copies, counters: on the backend that ROPEWALK_BACKEND names ---- */

static int open_context(void **state) {
    *state = rwt_test_context();
    return 0;
}

static int close_context(void **state) {
    rw_context_destroy(*state);
    return 0;
}

static void test_alloc(void **state) {
    rw_context *context = *state;
    void *pointer = NULL;
    assert_int_equal(rw_alloc(context, 1000, &pointer), RW_OK);
    assert_int_equal((uintptr_t)pointer % 256, 0);
    assert_int_equal(rw_free(context, pointer), RW_OK);
    pointer = NULL;
    assert_int_equal(rw_alloc(context, 0, &pointer), RW_OK);
    assert_non_null(pointer);
    assert_int_equal(rw_free(context, pointer), RW_OK);
    assert_int_equal(rw_free(context, NULL), RW_OK);
    assert_string_equal(rw_last_error(context), "");
    assert_int_equal(rw_alloc(context, 8, NULL), RW_INVALID_ARGUMENT);
    assert_true(rwt_test_says(rw_last_error(context), "rw_alloc"));
}

static void test_alloc_of_too_much(void **state) {
    rw_context *context = *state;
    const size_t sizes[] = {SIZE_MAX, SIZE_MAX - 100, SIZE_MAX / 2, (size_t)1 << 56};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        void *pointer = context;
        assert_int_equal(rw_alloc(context, sizes[i], &pointer), RW_OUT_OF_MEMORY);
        assert_null(pointer);
        assert_true(rwt_test_says(rw_last_error(context), "rw_alloc"));
    }
    void *pointer; /* the context still works */
    assert_int_equal(rw_alloc(context, 64, &pointer), RW_OK);
    assert_int_equal(rw_free(context, pointer), RW_OK);
}

static void test_copies_count(void **state) {
    rw_context *context = *state;
    char source[300], back[300] = {0};
    for (int i = 0; i < 300; i++)
        source[i] = (char)(i * 7);
    rw_transfers none = rw_context_transfers(context);
    assert_int_equal(none.host_to_device_bytes + none.device_to_host_bytes, 0);
    char *first = rwt_test_upload(context, source, sizeof source);
    char *second = rwt_test_upload(context, back, sizeof back);
    assert_int_equal(rw_context_transfers(context).host_to_device_bytes, 600);
    rw_copy_args across = {second + 10, first + 20, 200, RW_COPY_DEVICE_TO_DEVICE};
    assert_int_equal(rw_copy(context, &across), RW_OK);
    assert_int_equal(rw_context_transfers(context).host_to_device_bytes, 600);
    assert_int_equal(rw_context_transfers(context).device_to_host_bytes, 0);
    rwt_test_download(context, back, second, sizeof back);
    assert_int_equal(rw_context_transfers(context).device_to_host_bytes, 300);
    assert_memory_equal(back + 10, source + 20, 200);
    assert_int_equal(back[9] | back[210], 0);
    assert_int_equal(rw_free(context, first) | rw_free(context, second), RW_OK);
}

static void test_copy_arguments(void **state) {
    rw_context *context = *state;
    char host[8] = {0};
    void *device = rwt_test_upload(context, host, sizeof host);
    const struct {
        rw_copy_args args;
        const char *word;
    } wrong[] = {{{NULL, host, 8, RW_COPY_HOST_TO_DEVICE}, "destination"},
                 {{device, NULL, 8, RW_COPY_HOST_TO_DEVICE}, "source"},
                 {{device, host, 8, (rw_copy_kind)17}, "kind"}};
    uint64_t before = rw_context_transfers(context).host_to_device_bytes;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        assert_int_equal(rw_copy(context, &wrong[i].args), RW_INVALID_ARGUMENT);
        assert_true(rwt_test_says(rw_last_error(context), "rw_copy"));
        assert_true(rwt_test_says(rw_last_error(context), wrong[i].word));
    }
    assert_int_equal(rw_copy(context, NULL), RW_INVALID_ARGUMENT);
    assert_int_equal(rw_context_transfers(context).host_to_device_bytes, before);
    assert_int_equal(rw_free(context, device), RW_OK);
}

static void test_null_context(void **state) {
    (void)state;
    void *pointer;
    rw_copy_args copy = {0};
    assert_int_equal(rw_synchronize(NULL), RW_INVALID_ARGUMENT);
    assert_int_equal(rw_alloc(NULL, 8, &pointer), RW_INVALID_ARGUMENT);
    assert_int_equal(rw_free(NULL, NULL), RW_INVALID_ARGUMENT);
    assert_int_equal(rw_copy(NULL, &copy), RW_INVALID_ARGUMENT);
    assert_int_equal(rw_context_set_stream(NULL, NULL), RW_INVALID_ARGUMENT);
    assert_non_null(rw_last_error(NULL));
    assert_string_equal(rw_context_get_info(NULL).backend, "");
    assert_int_equal(rw_context_transfers(NULL).host_to_device_bytes, 0);
    assert_int_equal(rw_context_create(NULL, NULL, NULL), RW_INVALID_ARGUMENT);
    rw_context_destroy(NULL);
    rw_rope_destroy(NULL);
    rw_sinusoid_destroy(NULL);
}

/* ---- errors ---- */

/* Adds row `id` of a table of four rows to one token; larger ids are faults. */
static rw_status embed_one(rw_context *context, float *memory, int64_t *id) {
    const int64_t x_shape[] = {1, 2}, table_shape[] = {4, 2}, id_shape[] = {1};
    rw_tensor table = rw_tensor_contiguous(memory + 2, RW_F32, 2, table_shape);
    rw_embed_args args = {.x = rw_tensor_contiguous(memory, RW_F32, 2, x_shape),
                          .positions = rw_tensor_contiguous(id, RW_I64, 1, id_shape)};
    return rw_embed_learned(context, &table, &args);
}

static void test_fault_is_reported_once(void **state) {
    rw_context *context = *state;
    const float values[10] = {0, 0, 1, 2, 3, 4, 5, 6, 7, 8};
    const int64_t ids[] = {3, 4, -9};
    float *memory = rwt_test_upload(context, values, sizeof values);
    int64_t *device_ids = rwt_test_upload(context, ids, sizeof ids);
    assert_int_equal(embed_one(context, memory, device_ids), RW_OK);
    assert_int_equal(rw_synchronize(context), RW_OK);
    assert_int_equal(embed_one(context, memory, device_ids + 1), RW_OK);
    assert_int_equal(embed_one(context, memory, device_ids + 2), RW_OK);
    assert_int_equal(embed_one(context, memory, device_ids), RW_OK);
    assert_int_equal(rw_synchronize(context), RW_OUT_OF_RANGE); /* that of the first operation */
    assert_true(rwt_test_says(rw_last_error(context), "embed_learned"));
    assert_true(rwt_test_says(rw_last_error(context), "has position id 4"));
    assert_int_equal(rw_synchronize(context), RW_OK);
    assert_true(rwt_test_says(rw_last_error(context),
                              "has position id 4")); /* stays until the next failure */
    float x[2];
    rwt_test_download(context, x, memory, sizeof x); /* row 3 twice, without the faults */
    assert_true(x[0] == 14.0f && x[1] == 16.0f);
    assert_int_equal(rw_free(context, memory) | rw_free(context, device_ids), RW_OK);
}

static void test_contexts_are_independent(void **state) {
    rw_context *first = *state;
    rw_context *second = rwt_test_context();
    const float values[10] = {0};
    const int64_t bad = 4;
    float *memory = rwt_test_upload(first, values, sizeof values);
    int64_t *id = rwt_test_upload(first, &bad, sizeof bad);
    assert_int_equal(rw_context_transfers(second).host_to_device_bytes, 0);
    assert_int_equal(rw_copy(first, NULL), RW_INVALID_ARGUMENT);
    assert_string_equal(rw_last_error(second), "");
    assert_int_equal(embed_one(first, memory, id), RW_OK);
    assert_int_equal(rw_synchronize(second), RW_OK);
    assert_int_equal(rw_synchronize(first), RW_OUT_OF_RANGE);
    assert_string_equal(rw_last_error(second), "");
    rw_context_destroy(second);
    assert_int_equal(rw_free(first, memory) | rw_free(first, id), RW_OK);
    assert_int_equal(rw_synchronize(first), RW_OK);
}

static void test_names(void **state) {
    (void)state;
    assert_string_equal(rw_status_name(RW_OUT_OF_RANGE), "RW_OUT_OF_RANGE");
    assert_string_equal(rw_status_name((rw_status)55), "unknown status");
    assert_string_equal(rw_dtype_name(RW_BF16), "bf16");
    assert_string_equal(rw_dtype_name((rw_dtype)55), "unknown dtype");
    const size_t sizes[] = {4, 2, 2, 4, 8, 1, 1, 1};
    assert_string_equal(rw_dtype_name(RW_F8_E4M3), "f8_e4m3");
    assert_string_equal(rw_dtype_name(RW_F8_E5M2), "f8_e5m2");
    assert_int_equal(sizeof sizes / sizeof *sizes, RWT_NUM_DTYPES);
    for (int dtype = 0; dtype < RWT_NUM_DTYPES; dtype++)
        assert_int_equal(rw_dtype_size((rw_dtype)dtype), sizes[dtype]);
    assert_int_equal(rw_dtype_size((rw_dtype)RWT_NUM_DTYPES), 0);
    assert_int_equal(rw_dtype_size((rw_dtype)55), 0);
    char version[32];
    snprintf(version, sizeof version, "%d.%d.%d", RW_VERSION_MAJOR, RW_VERSION_MINOR,
             RW_VERSION_PATCH);
    assert_string_equal(rw_version(), version);
    assert_int_equal(rw_version_number(), RW_VERSION_NUMBER);
    assert_int_equal(rw_abi_version(), RW_ABI_VERSION);
}

static void test_tensors(void **state) {
    (void)state;
    const int64_t shape[] = {2, 3, 5, 7};
    rw_tensor bshd = rw_tensor_contiguous((void *)shape, RW_F16, 4, shape);
    const int64_t strides[] = {105, 35, 7, 1};
    assert_memory_equal(bshd.stride, strides, sizeof strides);
    assert_int_equal(bshd.rank, 4);
    rw_tensor swapped = rw_tensor_transpose(bshd, 1, 2);
    assert_true(swapped.shape[1] == 5 && swapped.shape[2] == 3);
    assert_true(swapped.stride[1] == 7 && swapped.stride[2] == 35);
    assert_ptr_equal(swapped.data, shape);
}

#define ENVIRONMENT_TEST(name)                                                                     \
    cmocka_unit_test_setup_teardown(name, clear_environment, restore_environment)
#define CONTEXT_TEST(name) cmocka_unit_test_setup_teardown(name, open_context, close_context)

int main(void) {
    if (!rwt_test_backend_usable())
        return RWT_TEST_SKIPPED;
    const struct CMUnitTest tests[] = {
        ENVIRONMENT_TEST(test_option_wins_over_environment),
        ENVIRONMENT_TEST(test_environment_wins_over_auto),
        ENVIRONMENT_TEST(test_auto_takes_real_devices_only),
        ENVIRONMENT_TEST(test_unknown_backend_lists_the_valid_ones),
        ENVIRONMENT_TEST(test_explicit_hip_never_falls_back),
        ENVIRONMENT_TEST(test_num_threads),
        ENVIRONMENT_TEST(test_num_threads_of_openmp),
        ENVIRONMENT_TEST(test_num_threads_of_affinity),
        ENVIRONMENT_TEST(test_cpu_isa),
        ENVIRONMENT_TEST(test_log_says_what_opened),
        ENVIRONMENT_TEST(test_probe),
        CONTEXT_TEST(test_alloc),
        CONTEXT_TEST(test_alloc_of_too_much),
        CONTEXT_TEST(test_copies_count),
        CONTEXT_TEST(test_copy_arguments),
        cmocka_unit_test(test_null_context),
        CONTEXT_TEST(test_fault_is_reported_once),
        CONTEXT_TEST(test_contexts_are_independent),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_tensors),
    };
    return cmocka_run_group_tests_name("context", tests, NULL, NULL);
}
