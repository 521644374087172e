/* The two-level tables of kernels/shared/angle.h, built in f64 and put on the device. */
#ifndef RWI_ANGLE_TABLE_H
#define RWI_ANGLE_TABLE_H

#include "call.h"

/* The largest valid max_positions. */
#define RWI_MAX_POSITIONS INT32_MAX

typedef struct rwi_angle_table {
    rw_context *context; /* owns the memory; used to free it, not to apply the table */
    const rwi_backend *backend;
    int device_index;
    rwi_angles angles; /* rows at the start of `memory` */
    int32_t max_positions;
    void *memory; /* device memory, freed with rw_free */
    void *extra;  /* `extra_bytes` at the end of `memory` */
} rwi_angle_table;

/* inv_freq     [num_frequencies], radians a position
 * extra        copied behind the tables, `extra_bytes` long: the axis of each frequency */
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

/* Fails unless the context runs on the device of the table, a part of the argument `name`. */
rw_status rwi_angle_table_check(const rwi_call *call, const char *name,
                                const rwi_angle_table *table);

#endif
