/* Which backend a context runs on, and where its module is found. */
#define _GNU_SOURCE /* dladdr */
#include "backend_choice.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <link.h>
#include <stdio.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/stat.h>
#include <unistd.h>

#include "call.h"

#define RWI_HIP_MODULE "libropewalk-hip.so"

/* The file of this library or, if it is linked statically, of the program, whose own name need not
 * be a path. */
static bool own_file(char path[PATH_MAX]) {
    Dl_info self, program;
    if (!dladdr((const void *)&rwi_cpu_backend, &self) || !self.dli_fname)
        return false;
    if (!dladdr((const void *)getauxval(AT_PHDR), &program) ||
        program.dli_fbase != self.dli_fbase) {
        const int length = snprintf(path, PATH_MAX, "%s", self.dli_fname);
        return length > 0 && length < PATH_MAX;
    }
    const ssize_t length = readlink("/proc/self/exe", path, PATH_MAX);
    if (length <= 0 || length >= PATH_MAX)
        return false;
    path[length] = '\0';
    return true;
}

/* The file of the HIP module: in ROPEWALK_BACKEND_PATH, or beside this library. */
static bool module_path(char path[PATH_MAX]) {
    const char *folder = rwi_environment_backend_path();
    if (folder) {
        const int length = snprintf(path, PATH_MAX, "%s/%s", folder, RWI_HIP_MODULE);
        return length > 0 && length < PATH_MAX;
    }
    char *slash = own_file(path) ? strrchr(path, '/') : NULL;
    if (!slash || slash + 1 + sizeof RWI_HIP_MODULE > path + PATH_MAX)
        return false;
    strcpy(slash + 1, RWI_HIP_MODULE);
    return true;
}

/* Whether an ELF file of so many bytes ends before its segments do. */
static bool is_truncated(int descriptor, uint64_t bytes) {
    ElfW(Ehdr) file;
    if (pread(descriptor, &file, sizeof file, 0) != sizeof file ||
        memcmp(file.e_ident, ELFMAG, SELFMAG) != 0 || file.e_phentsize != sizeof(ElfW(Phdr)))
        return false;
    for (uint64_t i = 0; i < file.e_phnum; i++) {
        ElfW(Phdr) segment;
        const uint64_t at = file.e_phoff + i * sizeof segment;
        if (pread(descriptor, &segment, sizeof segment, (off_t)at) != sizeof segment)
            return false;
        if (segment.p_type == PT_LOAD &&
            (segment.p_offset > bytes || segment.p_filesz > bytes - segment.p_offset))
            return true;
    }
    return false;
}

/* What dlopen() does not check of a file, but crashes or waits because of; NULL: nothing. */
static const char *what_is_wrong(const char *path) {
    struct stat info;
    const char *wrong = NULL;
    const int descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (descriptor < 0)
        return NULL;
    if (fstat(descriptor, &info) == 0 && !S_ISREG(info.st_mode))
        wrong = "it is not a regular file";
    else if (is_truncated(descriptor, (uint64_t)info.st_size))
        wrong = "it is truncated";
    close(descriptor);
    return wrong;
}

/* The module stays loaded: GPU runtimes do not survive being unloaded. */
static const rwi_backend *load_hip(rw_message *message) {
    char path[PATH_MAX];
    if (!module_path(path)) {
        rwi_message_set(message, RW_BACKEND_UNAVAILABLE, "the folder of %s is unknown",
                        RWI_HIP_MODULE);
        return NULL;
    }
    const char *wrong = what_is_wrong(path);
    if (wrong) {
        rwi_message_set(message, RW_BACKEND_UNAVAILABLE, "cannot load the module: %.128s: %s", path,
                        wrong);
        return NULL;
    }
    void *module = dlopen(path, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    if (!module) {
        rwi_message_set(message, RW_BACKEND_UNAVAILABLE, "cannot load the module: %s", dlerror());
        return NULL;
    }
    const rwi_backend *(*entry)(uint32_t abi) = NULL;
    *(void **)&entry = dlsym(module, "rw_backend_entry");
    const rwi_backend *backend = entry ? entry(RWI_BACKEND_ABI) : NULL;
    if (!backend || backend->abi != RWI_BACKEND_ABI) {
        rwi_message_set(message, RW_BACKEND_UNAVAILABLE,
                        "%.128s is not a module of this version (ABI %d)", path, RWI_BACKEND_ABI);
        return NULL;
    }
    return backend;
}

rw_backend_probe_result rw_backend_probe(rw_backend_kind kind) {
    rw_backend_probe_result result = {.found = false};
    const rwi_backend *backend = NULL;
    if (kind == RW_BACKEND_CPU)
        backend = &rwi_cpu_backend;
    else if (kind == RW_BACKEND_HIP)
        backend = load_hip(&result.why);
    else
        rwi_message_set(&result.why, RW_INVALID_ARGUMENT,
                        "backend is %d, expected one of rw_backend_kind", (int)kind);
    if (!backend)
        return result;
    result.found = true;
    rw_status status = backend->device_count(&result.device_count, result.platform, &result.why);
    result.usable = status == RW_OK && result.device_count > 0;
    result.automatic = result.usable && !backend->emulated;
    return result;
}

static rw_status open_backend(const rwi_backend *backend, const rwi_open_options *options,
                              rwi_device **device, rw_message *message) {
    rw_status status = backend->open(options, device, message);
    if (status == RW_OK)
        (*device)->backend = backend;
    return status;
}

static rw_status open_hip(const rwi_open_options *options, rwi_device **device,
                          rw_message *message) {
    rw_message why = {""};
    char platform[16];
    int32_t count = 0;
    const rwi_backend *backend = load_hip(&why);
    rw_status status =
        backend ? backend->device_count(&count, platform, &why) : RW_BACKEND_UNAVAILABLE;
    if (status != RW_OK)
        return rwi_message_set(message, RW_BACKEND_UNAVAILABLE,
                               "the backend hip is unavailable: %s", why.text);
    if (options->index < 0 || options->index >= count)
        return rwi_message_set(message, RW_BACKEND_UNAVAILABLE,
                               "the backend hip has no device %d: %d found", options->index, count);
    return open_backend(backend, options, device, message);
}

/* A real GPU, else the CPU. */
static rw_status open_auto(const rwi_open_options *options, rwi_device **device, rw_message *note,
                           rw_message *message) {
    rw_backend_probe_result hip = rw_backend_probe(RW_BACKEND_HIP);
    if (hip.automatic)
        return open_hip(options, device, message);
    rwi_message_set(note, RW_OK, " (not hip: %s)",
                    hip.usable ? "its devices are emulated" : hip.why.text);
    return open_backend(&rwi_cpu_backend, options, device, message);
}

rw_status rwi_backend_choose(const rw_context_options *options, const rwi_environment *environment,
                             rwi_device **device, rw_message *note, rw_message *message) {
    bool by_environment = options->backend == RW_BACKEND_DEFAULT;
    rwi_open_options open = {
        .index = by_environment ? environment->device : options->device,
        .num_threads = options->num_threads ? options->num_threads : environment->num_threads,
        .isa = options->cpu_isa ? options->cpu_isa : environment->cpu_isa,
        .parallel_for = options->parallel_for,
        .parallel_for_user = options->parallel_for_user,
    };
    rw_message passed_over = {""};
    rw_status status = RW_INVALID_ARGUMENT;
    switch (by_environment ? environment->backend : options->backend) {
    case RW_BACKEND_CPU:
        open.index = 0;
        status = open_backend(&rwi_cpu_backend, &open, device, message);
        break;
    case RW_BACKEND_HIP:
        status = open_hip(&open, device, message);
        break;
    case RW_BACKEND_AUTO:
    case RW_BACKEND_DEFAULT:
        open.index = 0;
        status = open_auto(&open, device, &passed_over, message);
        break;
    }
    if (status == RW_OK)
        rwi_message_set(note, RW_OK, "backend %s, %s%s", (*device)->backend->name, (*device)->name,
                        passed_over.text);
    return status;
}
