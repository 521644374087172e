/* Contexts: opening, memory, copies, errors. */
#include <ropewalk/context.h>

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "backend_choice.h"
#include "call.h"
#include "common/sentence.h"

rw_status rwi_message_set(rw_message *message, rw_status status, const char *format, ...) {
    if (message) {
        va_list arguments;
        va_start(arguments, format);
        rwi_sentence_write(message, format, arguments);
        va_end(arguments);
    }
    return status;
}

rw_status rwi_fail(const rwi_call *call, rw_status status, const char *format, ...) {
    rw_message sentence;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(sentence.text, sizeof sentence.text, format, arguments);
    va_end(arguments);
    return rwi_message_set(&call->context->error, status, "%s: %.220s", call->name, sentence.text);
}

rw_status rwi_finish(const rwi_call *call, rw_status status) {
    if (status == RW_OK)
        return RW_OK;
    return rwi_fail(call, status, "%s", call->context->device->error.text);
}

rw_status rwi_check_context(const rwi_call *call) {
    return call->context ? RW_OK : RW_INVALID_ARGUMENT;
}

rw_status rwi_check_pointer(const rwi_call *call, const char *name, const void *pointer) {
    return pointer ? RW_OK : rwi_fail(call, RW_INVALID_ARGUMENT, "%s is NULL", name);
}

rw_status rwi_begin(const rwi_call *call, const void *args) {
    RWI_TRY(rwi_check_context(call));
    return rwi_check_pointer(call, "args", args);
}

rw_status rwi_check_owner(const rwi_call *call, const char *name, const rwi_backend *backend,
                          int device_index) {
    const rw_context *context = call->context;
    if (backend == context->backend && device_index == context->device->index)
        return RW_OK;
    return rwi_fail(call, RW_INVALID_ARGUMENT, "%s was created on %s:%d, expected this one's %s:%d",
                    name, backend->name, device_index, context->backend->name,
                    context->device->index);
}

static void log_line(const rw_context_options *options, const rwi_environment *environment,
                     const char *text) {
    rw_message line;
    rwi_message_set(&line, RW_OK, "ropewalk: %.240s", text);
    if (options->log)
        options->log(options->log_user, line.text);
    else if (environment->log)
        fprintf(stderr, "%s\n", line.text);
}

static rw_status check_options(const rw_context_options *options, rw_message *message) {
    if ((unsigned)options->backend > RW_BACKEND_HIP)
        return rwi_message_set(message, RW_INVALID_ARGUMENT,
                               "options.backend is %d, expected default, auto, cpu or hip",
                               (int)options->backend);
    if ((unsigned)options->cpu_isa > RW_CPU_ISA_AMX)
        return rwi_message_set(message, RW_INVALID_ARGUMENT,
                               "options.cpu_isa is %d, expected default, baseline, v3, v4 or amx",
                               (int)options->cpu_isa);
    if (options->device != 0 && options->backend != RW_BACKEND_HIP)
        return rwi_message_set(
            message, RW_INVALID_ARGUMENT,
            "options.device is %d, expected 0 unless options.backend is RW_BACKEND_HIP",
            options->device);
    if (options->num_threads < 0 || options->num_threads > RWI_MAX_THREADS)
        return rwi_message_set(message, RW_INVALID_ARGUMENT,
                               "options.num_threads is %d, expected 0 to %d", options->num_threads,
                               RWI_MAX_THREADS);
    if (options->parallel_for_user && !options->parallel_for)
        return rwi_message_set(message, RW_INVALID_ARGUMENT,
                               "options.parallel_for_user is set but options.parallel_for is NULL");
    return RW_OK;
}

rw_status rw_context_create(const rw_context_options *options, rw_context **context,
                            rw_message *message) {
    static const rw_context_options defaults;
    if (!options)
        options = &defaults;
    if (!context)
        return rwi_message_set(
            message, RW_INVALID_ARGUMENT,
            "rw_context_create: context is NULL, expected a pointer to receive it");
    *context = NULL;
    rwi_environment environment;
    rw_message note = {""}, why = {""};
    rwi_device *device = NULL;
    rw_status status = check_options(options, &why);
    if (status == RW_OK)
        status = rwi_environment_read(&environment, &why);
    if (status == RW_OK)
        status = rwi_backend_choose(options, &environment, &device, &note, &why);
    if (status != RW_OK)
        return rwi_message_set(message, status, "rw_context_create: %.230s", why.text);
    rw_context *created = calloc(1, sizeof *created);
    if (!created) {
        device->backend->close(device);
        return rwi_message_set(message, RW_OUT_OF_MEMORY, "rw_context_create: out of memory");
    }
    created->device = device;
    created->backend = device->backend;
    log_line(options, &environment, note.text);
    *context = created;
    return RW_OK;
}

void rw_context_destroy(rw_context *context) {
    if (!context)
        return;
    context->backend->close(context->device);
    free(context);
}

const char *rw_last_error(const rw_context *context) {
    return context ? context->error.text : "the context is NULL";
}

rw_context_info rw_context_get_info(const rw_context *context) {
    rw_context_info info = {.backend = "", .platform = "", .device = ""};
    if (!context)
        return info;
    const rwi_device *device = context->device;
    info.backend = context->backend->name;
    info.platform = device->platform;
    info.device = device->name;
    info.device_index = device->index;
    info.num_threads = device->num_threads;
    return info;
}

rw_status rw_alloc(rw_context *context, size_t bytes, void **pointer) {
    rwi_call call = {context, "rw_alloc"};
    RWI_TRY(rwi_check_context(&call));
    RWI_TRY(rwi_check_pointer(&call, "pointer", pointer));
    *pointer = NULL;
    return rwi_finish(&call, context->backend->alloc(context->device, bytes, pointer));
}

rw_status rw_free(rw_context *context, void *pointer) {
    rwi_call call = {context, "rw_free"};
    RWI_TRY(rwi_check_context(&call));
    if (!pointer)
        return RW_OK;
    return rwi_finish(&call, context->backend->free(context->device, pointer));
}

rw_status rw_copy(rw_context *context, const rw_copy_args *args) {
    rwi_call call = {context, "rw_copy"};
    RWI_TRY(rwi_begin(&call, args));
    if ((unsigned)args->kind > RW_COPY_DEVICE_TO_DEVICE)
        return rwi_fail(&call, RW_INVALID_ARGUMENT, "kind is %d, expected 0, 1 or 2",
                        (int)args->kind);
    if (args->bytes == 0)
        return RW_OK;
    if (!args->destination || !args->source)
        return rwi_fail(&call, RW_INVALID_ARGUMENT, "%s is NULL, expected %zu bytes",
                        args->destination ? "source" : "destination", args->bytes);
    RWI_TRY(rwi_finish(&call, context->backend->copy(context->device, args)));
    if (args->kind == RW_COPY_HOST_TO_DEVICE)
        context->transfers.host_to_device_bytes += args->bytes;
    if (args->kind == RW_COPY_DEVICE_TO_HOST)
        context->transfers.device_to_host_bytes += args->bytes;
    return RW_OK;
}

rw_status rwi_upload(const rwi_call *call, void *destination, const void *source, size_t bytes) {
    rw_context *context = call->context;
    rw_copy_args args = {destination, source, bytes, RW_COPY_HOST_TO_DEVICE};
    RWI_TRY(rwi_finish(call, context->backend->copy(context->device, &args)));
    context->transfers.host_to_device_bytes += bytes;
    return RW_OK;
}

static const char *fault_noun(rw_fault_kind kind) {
    switch (kind) {
    case RW_FAULT_NONE:
        break;
    case RW_FAULT_POSITION:
        return "position id";
    case RW_FAULT_CACHE_POSITION:
        return "cache position";
    case RW_FAULT_PAGE:
        return "page";
    case RW_FAULT_SLOT:
        return "slot";
    case RW_FAULT_LENGTH:
        return "length or bound";
    case RW_FAULT_SEGMENT:
        return "the step of segment";
    case RW_FAULT_OVERFLOW:
        return "result";
    }
    return "number";
}

rw_status rwi_fail_fault(const rwi_call *call, const char *subject, int64_t token, rwi_bad_id bad) {
    return rwi_fail(call, RW_OUT_OF_RANGE, "%stoken %lld has %s %lld, which is out of range",
                    subject, (long long)token, fault_noun(bad.kind), (long long)bad.id);
}

rw_status rw_synchronize(rw_context *context) {
    rwi_call call = {context, "rw_synchronize"};
    RWI_TRY(rwi_check_context(&call));
    rwi_fault fault = {.bad = {0, RW_FAULT_NONE}};
    context->fault = (rw_fault){.kind = RW_FAULT_NONE};
    RWI_TRY(rwi_finish(&call, context->backend->synchronize(context->device, &fault)));
    if (fault.bad.kind == RW_FAULT_NONE)
        return RW_OK;
    const char *name = rw_operation_name(fault.op);
    context->fault =
        (rw_fault){fault.bad.kind, name ? name : "unknown operation", fault.token, fault.bad.id};
    char subject[64];
    snprintf(subject, sizeof subject, "%s: ", context->fault.operation);
    return rwi_fail_fault(&call, subject, fault.token, fault.bad);
}

rw_fault rw_last_fault(const rw_context *context) {
    return context ? context->fault : (rw_fault){.kind = RW_FAULT_NONE};
}

rw_status rw_context_set_stream(rw_context *context, void *stream) {
    rwi_call call = {context, "rw_context_set_stream"};
    RWI_TRY(rwi_check_context(&call));
    return rwi_finish(&call, context->backend->set_stream(context->device, stream));
}

rw_transfers rw_context_transfers(const rw_context *context) {
    static const rw_transfers none;
    return context ? context->transfers : none;
}
