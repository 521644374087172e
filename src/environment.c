/* The only file that calls getenv. */
#include "environment.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "call.h"

/* A whole decimal number in [min, max]. */
static bool parse_int(const char *text, int min, int max, int *number) {
    char *end = NULL;
    errno = 0;
    long value = strtol(text, &end, 10);
    if (end == text || *end != '\0' || errno != 0 || value < min || value > max)
        return false;
    *number = (int)value;
    return true;
}

/* NULL where unset or empty. */
static const char *variable(const char *name) {
    const char *value = getenv(name);
    return value && *value ? value : NULL;
}

static rw_status read_backend(rwi_environment *environment, rw_message *message) {
    const char *value = variable("ROPEWALK_BACKEND");
    environment->backend = RW_BACKEND_AUTO;
    if (!value || strcmp(value, "auto") == 0)
        return RW_OK;
    if (strcmp(value, "cpu") == 0) {
        environment->backend = RW_BACKEND_CPU;
        return RW_OK;
    }
    environment->backend = RW_BACKEND_HIP;
    if (strcmp(value, "hip") == 0)
        return RW_OK;
    if (strncmp(value, "hip:", 4) == 0 && parse_int(value + 4, 0, INT_MAX, &environment->device))
        return RW_OK;
    return rwi_message_set(message, RW_INVALID_ARGUMENT,
                           "ROPEWALK_BACKEND is \"%.64s\", expected auto, cpu, hip or hip:DEVICE",
                           value);
}

static rw_status read_cpu_isa(rwi_environment *environment, rw_message *message) {
    const char *value = variable("ROPEWALK_CPU_ISA");
    if (!value)
        return RW_OK;
    if (strcmp(value, "baseline") == 0)
        environment->cpu_isa = RW_CPU_ISA_BASELINE;
    else if (strcmp(value, "v3") == 0)
        environment->cpu_isa = RW_CPU_ISA_V3;
    else if (strcmp(value, "v4") == 0)
        environment->cpu_isa = RW_CPU_ISA_V4;
    else if (strcmp(value, "amx") == 0)
        environment->cpu_isa = RW_CPU_ISA_AMX;
    else
        return rwi_message_set(message, RW_INVALID_ARGUMENT,
                               "ROPEWALK_CPU_ISA is \"%.64s\", expected baseline, v3, v4 or amx",
                               value);
    return RW_OK;
}

/* ROPEWALK_NUM_THREADS, else OMP_NUM_THREADS: a list, a number for each level of nested loops. */
static rw_status read_num_threads(rwi_environment *environment, rw_message *message) {
    const char *value = variable("ROPEWALK_NUM_THREADS");
    if (value && !parse_int(value, 1, RWI_MAX_THREADS, &environment->num_threads))
        return rwi_message_set(message, RW_INVALID_ARGUMENT,
                               "ROPEWALK_NUM_THREADS is \"%.64s\", expected a number from 1 to %d",
                               value, RWI_MAX_THREADS);
    const char *list = value ? NULL : variable("OMP_NUM_THREADS");
    if (!list)
        return RW_OK;
    char first[16];
    const char *number = list + strspn(list, " \t");
    const int64_t length = (int64_t)strcspn(number, ", \t");
    snprintf(first, sizeof first, "%.*s", (int)rwi_min(length, sizeof first), number);
    if (!parse_int(first, 1, RWI_MAX_THREADS, &environment->num_threads))
        return rwi_message_set(message, RW_INVALID_ARGUMENT,
                               "OMP_NUM_THREADS is \"%.64s\", expected a number from 1 to %d", list,
                               RWI_MAX_THREADS);
    return RW_OK;
}

rw_status rwi_environment_read(rwi_environment *environment, rw_message *message) {
    memset(environment, 0, sizeof *environment);
    RWI_TRY(read_backend(environment, message));
    RWI_TRY(read_cpu_isa(environment, message));
    RWI_TRY(read_num_threads(environment, message));
    const char *log = variable("ROPEWALK_LOG");
    if (log && strcmp(log, "0") != 0 && strcmp(log, "1") != 0)
        return rwi_message_set(message, RW_INVALID_ARGUMENT,
                               "ROPEWALK_LOG is \"%.64s\", expected 0 or 1", log);
    environment->log = log && *log == '1';
    return RW_OK;
}

const char *rwi_environment_backend_path(void) {
    return variable("ROPEWALK_BACKEND_PATH");
}
