#include "json_fields.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "common/io_error.h"
#include "json_lenient.h"

const char *rwi_json_text(const json_t *value) {
    const char *text = json_string_value(value);
    return text && strlen(text) == json_string_length(value) ? text : NULL;
}

static const char *type_name(const json_t *value) {
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        return "an object";
    case JSON_ARRAY:
        return "an array";
    case JSON_STRING:
        if (!rwi_json_text(value))
            return "a string that contains NUL";
        return rwi_json_is_nonfinite(value) ? json_string_value(value) : "a string";
    case JSON_TRUE:
    case JSON_FALSE:
        return "a boolean";
    case JSON_NULL:
        return "null";
    case JSON_INTEGER:
    case JSON_REAL:
        break;
    }
    return "a number";
}

void rwi_json_fail(rwi_json_reader *reader, const char *format, ...) {
    if (reader->status != RW_OK)
        return;
    char text[200];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    reader->status =
        rwi_io_fail(reader->message, RW_INVALID_ARGUMENT, "%.100s: %s", reader->source, text);
}

const json_t *rwi_json_value(rwi_json_field field) {
    const json_t *value = json_object_get(field.object, field.key);
    return json_is_null(value) ? NULL : value;
}

/* The value, unless an earlier field has failed. */
static const json_t *present(const rwi_json_reader *reader, rwi_json_field field) {
    return reader->status == RW_OK ? rwi_json_value(field) : NULL;
}

static void fail_type(rwi_json_reader *reader, rwi_json_field field, const char *expected) {
    rwi_json_fail(reader, "%s is %s, expected %s", field.key, type_name(rwi_json_value(field)),
                  expected);
}

static double number(rwi_json_reader *reader, rwi_json_field field, const char *expected) {
    const json_t *value = rwi_json_value(field);
    if (!json_is_number(value))
        fail_type(reader, field, expected);
    return json_number_value(value);
}

double rwi_json_positive(rwi_json_reader *reader, rwi_json_field field, double absent) {
    static const char expected[] = "a positive number";
    if (!present(reader, field))
        return absent;
    double value = number(reader, field, expected);
    if (value > 0 && isfinite(value))
        return value;
    rwi_json_fail(reader, "%s is %g, expected %s", field.key, value, expected);
    return absent;
}

double rwi_json_not_negative(rwi_json_reader *reader, rwi_json_field field, double absent) {
    static const char expected[] = "a nonnegative number";
    if (!present(reader, field))
        return absent;
    double value = number(reader, field, expected);
    if (value >= 0 && isfinite(value))
        return value;
    rwi_json_fail(reader, "%s is %g, expected %s", field.key, value, expected);
    return absent;
}

/* An integer from `lowest` to 2^53. */
static int64_t integer(rwi_json_reader *reader, rwi_json_field field, int64_t absent, int lowest) {
    char expected[48];
    if (!present(reader, field))
        return absent;
    snprintf(expected, sizeof expected, "an integer from %d to 2^53", lowest);
    double value = number(reader, field, expected);
    if (value >= lowest && value <= 0x1p53 && value == floor(value))
        return (int64_t)value;
    rwi_json_fail(reader, "%s is %.17g, expected %s", field.key, value, expected);
    return absent;
}

int64_t rwi_json_length(rwi_json_reader *reader, rwi_json_field field, int64_t absent) {
    return integer(reader, field, absent, 1);
}

int64_t rwi_json_count(rwi_json_reader *reader, rwi_json_field field, int64_t absent) {
    return integer(reader, field, absent, 0);
}

bool rwi_json_bool(rwi_json_reader *reader, rwi_json_field field, bool absent) {
    const json_t *value = present(reader, field);
    if (!value)
        return absent;
    if (!json_is_boolean(value))
        fail_type(reader, field, "true or false");
    return json_is_true(value);
}

const char *rwi_json_string(rwi_json_reader *reader, rwi_json_field field, const char *absent) {
    const json_t *value = present(reader, field);
    if (!value)
        return absent;
    if (rwi_json_text(value))
        return rwi_json_text(value);
    fail_type(reader, field, json_is_string(value) ? "one without" : "a string");
    return absent;
}

const json_t *rwi_json_object(rwi_json_reader *reader, rwi_json_field field) {
    const json_t *value = present(reader, field);
    if (!value || json_is_object(value))
        return value;
    fail_type(reader, field, "an object");
    return NULL;
}

const json_t *rwi_json_array(rwi_json_reader *reader, rwi_json_field field) {
    const json_t *value = present(reader, field);
    if (!value || json_is_array(value))
        return value;
    fail_type(reader, field, "an array");
    return NULL;
}
