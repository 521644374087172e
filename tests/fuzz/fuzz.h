/* Common to the fuzz targets. */
#ifndef FUZZ_H
#define FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <ropewalk/ropewalk.h>

/* The functions that libFuzzer calls. */
int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Ends the program, which libFuzzer reports as a crash with its input, unless `condition` holds. */
#define FUZZ_REQUIRE(condition)                                                                    \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition);                \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

/* One sentence on one line. */
static inline void fuzz_require_sentence(const char *text) {
    FUZZ_REQUIRE(strlen(text) >= 10 && strlen(text) < sizeof(rw_message) && !strchr(text, '\n'));
}

#endif
