#include "json_lenient.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "io_error.h"

static const char *const nonfinite[] = {"NaN", "Infinity", "-Infinity"};

/* Text that grows by at most a factor. */
typedef struct copy {
    const char *from;
    const char *end;
    char *to;
} copy;

static void keep(copy *c, size_t bytes) {
    memcpy(c->to, c->from, bytes);
    c->to += bytes;
    c->from += bytes;
}

/* Passes `bytes` and writes a string in their place. */
static void replace(copy *c, size_t bytes, const char *word) {
    size_t length = strlen(word);
    *c->to++ = '"';
    memcpy(c->to, word, length);
    c->to += length;
    *c->to++ = '"';
    c->from += bytes;
}

static void copy_string(copy *c) {
    keep(c, 1);
    while (c->from < c->end && *c->from != '"')
        keep(c, *c->from == '\\' && c->from + 1 < c->end ? 2 : 1);
    if (c->from < c->end)
        keep(c, 1);
}

/* A number, name or what looks like one, up to the next sign that ends it. */
static void copy_word(copy *c) {
    char word[400];
    size_t bytes = 0;
    while (c->from + bytes < c->end && (isalnum((unsigned char)c->from[bytes]) ||
                                        (c->from[bytes] && strchr("+-.", c->from[bytes]))))
        bytes++;
    for (size_t i = 0; i < sizeof nonfinite / sizeof nonfinite[0]; i++) {
        if (bytes == strlen(nonfinite[i]) && memcmp(c->from, nonfinite[i], bytes) == 0) {
            replace(c, bytes, nonfinite[i]);
            return;
        }
    }
    bool negative = *c->from == '-';
    if (bytes > (negative ? 1 : 0) && isdigit((unsigned char)c->from[negative])) {
        /* longer ones are beyond any double, or jansson says what is wrong with them */
        size_t kept = bytes < sizeof word ? bytes : sizeof word - 1;
        char *stop;
        memcpy(word, c->from, kept);
        word[kept] = '\0';
        if (word[strspn(word, "+-.0123456789eE")] == '\0' && isinf(strtod(word, &stop)) &&
            *stop == '\0') {
            replace(c, bytes, nonfinite[1 + negative]);
            return;
        }
    }
    keep(c, bytes ? bytes : 1);
}

/* The text in `to` as jansson reads it; returns its length. */
static size_t standardise(const char *text, size_t length, char *to) {
    copy c = {text, text + length, to};
    if (length >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0)
        c.from += 3;
    while (c.from < c.end) {
        if (*c.from == '"')
            copy_string(&c);
        else if (isalnum((unsigned char)*c.from) || *c.from == '-')
            copy_word(&c);
        else
            keep(&c, 1);
    }
    return (size_t)(c.to - to);
}

rw_status rwi_json_load(const char *source, const char *text, size_t length, json_t **root,
                        rw_message *message) {
    json_error_t error;
    /* the shortest that grows is NaN, to "NaN", and 1e999, to "Infinity" */
    char *standard = malloc(2 * length + 1);
    *root = NULL;
    if (!standard)
        return rwi_io_fail(message, RW_OUT_OF_MEMORY, "no memory to read %.100s", source);
    *root =
        json_loadb(standard, standardise(text, length, standard), JSON_DECODE_INT_AS_REAL, &error);
    free(standard);
    if (*root)
        return RW_OK;
    return rwi_io_fail(message, RW_INVALID_ARGUMENT, "%.100s is not JSON: %.100s (line %d)", source,
                       error.text, error.line);
}

bool rwi_json_is_nonfinite(const json_t *value) {
    for (size_t i = 0; i < sizeof nonfinite / sizeof nonfinite[0]; i++)
        if (json_is_string(value) && strcmp(json_string_value(value), nonfinite[i]) == 0)
            return true;
    return false;
}
