/* Pictures of a mask: on the terminal, and as PNG. */
#ifndef CLI_DRAWING_H
#define CLI_DRAWING_H

#include <ropewalk/base.h>

/* mask [seq_q, seq_k]: 0 where a query (a row) sees a key (a column), else -inf. */
typedef struct cli_picture {
    const float *mask;
    int64_t seq_q;
    int64_t seq_k;
} cli_picture;

/* Prints blocks, scaled to the width of the terminal: full where every key is visible, shaded where
 * some are. */
void cli_draw(const cli_picture *picture);

/* White where a key is visible, else black, scaled to a suitable size. Fails if this build has no
 * libpng, and for an empty mask. */
rw_status cli_write_png(const char *path, const cli_picture *picture, rw_message *message);

#endif
