/* The sentence of an error, for libropewalk and for what reads and writes files. */
#ifndef RWI_SENTENCE_H
#define RWI_SENTENCE_H

#include <stdarg.h>
#include <stdio.h>

#include <ropewalk/base.h>

/* Writes one line of text. Control characters, which the caller's values, the environment or names in
 * a file may contain, become '?'. */
static inline void rwi_sentence_write(rw_message *message, const char *format, va_list arguments) {
    vsnprintf(message->text, sizeof message->text, format, arguments);
    for (char *c = message->text; *c; c++)
        if ((unsigned char)*c < ' ' || *c == 127)
            *c = '?';
}

#endif
