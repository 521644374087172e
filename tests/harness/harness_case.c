/* Cases as text: parsing, printing, cross products of alternatives, random cases. */
#include "harness/harness.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_ALTERNATIVES 32

/* The values that a row allows for a field: ranges, most of them of one value. */
typedef struct alternatives {
    int64_t low[MAX_ALTERNATIVES];
    int64_t high[MAX_ALTERNATIVES];
    int count;
} alternatives;

static bool say(rw_message *message, const char *format, ...) {
    va_list args;
    va_start(args, format);
    if (message)
        vsnprintf(message->text, sizeof message->text, format, args);
    va_end(args);
    return false;
}

static bool parse_value(const rwt_field *field, const char *text, int64_t *value) {
    for (int64_t i = 0; field->words && field->words[i]; i++) {
        if (!strcmp(field->words[i], text)) {
            *value = i;
            return true;
        }
    }
    char *end;
    *value = strtoll(text, &end, 10);
    return !field->words && end != text && !*end;
}

static bool parse_alternative(const rwt_field *field, char *text, alternatives *a) {
    char *dots = field->words ? NULL : strstr(text, "..");
    if (a->count == MAX_ALTERNATIVES)
        return false;
    if (dots)
        *dots = '\0';
    int64_t *low = &a->low[a->count];
    int64_t *high = &a->high[a->count];
    if (!parse_value(field, text, low))
        return false;
    *high = *low;
    if (dots && (!parse_value(field, dots + 2, high) || *high < *low))
        return false;
    a->count++;
    return true;
}

static bool parse_field(const rwt_driver *driver, char *token, alternatives *all,
                        rw_message *message) {
    char *equals = strchr(token, '=');
    if (!equals)
        return say(message, "%s: '%s' is not name=value", driver->name, token);
    *equals = '\0';
    size_t f = 0;
    while (f < driver->num_fields && strcmp(driver->fields[f].name, token) != 0)
        f++;
    if (f == driver->num_fields)
        return say(message, "%s: a case has no field '%s'", driver->name, token);
    all[f].count = 0;
    char *rest = equals + 1;
    while (rest) {
        char *value = rest;
        rest = strchr(value, '|');
        if (rest)
            *rest++ = '\0';
        if (!parse_alternative(&driver->fields[f], value, &all[f]))
            return say(message, "%s: '%s' is no value of %s", driver->name, value, token);
    }
    return true;
}

static bool parse_row(const rwt_driver *driver, const char *text, alternatives *all,
                      rw_message *message) {
    if (driver->num_fields > RWT_MAX_FIELDS)
        return say(message, "%s has %zu fields, expected at most RWT_MAX_FIELDS", driver->name,
                   driver->num_fields);
    for (size_t f = 0; f < driver->num_fields; f++) {
        all[f].low[0] = all[f].high[0] = driver->fields[f].fallback;
        all[f].count = 1;
    }
    size_t length = strlen(text);
    char *copy = rwt_allocate(length + 1);
    memcpy(copy, text, length);
    bool good = true;
    char *rest = length > 0 ? copy : NULL;
    while (good && rest) {
        char *token = rest;
        rest = strchr(token, ',');
        if (rest)
            *rest++ = '\0';
        good = parse_field(driver, token, all, message);
    }
    free(copy);
    return good;
}

bool rwt_case_parse(const rwt_driver *driver, const char *text, rwt_case *result,
                    rw_message *message) {
    alternatives all[RWT_MAX_FIELDS];
    if (!parse_row(driver, text, all, message))
        return false;
    memset(result, 0, sizeof *result);
    for (size_t f = 0; f < driver->num_fields; f++) {
        if (all[f].count != 1 || all[f].low[0] != all[f].high[0])
            return say(message, "%s: %s has more than one value", driver->name,
                       driver->fields[f].name);
        result->values[f] = all[f].low[0];
    }
    const char *why = driver->invalid(result);
    return why ? say(message, "%s: %s", driver->name, why) : true;
}

rwt_case_text rwt_case_print(const rwt_driver *driver, const rwt_case *c) {
    rwt_case_text result = {""};
    size_t used = 0;
    for (size_t f = 0; f < driver->num_fields; f++) {
        const rwt_field *field = &driver->fields[f];
        int64_t value = c->values[f];
        if (value == field->fallback && strcmp(field->name, "seed") != 0)
            continue;
        char number[32];
        snprintf(number, sizeof number, "%lld", (long long)value);
        used += (size_t)snprintf(result.text + used, sizeof result.text - used, "%s%s=%s",
                                 used ? "," : "", field->name,
                                 field->words ? field->words[value] : number);
        if (used >= sizeof result.text)
            break;
    }
    return result;
}

static void append(rwt_case_list *list, const rwt_case *c) {
    if (list->count == list->capacity) {
        size_t capacity = list->capacity ? 2 * list->capacity : 256;
        rwt_case *cases = rwt_allocate(capacity * sizeof *cases);
        if (list->count > 0)
            memcpy(cases, list->cases, list->count * sizeof *cases);
        free(list->cases);
        list->cases = cases;
        list->capacity = capacity;
    }
    list->cases[list->count++] = *c;
}

static size_t seed_field(const rwt_driver *driver) {
    size_t f = 0;
    while (strcmp(driver->fields[f].name, "seed") != 0)
        f++;
    return f;
}

static void bad_row(const rwt_driver *driver, const char *row, const char *why) {
    fprintf(stderr, "the case row '%s' of %s is wrong: %s\n", row, driver->name, why);
    exit(1);
}

/* Advances `c` to the next case of the cross product; false past the last. */
static bool next_in_cross(const rwt_driver *driver, const alternatives *all, int *at, rwt_case *c) {
    for (size_t f = driver->num_fields; f-- > 0;) {
        if (c->values[f] < all[f].high[at[f]]) {
            c->values[f]++;
            return true;
        }
        at[f] = at[f] + 1 < all[f].count ? at[f] + 1 : 0;
        c->values[f] = all[f].low[at[f]];
        if (at[f] > 0)
            return true;
    }
    return false;
}

static void cross(rwt_case_list *list, const rwt_driver *driver, const char *row) {
    alternatives all[RWT_MAX_FIELDS];
    rw_message message;
    if (!parse_row(driver, row, all, &message))
        bad_row(driver, row, message.text);
    size_t seed = seed_field(driver);
    int at[RWT_MAX_FIELDS] = {0};
    rwt_case c = {{0}};
    for (size_t f = 0; f < driver->num_fields; f++)
        c.values[f] = all[f].low[0];
    do {
        const char *why = driver->invalid(&c);
        if (why)
            bad_row(driver, rwt_case_print(driver, &c).text, why);
        append(list, &c);
        list->cases[list->count - 1].values[seed] += (int64_t)list->count;
    } while (next_in_cross(driver, all, at, &c));
}

static void draw(rwt_case_list *list, const rwt_driver *driver, int64_t count, uint64_t seed) {
    alternatives all[RWT_MAX_FIELDS];
    rw_message message;
    if (!parse_row(driver, driver->random, all, &message))
        bad_row(driver, driver->random, message.text);
    rwt_random random = {seed};
    for (int64_t made = 0, tries = 0; made < count;) {
        if (tries++ > 1000 * count)
            bad_row(driver, driver->random, "hardly a case drawn of it is valid");
        rwt_case c = {{0}};
        for (size_t f = 0; f < driver->num_fields; f++) {
            int64_t i = rwt_random_below(&random, all[f].count);
            int64_t span = all[f].high[i] - all[f].low[i] + 1;
            c.values[f] = all[f].low[i] + rwt_random_below(&random, span);
        }
        c.values[seed_field(driver)] = (int64_t)(rwt_random_next(&random) >> 33);
        if (driver->invalid(&c))
            continue;
        append(list, &c);
        made++;
    }
}

bool rwt_share_parse(const char *text, rwt_case_options *options) {
    int end = 0;
    return sscanf(text, "%" SCNd64 "/%" SCNd64 "%n", &options->share, &options->shares, &end) ==
               2 &&
           text[end] == 0 && options->share >= 1 && options->share <= options->shares;
}

/* By chance: of two neighbours of a row's cases one often has a property that the other lacks. */
static void keep_share(rwt_case_list *list, int64_t share, int64_t shares) {
    size_t kept = 0;
    for (size_t i = 0; i < list->count; i++) {
        rwt_random random = {i};
        if (rwt_random_below(&random, shares) == share - 1)
            list->cases[kept++] = list->cases[i];
    }
    list->count = kept;
}

rwt_case_list rwt_case_list_make(const rwt_driver *driver, const rwt_case_options *options) {
    rwt_case_list list = {NULL, 0, 0};
    for (const rwt_case_row *row = driver->rows; row->text; row++) {
        if (row->tier >= options->from && row->tier <= options->tier)
            cross(&list, driver, row->text);
    }
    draw(&list, driver, options->num_random < 0 ? driver->num_random : options->num_random,
         options->seed);
    if (options->shares)
        keep_share(&list, options->share, options->shares);
    return list;
}

void rwt_case_list_free(rwt_case_list *list) {
    free(list->cases);
    *list = (rwt_case_list){NULL, 0, 0};
}
