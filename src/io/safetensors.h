/* Files of named tensors: https://github.com/huggingface/safetensors, "Format".
 *
 * Eight bytes of header length (little endian), a JSON header {name: {dtype, shape, data_offsets}},
 * then the data, which the tensors cover without holes or overlaps.
 */
#ifndef RWI_SAFETENSORS_H
#define RWI_SAFETENSORS_H

#include <ropewalk/base.h>

#define RWI_SAFETENSORS_MAX_RANK 8

/* A tensor of an open file. */
typedef struct rwi_safetensor {
    const char *name;       /* UTF-8 */
    const char *dtype_name; /* as in the file, e.g. "F32" */
    bool supported;         /* whether rw_dtype has it; else only its name and extent are known */
    rw_dtype dtype;
    size_t rank;
    int64_t shape[RWI_SAFETENSORS_MAX_RANK]; /* the leading axes, if the rank is larger */
    uint64_t offset;                         /* in the file */
    uint64_t bytes;
} rwi_safetensor;

typedef struct rwi_safetensors {
    int descriptor;
    void *header; /* owns the names */
    rwi_safetensor *tensors;
    size_t count;
} rwi_safetensors;

/* Opens and checks a file; reads no data. `file` must be closed only if this returns RW_OK. A file
 * that violates the format is RW_INVALID_ARGUMENT. */
rw_status rwi_safetensors_open(const char *path, rwi_safetensors *file, rw_message *message);

void rwi_safetensors_close(rwi_safetensors *file);

/* NULL if the file has no tensor with that name. */
const rwi_safetensor *rwi_safetensors_find(const rwi_safetensors *file, const char *name);

/* Reads the tensor's bytes into `buffer`, which must have tensor->bytes. */
rw_status rwi_safetensors_read(const rwi_safetensors *file, const rwi_safetensor *tensor,
                               void *buffer, rw_message *message);

/* A tensor to write: row-major, without gaps. */
typedef struct rwi_safetensors_item {
    const char *name;
    rw_dtype dtype;
    size_t rank;
    const int64_t *shape;
    const void *data;
} rwi_safetensors_item;

typedef struct rwi_safetensors_items {
    const rwi_safetensors_item *items;
    size_t count;
} rwi_safetensors_items;

/* Writes a file next to `path` and renames it to `path` once it is complete: `path` is either the
 * old file or the complete new one. A `path` that is not a regular file is refused. */
rw_status rwi_safetensors_write(const char *path, const rwi_safetensors_items *items,
                                rw_message *message);

#endif
