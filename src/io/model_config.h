/* The rotary embedding that a Hugging Face config.json defines, as transformers 5.24 reads it.
 *
 * Old files have rope_theta and rope_scaling, new ones rope_parameters, which may differ between
 * types of layers (Gemma 3, ModernBERT). Multimodal files hold the language model's config under
 * text_config or a similar key. Fields that a file omits have the defaults of the model_type, see
 * model_types.h; an unknown model_type requires rope fields in the file and the caller's pairing.
 * For a model without a rotary embedding the error states what it has instead.
 */
#ifndef RWI_MODEL_CONFIG_H
#define RWI_MODEL_CONFIG_H

#include <ropewalk/rope.h>

typedef struct rwi_model_layer {
    char type[40]; /* full_attention, sliding_attention, ... */
    bool has_rope; /* whether q and k are rotated in it */
} rwi_model_layer;

typedef struct rwi_model_config {
    rw_rope_spec spec;
    bool inverse;              /* the model rotates in the inverse direction: RW_ROPE_INVERSE */
    const char *learned_scale; /* weights whose exp() multiplies the frequencies; NULL: none */
    char model_type[64];       /* "" if the file has none */
    int64_t num_heads;         /* 0 if unknown */
    int64_t num_kv_heads;      /* heads of k that are rotated: 1 for DeepSeek's latent attention */
    int64_t num_layers;        /* length of `layers` */
    rwi_model_layer *layers;   /* NULL: all layers are alike and have a rotary embedding */
    double *factors;           /* storage of the spec's short_factor and long_factor */
} rwi_model_config;

typedef struct rwi_model_config_text {
    const char *source; /* the file's name */
    const char *text;   /* its contents; unused by rwi_model_config_load() */
    size_t length;
    const char *layer_type;         /* NULL: full_attention, or the only one */
    const rw_rope_pairing *pairing; /* NULL: that of the model_type; required if that is unknown */
} rwi_model_config_text;

/* `config` must be freed only if this returns RW_OK. The spec has been accepted by
 * rw_rope_frequencies(). */
rw_status rwi_model_config_parse(const rwi_model_config_text *text, rwi_model_config *config,
                                 rw_message *message);

/* The same from the file. */
rw_status rwi_model_config_load(const rwi_model_config_text *file, rwi_model_config *config,
                                rw_message *message);

void rwi_model_config_free(rwi_model_config *config);

/* "default", "linear", ...: Hugging Face's name. */
const char *rwi_rope_type_name(rw_rope_type type);

/* "half" or "interleaved". */
const char *rwi_rope_pairing_name(rw_rope_pairing pairing);

#endif
