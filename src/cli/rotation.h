/* The rotation that `ropewalk rotate` was asked for, and running it anywhere. */
#ifndef CLI_ROTATION_H
#define CLI_ROTATION_H

#include "array.h"
#include "cli.h"
#include "model_config.h"

typedef struct cli_rotation {
    const cli_options *options;
    rwi_model_config config;
    cli_array q, k, positions; /* as read */
    rw_rope_options rope;
    int64_t end_of_ids; /* ids must be below it; 0: no end is known */
} cli_rotation;

/* Where a rotation ran and what it gave. */
typedef struct cli_rotated {
    cli_array q, k;
    cli_backend_label label;
    char device[128];
} cli_rotated;

/* Rotates on one backend. Free `rotated` whatever this returns. */
rw_status cli_rotation_run(const cli_rotation *rotation, const rw_context_options *where,
                           cli_rotated *rotated, rw_message *message);

void cli_rotated_free(cli_rotated *rotated);

/* Runs on every other backend and CPU instruction set that this host can use, and compares with
 * `first`. `report` receives a list of {"on", "tensor", "max_abs_diff", "max_rel_diff", "agrees"};
 * see the details in rotate.c. */
rw_status cli_rotation_check(const cli_rotation *rotation, const cli_rotated *first, json_t *report,
                             rw_message *message);

#endif
