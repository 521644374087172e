#include "harness/failing_allocator.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <jansson.h>

/* ---- whose allocations fail ---- */

typedef struct range {
    uintptr_t begin;
    uintptr_t end;
} range;

#define MAX_RANGES 32
static range ranges[MAX_RANGES];
static int num_ranges;

/* glibc's threads and this file are not asked for memory while this is set up. */
static _Thread_local struct {
    bool on;
    int64_t count;
    int64_t fail_at;
} current __attribute__((tls_model("initial-exec")));

/* Adds the code of an object. `user` is not NULL if that of the program counts. */
static int add_object(struct dl_phdr_info *object, size_t size, void *user) {
    (void)size;
    const bool program = object->dlpi_name[0] == '\0';
    if (program ? user == NULL
                : !strstr(object->dlpi_name, "/libropewalk") &&
                      !strstr(object->dlpi_name, "/libjansson"))
        return 0;
    for (int i = 0; i < object->dlpi_phnum && num_ranges < MAX_RANGES; i++) {
        const ElfW(Phdr) *segment = &object->dlpi_phdr[i];
        const uintptr_t begin = object->dlpi_addr + segment->p_vaddr;
        if (segment->p_type == PT_LOAD && segment->p_flags & PF_X)
            ranges[num_ranges++] = (range){begin, begin + segment->p_memsz};
    }
    return 0;
}

static void begin(int64_t fail_at, void *with_program) {
    num_ranges = 0;
    dl_iterate_phdr(add_object, with_program);
    current.count = 0;
    current.fail_at = fail_at;
    current.on = true;
}

void rwt_allocations_begin(int64_t fail_at) {
    begin(fail_at, NULL);
}

int64_t rwt_allocations_end(void) {
    current.on = false;
    return current.count;
}

/* Counts one allocation; true if it must fail. */
static bool fails(void) {
    const bool failed = ++current.count == current.fail_at;
    if (failed)
        errno = ENOMEM;
    return failed;
}

static bool fails_for(const void *caller) {
    for (int i = 0; i < num_ranges && current.on; i++)
        if ((uintptr_t)caller >= ranges[i].begin && (uintptr_t)caller < ranges[i].end)
            return fails();
    return false;
}

#pragma GCC visibility push(default) /* in place of the libraries' functions */

/* ---- the allocator: glibc's, or that of a sanitizer ---- */

void *__libc_malloc(size_t bytes);
void *__libc_calloc(size_t count, size_t bytes);
void *__libc_realloc(void *memory, size_t bytes);
void *__libc_memalign(size_t alignment, size_t bytes);
__attribute__((weak)) void *__interceptor_malloc(size_t bytes);
__attribute__((weak)) void *__interceptor_calloc(size_t count, size_t bytes);
__attribute__((weak)) void *__interceptor_realloc(void *memory, size_t bytes);
__attribute__((weak)) void *__interceptor_aligned_alloc(size_t alignment, size_t bytes);

void *malloc(size_t bytes) {
    if (fails_for(__builtin_return_address(0)))
        return NULL;
    return __interceptor_malloc ? __interceptor_malloc(bytes) : __libc_malloc(bytes);
}

void *calloc(size_t count, size_t bytes) {
    if (fails_for(__builtin_return_address(0)))
        return NULL;
    return __interceptor_calloc ? __interceptor_calloc(count, bytes) : __libc_calloc(count, bytes);
}

void *realloc(void *memory, size_t bytes) {
    if (fails_for(__builtin_return_address(0)))
        return NULL;
    return __interceptor_realloc ? __interceptor_realloc(memory, bytes)
                                 : __libc_realloc(memory, bytes);
}

static void *align(size_t alignment, size_t bytes) {
    return __interceptor_aligned_alloc ? __interceptor_aligned_alloc(alignment, bytes)
                                       : __libc_memalign(alignment, bytes);
}

void *aligned_alloc(size_t alignment, size_t bytes) {
    return fails_for(__builtin_return_address(0)) ? NULL : align(alignment, bytes);
}

int posix_memalign(void **memory, size_t alignment, size_t bytes) {
    if (fails_for(__builtin_return_address(0)))
        return ENOMEM;
    *memory = align(alignment, (bytes + alignment - 1) / alignment * alignment);
    return *memory ? 0 : ENOMEM;
}

char *strdup(const char *text) {
    if (fails_for(__builtin_return_address(0)))
        return NULL;
    const size_t bytes = strlen(text) + 1;
    char *copy = malloc(bytes);
    return copy ? memcpy(copy, text, bytes) : NULL;
}

/* ---- jansson's parser ---- */

static void *next_function(const char *name) {
    void *function = dlsym(RTLD_NEXT, name);
    if (!function)
        abort();
    return function;
}

/* Whether the parser must fail; if not, it allocates without being counted. */
static bool parser_fails(json_error_t *error) {
    if (!current.on)
        return false;
    if (error)
        error->text[0] = '\0'; /* as the parser does */
    const bool failed = fails();
    current.on = failed;
    return failed;
}

json_t *json_loadb(const char *text, size_t bytes, size_t flags, json_error_t *error) {
    json_t *(*load)(const char *, size_t, size_t, json_error_t *);
    *(void **)&load = next_function("json_loadb");
    const bool on = current.on;
    json_t *value = parser_fails(error) ? NULL : load(text, bytes, flags, error);
    current.on = on;
    return value;
}

json_t *json_loads(const char *text, size_t flags, json_error_t *error) {
    return json_loadb(text, strlen(text), flags, error);
}

#pragma GCC visibility pop

/* ---- in a program that is run with this file preloaded ---- */

__attribute__((constructor)) static void begin_program(void) {
    const char *fail_at = getenv("RWT_FAIL_ALLOCATION");
    if (fail_at)
        begin(strtoll(fail_at, NULL, 10), &current);
}

/* Writes the number of allocations. */
__attribute__((destructor)) static void end_program(void) {
    const char *path = getenv("RWT_FAIL_ALLOCATION") ? getenv("RWT_ALLOCATIONS") : NULL;
    char text[32];
    if (!path)
        return;
    const int length = snprintf(text, sizeof text, "%lld", (long long)rwt_allocations_end());
    const int descriptor = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0666);
    if (descriptor < 0 || write(descriptor, text, (size_t)length) != length)
        _exit(122);
    close(descriptor);
}
