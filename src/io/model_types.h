/* Defaults of Hugging Face's models for fields that a config.json omits: every model_type of
 * transformers 5.24, and some well-known models with their own code. */
#ifndef RWI_MODEL_TYPES_H
#define RWI_MODEL_TYPES_H

#include <ropewalk/io.h>

/* Differences of a model from Llama; bits of rwi_model_type.traits. */
enum {
    RWI_PARTIAL = 1 << 0,          /* partial_rotary_factor is used also without scaling */
    RWI_PAIRING_FIELD = 1 << 1,    /* rope_interleave selects the pairing */
    RWI_TRAILING = 1 << 2,         /* the last columns of a head are rotated, not the first */
    RWI_INVERSE = 1 << 3,          /* rotates in the inverse direction */
    RWI_SCALED_LOCAL = 1 << 4,     /* rope_scaling applies to sliding layers, too */
    RWI_LOCAL_IF_PLAIN = 1 << 5,   /* sliding layers have their own theta only without scaling */
    RWI_FULL_SCALING = 1 << 6,     /* rope_scaling applies to full_attention only */
    RWI_NTK_ALPHA = 1 << 7,        /* dynamic with alpha: theta * alpha^(d / (d - 2)) */
    RWI_YARN_IS_LONGROPE = 1 << 8, /* former name in Phi-3 */
    RWI_WIDE_HEADS = 1 << 9,       /* head_dim is twice hidden_size / num_attention_heads */
    RWI_LEARNED_SCALE = 1 << 10,   /* the checkpoint scales each frequency */
    RWI_ROTARY_DIM = 1 << 11,      /* rotary_dim is read from the file */
    RWI_PLAIN = 1 << 12,           /* scaling is not read */
    RWI_NEW_ONLY = 1 << 13,        /* rope_scaling is not read, rope_parameters is */
    RWI_OWN_THETA = 1 << 14,       /* rope_theta outside the scaling is not read */
    RWI_DERIVED_HEAD = 1 << 15,    /* head_dim is not read */
    RWI_INNER_THETA = 1 << 16,     /* nor is rope_theta next to rope_parameters of layer types */
    RWI_MERGES = 1 << 17,          /* `rope` also fills in what rope_parameters omit */
    RWI_BY_LAYER = 1 << 18         /* rope_parameters of layer types must be in the file */
};

/* Layers without a rotary embedding. */
typedef enum rwi_nope {
    RWI_NOPE_NULL = 0,            /* those whose rope_parameters are null */
    RWI_NOPE_FULL,                /* full_attention */
    RWI_NOPE_FULL_BESIDE_SLIDING, /* full_attention if there is a sliding_window */
    RWI_NOPE_LISTED,              /* those with 0 in no_rope_layers */
    RWI_NOPE_THETA,               /* those with 0 in layer_rope_theta */
    RWI_NOPE_CROSS                /* those in cross_attention_layers */
} rwi_nope;

/* A model with a rotary embedding. Zero means Llama's value, in brackets. */
typedef struct rwi_model_type {
    const char *name; /* model_type in config.json */
    rw_rope_pairing pairing;
    unsigned traits;
    double theta;                 /* [10000] */
    double local_theta;           /* of sliding_attention [theta] */
    double partial_rotary_factor; /* [1] */
    int64_t head_dim;             /* [hidden_size / num_attention_heads] */
    int64_t global_head_dim;      /* of full_attention [head_dim] */
    int64_t rope_part;            /* qk_rope_head_dim: the rotated part of a head is separate */
    int64_t rotary_dim;           /* [head_dim * partial_rotary_factor] */
    int64_t hidden_size;          /* [4096] */
    int64_t num_heads;            /* [32] */
    int64_t num_kv_heads;         /* independent of num_heads in the file [num_heads] */
    int64_t num_layers;           /* [32] */
    int64_t max_positions;        /* max_position_embeddings [2048] */
    int64_t original_positions;   /* original_max_position_embeddings outside the scaling [none] */
    rw_rope_axes axes;
    int64_t sections[3];
    rwi_nope nope;
    /* Types of layers by letters that repeat: S sliding, F full, L linear, I indexed and K chunked
     * attention, C convolution. [all layers are alike] */
    const char *layers;
    const char *first_layers; /* types of the first layers instead */
    char last_layer;          /* type of the last layer instead */
    bool layers_from_end;     /* the pattern is aligned to the last layer */
    const char *period_key;   /* the field with the number of letters that repeat */
    const char *rope;         /* rope_parameters as JSON [default] */
    const char *theta_key;    /* read before rope_theta */
    const char *local_key;    /* local_theta in the file [rope_local_base_freq] */
    const char *partial_key;  /* [partial_rotary_factor] */
    /* The field and the value that enable the rotary embedding; otherwise the model has
     * `otherwise`, which is of this kind. */
    struct {
        const char *key;
        const char *value; /* NULL: true */
        const char *otherwise;
        rw_model_positions kind;
    } rope_switch;
} rwi_model_type;

/* NULL for a model_type that is unknown or has no rotary embedding of its own. */
const rwi_model_type *rwi_model_type_find(const char *name);

/* A model_type that consists of several models, one of which is the language model. */
typedef struct rwi_composite_model {
    const char *name;
    const char *key;      /* key of its config; NULL: the same object */
    const char *part;     /* its model_type if the file does not state it */
    bool flat;            /* old files have its fields at the top level */
    bool fills;           /* `defaults` also apply to fields that the file omits */
    const char *defaults; /* as JSON, if the file does not have it at all [its class's] */
} rwi_composite_model;

/* NULL for other model types. */
const rwi_composite_model *rwi_composite_model_find(const char *name);

/* What a model_type has instead of a readable rotary embedding. */
typedef struct rwi_other_positions {
    const char *text;        /* the end of a sentence */
    bool supported;          /* false: such a model is refused */
    rw_model_positions kind; /* if supported */
} rwi_other_positions;

/* NULL for other model types. */
const rwi_other_positions *rwi_model_without_rope_find(const char *name);

#endif
