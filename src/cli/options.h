/* The options of all subcommands; each takes some of them. */
#ifndef CLI_OPTIONS_H
#define CLI_OPTIONS_H

#include <ropewalk/ropewalk.h>

/* One bit for each option, in the order of the table in options.c. */
enum {
    CLI_OPTION_CONFIG = 1 << 0,
    CLI_OPTION_LAYER_TYPE = 1 << 1,
    CLI_OPTION_SEQ_LEN = 1 << 2,
    CLI_OPTION_INPUT = 1 << 3,
    CLI_OPTION_OUTPUT = 1 << 4,
    CLI_OPTION_PAIRING = 1 << 5,
    CLI_OPTION_LAYOUT = 1 << 6,
    CLI_OPTION_OFFSET = 1 << 7,
    CLI_OPTION_INVERSE = 1 << 8,
    CLI_OPTION_CHECK = 1 << 9,
    CLI_OPTION_BACKEND = 1 << 10,
    CLI_OPTION_JSON = 1 << 11,
    CLI_OPTION_CASE = 1 << 12,
    CLI_OPTION_TIER = 1 << 13,
    CLI_OPTION_RANDOM = 1 << 14,
    CLI_OPTION_SEED = 1 << 15,
    CLI_OPTION_FORMAT = 1 << 16,
    CLI_OPTION_MX_LAYOUT = 1 << 17,
    CLI_OPTION_DTYPE = 1 << 18,
    CLI_OPTION_PATTERN = 1 << 19,
    CLI_OPTION_SEQ_Q = 1 << 20,
    CLI_OPTION_SEQ_K = 1 << 21,
    CLI_OPTION_PNG = 1 << 22,
    CLI_OPTION_SCALE = 1 << 23,
    CLI_OPTION_SOFTCAP = 1 << 24,
    CLI_OPTION_ALIBI = 1 << 25,
    CLI_OPTION_RING = 1 << 26,
    CLI_OPTION_SHARE = 1 << 27,
    CLI_OPTION_HELP = 1 << 28
};

typedef struct cli_options {
    unsigned given; /* CLI_OPTION_... */
    const char *config;
    const char *layer_type;
    int64_t seq_len;
    const char *input;
    const char *output;
    rw_rope_pairing pairing;
    bool bhsd; /* layout; else bshd */
    int64_t offset;
    bool inverse;
    bool check;
    rw_backend_kind backend;
    int device;
    bool json;
    const char *case_text;
    int tier;       /* rwt_tier */
    int64_t random; /* cases of each operation */
    int64_t seed;
    const char *share;
    rw_mx_format format;
    const char *mx_layout; /* one of a list, not necessarily a layout of the format */
    rw_dtype dtype;
    const char *pattern;
    int64_t seq_q;
    int64_t seq_k;
    const char *png;
    double scale;
    double softcap;
    bool alibi;
    int64_t ring;
    char **operands;
    int num_operands;
} cli_options;

struct cli_command;

/* Parses the arguments after the subcommand's name; argv[0] is that name. Returns an exit status;
 * with CLI_OK the program continues. A usage error is printed. */
int cli_parse_options(const struct cli_command *command, int argc, char **argv,
                      cli_options *options);

/* Prints the usage of a subcommand. */
void cli_print_help(const struct cli_command *command);

#endif
