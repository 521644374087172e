/* Common to the subcommands of the program `ropewalk`. */
#ifndef CLI_H
#define CLI_H

#include <jansson.h>

#include <ropewalk/ropewalk.h>

#include "options.h"

/* Exit statuses. */
enum {
    CLI_OK = 0,
    CLI_FAILED = 1, /* a check failed or an operation returned an error */
    CLI_USAGE = 2
};

/* A subcommand: a row of the table in main.c, defined in the file with its name. */
typedef struct cli_command {
    const char *name;
    const char *summary;
    unsigned options;     /* CLI_OPTION_...: the options that it takes */
    unsigned required;    /* the options that it requires */
    const char *operands; /* operands after the options, "" for none */
    const char *details;  /* the last part of the help */
    int (*run)(const cli_options *options);
} cli_command;

extern const cli_command cli_info;
extern const cli_command cli_frequencies;
extern const cli_command cli_rotate;
extern const cli_command cli_append;
extern const cli_command cli_attend;
extern const cli_command cli_embed;
extern const cli_command cli_dequantize;
extern const cli_command cli_demo;
extern const cli_command cli_mask;
extern const cli_command cli_check;
extern const cli_command cli_bench;

/* Prints "ropewalk: <sentence>" on stderr and returns `exit_status`. */
int cli_fail(int exit_status, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Prints a JSON value in one line on stdout and releases it. Returns an exit status. */
int cli_print_json(json_t *value);

/* The context options that --backend selects. */
rw_context_options cli_context_options(const cli_options *options);

/* "hip:0 (emulated)", "cpu (v3)" */
typedef struct cli_backend_label {
    char text[64];
} cli_backend_label;

cli_backend_label cli_label(const rw_context_info *info);

/* {"backend", "platform", "device", "index" or "threads"} */
json_t *cli_describe_context(const rw_context_info *info);

#endif
