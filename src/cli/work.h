/* Work that a subcommand does on one backend and, with --check, on every other one. */
#ifndef CLI_WORK_H
#define CLI_WORK_H

#include "array_compare.h"
#include "cli.h"

#define CLI_WORK_ARRAYS 2

/* The results of the work, and the backend. */
typedef struct cli_outcome {
    cli_array arrays[CLI_WORK_ARRAYS];
    cli_backend_label label;
    char device[128];
} cli_outcome;

typedef struct cli_work {
    const cli_options *options;
    const char *verb; /* "rotated", for the output of --check */
    const void *of;
    /* Does the work on a context; `outcome` already has its label. Every array that is set is
     * freed, whatever this returns. On failure it sets the message. */
    rw_status (*run)(const void *of, rw_context *context, cli_outcome *outcome,
                     rw_message *message);
    json_t *(*describe)(const void *of); /* fields of --json besides "on", "device", "output" */
    cli_tolerance tolerances[CLI_WORK_ARRAYS];
} cli_work;

/* Does the work on the backend that --backend selects, compares with the others if --check is
 * given, writes the arrays to --output if all agree, and reports. Returns an exit status. */
int cli_work_do(const cli_work *work);

#endif
