/* Runs the program `ropewalk` as a user does, in a separate folder; for tests of its subcommands.
 */
#ifndef RWT_PROGRAM_SUPPORT_H
#define RWT_PROGRAM_SUPPORT_H

#include "harness/io_support.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <ropewalk/io.h>

#include "harness/harness.h"
#include "harness/test_support.h"

static rwt_folder folder;

static inline int make_folder(void **state) {
    (void)state;
    rwt_folder_make(&folder);
    return 0;
}

static inline int remove_folder(void **state) {
    (void)state;
    rwt_folder_remove(&folder);
    return 0;
}

static inline const char *in(const char *name) {
    return rwt_path(folder.path, name);
}

static inline void write_text(const char *name, const char *text) {
    rwt_write_file(in(name), text, strlen(text));
}

/* ---- running the program ---- */

#define MAX_ARGUMENTS 32

/* Runs `ropewalk` with the arguments, which must end with NULL, in the folder, with stdout to the
 * file "out" and stderr to "err". Returns its exit status. */
static inline int run(const char *const *arguments) {
    char *argv[MAX_ARGUMENTS] = {RWT_PROGRAM}; /* of a cross-compiled program, after its emulator */
    int count = 0;
    while (argv[count])
        count++;
    for (int i = 0; arguments[i]; i++)
        argv[count + i] = (char *)arguments[i];
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        if (chdir(folder.path) != 0 || !freopen("out", "w", stdout) || !freopen("err", "w", stderr))
            _exit(120);
        execv(argv[0], argv);
        _exit(121);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    if (!WIFEXITED(status))
        fail_msg("ropewalk %s died of signal %d", arguments[0] ? arguments[0] : "",
                 WTERMSIG(status));
    return WEXITSTATUS(status);
}

#define RUN(...) run((const char *const[]){__VA_ARGS__, NULL})

/* Fails unless the program succeeded without output on stderr. */
static inline void assert_ran(int exit_status) {
    char *err = rwt_read_file(in("err"), NULL);
    if (exit_status != 0 || err[0] != '\0')
        fail_msg("exit status %d: %s", exit_status, err);
    free(err);
}

/* Fails unless it ended with this status, one sentence on stderr, and no file other than the
 * inputs. */
static inline void assert_refused(int exit_status, int expected, const char *word) {
    char *err = rwt_read_file(in("err"), NULL);
    size_t length = strlen(err);
    if (exit_status != expected || strncmp(err, "ropewalk: ", 10) != 0 || length < 20 ||
        strchr(err, '\n') != err + length - 1 || !strstr(err, word))
        fail_msg("exit status %d, expected %d and \"%s\": \"%s\"", exit_status, expected, word,
                 err);
    free(err);
    assert_int_not_equal(access(in("o.safetensors"), F_OK), 0);
}

/* ---- tensors ---- */

/* A tensor of a file, on the host. */
typedef struct held {
    const char *name;
    rw_dtype dtype;
    size_t rank;
    int64_t shape[4];
    void *data;
} held;

static inline int64_t count_of(const held *tensor) {
    int64_t count = 1;
    for (size_t i = 0; i < tensor->rank; i++)
        count *= tensor->shape[i];
    return count;
}

/* Makes a tensor; floats get normal-looking values, ids 0, 1, 2, ... */
static inline held make(const char *name, rw_dtype dtype, size_t rank, const int64_t *shape) {
    held tensor = {.name = name, .dtype = dtype, .rank = rank};
    memcpy(tensor.shape, shape, rank * sizeof *shape);
    tensor.data = calloc((size_t)count_of(&tensor) + 1, rw_dtype_size(dtype));
    rwt_random random = {(uint64_t)name[0]};
    for (int64_t i = 0; i < count_of(&tensor); i++)
        if (rwt_dtype_is_float(dtype))
            rwt_store(dtype, tensor.data, i, rwt_random_uniform(&random, -2, 2));
        else
            rwt_store_id(dtype, tensor.data, i, i);
    return tensor;
}

static inline void write_tensors(const char *name, const held *const *tensors, size_t count) {
    rw_safetensors_item items[8];
    rw_message message;
    for (size_t i = 0; i < count; i++)
        items[i] =
            (rw_safetensors_item){tensors[i]->name, (rw_file_dtype)tensors[i]->dtype,
                                  (int32_t)tensors[i]->rank, tensors[i]->shape, tensors[i]->data};
    const rw_safetensors_content list = {.items = items, .num_items = (int64_t)count};
    assert_int_equal(rw_safetensors_write(in(name), &list, &message), RW_OK);
}

#define WRITE(file, ...)                                                                           \
    write_tensors(file, (const held *const[]){__VA_ARGS__},                                        \
                  sizeof((const held *const[]){__VA_ARGS__}) / sizeof(held *))

/* Reads a tensor of a file; the caller must free its data. */
static inline held read_tensor(const char *path, const char *name) {
    rw_safetensors *file;
    rw_message message;
    if (rw_safetensors_open(path, &file, &message) != RW_OK)
        fail_msg("%s", message.text);
    const rw_safetensor *tensor = rw_safetensors_find(file, name);
    assert_non_null(tensor);
    held result = {.name = name, .dtype = (rw_dtype)tensor->dtype, .rank = (size_t)tensor->rank};
    memcpy(result.shape, tensor->shape, result.rank * sizeof *result.shape);
    result.data = malloc((size_t)tensor->bytes + 1);
    assert_int_equal(rw_safetensors_load(file, tensor, result.data, &message), RW_OK);
    rw_safetensors_close(file);
    return result;
}

/* Fails unless the shapes are equal and values differ by at most `limit`. */
static inline void assert_close(const held *got, const held *expected, double limit) {
    assert_int_equal(got->dtype, expected->dtype);
    assert_int_equal(got->rank, expected->rank);
    assert_memory_equal(got->shape, expected->shape, got->rank * sizeof(int64_t));
    for (int64_t i = 0; i < count_of(got); i++) {
        double difference =
            rwt_load(got->dtype, got->data, i) - rwt_load(got->dtype, expected->data, i);
        if (!(fabs(difference) <= limit))
            fail_msg("%s: element %lld differs by %g", got->name, (long long)i, difference);
    }
}

/* Compares tensor `name` of the output with `expected`. */
static inline void assert_output(const char *name, const held *expected, double limit) {
    held got = read_tensor(in("o.safetensors"), name);
    assert_close(&got, expected, limit);
    free(got.data);
}

#endif
