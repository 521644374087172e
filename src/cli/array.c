#include "array.h"

#include <stdio.h>
#include <stdlib.h>

#include "common/io_error.h"

#define MAX_PRINTED_AXES 8

/* "[2, 8, 17, 64]", truncated if it is long. */
typedef struct shape_text {
    char text[96];
} shape_text;

static shape_text print_shape(const int64_t *shape, size_t rank) {
    shape_text result = {"["};
    size_t used = 1;
    for (size_t i = 0; i < rank && i < MAX_PRINTED_AXES; i++) {
        int n = snprintf(result.text + used, sizeof result.text - used, "%s%lld", i ? ", " : "",
                         (long long)shape[i]);
        if (n < 0 || (size_t)n >= sizeof result.text - used - 2)
            break;
        used += (size_t)n;
    }
    result.text[used] = ']';
    result.text[used + 1] = '\0';
    return result;
}

/* The file's dtypes of a kind, and their rw_dtype: U8 for codes. */
typedef struct kind_row {
    const char *text;
    int count;
    struct {
        rw_file_dtype file;
        rw_dtype dtype;
    } dtypes[5];
} kind_row;

static const kind_row kinds[] = {
    [CLI_ARRAY_FLOATS] = {"F32, F16 or BF16",
                          3,
                          {{RW_FILE_F32, RW_F32}, {RW_FILE_F16, RW_F16}, {RW_FILE_BF16, RW_BF16}}},
    [CLI_ARRAY_IDS] = {"I32 or I64", 2, {{RW_FILE_I32, RW_I32}, {RW_FILE_I64, RW_I64}}},
    [CLI_ARRAY_BYTES] = {"U8", 1, {{RW_FILE_U8, RW_U8}}},
    [CLI_ARRAY_CACHE] = {"F32, F16, BF16, F8_E4M3 or F8_E5M2",
                         5,
                         {{RW_FILE_F32, RW_F32},
                          {RW_FILE_F16, RW_F16},
                          {RW_FILE_BF16, RW_BF16},
                          {RW_FILE_F8_E4M3, RW_F8_E4M3},
                          {RW_FILE_F8_E5M2, RW_F8_E5M2}}},
    [CLI_ARRAY_MASK] = {"F32, F16, BF16, U8 or BOOL",
                        5,
                        {{RW_FILE_F32, RW_F32},
                         {RW_FILE_F16, RW_F16},
                         {RW_FILE_BF16, RW_BF16},
                         {RW_FILE_U8, RW_U8},
                         {RW_FILE_BOOL, RW_U8}}},
    [CLI_ARRAY_E4M3] = {"U8 or F8_E4M3", 2, {{RW_FILE_U8, RW_U8}, {RW_FILE_F8_E4M3, RW_U8}}},
    [CLI_ARRAY_E5M2] = {"U8 or F8_E5M2", 2, {{RW_FILE_U8, RW_U8}, {RW_FILE_F8_E5M2, RW_U8}}},
    [CLI_ARRAY_E8M0] = {"U8 or F8_E8M0", 2, {{RW_FILE_U8, RW_U8}, {RW_FILE_F8_E8M0, RW_U8}}},
};

/* False if the kind does not allow the tensor's dtype. */
static bool find_dtype(const rw_safetensor *tensor, cli_array_kind kind, rw_dtype *dtype) {
    for (int i = 0; i < kinds[kind].count; i++) {
        *dtype = kinds[kind].dtypes[i].dtype;
        if (kinds[kind].dtypes[i].file == tensor->dtype)
            return true;
    }
    return false;
}

static rw_file_dtype file_dtype_of(rw_dtype dtype) {
    return dtype == RW_F8_E4M3   ? RW_FILE_F8_E4M3
           : dtype == RW_F8_E5M2 ? RW_FILE_F8_E5M2
                                 : (rw_file_dtype)dtype;
}

static rw_status check_tensor(const cli_source *source, const cli_array_rule *rule,
                              const rw_safetensor *tensor, rw_dtype *dtype) {
    if (!find_dtype(tensor, rule->kind, dtype))
        return rwi_io_fail(source->message, RW_INVALID_ARGUMENT,
                           "%.100s: %.80s has dtype %s, expected %s", source->path, rule->name,
                           rw_file_dtype_name(tensor->dtype), kinds[rule->kind].text);
    if (tensor->rank >= rule->min_rank && tensor->rank <= rule->max_rank)
        return RW_OK;
    shape_text shape = print_shape(tensor->shape, (size_t)tensor->rank);
    char expected[24];
    snprintf(expected, sizeof expected, rule->min_rank == rule->max_rank ? "%d" : "%d to %d",
             rule->min_rank, rule->max_rank);
    return rwi_io_fail(source->message, RW_INVALID_ARGUMENT,
                       "%.80s: %.60s has shape %s, expected %s axes", source->path, rule->name,
                       shape.text, expected);
}

rw_status cli_array_read(const cli_source *source, const cli_array_rule *rule, cli_array *array) {
    *array = (cli_array){.name = rule->name};
    const rw_safetensor *tensor = rw_safetensors_find(source->file, rule->name);
    if (!tensor && !rule->required)
        return RW_OK;
    if (!tensor)
        return rwi_io_fail(source->message, RW_INVALID_ARGUMENT, "%.140s has no tensor \"%s\"",
                           source->path, rule->name);
    rw_status status = check_tensor(source, rule, tensor, &array->dtype);
    if (status != RW_OK)
        return status;
    array->rank = (int)tensor->rank;
    for (int axis = 0; axis < array->rank; axis++)
        array->shape[axis] = tensor->shape[axis];
    array->bytes = (size_t)tensor->bytes;
    array->data = malloc(array->bytes + 1);
    if (!array->data)
        return rwi_io_fail(source->message, RW_OUT_OF_MEMORY, "no memory for the %zu bytes of %s",
                           array->bytes, rule->name);
    status = rw_safetensors_load(source->file, tensor, array->data, source->message);
    if (status != RW_OK)
        cli_array_free(array);
    return status;
}

rw_status cli_array_make(cli_array *array, rw_message *message) {
    size_t count = 1;
    bool too_large = false;
    for (int axis = 0; axis < array->rank; axis++)
        too_large |= __builtin_mul_overflow(count, (size_t)array->shape[axis], &count);
    too_large |= __builtin_mul_overflow(count, rw_dtype_size(array->dtype), &array->bytes);
    array->data = too_large || array->bytes > SIZE_MAX / 2 ? NULL : calloc(1, array->bytes + 1);
    if (array->data)
        return RW_OK;
    return rwi_io_fail(message, RW_OUT_OF_MEMORY, "no memory for %s %s", array->name,
                       print_shape(array->shape, (size_t)array->rank).text);
}

rw_status cli_array_like(const cli_array *array, cli_array *copy, rw_message *message) {
    *copy = *array;
    if (!array->data)
        return RW_OK;
    copy->data = malloc(array->bytes + 1);
    if (copy->data)
        return RW_OK;
    return rwi_io_fail(message, RW_OUT_OF_MEMORY, "no memory for the %zu bytes of %s", array->bytes,
                       array->name);
}

void cli_array_free(cli_array *array) {
    free(array->data);
    array->data = NULL;
}

int64_t cli_array_id(const cli_array *array, int64_t i) {
    return array->dtype == RW_I64 ? ((const int64_t *)array->data)[i]
                                  : ((const int32_t *)array->data)[i];
}

int64_t cli_array_count(const cli_array *array) {
    return array->data ? (int64_t)(array->bytes / rw_dtype_size(array->dtype)) : 0;
}

rw_status cli_array_upload(rw_context *context, const cli_array *array, rw_tensor *tensor) {
    *tensor = (rw_tensor){0};
    if (!array->data)
        return RW_OK;
    void *memory = NULL;
    rw_status status = rw_alloc(context, array->bytes, &memory);
    if (status != RW_OK)
        return status;
    *tensor = rw_tensor_contiguous(memory, array->dtype, array->rank, array->shape);
    rw_copy_args copy = {memory, array->data, array->bytes, RW_COPY_HOST_TO_DEVICE};
    status = rw_copy(context, &copy);
    if (status != RW_OK) {
        rw_free(context, memory);
        tensor->data = NULL;
    }
    return status;
}

rw_status cli_array_download(rw_context *context, const rw_tensor *tensor, cli_array *array) {
    if (!array->data)
        return RW_OK;
    rw_copy_args copy = {array->data, tensor->data, array->bytes, RW_COPY_DEVICE_TO_HOST};
    return rw_copy(context, &copy);
}

rw_status cli_arrays_write(const char *path, const cli_array *const *arrays, size_t count,
                           rw_message *message) {
    rw_safetensors_item *items = malloc((count + 1) * sizeof *items);
    rw_safetensors_content list = {.items = items};
    if (!items)
        return rwi_io_fail(message, RW_OUT_OF_MEMORY, "no memory for %zu tensors", count);
    for (size_t i = 0; i < count; i++) {
        if (!arrays[i]->data)
            continue;
        items[list.num_items++] = (rw_safetensors_item){
            .name = arrays[i]->name,
            .dtype = file_dtype_of(arrays[i]->dtype),
            .rank = arrays[i]->rank,
            .shape = arrays[i]->shape,
            .data = arrays[i]->data,
        };
    }
    rw_status status = rw_safetensors_write(path, &list, message);
    free(items);
    return status;
}
