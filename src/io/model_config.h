/* What a config.json says about the layers and the rotary embedding of one type of them, as
 * transformers 5.24 reads it.
 *
 * Old files have rope_theta and rope_scaling, new ones rope_parameters, which may differ between
 * types of layers (Gemma 3, ModernBERT). Multimodal files hold the language model's config under
 * text_config or a similar key. Fields that a file omits have the defaults of the model_type, see
 * model_types.h; an unknown model_type requires rope fields in the file and the caller's pairing.
 */
#ifndef RWI_MODEL_CONFIG_H
#define RWI_MODEL_CONFIG_H

#include <ropewalk/io.h>

#define RWI_LAYER_TYPE 40 /* bytes of a layer type */

typedef struct rwi_layer_outline {
    char type[RWI_LAYER_TYPE]; /* full_attention, sliding_attention, ... */
    bool has_rope;             /* whether q and k are rotated in it */
} rwi_layer_outline;

typedef struct rwi_model_config {
    char model_type[64]; /* "" if the file has none */
    rw_model_positions positions;
    char without[200];         /* unless ROPE: what the model has instead, as a sentence */
    int64_t num_layers;        /* length of `layers` */
    rwi_layer_outline *layers; /* NULL: all layers are alike and have a rotary embedding */

    /* of one type of layers */
    rw_model_rope rope;
    double *factors; /* storage of the spec's short_factor and long_factor */
} rwi_model_config;

void rwi_model_config_free(rwi_model_config *config);

#endif
