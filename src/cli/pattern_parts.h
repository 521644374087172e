/* The tensors of a pattern from the command line: in host memory, then on a device. */
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

/* Makes and reads the tensors of a spec that is valid for so many keys. Free `parts` whether or not
 * this succeeds. */
rw_status cli_pattern_parts_make(const cli_pattern_spec *spec, int64_t seq_k,
                                 cli_pattern_parts *parts, rw_message *message);

void cli_pattern_parts_free(cli_pattern_parts *parts);

/* The first position of each document that starts before `end`, and `end`; absent if there is none.
 */
rw_status cli_pattern_cuts(const cli_numbers *documents, int64_t end, cli_array *cuts,
                           rw_message *message);

/* The pattern on a context's device. Release it whether or not this succeeds. */
rw_status cli_pattern_upload(rw_context *context, const cli_pattern_spec *spec,
                             const cli_pattern_parts *parts, rw_pattern *pattern);

void cli_pattern_free(rw_context *context, rw_pattern *pattern);

#endif
