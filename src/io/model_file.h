/* The text of a config.json. */
#ifndef RWI_MODEL_FILE_H
#define RWI_MODEL_FILE_H

#include <ropewalk/base.h>

/* The longest config.json, which include/ropewalk/io.h states. */
#define RWI_MAX_CONFIG_BYTES (16 << 20)

/* Reads a config.json, or that of a folder. Free `*text` with free(); NULL on failure. */
rw_status rwi_model_file_read(const char *path, char **text, size_t *length, rw_message *message);

#endif
