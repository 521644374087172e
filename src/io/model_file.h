/* The text of a config.json. */
#ifndef RWI_MODEL_FILE_H
#define RWI_MODEL_FILE_H

#include <ropewalk/base.h>

/* Reads a config.json, or that of a folder. Free `*text` with free(); NULL on failure. */
rw_status rwi_model_file_read(const char *path, char **text, size_t *length, rw_message *message);

#endif
