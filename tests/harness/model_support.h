/* Common to the tests of models. */
#ifndef RWT_MODEL_SUPPORT_H
#define RWT_MODEL_SUPPORT_H

#include "harness/io_support.h"

#include <ropewalk/io.h>

/* A config.json and the type of layers whose embedding is read. */
typedef struct rwt_model_text {
    const char *text;       /* NULL: `path` is read */
    const char *layer_type; /* may be NULL */
    const rw_rope_pairing *pairing;
    const char *path; /* NULL: config.json */
} rwt_model_text;

/* A model with the embedding of one type of layers. */
typedef struct rwt_model {
    rw_model *model;
    const rw_model_info *info;
    const char *model_type;
    rw_rope_spec spec; /* a copy, whose arrays belong to the model */
    bool inverse;
    const char *learned_scale;
    int64_t num_heads;
    int64_t num_kv_heads;
} rwt_model;

/* Reads the model and its embedding. The model must be freed only if this returns RW_OK. */
rw_status rwt_parse_model(rwt_model_text source, rwt_model *model, rw_message *message);

/* Fails if the text is not a valid config; the caller must free the result. */
rwt_model rwt_read_model(const char *text, const char *layer_type);

void rwt_model_free(rwt_model *model);

/* The layers without a rotary embedding. */
int64_t rwt_model_layers_without_rope(const rwt_model *model);

/* Fails unless it is refused with a sentence that contains `word`. */
void rwt_assert_model_refused(const rwt_model_text *source, const char *word);

void rwt_assert_near(double got, double expected);

/* Frequency `at`, and the attention factor if `factor` is not NULL. */
double rwt_model_frequency(const rwt_model *model, int64_t seq_len, int at, double *factor);

#endif
