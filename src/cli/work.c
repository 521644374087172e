#include "work.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* The state of the work. */
typedef struct state {
    const cli_work *work;
    cli_outcome first;
    cli_backend_label last;
    json_t *checks; /* {"on", "tensor", "max_abs_diff", "max_rel_diff", "agrees"} */
    rw_message message;
} state;

static rw_status run_on(state *s, const rw_context_options *where, cli_outcome *outcome) {
    rw_context *context;
    *outcome = (cli_outcome){0};
    rw_status status = rw_context_create(where, &context, &s->message);
    if (status != RW_OK)
        return status;
    rw_context_info info = rw_context_get_info(context);
    outcome->label = cli_label(&info);
    snprintf(outcome->device, sizeof outcome->device, "%s", info.device);
    status = s->work->run(s->work->of, context, outcome, &s->message);
    rw_context_destroy(context);
    return status;
}

static void free_outcome(cli_outcome *outcome) {
    for (int n = 0; n < CLI_WORK_ARRAYS; n++)
        cli_array_free(&outcome->arrays[n]);
}

/* ---- comparing ---- */

static void compare(state *s, const cli_outcome *other) {
    for (int n = 0; n < CLI_WORK_ARRAYS; n++) {
        const cli_array *mine = &s->first.arrays[n];
        if (!mine->data)
            continue;
        cli_difference difference =
            cli_array_compare(mine, &other->arrays[n], &s->work->tolerances[n]);
        /* JSON has no infinity */
        json_t *absolute =
            isfinite(difference.absolute) ? json_real(difference.absolute) : json_null();
        json_t *relative =
            isfinite(difference.relative) ? json_real(difference.relative) : json_null();
        json_array_append_new(s->checks,
                              json_pack("{s:s, s:s, s:o, s:o, s:b}", "on", other->label.text,
                                        "tensor", mine->name, "max_abs_diff", absolute,
                                        "max_rel_diff", relative, "agrees", difference.agrees));
    }
}

/* Runs on `where`, unless that is the same as the first or the previous run. */
static rw_status check_one(state *s, const rw_context_options *where) {
    rw_context *context;
    rw_status status = rw_context_create(where, &context, &s->message);
    if (status != RW_OK)
        return status;
    rw_context_info info = rw_context_get_info(context);
    cli_backend_label label = cli_label(&info);
    rw_context_destroy(context);
    if (strcmp(label.text, s->first.label.text) == 0 || strcmp(label.text, s->last.text) == 0)
        return RW_OK;
    s->last = label;
    cli_outcome other;
    status = run_on(s, where, &other);
    if (status == RW_OK)
        compare(s, &other);
    free_outcome(&other);
    return status;
}

/* Every backend and CPU instruction set that this host can use. */
static rw_status check(state *s) {
    static const rw_cpu_isa isas[] = {RW_CPU_ISA_BASELINE, RW_CPU_ISA_V3, RW_CPU_ISA_V4,
                                      RW_CPU_ISA_AMX};
    rw_status status = RW_OK;
    /* a cap above the CPU's best ISA selects the previous one again */
    for (size_t i = 0; i < sizeof isas / sizeof isas[0] && status == RW_OK; i++) {
        rw_context_options where = {.backend = RW_BACKEND_CPU, .cpu_isa = isas[i]};
        status = check_one(s, &where);
    }
    rw_backend_probe_result hip = rw_backend_probe(RW_BACKEND_HIP);
    for (int device = 0; hip.usable && device < hip.device_count && status == RW_OK; device++) {
        rw_context_options where = {.backend = RW_BACKEND_HIP, .device = device};
        status = check_one(s, &where);
    }
    return status;
}

/* ---- reporting ---- */

static bool all_agree(const json_t *checks) {
    for (size_t i = 0; i < json_array_size(checks); i++)
        if (!json_is_true(json_object_get(json_array_get(checks, i), "agrees")))
            return false;
    return true;
}

static json_t *describe(const state *s) {
    const cli_options *options = s->work->options;
    json_t *result = json_pack("{s:s, s:s, s:s}", "on", s->first.label.text, "device",
                               s->first.device, "output", options->output);
    json_t *more = s->work->describe(s->work->of);
    json_object_update(result, more);
    json_decref(more);
    if (options->check)
        json_object_set(result, "check", s->checks);
    return result;
}

static void print_difference(const json_t *one, const char *key) {
    const json_t *value = json_object_get(one, key);
    if (json_is_real(value))
        printf("  %12.6g", json_real_value(value));
    else
        printf("  %12s", "infinite");
}

static void print_checks(const state *s) {
    size_t i;
    json_t *one;
    printf("%s on %s\n", s->work->verb, s->first.label.text);
    if (json_array_size(s->checks) == 0)
        printf("no other backend is usable on this host\n");
    else
        printf("%-22s tensor  %12s  %12s\n", "against", "max abs diff", "max rel diff");
    json_array_foreach(s->checks, i, one) {
        printf("%-22s %-6s", json_string_value(json_object_get(one, "on")),
               json_string_value(json_object_get(one, "tensor")));
        print_difference(one, "max_abs_diff");
        print_difference(one, "max_rel_diff");
        printf("  %s\n", json_is_true(json_object_get(one, "agrees")) ? "agrees" : "DIFFERS");
    }
}

static int write_and_report(state *s) {
    const cli_options *options = s->work->options;
    const cli_array *const arrays[CLI_WORK_ARRAYS] = {&s->first.arrays[0], &s->first.arrays[1]};
    bool agree = all_agree(s->checks);
    if (agree && cli_arrays_write(options->output, arrays, CLI_WORK_ARRAYS, &s->message) != RW_OK)
        return cli_fail(CLI_FAILED, "%s", s->message.text);
    int exit_status = CLI_OK;
    if (options->json)
        exit_status = cli_print_json(describe(s));
    else if (options->check)
        print_checks(s);
    if (agree)
        return exit_status;
    return cli_fail(CLI_FAILED, "the backends differ by more than rounding; %s was not written",
                    options->output);
}

int cli_work_do(const cli_work *work) {
    state s = {.work = work, .checks = json_array()};
    rw_context_options where = cli_context_options(work->options);
    rw_status status = run_on(&s, &where, &s.first);
    if (status == RW_OK && work->options->check)
        status = check(&s);
    int exit_status =
        status == RW_OK ? write_and_report(&s) : cli_fail(CLI_FAILED, "%s", s.message.text);
    free_outcome(&s.first);
    json_decref(s.checks);
    return exit_status;
}
