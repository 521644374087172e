/* Patterns in the syntax of the command line: "causal,window=128", "global=0:5,window=3", ... */
#ifndef CLI_PATTERN_SPEC_H
#define CLI_PATTERN_SPEC_H

#include <ropewalk/ropewalk.h>

/* Numbers separated by colons. */
typedef struct cli_numbers {
    int64_t *values; /* NULL: absent */
    int64_t count;
} cli_numbers;

typedef struct cli_pattern_spec {
    bool causal;
    bool bidirectional;
    bool has_window;
    int64_t window; /* keys on each side */
    bool has_prefix;
    int64_t prefix;
    cli_numbers globals;
    cli_numbers documents; /* the first position of each */
    char *custom;          /* a file; NULL: none */
} cli_pattern_spec;

/* The description in --help. */
#define CLI_PATTERN_HELP                                                                           \
    "SPEC is a comma-separated list of\n"                                                          \
    "  causal             a query sees the keys up to its own position\n"                          \
    "  bidirectional      a query sees every key\n"                                                \
    "  window=W           W keys on each side of the query's position; with causal, before it\n"   \
    "  prefix=P           all queries see the first P keys\n"                                      \
    "  global=A:B:...     with a window: these positions see all keys, all queries see them\n"     \
    "  documents=0:A:...  the first position of each document; queries see only their own\n"       \
    "  custom=FILE        a safetensors file with bits, U8 [seq-q, ceil(seq-k / 8)], lowest bit\n" \
    "                     first, or mask, F32, F16 or BF16 [seq-q, seq-k], hidden where -inf;\n"   \
    "                     positions, I32 or I64 [seq-q], if any, are the ids\n"

/* Parses a text; RW_INVALID_ARGUMENT, with a sentence, if it is malformed or contradictory. Release
 * the result in any case. */
rw_status cli_pattern_parse(const char *text, cli_pattern_spec *spec, rw_message *message);

/* RW_OK if it is valid for so many keys, else RW_INVALID_ARGUMENT with a sentence. */
rw_status cli_pattern_fits(const cli_pattern_spec *spec, int64_t seq_k, rw_message *message);

void cli_pattern_release(cli_pattern_spec *spec);

#endif
