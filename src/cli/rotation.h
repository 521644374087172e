/* The rotation that a config.json defines, on any backend. */
#ifndef CLI_ROTATION_H
#define CLI_ROTATION_H

#include "array.h"
#include "cli.h"

/* A model with the embedding of the layers that the options name; valid as long as the model. */
typedef struct cli_model {
    rw_model *model;
    const rw_model_info *info;
    const rw_model_rope *rope;
} cli_model;

typedef struct cli_rotation {
    const cli_options *options;
    cli_model config;
    cli_array q, k, positions; /* as read */
    bool queries_are_last;     /* q may be shorter than k: its tokens are then the last of k's */
    rw_rope_options rope;
    int64_t end_of_ids; /* ids must be below it; 0: no limit */
} cli_rotation;

/* Reads a config.json with the relevant options. Free the model only if this returns RW_OK. */
rw_status cli_model_load(cli_model *model, const cli_options *options, const char *path,
                         rw_message *message);

void cli_model_free(cli_model *model);

/* Fails for a model whose frequencies are not completely determined by its config. */
rw_status cli_check_config(const cli_model *model, const char *path, rw_message *message);

/* Reads the config that the options name. Free the rotation whether or not this succeeds. */
rw_status cli_rotation_load(cli_rotation *rotation, const cli_options *options,
                            rw_message *message);

/* Checks q and k, which must be set, against the config and chooses the lengths of the tables. */
rw_status cli_rotation_prepare(cli_rotation *rotation, rw_message *message);

/* Frees the config and the arrays. */
void cli_rotation_free(cli_rotation *rotation);

/* The tensors on the device: q and k as stored. */
typedef struct cli_rotation_tensors {
    rw_tensor q, k, positions;
} cli_rotation_tensors;

/* A tensor as stored, in the library's order: batch, seq, heads, head_dim. */
rw_tensor cli_as_bshd(const cli_options *options, rw_tensor tensor);

/* Rotates in place, and synchronizes. */
rw_status cli_rotation_apply(const cli_rotation *rotation, rw_context *context,
                             const cli_rotation_tensors *on, rw_message *message);

#endif
