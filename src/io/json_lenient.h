/* Reads JSON of model files, which Python writes: a superset of standard JSON. */
#ifndef RWI_JSON_LENIENT_H
#define RWI_JSON_LENIENT_H

#include <jansson.h>

#include <ropewalk/base.h>

/* Also accepts a byte order mark, NaN, Infinity, -Infinity and numbers of any size. A number that
 * no double can represent becomes a string ("Infinity"), so that only a reader of that number
 * fails; an unpaired surrogate becomes U+FFFD. Strings may contain NUL; rwi_json_text() refuses
 * them. Free `*root` with json_decref(). Numbers are doubles. */
rw_status rwi_json_load(const char *source, const char *text, size_t length, json_t **root,
                        rw_message *message);

/* Whether the value represents a nonfinite number. */
bool rwi_json_is_nonfinite(const json_t *value);

#endif
