/* What Hugging Face's models assume where a config.json is silent. */
#ifndef RWI_MODEL_TYPES_H
#define RWI_MODEL_TYPES_H

#include <ropewalk/rope.h>

/* Zero means: as most models. */
typedef struct rwi_model_type {
    const char *name; /* model_type in config.json */
    rw_rope_pairing pairing;
    double theta;                 /* [10000] */
    double partial_rotary_factor; /* [1] */
    int64_t head_dim;             /* [hidden_size / num_attention_heads] */
    int64_t rotary_dim;           /* [head_dim * partial_rotary_factor] */
    bool mrope_interleaved;       /* sections in Qwen3-VL's order [Qwen2-VL's] */
    const char *refusal;          /* why its rotary embedding cannot be given */
} rwi_model_type;

/* The entry of a model_type; one of defaults for a name that is not listed. */
const rwi_model_type *rwi_model_type_find(const char *name);

#endif
