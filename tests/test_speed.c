/* A GPU must be at least twice as fast as the CPU of its host, and must move nothing between host
 * and device meanwhile. Skipped where there is no real GPU. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "harness/test_support.h"

#define LEAST_SPEEDUP 2.0

static rw_context *cpu;
static rw_context *gpu;

static void compare(const char *operation, const char *text) {
    const rwt_driver *driver = rwt_driver_find(operation);
    const rwt_benchmark benchmark = {.name = operation, .text = text};
    rwt_timing on_cpu = {.brief = false}, on_gpu = {.brief = false};
    rw_message message = {""};
    bool timed = rwt_benchmark_time(driver, &benchmark, cpu, &on_cpu, &message) &&
                 rwt_benchmark_time(driver, &benchmark, gpu, &on_gpu, &message);
    if (!timed)
        print_error("%s: %s\n", operation, message.text);
    assert_true(timed);
    double speedup = on_cpu.seconds / on_gpu.seconds;
    print_message("%s %s: GPU %.1f us, %.0f%% of a copy; CPU %.1f us; %.1f times as fast\n",
                  operation, text, 1e6 * on_gpu.seconds,
                  100.0 * on_gpu.copy_seconds / on_gpu.seconds, 1e6 * on_cpu.seconds, speedup);
    assert_int_equal(on_gpu.moved_bytes, 0);
    assert_int_equal(on_cpu.moved_bytes, 0);
    assert_true(speedup >= LEAST_SPEEDUP);
}

static void test_rope(void **state) {
    (void)state;
    compare("rope", "seq=2048,q_heads=32,k_heads=32,head_dim=128,placement=in,positions=seq,"
                    "max_positions=2048");
}

static void test_learned(void **state) {
    (void)state;
    compare("embed_learned", "seq=2048,hidden=4096,max_positions=2048,placement=in");
}

static void test_attention(void **state) {
    (void)state;
    compare("attention", "dtype=bf16,out_dtype=bf16,heads=32,group=4,seq_q=1024,seq_k=1024,"
                         "head_dim=128,v_dim=128,causal=1,lse=0");
}

static void test_decode(void **state) {
    (void)state;
    compare("attention_combine", "dtype=bf16,out_dtype=bf16,batch=4,heads=32,group=4,seq_q=1,"
                                 "seq_k=8192,head_dim=128,v_dim=128,lse=0");
}

int main(void) {
    rw_backend_probe_result hip = rw_backend_probe(RW_BACKEND_HIP);
    if (!hip.automatic) {
        fprintf(stderr, "SKIPPED: no real GPU: %s\n",
                hip.usable ? "its devices are emulated" : hip.why.text);
        return RWT_TEST_SKIPPED;
    }
    rw_message message = {""};
    rw_context_options on_cpu = {.backend = RW_BACKEND_CPU}, on_gpu = {.backend = RW_BACKEND_HIP};
    if (rw_context_create(&on_cpu, &cpu, &message) != RW_OK ||
        rw_context_create(&on_gpu, &gpu, &message) != RW_OK) {
        fprintf(stderr, "%s\n", message.text);
        return 1;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rope),
        cmocka_unit_test(test_learned),
        cmocka_unit_test(test_attention),
        cmocka_unit_test(test_decode),
    };
    int failed = cmocka_run_group_tests_name("speed", tests, NULL, NULL);
    rw_context_destroy(cpu);
    rw_context_destroy(gpu);
    return failed;
}
