#include "common/io_error.h"

#include <stdarg.h>
#include <stdio.h>

rw_status rwi_io_fail(rw_message *message, rw_status status, const char *format, ...) {
    if (!message)
        return status;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message->text, sizeof message->text, format, arguments);
    va_end(arguments);
    for (char *c = message->text; *c; c++)
        if ((unsigned char)*c < ' ' || *c == 127)
            *c = '?';
    return status;
}
