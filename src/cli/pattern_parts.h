/* The tensors that a pattern of the command line is made of: on the host, then on a device. */
#ifndef CLI_PATTERN_PARTS_H
#define CLI_PATTERN_PARTS_H

#include "array.h"
#include "pattern_spec.h"

typedef struct cli_pattern_parts {
    cli_array globals;    /* bits */
    cli_array documents;  /* cu_seqlens over the keys */
    cli_array bits, mask; /* custom */
    cli_array table;      /* custom ids */
} cli_pattern_parts;

/* Makes and reads what a spec that fits so many keys asks for. Free `parts` whatever this returns.
 */
rw_status cli_pattern_parts_make(const cli_pattern_spec *spec, int64_t seq_k,
                                 cli_pattern_parts *parts, rw_message *message);

void cli_pattern_parts_free(cli_pattern_parts *parts);

/* The first position of each document that begins before `end`, and `end`; absent where none
 * does. */
rw_status cli_pattern_cuts(const cli_numbers *documents, int64_t end, cli_array *cuts,
                           rw_message *message);

/* The pattern on a context's device. Release it whatever this returns. */
rw_status cli_pattern_upload(rw_context *context, const cli_pattern_spec *spec,
                             const cli_pattern_parts *parts, rw_pattern *pattern);

void cli_pattern_free(rw_context *context, rw_pattern *pattern);

#endif
