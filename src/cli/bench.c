/* ropewalk bench: the speed of each operation, compared with a plain copy of as many bytes. */
#include <stdio.h>
#include <string.h>

#include "harness/harness.h"
#include "operations.h"

/* null if it was not measured. */
static json_t *measured(double value) {
    return value > 0 ? json_real(value) : json_null();
}

static json_t *describe(const rwt_driver *driver, const rwt_benchmark *benchmark,
                        const rw_context_info *info, const rwt_timing *timing) {
    json_t *row =
        json_pack("{s:s, s:s, s:s, s:o, s:b, s:i}", "operation", driver->name, "shape",
                  benchmark->name, "case", benchmark->text, "on", cli_describe_context(info), "hot",
                  benchmark->hot, "rotated_buffers", timing->num_sets);
    const struct {
        const char *key;
        double value;
    } figures[] = {
        {"seconds", timing->seconds},
        {"bytes", timing->bytes},
        {"bytes_per_second", timing->bytes / timing->seconds},
        {"flops", timing->flops},
        {"flops_per_second", timing->flops / timing->seconds},
        {"copy_seconds", timing->copy_seconds},
        {"share_of_copy", timing->copy_seconds / timing->seconds},
        {"scale_seconds", timing->scale_seconds},
        {"share_of_scale", timing->scale_seconds / timing->seconds},
    };
    for (size_t i = 0; i < sizeof figures / sizeof *figures; i++)
        json_object_set_new(row, figures[i].key, measured(figures[i].value));
    return row;
}

/* A share in percent, "" if it was not measured. */
typedef struct share_text {
    char text[16];
} share_text;

static share_text format_share(double seconds, const rwt_timing *timing) {
    share_text share = {""};
    if (seconds > 0)
        snprintf(share.text, sizeof share.text, "%.1f%%", 100.0 * seconds / timing->seconds);
    return share;
}

static void print_row(const rwt_driver *driver, const rwt_benchmark *benchmark,
                      const rw_context_info *info, const rwt_timing *timing) {
    char rate[16] = "";
    if (timing->flops > 0)
        snprintf(rate, sizeof rate, "%.1f", 1e-9 * timing->flops / timing->seconds);
    printf("%-22s %-32s %-18s %10.2f %8.1f %10s %8s %8s\n", driver->name, benchmark->name,
           cli_label(info).text, 1e6 * timing->seconds, 1e-9 * timing->bytes / timing->seconds,
           rate, format_share(timing->copy_seconds, timing).text,
           format_share(timing->scale_seconds, timing).text);
    fflush(stdout);
}

/* Runs the benchmarks of one operation that apply to this context. */
static int bench_operation(const cli_options *options, const rwt_driver *driver,
                           rw_context *context, json_t *rows) {
    rw_context_info info = rw_context_get_info(context);
    bool gpu = strcmp(info.backend, "hip") == 0;
    for (const rwt_benchmark *benchmark = driver->benchmarks; benchmark->name; benchmark++) {
        rwt_timing timing = {.brief = false};
        rw_message message;
        if (gpu ? !benchmark->gpu : !benchmark->cpu)
            continue;
        if (!rwt_benchmark_time(driver, benchmark, context, &timing, &message))
            return cli_fail(CLI_FAILED, "%s, %s: %s", driver->name, benchmark->name, message.text);
        if (!options->json)
            print_row(driver, benchmark, &info, &timing);
        json_array_append_new(rows, describe(driver, benchmark, &info, &timing));
    }
    return CLI_OK;
}

static int bench_backend(const cli_options *options, const rw_context_options *where,
                         json_t *rows) {
    rw_context *context;
    rw_message message;
    if (rw_context_create(where, &context, &message) != RW_OK)
        return cli_fail(CLI_FAILED, "%s", message.text);
    int status = CLI_OK;
    for (const rwt_driver *const *driver = rwt_drivers; *driver && status == CLI_OK; driver++) {
        if (cli_selects_operation(options, (*driver)->name))
            status = bench_operation(options, *driver, context, rows);
    }
    rw_context_destroy(context);
    return status;
}

static int run_bench(const cli_options *options) {
    int status = cli_check_operations(options);
    if (status != CLI_OK)
        return status;
    rw_context_options own = cli_context_options(options);
    rw_context_options cpu = {.backend = RW_BACKEND_CPU}, hip = {.backend = RW_BACKEND_HIP};
    bool all = own.backend == RW_BACKEND_DEFAULT || own.backend == RW_BACKEND_AUTO;
    json_t *rows = json_array();
    if (!options->json)
        printf("%-22s %-32s %-18s %10s %8s %10s %8s %8s\n", "operation", "shape", "on", "us",
               "GB/s", "GFLOP/s", "of copy", "of scale");
    status = bench_backend(options, all ? &cpu : &own, rows);
    if (status == CLI_OK && all && rw_backend_probe(RW_BACKEND_HIP).automatic)
        status = bench_backend(options, &hip, rows);
    if (options->json && status == CLI_OK)
        return cli_print_json(rows);
    json_decref(rows);
    return status;
}

const cli_command cli_bench = {
    .name = "bench",
    .summary = "Time the operations, compared with a plain copy of as many bytes",
    .options = CLI_OPTION_BACKEND | CLI_OPTION_JSON,
    .operands = "[OPERATION...]",
    .details =
        "auto: the CPU and, if there is one, the GPU. Buffers rotate through 512 MiB, so that\n"
        "they are not cached; those marked hot do not rotate. Bytes: each input read once, each\n"
        "output written once. CPU: the copy uses nontemporal stores and as many threads; scale\n"
        "multiplies the same bytes in place. GPU: a copy within the device, less the time of a\n"
        "copy of 64 bytes; nothing is printed if the difference is too small to measure.\n",
    .run = run_bench,
};
