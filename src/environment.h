/* The environment variables that ropewalk reads, checked in one place. */
#ifndef RWI_ENVIRONMENT_H
#define RWI_ENVIRONMENT_H

#include <ropewalk/context.h>

typedef struct rwi_environment {
    rw_backend_kind backend; /* ROPEWALK_BACKEND; AUTO where unset */
    int device;
    int num_threads;    /* ROPEWALK_NUM_THREADS, else OMP_NUM_THREADS; 0 where unset */
    rw_cpu_isa cpu_isa; /* ROPEWALK_CPU_ISA; DEFAULT where unset */
    bool log;           /* ROPEWALK_LOG */
} rwi_environment;

/* Returns RW_INVALID_ARGUMENT with a sentence that lists the valid values. */
rw_status rwi_environment_read(rwi_environment *environment, rw_message *message);

/* ROPEWALK_BACKEND_PATH: the folder of backend modules; NULL where unset. */
const char *rwi_environment_backend_path(void);

#endif
