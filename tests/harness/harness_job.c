/* Jobs: the buffers of a case in host memory, views of them, and their expected contents. */
#include "harness/harness.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

const rwt_view rwt_view_absent = {-1, 0, 0, {0}, {0}};

/* A reference reads each element many times. */
static void convert_buffers(rwt_job *job) {
    for (int b = 0; b < job->num_buffers; b++) {
        rwt_buffer *buffer = &job->buffers[b];
        if (!rwt_dtype_is_float(buffer->dtype))
            continue;
        double *values = rwt_allocate((size_t)buffer->elements * sizeof *values);
        for (int64_t i = 0; i < buffer->elements; i++)
            values[i] = rwt_load(buffer->dtype, buffer->initial, i);
        buffer->values = values;
    }
}

rwt_job *rwt_job_make(const rwt_driver *driver, const rwt_case *c, bool with_reference) {
    rwt_job *job = rwt_allocate(sizeof *job);
    job->driver = driver;
    job->c = *c;
    job->plan = rwt_allocate(driver->plan_size);
    for (size_t f = 0; f < driver->num_fields; f++) {
        if (!strcmp(driver->fields[f].name, "seed"))
            job->random.state = (uint64_t)c->values[f];
    }
    driver->fill(job);
    if (with_reference) {
        convert_buffers(job);
        driver->reference(job);
    }
    return job;
}

void rwt_job_free(rwt_job *job) {
    if (!job)
        return;
    for (int b = 0; b < job->num_buffers; b++) {
        free(job->buffers[b].initial);
        free(job->buffers[b].values);
        free(job->buffers[b].expected);
    }
    free(job->plan);
    free(job);
}

/* A NaN with a payload, or an id outside every table: reads of unwritten elements affect the
 * results. */
static uint64_t poison_of(rw_dtype dtype) {
    switch (dtype) {
    case RW_F32:
        return 0x7FC0DEADu;
    case RW_F16:
        return 0x7EADu;
    case RW_BF16:
        return 0x7FDEu;
    case RW_I32:
        return 0x6EADBEEFu;
    case RW_I64:
        return 0x6EADBEEFDEADBEEFu;
    case RW_U8:
        return 0xA5u;
    case RW_F8_E4M3:
    case RW_F8_E5M2:
        return 0xFFu;
    }
    return 0;
}

int rwt_buffer_add(rwt_job *job, const rwt_buffer_spec *spec) {
    rwt_buffer *buffer = &job->buffers[job->num_buffers];
    size_t size = rw_dtype_size(spec->dtype);
    buffer->name = spec->name;
    buffer->dtype = spec->dtype;
    buffer->elements = spec->elements;
    buffer->misalign = spec->misalign;
    buffer->scratch = spec->scratch;
    buffer->initial = rwt_allocate((size_t)spec->elements * size);
    uint64_t poison = poison_of(spec->dtype);
    for (int64_t i = 0; i < spec->elements; i++)
        memcpy((char *)buffer->initial + i * (int64_t)size, &poison, size);
    return job->num_buffers++;
}

static double special_value(rwt_random *random, rw_dtype dtype) {
    double least = rwt_dtype_min_normal(dtype);
    /* f32 arithmetic may exceed f16's range in intermediate results, but f32's range only in the
     * result. */
    double large = dtype == RW_F16 ? rwt_dtype_max(dtype) : rwt_dtype_max(dtype) / 4.0;
    const double values[] = {NAN,         INFINITY,     -INFINITY, 0.0,  -0.0,
                             least / 8.0, -least / 2.0, least,     large};
    return values[rwt_random_below(random, sizeof values / sizeof *values)];
}

void rwt_buffer_fill(rwt_job *job, int number, rwt_values values) {
    rwt_buffer *buffer = &job->buffers[number];
    /* Large benchmarks repeat values with a period that does not divide any shape. */
    int64_t period = 999983;
    int64_t fresh = buffer->elements < period ? buffer->elements : period;
    int64_t size = (int64_t)rw_dtype_size(buffer->dtype);
    for (int64_t i = 0; i < fresh; i++) {
        double value = rwt_random_uniform(&job->random, -2.0, 2.0);
        if (values == RWT_SPECIAL && rwt_random_below(&job->random, 4) == 0)
            value = special_value(&job->random, buffer->dtype);
        rwt_store(buffer->dtype, buffer->initial, i, value);
    }
    for (int64_t i = fresh; i < buffer->elements; i += fresh) {
        int64_t count = buffer->elements - i < fresh ? buffer->elements - i : fresh;
        memcpy((char *)buffer->initial + i * size, buffer->initial, (size_t)(count * size));
    }
}

int64_t rwt_buffer_get_id(const rwt_job *job, int number, int64_t element) {
    return rwt_load_id(job->buffers[number].dtype, job->buffers[number].initial, element);
}

void rwt_buffer_set(rwt_job *job, int number, int64_t element, double value) {
    rwt_store(job->buffers[number].dtype, job->buffers[number].initial, element, value);
}

void rwt_buffer_set_id(rwt_job *job, int number, int64_t element, int64_t id) {
    rwt_store_id(job->buffers[number].dtype, job->buffers[number].initial, element, id);
}

static rwt_expected *expected_at(rwt_job *job, int number, int64_t element) {
    rwt_buffer *buffer = &job->buffers[number];
    if (!buffer->expected)
        buffer->expected = rwt_allocate((size_t)buffer->elements * sizeof *buffer->expected);
    return &buffer->expected[element];
}

void rwt_expect_near(rwt_job *job, int buffer, int64_t element, double value, double scale) {
    rwt_expected *expected = expected_at(job, buffer, element);
    expected->kind = RWT_NEAR;
    expected->u.value = value;
    expected->scale = scale;
}

void rwt_expect_exact(rwt_job *job, int buffer, int64_t element, double value) {
    rw_dtype dtype = job->buffers[buffer].dtype;
    if (isnan(value)) {
        rwt_expect_near(job, buffer, element, value, 0.0);
        return;
    }
    uint64_t rounded = 0;
    rwt_store(dtype, &rounded, 0, value);
    rwt_expected *expected = expected_at(job, buffer, element);
    expected->kind = RWT_EXACT;
    expected->u.bits = rwt_load_bits(dtype, &rounded, 0);
}

void rwt_expect_not_finite(rwt_job *job, int buffer, int64_t element) {
    expected_at(job, buffer, element)->kind = RWT_NOT_FINITE;
}

void rwt_expect_bits(rwt_job *job, int buffer, int64_t element, uint64_t bits) {
    rwt_expected *expected = expected_at(job, buffer, element);
    expected->kind = RWT_EXACT;
    expected->u.bits = bits;
}

void rwt_expect_id(rwt_job *job, int buffer, int64_t element, int64_t id) {
    uint64_t all = job->buffers[buffer].dtype == RW_I32 ? UINT32_MAX : UINT64_MAX;
    rwt_expect_bits(job, buffer, element, (uint64_t)id & all);
}

void rwt_expect_copy(rwt_job *job, int buffer, int64_t element, int from, int64_t from_element) {
    rwt_expected *expected = expected_at(job, buffer, element);
    expected->kind = RWT_EXACT;
    expected->u.bits =
        rwt_load_bits(job->buffers[from].dtype, job->buffers[from].initial, from_element);
}

void rwt_expect_fault(rwt_job *job, int64_t token, rw_fault_kind kind, int64_t id) {
    if (job->fault.kind == RW_FAULT_NONE || token < job->fault.token)
        job->fault = (rw_fault){kind, job->driver->name, token, id};
}

/* Sets everything except `buffer`; *elements receives the storage size. */
static rwt_view lay_out(const rwt_layout *layout, bool unit_last, int64_t *elements) {
    rwt_view view = {-1, 0, layout->rank, {0}, {0}};
    int64_t step = unit_last || layout->style == RWT_CONTIGUOUS ? 1 : 2;
    int64_t last = 0;
    bool empty = false;
    for (int place = layout->rank - 1; place >= 0; place--) {
        int axis = layout->order ? layout->order[place] : place;
        int64_t length = layout->shape[axis];
        bool inner = axis == layout->rank - 1;
        bool backwards = layout->style == RWT_NEGATIVE && !(inner && unit_last);
        int64_t span = length > 0 ? (length - 1) * step : 0;
        view.shape[axis] = length;
        view.stride[axis] = backwards ? -step : step;
        if (backwards)
            view.offset += span;
        last += span;
        empty = empty || length == 0;
        step *= length > 0 ? length : 1;
        if (layout->style != RWT_CONTIGUOUS)
            step += 3 + 2 * place;
    }
    *elements = empty ? 0 : last + 1;
    if (empty)
        view.offset = 0;
    return view;
}

rwt_view rwt_view_add(rwt_job *job, const rwt_layout *layout, rwt_buffer_spec spec) {
    bool ids = spec.dtype == RW_I32 || spec.dtype == RW_I64;
    rwt_view view = lay_out(layout, !ids, &spec.elements);
    view.buffer = rwt_buffer_add(job, &spec);
    return view;
}

rw_tensor rwt_tensor(const rwt_job *job, const rwt_set *set, const rwt_view *view) {
    rw_tensor tensor = {0};
    if (view->buffer < 0)
        return tensor;
    rw_dtype dtype = job->buffers[view->buffer].dtype;
    tensor.data = (char *)set->data[view->buffer] + view->offset * (int64_t)rw_dtype_size(dtype);
    tensor.dtype = dtype;
    tensor.rank = view->rank;
    memcpy(tensor.shape, view->shape, sizeof tensor.shape);
    memcpy(tensor.stride, view->stride, sizeof tensor.stride);
    return tensor;
}

rw_tensor rwt_without_batch(rw_tensor tensor) {
    if (tensor.rank == 0)
        return tensor;
    tensor.rank--;
    for (int axis = 0; axis < tensor.rank; axis++) {
        tensor.shape[axis] = tensor.shape[axis + 1];
        tensor.stride[axis] = tensor.stride[axis + 1];
    }
    return tensor;
}
