/* Reads typed fields of a JSON object; null counts as absent. */
#ifndef RWI_JSON_FIELDS_H
#define RWI_JSON_FIELDS_H

#include <jansson.h>

#include <ropewalk/base.h>

/* Keeps the first failure: once `status` is not RW_OK every function returns its `absent` value, so
 * that a reader need check only at the end. */
typedef struct rwi_json_reader {
    const char *source; /* the file, for the sentences */
    rw_status status;
    rw_message *message;
} rwi_json_reader;

/* A field to read. `object` may be NULL: then the field is absent. */
typedef struct rwi_json_field {
    const json_t *object;
    const char *key;
} rwi_json_field;

/* Fails with "<source>: <sentence>". */
void rwi_json_fail(rwi_json_reader *reader, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* The value; NULL where it is absent or null. */
const json_t *rwi_json_value(rwi_json_field field);

/* A string without NUL; NULL for any other value. */
const char *rwi_json_text(const json_t *value);

/* A finite positive number. */
double rwi_json_positive(rwi_json_reader *reader, rwi_json_field field, double absent);

/* A finite nonnegative number. */
double rwi_json_not_negative(rwi_json_reader *reader, rwi_json_field field, double absent);

/* An integer from 1 to 2^53, also written as 4096.0. */
int64_t rwi_json_length(rwi_json_reader *reader, rwi_json_field field, int64_t absent);

/* The same from 0. */
int64_t rwi_json_count(rwi_json_reader *reader, rwi_json_field field, int64_t absent);

bool rwi_json_bool(rwi_json_reader *reader, rwi_json_field field, bool absent);

/* Valid as long as the object. */
const char *rwi_json_string(rwi_json_reader *reader, rwi_json_field field, const char *absent);

/* NULL if absent. */
const json_t *rwi_json_object(rwi_json_reader *reader, rwi_json_field field);
const json_t *rwi_json_array(rwi_json_reader *reader, rwi_json_field field);

#endif
