#include "operations.h"

#include <string.h>

#include "harness/harness.h"

int cli_check_operations(const cli_options *options) {
    for (int i = 0; i < options->num_operands; i++)
        if (!rwt_driver_find(options->operands[i]))
            return cli_fail(CLI_USAGE, "\"%s\" is not an operation; see ropewalk check --help",
                            options->operands[i]);
    return CLI_OK;
}

bool cli_selects_operation(const cli_options *options, const char *name) {
    for (int i = 0; i < options->num_operands; i++)
        if (strcmp(options->operands[i], name) == 0)
            return true;
    return options->num_operands == 0;
}
