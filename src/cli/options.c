#include "options.h"

#include <errno.h>
#include <float.h>
#include <getopt.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"

/* Sets one option from its value, which is NULL if it takes none; false if the value is invalid. */
typedef bool set_option(cli_options *options, const char *value);

static bool parse_integer(const char *text, int64_t *value) {
    char *end;
    errno = 0;
    long long parsed = strtoll(text, &end, 10);
    if (end == text || *end != '\0' || errno != 0)
        return false;
    *value = parsed;
    return true;
}

/* A number that is finite and not 0 as f32. */
static bool parse_factor(const char *text, double *value) {
    char *end;
    *value = strtod(text, &end);
    return end != text && *end == '\0' && fabs(*value) <= (double)FLT_MAX && (float)*value != 0.0f;
}

/* The index of a value in a list that ends with NULL, or -1. */
static int find_value(const char *const *list, const char *value) {
    for (int i = 0; list[i]; i++)
        if (strcmp(list[i], value) == 0)
            return i;
    return -1;
}

static bool set_config(cli_options *options, const char *value) {
    options->config = value;
    return true;
}

static bool set_layer_type(cli_options *options, const char *value) {
    options->layer_type = value;
    return true;
}

static bool set_seq_len(cli_options *options, const char *value) {
    return parse_integer(value, &options->seq_len) && options->seq_len >= 0;
}

static bool set_input(cli_options *options, const char *value) {
    options->input = value;
    return true;
}

static bool set_output(cli_options *options, const char *value) {
    options->output = value;
    return true;
}

static bool set_pairing(cli_options *options, const char *value) {
    options->pairing = strcmp(value, "half") == 0 ? RW_ROPE_HALF : RW_ROPE_INTERLEAVED;
    return options->pairing == RW_ROPE_HALF || strcmp(value, "interleaved") == 0;
}

static bool set_layout(cli_options *options, const char *value) {
    options->bhsd = strcmp(value, "bhsd") == 0;
    return options->bhsd || strcmp(value, "bshd") == 0;
}

static bool set_offset(cli_options *options, const char *value) {
    return parse_integer(value, &options->offset);
}

static bool set_inverse(cli_options *options, const char *value) {
    (void)value;
    options->inverse = true;
    return true;
}

static bool set_check(cli_options *options, const char *value) {
    (void)value;
    options->check = true;
    return true;
}

static bool set_backend(cli_options *options, const char *value) {
    int64_t device = 0;
    if (strcmp(value, "auto") == 0) {
        options->backend = RW_BACKEND_AUTO;
        return true;
    }
    if (strcmp(value, "cpu") == 0) {
        options->backend = RW_BACKEND_CPU;
        return true;
    }
    options->backend = RW_BACKEND_HIP;
    if (strncmp(value, "hip", 3) != 0 || (value[3] != '\0' && value[3] != ':'))
        return false;
    if (value[3] == ':' && (!parse_integer(value + 4, &device) || device < 0 || device > INT_MAX))
        return false;
    options->device = (int)device;
    return true;
}

static bool set_json(cli_options *options, const char *value) {
    (void)value;
    options->json = true;
    return true;
}

static bool set_case(cli_options *options, const char *value) {
    options->case_text = value;
    return true;
}

static bool set_tier(cli_options *options, const char *value) {
    static const char *const tiers[] = {"quick", "full", "large", NULL};
    options->tier = find_value(tiers, value);
    return options->tier >= 0;
}

static bool set_share(cli_options *options, const char *value) {
    options->share = value;
    return true;
}

static bool set_random(cli_options *options, const char *value) {
    return parse_integer(value, &options->random) && options->random >= 0;
}

static bool set_seed(cli_options *options, const char *value) {
    return parse_integer(value, &options->seed);
}

static bool set_format(cli_options *options, const char *value) {
    static const char *const formats[] = {"mxfp4",      "mxfp6_e2m3", "mxfp6_e3m2",
                                          "mxfp8_e4m3", "mxfp8_e5m2", NULL};
    int index = find_value(formats, value);
    options->format = (rw_mx_format)index;
    return index >= 0;
}

static bool set_mx_layout(cli_options *options, const char *value) {
    static const char *const layouts[] = {"separate", "front", "low-first",        "high-first",
                                          "split",    "ggml",  "front-high-first", NULL};
    options->mx_layout = value;
    return find_value(layouts, value) >= 0;
}

static bool set_dtype(cli_options *options, const char *value) {
    static const char *const dtypes[] = {"f32", "f16", "bf16", NULL};
    int index = find_value(dtypes, value);
    options->dtype = (rw_dtype)index;
    return index >= 0;
}

static bool set_pattern(cli_options *options, const char *value) {
    options->pattern = value;
    return true;
}

static bool set_seq_q(cli_options *options, const char *value) {
    return parse_integer(value, &options->seq_q) && options->seq_q >= 0 &&
           options->seq_q <= INT32_MAX;
}

static bool set_seq_k(cli_options *options, const char *value) {
    return parse_integer(value, &options->seq_k) && options->seq_k >= 0 &&
           options->seq_k <= INT32_MAX;
}

static bool set_png(cli_options *options, const char *value) {
    options->png = value;
    return true;
}

static bool set_scale(cli_options *options, const char *value) {
    return parse_factor(value, &options->scale);
}

static bool set_softcap(cli_options *options, const char *value) {
    return parse_factor(value, &options->softcap) && options->softcap > 0;
}

static bool set_alibi(cli_options *options, const char *value) {
    (void)value;
    options->alibi = true;
    return true;
}

static bool set_ring(cli_options *options, const char *value) {
    return parse_integer(value, &options->ring) && options->ring >= 0;
}

static bool set_help(cli_options *options, const char *value) {
    (void)options;
    (void)value;
    return true;
}

/* In the order of the bits in options.h. */
static const struct option_row {
    const char *name;
    const char *value; /* placeholder of the value in the help; NULL: takes no value */
    const char *help;
    set_option *set;
} rows[] = {
    {"config", "FILE", "the model's Hugging Face config.json, or its folder", set_config},
    {"layer-type", "NAME", "type of layers, if they differ [full_attention]", set_layer_type},
    {"seq-len", "N", "sequence length, for dynamic and longrope [short]", set_seq_len},
    {"input", "FILE", "a safetensors file", set_input},
    {"output", "FILE", "the safetensors file to write; may be the input", set_output},
    {"pairing", "half|interleaved", "which columns form a pair [as for a known model_type]",
     set_pairing},
    {"layout", "bshd|bhsd", "the order of the axes of q, k and v [bshd]", set_layout},
    {"offset", "N", "added to every position [0]", set_offset},
    {"inverse", NULL, "undo the rotation", set_inverse},
    {"check", NULL, "run every other usable backend and CPU instruction set too, and compare",
     set_check},
    {"backend", "auto|cpu|hip[:N]", "where to run [ROPEWALK_BACKEND, else auto]", set_backend},
    {"json", NULL, "print JSON", set_json},
    {"case", "FIELD=VALUE,...", "only this case, as printed by a failure", set_case},
    {"tier", "quick|full|large", "maximum size of cases [large]", set_tier},
    {"random", "N", "random cases of each operation [the default of its driver]", set_random},
    {"seed", "N", "seed of the random cases [1]", set_seed},
    {"format", "mxfp4|mxfp6_e2m3|mxfp6_e3m2|mxfp8_e4m3|mxfp8_e5m2", "format of the elements",
     set_format},
    {"layout", "separate|front|low-first|high-first|split|ggml|front-high-first",
     "memory layout of blocks; see below", set_mx_layout},
    {"dtype", "f32|f16|bf16", "dtype of the output [f32]; check: only cases of this dtype",
     set_dtype},
    {"pattern", "SPEC", "which keys a query sees: parts separated by commas", set_pattern},
    {"seq-q", "N", "number of queries", set_seq_q},
    {"seq-k", "N", "number of keys [number of queries]", set_seq_k},
    {"png", "FILE", "also draw the pattern as PNG", set_png},
    {"scale", "NONZERO", "factor of the scores [1 / sqrt(head_dim)]", set_scale},
    {"softcap", "POSITIVE", "cap scores: C tanh(score / C) [none]", set_softcap},
    {"alibi", NULL, "add ALiBi's bias for the number of heads", set_alibi},
    {"ring", "N", "the cache has the last N positions of each sequence [all]", set_ring},
    {"share", "I/N", "only the share I of N of the cases [all]", set_share},
    {"help", NULL, "print this help", set_help},
};
#define NUM_ROWS (sizeof rows / sizeof rows[0])

static unsigned all_options(const cli_command *command) {
    return command->options | command->required | CLI_OPTION_HELP;
}

static int check_given(const cli_command *command, const cli_options *options) {
    for (size_t i = 0; i < NUM_ROWS; i++)
        if (command->required & ~options->given & 1u << i)
            return cli_fail(CLI_USAGE, "%s requires --%s %s; see ropewalk %s --help", command->name,
                            rows[i].name, rows[i].value, command->name);
    if (options->num_operands > 0 && command->operands[0] == '\0')
        return cli_fail(CLI_USAGE, "%s takes no operand, got \"%s\"", command->name,
                        options->operands[0]);
    return CLI_OK;
}

int cli_parse_options(const cli_command *command, int argc, char **argv, cli_options *options) {
    struct option table[NUM_ROWS + 1] = {{0}};
    int used = 0, which;
    for (size_t i = 0; i < NUM_ROWS; i++)
        if (all_options(command) & 1u << i)
            table[used++] = (struct option){
                rows[i].name, rows[i].value ? required_argument : no_argument, NULL, (int)i};
    *options = (cli_options){0};
    opterr = 0;
    optind = 1;
    while ((which = getopt_long(argc, argv, ":", table, NULL)) != -1) {
        if (which == '?')
            return cli_fail(CLI_USAGE, "%s has no option %s; see ropewalk %s --help", command->name,
                            argv[optind - 1], command->name);
        if (which == ':')
            return cli_fail(CLI_USAGE, "%s requires a value; see ropewalk %s --help",
                            argv[optind - 1], command->name);
        if (!rows[which].set(options, optarg))
            return cli_fail(CLI_USAGE, "--%s is \"%s\", expected %s", rows[which].name, optarg,
                            rows[which].value);
        options->given |= 1u << which;
    }
    options->operands = argv + optind;
    options->num_operands = argc - optind;
    return options->given & CLI_OPTION_HELP ? CLI_OK : check_given(command, options);
}

void cli_print_help(const cli_command *command) {
    printf("usage: ropewalk %s", command->name);
    for (size_t i = 0; i < NUM_ROWS; i++)
        if (command->required & 1u << i)
            printf(" --%s %s", rows[i].name, rows[i].value ? rows[i].value : "");
    printf(" [options]%s%s\n\n%s\n\n", command->operands[0] ? " " : "", command->operands,
           command->summary);
    for (size_t i = 0; i < NUM_ROWS; i++) {
        char name[96];
        if (!(all_options(command) & 1u << i))
            continue;
        snprintf(name, sizeof name, "--%s%s%s", rows[i].name, rows[i].value ? " " : "",
                 rows[i].value ? rows[i].value : "");
        printf("  %-28s%s %s\n", name, strlen(name) > 28 ? "\n                              " : "",
               rows[i].help);
    }
    if (command->details[0])
        printf("\n%s", command->details);
}
