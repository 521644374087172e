/* Tensors in host memory, between a safetensors file and a device. */
#ifndef CLI_ARRAY_H
#define CLI_ARRAY_H

#include <ropewalk/io.h>
#include <ropewalk/ropewalk.h>

/* Row-major. data is NULL if the file has no such tensor; else the owner must free it. */
typedef struct cli_array {
    const char *name;
    rw_dtype dtype;
    int rank;
    int64_t shape[RW_MAX_RANK];
    size_t bytes;
    void *data;
} cli_array;

typedef enum cli_array_kind {
    CLI_ARRAY_FLOATS, /* F32, F16 or BF16 */
    CLI_ARRAY_IDS,    /* I32 or I64 */
    CLI_ARRAY_BYTES,  /* U8 */
    CLI_ARRAY_CACHE,  /* floats, F8_E4M3 or F8_E5M2 */
    CLI_ARRAY_MASK,   /* floats, U8 or BOOL */
    CLI_ARRAY_E4M3,   /* U8 or F8_E4M3, as bytes */
    CLI_ARRAY_E5M2,   /* U8 or F8_E5M2, as bytes */
    CLI_ARRAY_E8M0    /* U8 or F8_E8M0, as bytes */
} cli_array_kind;

/* The requirements on a tensor. */
typedef struct cli_array_rule {
    const char *name;
    int min_rank;
    int max_rank;
    cli_array_kind kind;
    bool required;
} cli_array_rule;

/* A file that is read, and the sentence of an error. */
typedef struct cli_source {
    const char *path;
    rw_safetensors *file;
    rw_message *message;
} cli_source;

/* Reads one tensor. */
rw_status cli_array_read(const cli_source *source, const cli_array_rule *rule, cli_array *array);

/* Allocates zeroed memory for the dtype and shape that are set. */
rw_status cli_array_make(cli_array *array, rw_message *message);

/* Copies dtype and shape and allocates memory for them; nothing for an absent array. */
rw_status cli_array_like(const cli_array *array, cli_array *copy, rw_message *message);

void cli_array_free(cli_array *array);

/* Id `i` of an array of ids. */
int64_t cli_array_id(const cli_array *array, int64_t i);

int64_t cli_array_count(const cli_array *array);

/* Allocates on the context's device and copies there; an absent tensor for an absent array. On
 * failure tensor->data is NULL. Release with rw_free(). */
rw_status cli_array_upload(rw_context *context, const cli_array *array, rw_tensor *tensor);

/* Copies back; does nothing for an absent array. */
rw_status cli_array_download(rw_context *context, const rw_tensor *tensor, cli_array *array);

/* Writes the arrays that are not absent, with names that differ. */
rw_status cli_arrays_write(const char *path, const cli_array *const *arrays, size_t count,
                           rw_message *message);

#endif
