#include "pattern_spec.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/io_error.h"

static rw_status fail(rw_message *message, const char *part, const char *expected) {
    return rwi_io_fail(message, RW_INVALID_ARGUMENT,
                       "--pattern has the part \"%.80s\", expected %s", part, expected);
}

static rw_status fail_memory(rw_message *message) {
    return rwi_io_fail(message, RW_OUT_OF_MEMORY, "no memory for --pattern");
}

/* A nonnegative number; `end` receives the text after it. */
static bool read_number(const char *text, int64_t *value, const char **end) {
    char *rest;
    if (*text < '0' || *text > '9')
        return false;
    errno = 0;
    *value = strtoll(text, &rest, 10);
    *end = rest;
    return errno == 0;
}

static bool parse_number(const char *text, int64_t *value) {
    const char *end;
    return read_number(text, value, &end) && *end == '\0';
}

/* With values NULL: out of memory. */
static bool parse_numbers(const char *text, cli_numbers *numbers) {
    numbers->values = malloc((strlen(text) + 1) * sizeof *numbers->values);
    if (!numbers->values)
        return false;
    for (;;) {
        const char *end;
        if (!read_number(text, &numbers->values[numbers->count++], &end))
            return false;
        if (*end == '\0')
            return true;
        if (*end != ':')
            return false;
        text = end + 1;
    }
}

/* Sets one part; false if it is invalid or repeated, or with *expected NULL if there is no memory.
 * `value`: the text after '=', or NULL. */
static bool set_part(cli_pattern_spec *spec, const char *name, const char *value,
                     const char **expected) {
    bool number = strcmp(name, "window") == 0 || strcmp(name, "prefix") == 0;
    bool numbers = strcmp(name, "global") == 0 || strcmp(name, "documents") == 0;
    *expected = number    ? "one nonnegative number, once"
                : numbers ? "nonnegative numbers separated by colons, once"
                          : "no value, once";
    if (strcmp(name, "causal") == 0) {
        bool again = spec->causal;
        spec->causal = true;
        return !value && !again;
    }
    if (strcmp(name, "bidirectional") == 0) {
        bool again = spec->bidirectional;
        spec->bidirectional = true;
        return !value && !again;
    }
    if (number) {
        bool window = *name == 'w';
        bool *given = window ? &spec->has_window : &spec->has_prefix;
        bool again = *given;
        *given = true;
        return value && !again && parse_number(value, window ? &spec->window : &spec->prefix);
    }
    if (numbers) {
        cli_numbers *list = *name == 'g' ? &spec->globals : &spec->documents;
        if (!value || list->values)
            return false;
        bool good = parse_numbers(value, list);
        if (!list->values)
            *expected = NULL;
        return good;
    }
    if (strcmp(name, "custom") == 0) {
        *expected = "the name of a file, once";
        if (!value || !*value || spec->custom)
            return false;
        spec->custom = strdup(value);
        if (!spec->custom)
            *expected = NULL;
        return spec->custom != NULL;
    }
    *expected = "causal, bidirectional, window=W, prefix=P, global=A:B:..., documents=0:A:... or "
                "custom=FILE";
    return false;
}

rw_status cli_pattern_parse(const char *text, cli_pattern_spec *spec, rw_message *message) {
    *spec = (cli_pattern_spec){0};
    char *copy = strdup(text);
    rw_status status = copy ? RW_OK : fail_memory(message);
    for (char *part = copy, *next; status == RW_OK && part; part = next) {
        char whole[96];
        const char *expected;
        next = strchr(part, ',');
        if (next)
            *next++ = '\0';
        strncpy(whole, part, sizeof whole - 1);
        whole[sizeof whole - 1] = '\0';
        char *value = strchr(part, '=');
        if (value)
            *value++ = '\0';
        if (!set_part(spec, part, value, &expected))
            status = expected ? fail(message, whole, expected) : fail_memory(message);
    }
    free(copy);
    if (status == RW_OK && spec->causal && spec->bidirectional)
        status = fail(message, "bidirectional", "not both causal and bidirectional");
    return status;
}

/* A global position must be a key; documents must start at 0 and be in ascending order. */
rw_status cli_pattern_fits(const cli_pattern_spec *spec, int64_t seq_k, rw_message *message) {
    for (int64_t n = 0; n < spec->globals.count; n++)
        if (spec->globals.values[n] >= seq_k)
            return rwi_io_fail(
                message, RW_INVALID_ARGUMENT,
                "--pattern has the global position %lld, expected one of the %lld keys",
                (long long)spec->globals.values[n], (long long)seq_k);
    for (int64_t n = 0; n < spec->documents.count; n++) {
        int64_t begin = spec->documents.values[n];
        bool follows = n == 0 ? begin == 0 : begin > spec->documents.values[n - 1];
        if (!follows || begin >= seq_k)
            return rwi_io_fail(
                message, RW_INVALID_ARGUMENT,
                "--pattern has a document at %lld, expected the first at 0, in ascending order and "
                "below the %lld keys",
                (long long)begin, (long long)seq_k);
    }
    if (spec->globals.values && spec->has_window && spec->window == 0)
        return rwi_io_fail(message, RW_INVALID_ARGUMENT,
                           "--pattern has window=0 with global positions, expected 1 or more");
    return RW_OK;
}

void cli_pattern_release(cli_pattern_spec *spec) {
    free(spec->globals.values);
    free(spec->documents.values);
    free(spec->custom);
    *spec = (cli_pattern_spec){0};
}
