/* The program `ropewalk`: finds the subcommand and runs it. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"

static const cli_command *const commands[] = {
    &cli_info,   &cli_frequencies, &cli_rotate, &cli_embed, &cli_mask, &cli_append,
    &cli_attend, &cli_dequantize,  &cli_check,  &cli_bench, &cli_demo,
};
#define NUM_COMMANDS (sizeof commands / sizeof commands[0])

int cli_fail(int exit_status, const char *format, ...) {
    char line[1024];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    for (char *c = line; *c; c++) /* names from the command line may contain control characters */
        if ((unsigned char)*c < ' ')
            *c = '?';
    fprintf(stderr, "ropewalk: %s\n", line);
    return exit_status;
}

int cli_print_json(json_t *value) {
    if (!value)
        return cli_fail(CLI_FAILED, "no memory for the output");
    int failed = json_dumpf(value, stdout, JSON_REAL_PRECISION(17));
    json_decref(value);
    putchar('\n');
    return failed ? cli_fail(CLI_FAILED, "cannot write to standard output") : CLI_OK;
}

rw_context_options cli_context_options(const cli_options *options) {
    return (rw_context_options){.backend = options->backend, .device = options->device};
}

cli_backend_label cli_label(const rw_context_info *info) {
    cli_backend_label label;
    if (info->num_threads > 0)
        snprintf(label.text, sizeof label.text, "%s (%s)", info->backend, info->platform);
    else
        snprintf(label.text, sizeof label.text, "%s:%d (%s)", info->backend, info->device_index,
                 info->platform);
    return label;
}

json_t *cli_describe_context(const rw_context_info *info) {
    return json_pack("{s:s, s:s, s:s, s:i, s:i}", "backend", info->backend, "platform",
                     info->platform, "device", info->device, "index", info->device_index, "threads",
                     info->num_threads);
}

static void print_usage(void) {
    printf("usage: ropewalk COMMAND [options]\n\n"
           "Position embeddings, masks and attention, on GPUs (HIP) and CPUs (OpenMP).\n\n");
    for (size_t i = 0; i < NUM_COMMANDS; i++)
        printf("  %-12s %s\n", commands[i]->name, commands[i]->summary);
    printf(
        "\n  ropewalk COMMAND --help    the options of a command\n"
        "  ropewalk --version         the version\n\n"
        "Exit status: 0 success, 1 a check failed or an operation returned an error, 2 usage.\n");
}

static int run_command(const cli_command *command, int argc, char **argv) {
    cli_options options;
    int status = cli_parse_options(command, argc, argv, &options);
    if (status != CLI_OK)
        return status;
    if (!(options.given & CLI_OPTION_HELP))
        return command->run(&options);
    cli_print_help(command);
    return CLI_OK;
}

static int run(int argc, char **argv) {
    if (argc < 2)
        return cli_fail(CLI_USAGE, "no command given; see ropewalk --help");
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
        print_usage();
        return CLI_OK;
    }
    if (strcmp(argv[1], "--version") == 0) {
        printf("ropewalk %s\n", rw_version());
        return CLI_OK;
    }
    for (size_t i = 0; i < NUM_COMMANDS; i++)
        if (strcmp(argv[1], commands[i]->name) == 0)
            return run_command(commands[i], argc - 1, argv + 1);
    return cli_fail(CLI_USAGE, "\"%s\" is not a command; see ropewalk --help", argv[1]);
}

/* jansson's functions ignore some allocations that fail, and return a part of the value. */
static void *allocate(size_t bytes) {
    void *memory = malloc(bytes);
    if (!memory && bytes > 0)
        exit(cli_fail(CLI_FAILED, "out of memory"));
    return memory;
}

int main(int argc, char **argv) {
    json_set_alloc_funcs(allocate, free);
    int status = run(argc, argv);
    if ((fflush(stdout) != 0 || ferror(stdout)) && status == CLI_OK)
        return cli_fail(CLI_FAILED, "cannot write to standard output");
    return status;
}
