/* ropewalk check: every case of every operation on every backend, against a reference in double and
 * across backends. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "harness/harness.h"
#include "operations.h"

/* One run of the command. */
typedef struct checking {
    const cli_options *options;
    rwt_target_list targets;
    bool progress; /* on a terminal */
    int64_t failures;
    json_t *operations;
    json_t *failed; /* lines */
} checking;

static void clear_progress(const checking *run) {
    if (run->progress)
        fprintf(stderr, "\r\033[K");
}

static void print_failure(void *user, const char *line) {
    checking *run = user;
    clear_progress(run);
    fprintf(stderr, "%s\n", line);
    json_array_append_new(run->failed, json_string(line));
    run->failures++;
}

static void print_progress(void *user, size_t done, size_t of) {
    const checking *run = user;
    if (run->progress && (done % 16 == 0 || done == of))
        fprintf(stderr, "\r%zu of %zu cases", done, of);
}

static const char *status_of(const rwt_tally *tally) {
    if (tally->failures > 0)
        return "FAILED";
    return tally->unsupported == tally->cases && tally->cases > 0 ? "unsupported" : "ok";
}

static json_t *describe_target(const rwt_suite *suite, int t) {
    const rwt_tally *tally = &suite->tallies[t];
    rwt_case_text worst = rwt_case_print(suite->driver, &tally->worst_case);
    return json_pack("{s:s, s:s, s:I, s:I, s:I, s:f, s:s}", "target",
                     suite->targets->targets[t].name, "status", status_of(tally), "cases",
                     (json_int_t)tally->cases, "failures", (json_int_t)tally->failures,
                     "unsupported", (json_int_t)tally->unsupported, "worst_eps", tally->worst,
                     "worst_case", worst.text);
}

static void print_operation(const rwt_suite *suite) {
    for (int t = 0; t < suite->targets->count; t++) {
        const rwt_tally *tally = &suite->tallies[t];
        printf("%-24s %-14s %6lld %10.2f   %s\n", t == 0 ? suite->driver->name : "",
               suite->targets->targets[t].name, (long long)tally->cases, tally->worst,
               status_of(tally));
    }
    if (suite->targets->count > 1)
        printf("%-24s %-14s %6s %9.2g%%   %s\n", "", "across", "", 100.0 * suite->cross_worst,
               suite->cross_failures ? "FAILED" : "ok");
    fflush(stdout);
}

static bool has_dtype(const rwt_driver *driver, const rwt_case *c, rw_dtype dtype) {
    for (size_t f = 0; f < driver->num_fields; f++) {
        const rwt_field *field = &driver->fields[f];
        if (strcmp(field->name, "dtype") == 0)
            return strcmp(field->words[c->values[f]], rw_dtype_name(dtype)) == 0;
    }
    return false;
}

static void keep_dtype(const rwt_driver *driver, rw_dtype dtype, rwt_case_list *cases) {
    size_t kept = 0;
    for (size_t i = 0; i < cases->count; i++)
        if (has_dtype(driver, &cases->cases[i], dtype))
            cases->cases[kept++] = cases->cases[i];
    cases->count = kept;
}

/* Makes the cases that the options select; prints an error and returns false if there are none
 * or --case is invalid. */
static bool make_cases(const cli_options *options, const rwt_driver *driver, rwt_case_list *cases) {
    if (!options->case_text) {
        rwt_case_options wanted = {
            .tier = options->given & CLI_OPTION_TIER ? (rwt_tier)options->tier : RWT_LARGE,
            .num_random = options->given & CLI_OPTION_RANDOM ? options->random : -1,
            .seed = options->given & CLI_OPTION_SEED ? (uint64_t)options->seed : 1};
        if (options->share && !rwt_share_parse(options->share, &wanted)) {
            cli_fail(CLI_USAGE, "--share is \"%s\", expected I/N", options->share);
            return false;
        }
        *cases = rwt_case_list_make(driver, &wanted);
        if (options->given & CLI_OPTION_DTYPE)
            keep_dtype(driver, options->dtype, cases);
        if (cases->count > 0)
            return true;
        cli_fail(CLI_USAGE, "%s has no cases that the options select", driver->name);
        rwt_case_list_free(cases);
        return false;
    }
    rw_message message;
    *cases = (rwt_case_list){rwt_allocate(sizeof(rwt_case)), 1, 1};
    if (rwt_case_parse(driver, options->case_text, cases->cases, &message))
        return true;
    cli_fail(CLI_USAGE, "--case: %s", message.text);
    rwt_case_list_free(cases);
    return false;
}

static int check_operation(checking *run, const rwt_driver *driver) {
    rwt_suite suite = {.driver = driver,
                       .targets = &run->targets,
                       .failed = print_failure,
                       .progress = print_progress,
                       .user = run};
    if (!make_cases(run->options, driver, &suite.cases))
        return CLI_USAGE;
    bool good = rwt_suite_run(&suite);
    rwt_case_list_free(&suite.cases);
    clear_progress(run);
    if (!run->options->json)
        print_operation(&suite);
    json_t *targets = json_array();
    for (int t = 0; t < run->targets.count; t++)
        json_array_append_new(targets, describe_target(&suite, t));
    json_array_append_new(run->operations,
                          json_pack("{s:s, s:o, s:f, s:I}", "operation", driver->name, "targets",
                                    targets, "worst_across", suite.cross_worst, "failures_across",
                                    (json_int_t)suite.cross_failures));
    return good ? CLI_OK : CLI_FAILED;
}

static int check_all(checking *run) {
    int status = CLI_OK;
    if (!run->options->json)
        printf("%-24s %-14s %6s %10s   %s\n", "operation", "backend", "cases", "worst eps",
               "status");
    for (const rwt_driver *const *driver = rwt_drivers; *driver; driver++) {
        if (!cli_selects_operation(run->options, (*driver)->name))
            continue;
        int one = check_operation(run, *driver);
        if (one > status)
            status = one;
    }
    return status;
}

static void print_skipped(const checking *run) {
    for (int i = 0; i < run->targets.num_skipped; i++)
        printf("not checked: %s\n", run->targets.skipped[i].text);
}

static int run_check(const cli_options *options) {
    int status = cli_check_operations(options);
    if (status != CLI_OK)
        return status;
    if (options->case_text && options->num_operands != 1)
        return cli_fail(CLI_USAGE, "--case requires one operation, got %d", options->num_operands);
    checking run = {.options = options, .progress = isatty(STDERR_FILENO) == 1};
    rw_backend_kind kind = options->given & CLI_OPTION_BACKEND ? options->backend : RW_BACKEND_AUTO;
    rw_message message;
    if (!rwt_targets_open(&run.targets, kind, options->device, &message))
        return cli_fail(CLI_FAILED, "%s", message.text);
    run.operations = json_array();
    run.failed = json_array();
    status = check_all(&run);
    if (!options->json && status != CLI_USAGE)
        print_skipped(&run);
    rwt_targets_close(&run.targets);
    json_t *report = json_pack("{s:o, s:o, s:b}", "operations", run.operations, "failures",
                               run.failed, "passed", status == CLI_OK);
    if (options->json && status != CLI_USAGE) {
        int printed = cli_print_json(report);
        return printed == CLI_OK ? status : printed;
    }
    json_decref(report);
    return status;
}

const cli_command cli_check = {
    .name = "check",
    .summary = "Compare every operation on every backend with a reference and across backends",
    .options = CLI_OPTION_BACKEND | CLI_OPTION_JSON | CLI_OPTION_CASE | CLI_OPTION_TIER |
               CLI_OPTION_RANDOM | CLI_OPTION_SEED | CLI_OPTION_DTYPE | CLI_OPTION_SHARE,
    .operands = "[OPERATION...]",
    .details =
        "auto: every usable backend, and each instruction set of the CPU. The worst error is\n"
        "in units of the dtype's epsilon times the sum of the magnitudes; 4 are allowed.\n"
        "Operations:\n"
#define RW_OP(op, dtypes) "  " #op "\n"
#include "../ops.def"
#undef RW_OP
    ,
    .run = run_check,
};
