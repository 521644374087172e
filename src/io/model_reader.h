/* The state of reading a config, shared by the files that read its parts. */
#ifndef RWI_MODEL_READER_H
#define RWI_MODEL_READER_H

#include "json_fields.h"
#include "model_config.h"
#include "model_types.h"

#define RWI_MAX_HEAD_DIM 65536
#define RWI_MAX_LAYERS 65536

typedef struct rwi_model_reader {
    rwi_json_reader json;
    const json_t *config;        /* the language model's object */
    const json_t *scaling;       /* rope_parameters or rope_scaling, for the layer type; or NULL */
    const json_t *all_scaling;   /* the object that contains those of every layer type */
    const rwi_model_type *model; /* defaults for absent fields */
    bool known;                  /* whether the model_type is known */
    const char *layer_type;      /* as requested, or NULL */
    const char *chosen;          /* the layer type whose embedding is read, or NULL */
    bool nested;                 /* there is one object with scaling for each layer type */
    bool local;                  /* sliding layers have their own theta */
    const rw_rope_pairing *pairing; /* the caller's, or NULL */
    rwi_model_config *result;
    json_t *owned; /* an array: values that are not part of the file */
} rwi_model_reader;

static inline rwi_json_field rwi_model_field(const rwi_model_reader *reader, const char *key) {
    return (rwi_json_field){reader->config, key};
}

static inline rwi_json_field rwi_model_scaling(const rwi_model_reader *reader, const char *key) {
    return (rwi_json_field){reader->scaling, key};
}

/* The first of `keys`, which must end with NULL, that the config has; else the last one. */
rwi_json_field rwi_model_alias(const rwi_model_reader *reader, const char *const *keys);

/* Keeps a new value as long as the reader; for NULL, or if there is no memory, fails and returns
 * NULL. */
const json_t *rwi_model_keep(rwi_model_reader *reader, json_t *value);

/* `object` with defaults for absent fields; valid as long as the reader. */
const json_t *rwi_model_fill(rwi_model_reader *reader, const json_t *object,
                             const json_t *defaults);

/* Parses a class's defaults, which are valid as long as the reader. */
const json_t *rwi_model_parse(rwi_model_reader *reader, const char *text);

/* The default of an absent length: the class's, else Llama's, or 0 if the model is unknown. */
int64_t rwi_model_default(const rwi_model_reader *reader, int64_t of_class, int64_t of_llama);

bool rwi_model_is(const rwi_model_reader *reader, const char *name);

/* ---- model_config.c ---- */

/* Selects the language model's config, finds its model type and reads the kind of its positions
 * and, if they are rotary, the layers and which of them have none. */
void rwi_model_read_outline(rwi_model_reader *reader);

/* After the outline: reads the embedding of reader->layer_type. */
void rwi_model_read_rope(rwi_model_reader *reader);

/* ---- model_layers.c ---- */

/* False for layers without attention, or without rotated q and k. */
bool rwi_model_attends(const char *type);

/* The number of layers; 0 if unknown. */
int64_t rwi_model_count_layers(rwi_model_reader *reader);

/* Reads the types of the layers and which of them have no rotary embedding. */
void rwi_model_read_layers(rwi_model_reader *reader);

/* The first layer of this type, or -1. */
int64_t rwi_model_find_layer(const rwi_model_reader *reader, const char *type);

/* ---- model_scaling.c ---- */

/* Finds the object with the scaling, and layers that it states to have no rotary embedding. */
void rwi_model_find_scaling(rwi_model_reader *reader);

/* Chooses the scaling of the layer type, and that type. */
void rwi_model_choose_scaling(rwi_model_reader *reader);

/* Calls `visit` for each type of layers that a rotary embedding is chosen by. */
typedef struct rwi_layer_type_visitor {
    void (*visit)(void *user, const char *type);
    void *user;
} rwi_layer_type_visitor;

void rwi_model_each_scaling(const rwi_model_reader *reader, rwi_layer_type_visitor visitor);

/* ---- model_heads.c ---- */

/* Reads the numbers of heads and head_dim; returns the width of the rotated part if that is
 * separate, else 0. */
int64_t rwi_model_read_heads(rwi_model_reader *reader);

/* ---- model_axes.c ---- */

/* Reads the axes and their sections; rotary_dim must be known. */
void rwi_model_read_axes(rwi_model_reader *reader);

/* ---- model_spec.c ---- */

/* Reads the spec; the type of the layers and the scaling must be known. */
void rwi_model_read_spec(rwi_model_reader *reader);

#endif
