/* A job in device memory: guarded buffers, uploads, downloads. */
#include "harness/harness.h"
#include "harness/harness_binding.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if defined(__SANITIZE_ADDRESS__)
#define RWT_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define RWT_ASAN 1
#endif
#endif

#ifdef RWT_ASAN
#include <sanitizer/asan_interface.h>
#endif

/* Both guards are as wide as a device's alignment. All bits are set, a NaN in every float dtype, so
 * that reads outside a buffer affect the results. */
#define GUARD_BYTE 0xFF

int64_t rwt_buffer_front(const rwt_buffer *buffer) {
    return RWT_GUARD_BYTES + buffer->misalign * (int64_t)rw_dtype_size(buffer->dtype);
}

int64_t rwt_buffer_size(const rwt_buffer *buffer) {
    return buffer->elements * (int64_t)rw_dtype_size(buffer->dtype);
}

int64_t rwt_buffer_allocation(const rwt_buffer *buffer) {
    return rwt_buffer_front(buffer) + rwt_buffer_size(buffer) + RWT_GUARD_BYTES;
}

int64_t rwt_job_storage_bytes(const rwt_job *job) {
    int64_t bytes = 0;
    for (int b = 0; b < job->num_buffers; b++)
        bytes += rwt_buffer_allocation(&job->buffers[b]);
    return bytes;
}

static bool failed(rw_message *message, const rwt_binding *binding, const char *what) {
    const char *why = rw_last_error(binding->context);
    snprintf(message->text, sizeof message->text, "%.40s: %.200s", what, why);
    return false;
}

bool rwt_binding_upload(const rwt_binding *binding, int set, rw_message *message) {
    const rwt_job *job = binding->job;
    for (int b = 0; b < job->num_buffers; b++) {
        const rwt_buffer *buffer = &job->buffers[b];
        size_t bytes = (size_t)rwt_buffer_allocation(buffer);
        char *image = rwt_allocate(bytes);
        memset(image, GUARD_BYTE, bytes);
        memcpy(image + rwt_buffer_front(buffer), buffer->initial, (size_t)rwt_buffer_size(buffer));
        rw_copy_args copy = {.destination = binding->sets[set].allocation[b],
                             .source = image,
                             .bytes = bytes,
                             .kind = RW_COPY_HOST_TO_DEVICE};
        rw_status status = rw_copy(binding->context, &copy);
        free(image);
        if (status != RW_OK)
            return failed(message, binding, "upload");
    }
    return true;
}

bool rwt_binding_open(rwt_binding *binding, const rwt_job *job, rw_context *context, int num_sets,
                      rw_message *message) {
    const rwt_driver *driver = job->driver;
    *binding = (rwt_binding){.job = job, .context = context, .num_sets = num_sets};
    binding->sets = rwt_allocate((size_t)num_sets * sizeof *binding->sets);
    if (driver->open && driver->open(binding) != RW_OK)
        return failed(message, binding, "creating the tables");
    for (int s = 0; s < num_sets; s++) {
        rwt_set *set = &binding->sets[s];
        for (int b = 0; b < job->num_buffers; b++) {
            const rwt_buffer *buffer = &job->buffers[b];
            size_t bytes = (size_t)rwt_buffer_allocation(buffer);
            if (rw_alloc(context, bytes, &set->allocation[b]) != RW_OK)
                return failed(message, binding, "allocating");
            set->data[b] = (char *)set->allocation[b] + rwt_buffer_front(buffer);
        }
        set->args = rwt_allocate(driver->args_size);
        driver->bind(job, set);
        if (!rwt_binding_upload(binding, s, message))
            return false;
    }
    return true;
}

void rwt_binding_close(rwt_binding *binding) {
    const rwt_job *job = binding->job;
    for (int s = 0; s < binding->num_sets; s++) {
        for (int b = 0; b < job->num_buffers; b++) {
            if (binding->sets[s].allocation[b])
                (void)rw_free(binding->context, binding->sets[s].allocation[b]);
        }
        free(binding->sets[s].args);
    }
    free(binding->sets);
    if (job->driver->close)
        job->driver->close(binding);
    *binding = (rwt_binding){.job = NULL};
}

rw_status rwt_binding_run(const rwt_binding *binding, int set) {
    return binding->job->driver->run(binding, binding->sets[set].args);
}

bool rwt_binding_download(const rwt_binding *binding, rwt_images *images, rw_message *message) {
    const rwt_job *job = binding->job;
    for (int b = 0; b < job->num_buffers; b++) {
        size_t bytes = (size_t)rwt_buffer_allocation(&job->buffers[b]);
        images->data[b] = rwt_allocate(bytes);
        rw_copy_args copy = {.destination = images->data[b],
                             .source = binding->sets[0].allocation[b],
                             .bytes = bytes,
                             .kind = RW_COPY_DEVICE_TO_HOST};
        if (rw_copy(binding->context, &copy) != RW_OK)
            return failed(message, binding, "download");
    }
    return true;
}

void rwt_images_free(rwt_images *images) {
    for (int b = 0; b < RWT_MAX_BUFFERS; b++)
        free(images->data[b]);
    *images = (rwt_images){{NULL}};
}

static bool is_guard(const unsigned char *bytes, int64_t count) {
    return bytes[0] == GUARD_BYTE && !memcmp(bytes, bytes + 1, (size_t)count - 1);
}

int64_t rwt_guard_violation(const rwt_buffer *buffer, const void *image) {
    const unsigned char *bytes = image;
    int64_t front = rwt_buffer_front(buffer);
    int64_t back = front + rwt_buffer_size(buffer);
    if (is_guard(bytes, front) && is_guard(bytes + back, RWT_GUARD_BYTES))
        return 0;
    for (int64_t i = 0; i < front; i++) {
        if (bytes[i] != GUARD_BYTE)
            return i - front;
    }
    for (int64_t i = back; i < rwt_buffer_allocation(buffer); i++) {
        if (bytes[i] != GUARD_BYTE)
            return i - front;
    }
    return 0;
}

void rwt_binding_fence(const rwt_binding *binding, bool closed) {
#ifdef RWT_ASAN
    if (rwt_context_is_gpu(binding->context))
        return;
    for (int b = 0; b < binding->job->num_buffers; b++) {
        const rwt_buffer *buffer = &binding->job->buffers[b];
        char *start = binding->sets[0].allocation[b];
        char *end = start + rwt_buffer_front(buffer) + rwt_buffer_size(buffer);
        if (closed) {
            __asan_poison_memory_region(start, (size_t)rwt_buffer_front(buffer));
            __asan_poison_memory_region(end, RWT_GUARD_BYTES);
        } else {
            __asan_unpoison_memory_region(start, (size_t)rwt_buffer_allocation(buffer));
        }
    }
#else
    (void)binding;
    (void)closed;
#endif
}

bool rwt_context_is_gpu(const rw_context *context) {
    rw_context_info info = rw_context_get_info(context);
    return !strcmp(info.backend, "hip") && strcmp(info.platform, "emulated") != 0;
}
