#include "common/io_error.h"

#include "common/sentence.h"

rw_status rwi_io_fail(rw_message *message, rw_status status, const char *format, ...) {
    if (!message)
        return status;
    va_list arguments;
    va_start(arguments, format);
    rwi_sentence_write(message, format, arguments);
    va_end(arguments);
    return status;
}
