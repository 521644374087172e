/* The two-level tables of kernels/shared/angle.h, built in f64 and put on the device. */
#ifndef RWI_ANGLE_TABLE_H
#define RWI_ANGLE_TABLE_H

#include "call.h"

/* More positions than this are refused. */
#define RWI_MAX_POSITIONS INT32_MAX

typedef struct rwi_angle_table {
    rw_context *context; /* made it and owns the memory; not asked once the table is in use */
    const rwi_backend *backend;
    int device_index;
    rwi_angles angles; /* rows at the start of `memory` */
    int32_t max_positions;
    void *memory; /* device memory, freed with rw_free */
    void *extra;  /* the `extra_bytes` behind the tables */
} rwi_angle_table;

/* inv_freq     [num_frequencies], radians a position
 * extra        bytes that go into the same device memory (the axis of each frequency); or none */
typedef struct rwi_angle_table_options {
    const double *inv_freq;
    int64_t num_frequencies;
    int64_t max_positions;
    const void *extra;
    size_t extra_bytes;
} rwi_angle_table_options;

rw_status rwi_angle_table_create(const rwi_call *call, const rwi_angle_table_options *options,
                                 rwi_angle_table *table);

void rwi_angle_table_free(rwi_angle_table *table);

/* A table that was built on one device is used on that device; `name` is its owner's. */
rw_status rwi_angle_table_check(const rwi_call *call, const char *name,
                                const rwi_angle_table *table);

#endif
