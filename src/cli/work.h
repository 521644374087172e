/* Work that a subcommand does on one backend, and with --check on every other, too. */
#ifndef CLI_WORK_H
#define CLI_WORK_H

#include "array_compare.h"
#include "cli.h"

#define CLI_WORK_ARRAYS 2

/* What the work gave, and where. */
typedef struct cli_outcome {
    cli_array arrays[CLI_WORK_ARRAYS];
    cli_backend_label label;
    char device[128];
} cli_outcome;

typedef struct cli_work {
    const cli_options *options;
    const char *verb; /* "rotated", for the line above what --check prints */
    const void *of;
    /* Does it on a context; `outcome` has its label already. Every array that is set is freed,
     * whatever this returns. A failure sets the message. */
    rw_status (*run)(const void *of, rw_context *context, cli_outcome *outcome,
                     rw_message *message);
    json_t *(*describe)(const void *of); /* what --json tells beside "on", "device", "output" */
    cli_tolerance tolerances[CLI_WORK_ARRAYS];
} cli_work;

/* Does it where --backend says, compares with the others if --check is given, writes the arrays to
 * --output where all agree, and reports. Returns an exit status. */
int cli_work_do(const cli_work *work);

#endif
