/* The drivers, the targets of this host, and every case of a driver on every target. */
#include "harness/harness.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RW_OP(op, dtypes) extern const rwt_driver rwt_##op##_driver;
#include "ops.def"
#undef RW_OP

const rwt_driver *const rwt_drivers[] = {
#define RW_OP(op, dtypes) &rwt_##op##_driver,
#include "ops.def"
#undef RW_OP
    NULL};

const rwt_driver *rwt_driver_find(const char *name) {
    for (const rwt_driver *const *driver = rwt_drivers; *driver; driver++) {
        if (!strcmp((*driver)->name, name))
            return *driver;
    }
    return NULL;
}

/* A caller's pool of threads, of which one is awake: the last task first. */
static void run_backwards(void *user, int32_t num_tasks, void (*task)(void *data, int32_t index),
                          void *data) {
    (void)user;
    while (num_tasks-- > 0)
        task(data, num_tasks);
}

/* Opens the runs of the list's next target, which the caller then adds to the list. */
static bool open_runs(rwt_target_list *list, const rw_context_options *options, const int *threads,
                      rw_message *message) {
    rwt_target *target = &list->targets[list->count];
    *target = (rwt_target){.backend = options->backend == RW_BACKEND_HIP ? "hip" : "cpu"};
    for (int r = 0; r < RWT_MAX_RUNS && (r == 0 || threads[r]); r++) {
        rw_context_options one = *options;
        one.num_threads = threads[r];
        one.parallel_for = r == 1 ? run_backwards : NULL;
        if (rw_context_create(&one, &target->runs[r], message) != RW_OK)
            break;
        target->num_runs++;
    }
    return target->num_runs > 0 && !(threads[0] && target->num_runs < RWT_MAX_RUNS);
}

static void close_runs(rwt_target *target) {
    for (int r = 0; r < target->num_runs; r++)
        rw_context_destroy(target->runs[r]);
    target->num_runs = 0;
}

static bool open_cpu(rwt_target_list *list, rw_message *message) {
    static const int threads[RWT_MAX_RUNS] = {1, 3, 5};
    static const rw_cpu_isa isas[] = {RW_CPU_ISA_BASELINE, RW_CPU_ISA_V3, RW_CPU_ISA_V4,
                                      RW_CPU_ISA_AMX};
    static const char *const names[] = {"baseline", "v3", "v4", "amx"};
    for (size_t i = 0; i < sizeof isas / sizeof *isas; i++) {
        rw_context_options options = {.backend = RW_BACKEND_CPU, .cpu_isa = isas[i]};
        if (!open_runs(list, &options, threads, message)) {
            close_runs(&list->targets[list->count]);
            return false;
        }
        rwt_target *target = &list->targets[list->count];
        rw_context_info info = rw_context_get_info(target->runs[0]);
        if (strcmp(info.platform, names[i]) != 0) { /* the host does not support this cap */
            close_runs(target);
            continue;
        }
        snprintf(target->name, sizeof target->name, "cpu %s", names[i]);
        list->count++;
    }
    return true;
}

static bool open_hip(rwt_target_list *list, int device, rw_message *message) {
    static const int threads[RWT_MAX_RUNS] = {0};
    rw_context_options options = {.backend = RW_BACKEND_HIP, .device = device};
    if (!open_runs(list, &options, threads, message))
        return false;
    rwt_target *target = &list->targets[list->count++];
    rw_context_info info = rw_context_get_info(target->runs[0]);
    snprintf(target->name, sizeof target->name, "hip %s", info.platform);
    return true;
}

bool rwt_targets_open(rwt_target_list *list, rw_backend_kind kind, int device,
                      rw_message *message) {
    *list = (rwt_target_list){.count = 0};
    if (kind == RW_BACKEND_DEFAULT) { /* according to the environment, as read by the library */
        rw_context *context;
        if (rw_context_create(NULL, &context, message) != RW_OK)
            return false;
        rw_context_info info = rw_context_get_info(context);
        kind = strcmp(info.backend, "hip") ? RW_BACKEND_CPU : RW_BACKEND_HIP;
        device = info.device_index;
        rw_context_destroy(context);
    }
    if (kind != RW_BACKEND_HIP && !open_cpu(list, message))
        return false;
    if (kind == RW_BACKEND_HIP)
        return open_hip(list, device, message);
    if (kind == RW_BACKEND_AUTO) {
        rw_backend_probe_result probe = rw_backend_probe(RW_BACKEND_HIP);
        if (!probe.usable)
            list->skipped[list->num_skipped++] = probe.why;
        else if (!open_hip(list, 0, message))
            return false;
    }
    return true;
}

void rwt_targets_close(rwt_target_list *list) {
    for (int t = 0; t < list->count; t++)
        close_runs(&list->targets[t]);
    list->count = 0;
}

/* NAME=value and a space, if the environment has it. */
static size_t append_setting(char *text, size_t size, const char *name) {
    const char *value = getenv(name);
    return value ? (size_t)snprintf(text, size, "%s=%.40s ", name, value) : 0;
}

/* Reports the failure and the command that repeats it. */
static void report(const rwt_suite *suite, const rwt_case *c, const char *target,
                   const char *backend, const char *reason) {
    char line[2048], settings[256] = "";
    size_t used = append_setting(settings, sizeof settings, "ROPEWALK_EMULATED_ARCH");
    used += append_setting(settings + used, sizeof settings - used, "ROPEWALK_EMULATED_WAVE");
    append_setting(settings + used, sizeof settings - used, "ROPEWALK_EMULATED_ORDER");
    snprintf(line, sizeof line, "%s on %s: %s\n    %sropewalk check %s --backend %s --case '%s'",
             suite->driver->name, target, reason, settings, suite->driver->name, backend,
             rwt_case_print(suite->driver, c).text);
    suite->failed(suite->user, line);
}

static void tally(rwt_tally *tally, const rwt_case *c, const rwt_outcome *outcome) {
    tally->cases++;
    tally->unsupported += outcome->unsupported;
    tally->failures += outcome->failed && !outcome->unsupported;
    if (outcome->worst >= tally->worst) {
        tally->worst = outcome->worst;
        tally->worst_case = *c;
    }
}

static void run_case(rwt_suite *suite, const rwt_case *c) {
    rwt_job *job = rwt_job_make(suite->driver, c, true);
    rwt_images first = {{NULL}};
    const char *first_name = NULL;
    for (int t = 0; t < suite->targets->count; t++) {
        const rwt_target *target = &suite->targets->targets[t];
        rwt_images images;
        rwt_outcome outcome = rwt_job_run(job, target, &images);
        tally(&suite->tallies[t], c, &outcome);
        if (outcome.failed && !outcome.unsupported)
            report(suite, c, target->name, target->backend, outcome.reason);
        if (outcome.failed) {
            rwt_images_free(&images);
        } else if (!first_name) {
            first = images;
            first_name = target->name;
        } else {
            char names[80];
            snprintf(names, sizeof names, "%s and %s", first_name, target->name);
            rwt_outcome across = rwt_images_compare(job, &first, &images);
            rwt_images_free(&images);
            suite->cross_failures += across.failed;
            if (across.worst > suite->cross_worst)
                suite->cross_worst = across.worst;
            if (across.failed)
                report(suite, c, names, "auto", across.reason);
        }
    }
    rwt_images_free(&first);
    rwt_job_free(job);
}

bool rwt_suite_run(rwt_suite *suite) {
    bool good = true;
    for (size_t i = 0; i < suite->cases.count; i++) {
        run_case(suite, &suite->cases.cases[i]);
        if (suite->progress)
            suite->progress(suite->user, i + 1, suite->cases.count);
    }
    for (int t = 0; t < suite->targets->count; t++)
        good = good && suite->tallies[t].failures == 0;
    return good && suite->cross_failures == 0;
}
