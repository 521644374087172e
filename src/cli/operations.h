/* Operands that name operations. */
#ifndef CLI_OPERATIONS_H
#define CLI_OPERATIONS_H

#include "cli.h"

/* Returns an exit status; a name that is no operation's is printed. */
int cli_check_operations(const cli_options *options);

/* Whether the operands name this operation, or none at all. */
bool cli_wants_operation(const cli_options *options, const char *name);

#endif
