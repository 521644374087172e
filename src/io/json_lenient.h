/* Reads JSON as model files have it: Python's, which is more than the standard's. */
#ifndef RWI_JSON_LENIENT_H
#define RWI_JSON_LENIENT_H

#include <jansson.h>

#include <ropewalk/base.h>

/* Takes a byte order mark, NaN, Infinity, -Infinity and numbers of any size, too. What no double
 * holds becomes a string ("Infinity"), so that only who needs a number there fails; half a surrogate
 * pair becomes U+FFFD. Strings may have NUL in them: rwi_json_text() takes none. Free `*root`
 * with json_decref(). Numbers are doubles. */
rw_status rwi_json_load(const char *source, const char *text, size_t length, json_t **root,
                        rw_message *message);

/* Whether the value stands for a number that is not finite. */
bool rwi_json_is_nonfinite(const json_t *value);

#endif
