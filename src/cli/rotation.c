#include "rotation.h"

#include <stdio.h>
#include <string.h>

#include "io_error.h"

/* The device's tensors of one run. */
typedef struct tensors {
    rw_tensor q, k, positions;
} tensors;

/* q or k as stored, in the library's order: batch, seq, heads, head_dim. */
static rw_tensor logical(const cli_rotation *rotation, rw_tensor tensor) {
    return tensor.data && !rotation->options->bshd ? rw_tensor_transpose(tensor, 1, 2) : tensor;
}

static rw_status apply(rw_context *context, const cli_rotation *rotation, const tensors *on) {
    rw_rope *rope = NULL;
    rw_status status = rw_rope_create(context, &rotation->rope, &rope);
    if (status != RW_OK)
        return status;
    rw_rope_args args = {
        .q = logical(rotation, on->q),
        .k = logical(rotation, on->k),
        .positions = on->positions,
        .offset = rotation->options->offset,
        .direction = rotation->options->inverse ? RW_ROPE_INVERSE : RW_ROPE_FORWARD,
    };
    status = rw_rope_apply(context, rope, &args);
    /* also after a failure: nothing may be in flight when the tables go */
    rw_status finished = rw_synchronize(context);
    rw_rope_destroy(rope);
    return status != RW_OK ? status : finished;
}

static rw_status run_in(rw_context *context, const cli_rotation *rotation, cli_rotated *rotated) {
    tensors on = {{0}, {0}, {0}};
    rw_status status = cli_array_upload(context, &rotation->q, &on.q);
    if (status == RW_OK)
        status = cli_array_upload(context, &rotation->k, &on.k);
    if (status == RW_OK)
        status = cli_array_upload(context, &rotation->positions, &on.positions);
    if (status == RW_OK)
        status = apply(context, rotation, &on);
    if (status == RW_OK)
        status = cli_array_download(context, &on.q, &rotated->q);
    if (status == RW_OK)
        status = cli_array_download(context, &on.k, &rotated->k);
    rw_free(context, on.q.data);
    rw_free(context, on.k.data);
    rw_free(context, on.positions.data);
    return status;
}

static rw_status explain(const cli_rotation *rotation, rw_context *context, rw_status status,
                         rw_message *message) {
    const char *why = rw_last_error(context);
    if (status != RW_OUT_OF_RANGE)
        return rwi_io_fail(message, status, "%s", why);
    if (rotation->end_of_ids == 0)
        return rwi_io_fail(message, status, "%.180s; expected ids from 0", why);
    return rwi_io_fail(message, status, "%.180s; expected 0 to %lld", why,
                       (long long)rotation->end_of_ids - 1);
}

rw_status cli_rotation_run(const cli_rotation *rotation, const rw_context_options *where,
                           cli_rotated *rotated, rw_message *message) {
    *rotated = (cli_rotated){0};
    rw_context *context;
    rw_status status = cli_array_like(&rotation->q, &rotated->q, message);
    if (status == RW_OK)
        status = cli_array_like(&rotation->k, &rotated->k, message);
    if (status == RW_OK)
        status = rw_context_create(where, &context, message);
    if (status != RW_OK)
        return status;
    rw_context_info info = rw_context_get_info(context);
    rotated->label = cli_label(&info);
    snprintf(rotated->device, sizeof rotated->device, "%s", info.device);
    status = run_in(context, rotation, rotated);
    if (status != RW_OK)
        explain(rotation, context, status, message);
    rw_context_destroy(context);
    return status;
}

void cli_rotated_free(cli_rotated *rotated) {
    cli_array_free(&rotated->q);
    cli_array_free(&rotated->k);
}
