#include "drivers/driver_fields.h"

#include <math.h>
#include <string.h>

const char *const rwt_words_dtype[] = {"f32", "f16", "bf16", NULL};
const char *const rwt_words_mask_dtype[] = {"f32", "f16", "bf16", "u8", NULL};
const char *const rwt_words_id_dtype[] = {"i32", "i64", NULL};
const char *const rwt_words_stride[] = {"contiguous", "gaps", "negative", NULL};
const char *const rwt_words_placement[] = {"out", "in", "same", NULL};
const char *const rwt_words_values[] = {"ordinary", "special", NULL};
const char *const rwt_words_positions[] = {"none", "seq", "batch_seq", "axes", NULL};
const char *const rwt_words_offsets[] = {"none", "i32", "i64", NULL};
const char *const rwt_words_fault[] = {"none", "negative", "max", "lowest", "highest", NULL};

rwt_view rwt_id_view_add(rwt_job *job, const rwt_layout *layout, const char *name,
                         int64_t id_dtype) {
    rwt_buffer_spec spec = {.name = name, .dtype = id_dtype ? RW_I64 : RW_I32};
    return rwt_view_add(job, layout, spec);
}

rwt_view rwt_mask_view_add(rwt_job *job, const rwt_layout *layout, const char *name,
                           int64_t mask_dtype) {
    rwt_buffer_spec spec = {.name = name, .dtype = mask_dtype == 3 ? RW_U8 : (rw_dtype)mask_dtype};
    return rwt_view_add(job, layout, spec);
}

void rwt_mask_fill(rwt_job *job, const rwt_view *mask, const double *values, int64_t count) {
    rwt_buffer *buffer = &job->buffers[mask->buffer];
    for (int64_t n = 0; n < buffer->elements; n++) {
        double value = values[rwt_random_below(&job->random, count)];
        if (buffer->dtype == RW_U8) /* 255 more often than others: of the sign bit, too */
            value = value == -INFINITY
                        ? 0.0
                        : fmin(255.0, (double)rwt_random_below(&job->random, 510) + 1.0);
        rwt_store(buffer->dtype, buffer->initial, n, value);
    }
}

double rwt_mask_get(const rwt_job *job, const rwt_view *mask, int64_t element) {
    if (job->buffers[mask->buffer].dtype == RW_U8)
        return rwt_buffer_get_id(job, mask->buffer, element) ? 0.0 : -INFINITY;
    return rwt_buffer_get(job, mask->buffer, element);
}

const char *rwt_ids_invalid(const rwt_id_fields *fields, const rwt_id_shape *shape) {
    if (shape->packed && fields->positions == RWT_POSITIONS_BATCH_SEQ)
        return "packed tokens have ids [tokens], so positions=seq";
    if (shape->packed && fields->offsets)
        return "packed tokens have no offsets";
    if (fields->positions == RWT_POSITIONS_AXES && shape->axes == 1)
        return "positions=axes needs several axes";
    if (fields->fault && fields->positions == RWT_POSITIONS_NONE)
        return "a fault stands in positions, so some must be given";
    return NULL;
}

static rwt_layout positions_layout(const rwt_id_fields *fields, const rwt_id_shape *shape) {
    rwt_stride_style style = (rwt_stride_style)fields->id_stride;
    if (fields->positions == RWT_POSITIONS_SEQ)
        return (rwt_layout){1, {shape->seq}, NULL, style};
    if (fields->positions == RWT_POSITIONS_BATCH_SEQ)
        return (rwt_layout){2, {shape->batch, shape->seq}, NULL, style};
    if (shape->packed)
        return (rwt_layout){2, {shape->axes, shape->seq}, NULL, style};
    return (rwt_layout){3, {shape->axes, shape->batch, shape->seq}, NULL, style};
}

static int64_t position_element(const rwt_ids *ids, int64_t axis, int64_t b, int64_t s) {
    const rwt_view *view = &ids->positions;
    if (view->rank == 1)
        return rwt_view_at(view, s, 0, 0, 0);
    if (view->rank == 2)
        return rwt_view_at(view, ids->packed ? axis : b, s, 0, 0);
    return rwt_view_at(view, axis, b, s, 0);
}

int64_t rwt_ids_at(const rwt_job *job, const rwt_ids *ids, int64_t axis, int64_t b, int64_t s) {
    uint64_t id = (uint64_t)ids->offset;
    if (ids->positions.buffer >= 0)
        id += (uint64_t)rwt_buffer_get_id(job, ids->positions.buffer,
                                          position_element(ids, axis, b, s));
    else
        id += (uint64_t)s;
    if (ids->offsets.buffer >= 0)
        id += (uint64_t)rwt_buffer_get_id(job, ids->offsets.buffer,
                                          rwt_view_at(&ids->offsets, b, 0, 0, 0));
    return (int64_t)id;
}

/* Offsets in [0, most]; the first row has `most`. */
static void add_offsets(rwt_job *job, rwt_ids *ids, const rwt_id_fields *fields,
                        const rwt_id_shape *shape, int64_t most) {
    rwt_stride_style style = (rwt_stride_style)fields->id_stride;
    rwt_layout layout = {1, {shape->batch}, NULL, style};
    ids->offsets = rwt_id_view_add(job, &layout, "offsets", fields->offsets - 1);
    for (int64_t b = 0; b < shape->batch; b++) {
        int64_t offset = b == 0 ? most : rwt_random_below(&job->random, most + 1);
        rwt_buffer_set_id(job, ids->offsets.buffer, rwt_view_at(&ids->offsets, b, 0, 0, 0), offset);
    }
}

static int64_t row_offset(const rwt_job *job, const rwt_ids *ids, int64_t b) {
    if (ids->offsets.buffer < 0)
        return 0;
    return rwt_buffer_get_id(job, ids->offsets.buffer, rwt_view_at(&ids->offsets, b, 0, 0, 0));
}

static int64_t fault_value(const rwt_id_fields *fields, int64_t max_positions) {
    switch ((rwt_fault_kind)fields->fault) {
    case RWT_FAULT_NONE:
        break;
    case RWT_FAULT_NEGATIVE:
        return -1 - fields->offset;
    case RWT_FAULT_MAX:
        return max_positions - fields->offset;
    case RWT_FAULT_LOWEST:
        return fields->id_dtype ? INT64_MIN : INT32_MIN;
    case RWT_FAULT_HIGHEST:
        return fields->id_dtype ? INT64_MAX : INT32_MAX;
    }
    return 0;
}

/* Puts invalid ids at the last token and, in another row and column, at an earlier one. */
static void add_faults(rwt_job *job, const rwt_ids *ids, const rwt_id_fields *fields,
                       const rwt_id_shape *shape) {
    int64_t tokens = shape->batch * shape->seq;
    if (!fields->fault || tokens == 0)
        return;
    int64_t value = fault_value(fields, shape->max_positions);
    const int64_t at[] = {tokens - 1, tokens / 3};
    for (int i = 0; i < 2; i++) {
        int64_t axis = rwt_random_below(&job->random, shape->axes);
        int64_t element = position_element(ids, axis, at[i] / shape->seq, at[i] % shape->seq);
        rwt_buffer_set_id(job, ids->positions.buffer, element, value);
    }
}

rwt_ids rwt_ids_add(rwt_job *job, const rwt_id_fields *fields, const rwt_id_shape *shape) {
    rwt_ids ids = {rwt_view_absent, rwt_view_absent, fields->offset, shape->packed};
    bool given = fields->positions != RWT_POSITIONS_NONE;
    int64_t most =
        given ? shape->max_positions / 4 : shape->max_positions - shape->seq - fields->offset;
    if (most < 0)
        most = 0;
    if (fields->offsets)
        add_offsets(job, &ids, fields, shape, most);
    if (!given)
        return ids;
    rwt_layout layout = positions_layout(fields, shape);
    ids.positions = rwt_id_view_add(job, &layout, "positions", fields->id_dtype);
    bool shared = fields->positions == RWT_POSITIONS_SEQ; /* by rows with different offsets */
    int64_t end = shape->max_positions - (shared && fields->offsets ? most : 0);
    for (int64_t axis = 0; axis < shape->axes; axis++) {
        for (int64_t b = 0; b < shape->batch; b++) {
            for (int64_t s = 0; s < shape->seq; s++) {
                int64_t id = rwt_random_below(&job->random, end);
                if (s == 0)
                    id = axis == 0 ? 0 : end - 1;
                if (s == shape->seq - 1)
                    id = axis == 1 ? 0 : end - 1;
                id -= fields->offset + (shared ? 0 : row_offset(job, &ids, b));
                rwt_buffer_set_id(job, ids.positions.buffer, position_element(&ids, axis, b, s),
                                  id);
            }
        }
    }
    add_faults(job, &ids, fields, shape);
    return ids;
}
