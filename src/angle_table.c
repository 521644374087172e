/* The two-level tables of kernels/shared/angle.h, built in f64 and put on the device. */
#include "angle_table.h"

#include <math.h>
#include <stdlib.h>

/* The smallest shift with which the fine table, of 2^shift rows, is at least as long as the coarse
 * one: the two then have the fewest rows. */
static int32_t balanced_shift(int64_t max_positions) {
    int32_t shift = 0;
    while (((int64_t)1 << (2 * shift)) < max_positions)
        shift++;
    return shift;
}

/* Rows [cos | sin] of the positions 0, step, 2 * step, ... */
static void fill_rows(float *rows, int64_t count, int64_t step,
                      const rwi_angle_table_options *options) {
    int64_t n = options->num_frequencies;
    for (int64_t row = 0; row < count; row++)
        for (int64_t i = 0; i < n; i++) {
            double angle = (double)(row * step) * options->inv_freq[i];
            rows[row * 2 * n + i] = (float)cos(angle);
            rows[row * 2 * n + n + i] = (float)sin(angle);
        }
}

/* Every angle up to max_positions is finite. */
static rw_status check_angles(const rwi_call *call, const rwi_angle_table_options *options) {
    for (int64_t i = 0; i < options->num_frequencies; i++)
        if (!isfinite((double)options->max_positions * options->inv_freq[i]))
            return rwi_fail(call, RW_INVALID_ARGUMENT,
                            "frequency %lld is %g, expected finite angles at %lld positions",
                            (long long)i, options->inv_freq[i], (long long)options->max_positions);
    return RW_OK;
}

rw_status rwi_angle_table_create(const rwi_call *call, const rwi_angle_table_options *options,
                                 rwi_angle_table *table) {
    if (options->max_positions < 1 || options->max_positions > RWI_MAX_POSITIONS)
        return rwi_fail(call, RW_INVALID_ARGUMENT, "max_positions is %lld, expected 1 to %d",
                        (long long)options->max_positions, RWI_MAX_POSITIONS);
    RWI_TRY(check_angles(call, options));
    int64_t n = options->num_frequencies;
    int32_t shift = balanced_shift(options->max_positions);
    int64_t fine_rows = (int64_t)1 << shift;
    int64_t coarse_rows = rwi_ceil_div(options->max_positions, fine_rows);
    size_t bytes, row_bytes;
    if (__builtin_mul_overflow((size_t)n, 2 * sizeof(float), &row_bytes) ||
        __builtin_mul_overflow(row_bytes, (size_t)(coarse_rows + fine_rows), &bytes) ||
        __builtin_add_overflow(bytes, options->extra_bytes, &bytes))
        return rwi_fail(call, RW_OUT_OF_MEMORY, "the tables of %lld frequencies are too large",
                        (long long)n);
    char *host = malloc(bytes);
    if (!host)
        return rwi_fail(call, RW_OUT_OF_MEMORY, "no memory for tables of %zu bytes", bytes);
    float *rows = (float *)host;
    fill_rows(rows, fine_rows, 1, options);
    fill_rows(rows + fine_rows * 2 * n, coarse_rows, fine_rows, options);
    if (options->extra_bytes)
        memcpy(host + bytes - options->extra_bytes, options->extra, options->extra_bytes);

    rw_context *context = call->context;
    void *memory = NULL;
    rw_status status = rwi_finish(call, context->backend->alloc(context->device, bytes, &memory));
    if (status == RW_OK)
        status = rwi_upload(call, memory, host, bytes);
    free(host);
    if (status != RW_OK) {
        if (memory)
            context->backend->free(context->device, memory);
        return status;
    }
    *table = (rwi_angle_table){
        .context = context,
        .backend = context->backend,
        .device_index = context->device->index,
        .angles = {.rows = memory, .shift = shift},
        .max_positions = (int32_t)options->max_positions,
        .memory = memory,
        .extra = (char *)memory + bytes - options->extra_bytes,
    };
    return RW_OK;
}

void rwi_angle_table_free(rwi_angle_table *table) {
    table->backend->free(table->context->device, table->memory);
}

rw_status rwi_angle_table_check(const rwi_call *call, const char *name,
                                const rwi_angle_table *table) {
    return rwi_check_owner(call, name, table->backend, table->device_index);
}
