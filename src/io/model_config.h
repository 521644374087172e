/* The rotary embedding that a Hugging Face config.json asks for.
 *
 * Old files have rope_theta and rope_scaling, new ones rope_parameters, which may differ from one
 * type of layer to another (Gemma 3, ModernBERT). Multimodal files hold the language model's
 * config under text_config. Where a file is silent the model_type decides, see model_types.c.
 */
#ifndef RWI_MODEL_CONFIG_H
#define RWI_MODEL_CONFIG_H

#include <ropewalk/rope.h>

typedef struct rwi_model_config {
    rw_rope_spec spec;
    char model_type[64];  /* "" where the file has none */
    int64_t num_heads;    /* 0 where the file does not say */
    int64_t num_kv_heads; /* those of k that turn: 1 for DeepSeek's latent attention */
    double *factors;      /* what the spec's short_factor and long_factor point into */
} rwi_model_config;

typedef struct rwi_model_config_text {
    const char *source; /* the file's name, for the sentences */
    const char *text;
    size_t length;
    const char *layer_type; /* NULL: full_attention, or the only one that there is */
} rwi_model_config_text;

/* Free `config` only where this returns RW_OK. The spec was accepted by rw_rope_frequencies(). */
rw_status rwi_model_config_parse(const rwi_model_config_text *text, rwi_model_config *config,
                                 rw_message *message);

/* The same from a file. */
rw_status rwi_model_config_load(const char *path, const char *layer_type, rwi_model_config *config,
                                rw_message *message);

void rwi_model_config_free(rwi_model_config *config);

/* "default", "linear", ...: Hugging Face's name. */
const char *rwi_rope_type_name(rw_rope_type type);

/* "half" or "interleaved". */
const char *rwi_rope_pairing_name(rw_rope_pairing pairing);

#endif
