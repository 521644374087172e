#include "json_lenient.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/io_error.h"

static const char *const nonfinite[] = {"NaN", "Infinity", "-Infinity"};

/* The output; its size is at most a constant factor of the text's. */
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

/* Skips `bytes` of the text and writes a string instead. */
static void replace(copy *c, size_t bytes, const char *word) {
    size_t length = strlen(word);
    *c->to++ = '"';
    memcpy(c->to, word, length);
    c->to += length;
    *c->to++ = '"';
    c->from += bytes;
}

/* Whether the token that ends after `bytes` is a key of an object. */
static bool is_key(const copy *c, size_t bytes) {
    const char *next = c->from + bytes;
    while (next < c->end && *next && strchr(" \t\r\n", *next))
        next++;
    return next < c->end && *next == ':';
}

/* The code unit of \uXXXX at `offset` of the remaining text, or -1. */
static long escaped_unit(const copy *c, size_t offset) {
    char digits[5] = "";
    if ((size_t)(c->end - c->from) < offset + 6 || memcmp(c->from + offset, "\\u", 2) != 0)
        return -1;
    memcpy(digits, c->from + offset + 2, 4);
    return strspn(digits, "0123456789abcdefABCDEF") == 4 ? strtol(digits, NULL, 16) : -1;
}

/* Python writes unpaired surrogates, which jansson refuses, as it does NUL in a key. No field name
 * that is read contains U+FFFD. */
static void copy_escape(copy *c, bool key) {
    static const char unknown[] = "\\ufffd";
    long unit = escaped_unit(c, 0), next = escaped_unit(c, 6);
    bool high = unit >= 0xd800 && unit < 0xdc00, low = unit >= 0xdc00 && unit < 0xe000;
    if (high && next >= 0xdc00 && next < 0xe000) {
        keep(c, 12);
    } else if (high || low || (key && unit == 0)) {
        memcpy(c->to, unknown, 6);
        c->to += 6;
        c->from += 6;
    } else {
        keep(c, c->from + 1 < c->end ? 2 : 1);
    }
}

static void copy_string(copy *c) {
    size_t bytes = 1, left = (size_t)(c->end - c->from);
    while (bytes < left && c->from[bytes] != '"')
        bytes += c->from[bytes] == '\\' ? 2 : 1;
    bytes = bytes < left ? bytes + 1 : left;
    const char *end = c->from + bytes;
    bool key = is_key(c, bytes);
    keep(c, 1);
    while (c->from < end) {
        if (*c->from == '\\')
            copy_escape(c, key);
        else
            keep(c, 1);
    }
}

static size_t skip_digits(const char *text, size_t at) {
    return at + strspn(text + at, "0123456789");
}

/* Whether the text is a number in JSON syntax. */
static bool is_number(const char *text) {
    size_t from = text[0] == '-', at = skip_digits(text, from);
    if (at == from || (text[from] == '0' && at > from + 1))
        return false;
    if (text[at] == '.') {
        from = at + 1;
        at = skip_digits(text, from);
        if (at == from)
            return false;
    }
    if (text[at] == 'e' || text[at] == 'E') {
        from = at + 1 + (text[at + 1] == '-' || text[at + 1] == '+');
        at = skip_digits(text, from);
        if (at == from)
            return false;
    }
    return text[at] == '\0';
}

/* Copies a number, name or similar token, up to the next delimiter. */
static void copy_word(copy *c) {
    size_t bytes = 0;
    while (c->from + bytes < c->end && (isalnum((unsigned char)c->from[bytes]) ||
                                        (c->from[bytes] && strchr("+-.", c->from[bytes]))))
        bytes++;
    /* jansson reports errors in other words, and in any word in place of a key */
    bool value = !is_key(c, bytes);
    for (size_t i = 0; value && i < sizeof nonfinite / sizeof nonfinite[0]; i++) {
        if (bytes == strlen(nonfinite[i]) && memcmp(c->from, nonfinite[i], bytes) == 0) {
            replace(c, bytes, nonfinite[i]);
            return;
        }
    }
    /* the word and its terminator fit into the output */
    memcpy(c->to, c->from, bytes);
    c->to[bytes] = '\0';
    if (value && is_number(c->to) && isinf(strtod(c->to, NULL)))
        replace(c, bytes, nonfinite[1 + (*c->from == '-')]);
    else
        keep(c, bytes);
}

/* Writes the text to `to` in standard JSON; returns its length. */
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
    /* the largest growth is that of NaN to "NaN" and of 1e999 to "Infinity" */
    char *standard = malloc(2 * length + 1);
    *root = NULL;
    if (!standard)
        return rwi_io_fail(message, RW_OUT_OF_MEMORY, "no memory to read %.100s", source);
    *root = json_loadb(standard, standardise(text, length, standard),
                       JSON_DECODE_INT_AS_REAL | JSON_ALLOW_NUL, &error);
    free(standard);
    if (*root)
        return RW_OK;
    if (!error.text[0]) /* jansson describes errors of the text only */
        return rwi_io_fail(message, RW_OUT_OF_MEMORY, "no memory to read %.100s", source);
    return rwi_io_fail(message, RW_INVALID_ARGUMENT, "%.100s is not JSON: %.100s (line %d)", source,
                       error.text, error.line);
}

bool rwi_json_is_nonfinite(const json_t *value) {
    for (size_t i = 0; i < sizeof nonfinite / sizeof nonfinite[0]; i++)
        if (json_is_string(value) && strcmp(json_string_value(value), nonfinite[i]) == 0)
            return true;
    return false;
}
