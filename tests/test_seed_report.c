/* The bugs of the GPU path that this library replaces, one test each: the backend that
 * ROPEWALK_BACKEND names is compared with the CPU's baseline kernels, and both with the reference.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "harness/test_support.h"

static rwt_target_list plain;  /* the CPU: baseline first */
static rwt_target_list tested; /* the backend under test: its best target last */

/* Runs one case on both; each must agree with the reference, and they with each other to 0.1%. */
static void compare(const char *operation, const char *text) {
    const rwt_driver *driver = rwt_driver_find(operation);
    rwt_case c;
    rw_message message = {""};
    rwt_test_restore_crash_handlers();
    if (!rwt_case_parse(driver, text, &c, &message))
        print_error("%s\n", message.text);
    assert_true(rwt_case_parse(driver, text, &c, &message));
    rwt_job *job = rwt_job_make(driver, &c, true);
    rwt_images ours, theirs;
    rwt_outcome a = rwt_job_run(job, &plain.targets[0], &ours);
    rwt_outcome b = rwt_job_run(job, &tested.targets[tested.count - 1], &theirs);
    if (a.failed || b.failed)
        print_error("%s '%s': %s\n", operation, text, a.failed ? a.reason : b.reason);
    assert_false(a.failed || b.failed);
    rwt_outcome across = rwt_images_compare(job, &ours, &theirs);
    if (across.failed)
        print_error("%s '%s': %s\n", operation, text, across.reason);
    assert_false(across.failed);
    rwt_images_free(&ours);
    rwt_images_free(&theirs);
    rwt_job_free(job);
}

static void test_batches(void **state) {
    (void)state;
    compare("rope", "batch=4,seq=33,q_heads=8,k_heads=8,head_dim=64,positions=batch_seq");
    compare("rope", "batch=3,seq=20,layout=bhsd,out_layout=bhsd,offsets=i32");
    compare("embed_learned", "batch=4,seq=33,hidden=512");
    compare("embed_learned", "batch=3,seq=20,hidden=512,positions=batch_seq,offsets=i64");
}

static void test_several_heads(void **state) {
    (void)state;
    compare("rope", "q_heads=2,k_heads=2,seq=16");
    compare("rope", "q_heads=12,k_heads=12,seq=16,batch=2,pairing=interleaved");
    compare("rope", "q_heads=40,k_heads=40,head_dim=128,seq=16,placement=in");
}

/* The old kernel read past the end of k if k had fewer heads than q. */
static void test_grouped_query_attention(void **state) {
    (void)state;
    compare("rope", "q_heads=32,k_heads=8,head_dim=128,seq=19,batch=2");
    compare("rope", "q_heads=32,k_heads=1,head_dim=128,seq=19,placement=in");
    compare("rope", "q_heads=28,k_heads=4,head_dim=128,seq=19,fused=1,placement=in");
    compare("rope", "q_heads=1,k_heads=4,head_dim=64,seq=7");
}

/* The old backends differed: half-split on one and interleaved on the other. */
static void test_rope_matches_the_cpu(void **state) {
    (void)state;
    compare("rope", "seq=64,q_heads=8,k_heads=8,head_dim=64");
    compare("rope", "seq=64,q_heads=8,k_heads=8,head_dim=64,pairing=interleaved");
    compare("rope", "seq=64,q_heads=8,k_heads=8,head_dim=128,dtype=f16");
    compare("rope", "seq=64,q_heads=8,k_heads=8,head_dim=80,placement=in");
    compare("rope", "seq=64,q_heads=8,k_heads=8,head_dim=64,direction=inverse,type=yarn");
    /* scaled positions, which must not be rounded down to integers */
    compare("rope", "seq=64,q_heads=8,k_heads=8,head_dim=64,type=linear,variant=0");
}

static void test_learned_matches_the_cpu(void **state) {
    (void)state;
    compare("embed_learned", "seq=64,hidden=768");
    compare("embed_learned", "seq=64,hidden=768,placement=in,positions=seq");
    compare("embed_learned", "seq=64,hidden=768,dtype=f16,table_dtype=f16");
    compare("embed_sinusoidal", "seq=64,hidden=768,pe=concatenated");
}

static void test_empty_sequences(void **state) {
    (void)state;
    compare("rope", "seq=0,batch=2");
    compare("rope", "seq=4,batch=0");
    compare("rope", "seq=0,layout=thd,out_layout=thd,positions=seq");
    compare("embed_learned", "seq=0,batch=2,positions=batch_seq");
    compare("embed_learned", "seq=3,hidden=0");
    compare("positions_sequential", "seq=0,batch=2,offsets=1");
    compare("positions_packed", "seq=0,documents=3");
}

static void test_last_position(void **state) {
    (void)state;
    compare("rope", "max_positions=4096,offset=4095,seq=1");
    compare("rope", "max_positions=1048576,offset=1048560,seq=16,head_dim=128");
    compare("rope", "max_positions=4096,offset=4095,seq=2"); /* one past it is out of range */
    compare("embed_learned", "max_positions=64,offset=63,seq=1");
    compare("embed_learned", "max_positions=64,offset=60,seq=5,batch=2");
    compare("embed_sinusoidal", "max_positions=1048576,offset=1048575,seq=1,hidden=64");
}

/* head_dim over 128 and sequences over 256 were truncated. */
static void test_long_and_large(void **state) {
    (void)state;
    compare("rope", "seq=2048,q_heads=8,k_heads=2,head_dim=128,placement=in");
    compare("rope", "seq=257,q_heads=4,k_heads=4,head_dim=256");
    compare("rope", "seq=300,q_heads=2,k_heads=2,head_dim=512,batch=2,dtype=bf16");
    compare("rope", "seq=32769,q_heads=1,k_heads=1,head_dim=32,max_positions=65536");
    compare("embed_learned", "seq=2048,hidden=4096,max_positions=2048");
    compare("embed_learned", "seq=257,hidden=12288,max_positions=300,batch=2,dtype=bf16");
}

int main(void) {
    rw_message message;
    rwt_test_keep_crash_handlers();
    if (!rwt_test_backend_usable())
        return RWT_TEST_SKIPPED;
    if (!rwt_targets_open(&plain, RW_BACKEND_CPU, 0, &message) ||
        !rwt_targets_open(&tested, RW_BACKEND_DEFAULT, 0, &message)) {
        fprintf(stderr, "%s\n", message.text);
        return 1;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_batches),
        cmocka_unit_test(test_several_heads),
        cmocka_unit_test(test_grouped_query_attention),
        cmocka_unit_test(test_rope_matches_the_cpu),
        cmocka_unit_test(test_learned_matches_the_cpu),
        cmocka_unit_test(test_empty_sequences),
        cmocka_unit_test(test_last_position),
        cmocka_unit_test(test_long_and_large),
    };
    int failed = cmocka_run_group_tests_name("seed report", tests, NULL, NULL);
    rwt_targets_close(&plain);
    rwt_targets_close(&tested);
    return failed;
}
