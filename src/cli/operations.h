/* Operands that name operations. */
#ifndef CLI_OPERATIONS_H
#define CLI_OPERATIONS_H

#include "cli.h"

/* Returns an exit status; prints an error for a name that is not an operation. */
int cli_check_operations(const cli_options *options);

/* Whether the operands name this operation, or there are no operands. */
bool cli_selects_operation(const cli_options *options, const char *name);

#endif
