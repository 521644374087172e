/* rotate --check: the same rotation everywhere, compared. */
#include <math.h>
#include <string.h>

#include "array_compare.h"
#include "rotation.h"

/* What the comparisons go to. */
typedef struct check {
    json_t *report;
    rw_message *message;
    cli_backend_label last;
} check;

static void report_tensor(json_t *report, const char *on, const cli_array *mine,
                          const cli_array *other) {
    if (!mine->data)
        return;
    cli_difference apart = cli_array_compare(mine, other);
    /* JSON has no infinity */
    json_t *absolute = isfinite(apart.absolute) ? json_real(apart.absolute) : json_null();
    json_t *relative = isfinite(apart.relative) ? json_real(apart.relative) : json_null();
    json_array_append_new(report, json_pack("{s:s, s:s, s:o, s:o, s:b}", "on", on, "tensor",
                                            mine->name, "max_abs_diff", absolute, "max_rel_diff",
                                            relative, "agrees", apart.agrees));
}

/* Runs on `where` unless that comes down to what `first` or `last` ran on. */
static rw_status check_one(const cli_rotation *rotation, const cli_rotated *first,
                           const rw_context_options *where, check *to) {
    rw_context *context;
    rw_status status = rw_context_create(where, &context, to->message);
    if (status != RW_OK)
        return status;
    rw_context_info info = rw_context_get_info(context);
    cli_backend_label label = cli_label(&info);
    rw_context_destroy(context);
    if (strcmp(label.text, first->label.text) == 0 || strcmp(label.text, to->last.text) == 0)
        return RW_OK;
    to->last = label;
    cli_rotated other;
    status = cli_rotation_run(rotation, where, &other, to->message);
    if (status == RW_OK) {
        report_tensor(to->report, label.text, &first->q, &other.q);
        report_tensor(to->report, label.text, &first->k, &other.k);
    }
    cli_rotated_free(&other);
    return status;
}

rw_status cli_rotation_check(const cli_rotation *rotation, const cli_rotated *first, json_t *report,
                             rw_message *message) {
    static const rw_cpu_isa isas[] = {RW_CPU_ISA_BASELINE, RW_CPU_ISA_V3, RW_CPU_ISA_V4};
    check to = {.report = report, .message = message};
    rw_status status = RW_OK;
    /* a cap above what the CPU has comes down to the one before */
    for (size_t i = 0; i < sizeof isas / sizeof isas[0] && status == RW_OK; i++) {
        rw_context_options where = {.backend = RW_BACKEND_CPU, .cpu_isa = isas[i]};
        status = check_one(rotation, first, &where, &to);
    }
    rw_backend_probe_result hip = rw_backend_probe(RW_BACKEND_HIP);
    for (int device = 0; hip.usable && device < hip.device_count && status == RW_OK; device++) {
        rw_context_options where = {.backend = RW_BACKEND_HIP, .device = device};
        status = check_one(rotation, first, &where, &to);
    }
    return status;
}
