/* Every case of every driver, on the backend that ROPEWALK_BACKEND names and on each of its ISAs.
 *
 * ROPEWALK_TEST_TIER=quick|full|large [large], ROPEWALK_TEST_FROM=<the lowest tier> [quick],
 * ROPEWALK_TEST_RANDOM=<cases per operation>, ROPEWALK_TEST_SEED and ROPEWALK_TEST_SHARE=<I/N>
 * select the cases, ROPEWALK_TEST_ONLY and ROPEWALK_TEST_WITHOUT, patterns with *, the operations;
 * ROPEWALK_TEST_ACROSS=1 runs every usable backend and compares their results with each other.
 */
#include "harness/harness.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "harness/test_support.h"

static rwt_target_list targets;
static rwt_case_options case_options = {.tier = RWT_LARGE, .num_random = -1, .seed = 1};
static int64_t num_cases; /* of all operations */

static void print_failure(void *user, const char *line) {
    int *count = user;
    if ((*count)++ < 10) /* the first ones are sufficient */
        fprintf(stderr, "%s\n", line);
}

static void test_driver(void **state) {
    rwt_test_restore_crash_handlers();
    int printed = 0;
    rwt_suite suite = {.driver = *state,
                       .targets = &targets,
                       .cases = rwt_case_list_make(*state, &case_options),
                       .failed = print_failure,
                       .user = &printed};
    bool good = rwt_suite_run(&suite);
    for (int t = 0; t < targets.count; t++)
        print_message("%s on %s: %lld cases, worst %.2f eps\n", suite.driver->name,
                      targets.targets[t].name, (long long)suite.tallies[t].cases,
                      suite.tallies[t].worst);
    rwt_case_list_free(&suite.cases);
    assert_true(good);
    for (int t = 0; t < targets.count; t++) {
        assert_int_equal(suite.tallies[t].unsupported, 0);
        assert_true(suite.tallies[t].cases > 0 || case_options.from > RWT_QUICK ||
                    case_options.shares > 1);
        num_cases += suite.tallies[t].cases;
    }
}

static bool refuse(const char *name, const char *value, const char *expected) {
    fprintf(stderr, "%s is \"%s\", expected %s\n", name, value, expected);
    return false;
}

static bool read_tier(const char *name, rwt_tier *tier) {
    static const char *const tiers[] = {"quick", "full", "large"};
    const char *value = getenv(name);
    if (!value)
        return true;
    for (int i = 0; i < 3; i++) {
        if (!strcmp(value, tiers[i])) {
            *tier = (rwt_tier)i;
            return true;
        }
    }
    return refuse(name, value, "quick, full or large");
}

/* Leaves `number` where the variable is not set. */
static bool read_number(const char *name, uint64_t *number) {
    const char *value = getenv(name);
    if (!value)
        return true;
    char *end;
    *number = strtoull(value, &end, 10);
    return (*value >= '0' && *value <= '9' && *end == 0) || refuse(name, value, "a number");
}

static bool read_environment(void) {
    uint64_t num_random = (uint64_t)case_options.num_random;
    if (!read_tier("ROPEWALK_TEST_TIER", &case_options.tier) ||
        !read_tier("ROPEWALK_TEST_FROM", &case_options.from) ||
        !read_number("ROPEWALK_TEST_RANDOM", &num_random) ||
        !read_number("ROPEWALK_TEST_SEED", &case_options.seed))
        return false;
    case_options.num_random = (int64_t)num_random;
    const char *share = getenv("ROPEWALK_TEST_SHARE");
    return !share || rwt_share_parse(share, &case_options) ||
           refuse("ROPEWALK_TEST_SHARE", share, "I/N");
}

int main(void) {
    rw_message message;
    rwt_test_keep_crash_handlers();
    if (!read_environment())
        return 1;
    const char *across = getenv("ROPEWALK_TEST_ACROSS");
    if (!across && !rwt_test_backend_usable())
        return RWT_TEST_SKIPPED;
    rw_backend_kind kind = across ? RW_BACKEND_AUTO : RW_BACKEND_DEFAULT;
    if (!rwt_targets_open(&targets, kind, 0, &message)) {
        fprintf(stderr, "%s\n", message.text);
        return 1;
    }
    /* NULL: all. */
    cmocka_set_test_filter(getenv("ROPEWALK_TEST_ONLY"));
    cmocka_set_skip_filter(getenv("ROPEWALK_TEST_WITHOUT"));
    struct CMUnitTest tests[64];
    size_t count = 0;
    for (const rwt_driver *const *driver = rwt_drivers; *driver; driver++)
        tests[count++] = (struct CMUnitTest){(*driver)->name, test_driver, NULL, NULL,
                                             (void *)(uintptr_t)*driver};
    int failed = _cmocka_run_group_tests("operations", tests, count, NULL, NULL);
    rwt_targets_close(&targets);
    return failed || num_cases == 0;
}
