/* What Hugging Face's models assume where a config.json is silent: every model_type that
 * transformers 5.24 knows, and some of well-known models that bring their own code. */
#ifndef RWI_MODEL_TYPES_H
#define RWI_MODEL_TYPES_H

#include <ropewalk/rope.h>

/* How a model differs from Llama; bits of rwi_model_type.traits. */
enum {
    RWI_PARTIAL = 1 << 0,          /* partial_rotary_factor counts without any scaling, too */
    RWI_PAIRING_FIELD = 1 << 1,    /* rope_interleave decides the pairing */
    RWI_TRAILING = 1 << 2,         /* the last columns of a head turn, not the first */
    RWI_INVERSE = 1 << 3,          /* turns the other way round */
    RWI_SCALED_LOCAL = 1 << 4,     /* sliding layers take rope_scaling, too */
    RWI_LOCAL_IF_PLAIN = 1 << 5,   /* sliding layers have their own theta only without scaling */
    RWI_FULL_SCALING = 1 << 6,     /* rope_scaling is for full_attention alone */
    RWI_NTK_ALPHA = 1 << 7,        /* dynamic with alpha: theta * alpha^(d / (d - 2)) */
    RWI_YARN_IS_LONGROPE = 1 << 8, /* what Phi-3 once called it */
    RWI_WIDE_HEADS = 1 << 9,       /* head_dim is twice hidden_size / num_attention_heads */
    RWI_LEARNED_SCALE = 1 << 10,   /* the checkpoint scales each frequency */
    RWI_ROTARY_DIM = 1 << 11,      /* rotary_dim in the file counts */
    RWI_PLAIN = 1 << 12,           /* no scaling is read */
    RWI_NEW_ONLY = 1 << 13,        /* rope_scaling is not read, rope_parameters is */
    RWI_OWN_THETA = 1 << 14,       /* rope_theta outside the scaling is not read */
    RWI_DERIVED_HEAD = 1 << 15,    /* head_dim is not read */
    RWI_INNER_THETA = 1 << 16,     /* nor is rope_theta beside rope_parameters of layer types */
    RWI_MERGES = 1 << 17,          /* `rope` holds for what rope_parameters leave out, too */
    RWI_BY_LAYER = 1 << 18         /* rope_parameters of layer types must be in the file */
};

/* Which layers have no rotary embedding. */
typedef enum rwi_nope {
    RWI_NOPE_NULL = 0,            /* those whose rope_parameters are null */
    RWI_NOPE_FULL,                /* full_attention */
    RWI_NOPE_FULL_BESIDE_SLIDING, /* full_attention where there is a sliding_window */
    RWI_NOPE_LISTED,              /* those with 0 in no_rope_layers */
    RWI_NOPE_THETA,               /* those with 0 in layer_rope_theta */
    RWI_NOPE_CROSS                /* those in cross_attention_layers */
} rwi_nope;

/* A model with a rotary embedding. Zero means: as Llama, the value in brackets. */
typedef struct rwi_model_type {
    const char *name; /* model_type in config.json */
    rw_rope_pairing pairing;
    unsigned traits;
    double theta;                 /* [10000] */
    double local_theta;           /* of sliding_attention [theta] */
    double partial_rotary_factor; /* [1] */
    int64_t head_dim;             /* [hidden_size / num_attention_heads] */
    int64_t global_head_dim;      /* of full_attention [head_dim] */
    int64_t rope_part;            /* qk_rope_head_dim: the part of a head that turns is separate */
    int64_t rotary_dim;           /* [head_dim * partial_rotary_factor] */
    int64_t hidden_size;          /* [4096] */
    int64_t num_heads;            /* [32] */
    int64_t num_kv_heads;         /* whatever num_heads is in the file [num_heads] */
    int64_t num_layers;           /* [32] */
    int64_t max_positions;        /* max_position_embeddings [2048] */
    int64_t original_positions;   /* original_max_position_embeddings outside the scaling [none] */
    rw_rope_axes axes;
    int64_t sections[3];
    rwi_nope nope;
    /* Types of layers by letters that repeat: S sliding, F full, L linear, I indexed and K chunked
     * attention, C convolution. [every layer is alike] */
    const char *layers;
    const char *first_layers; /* what the first layers are instead */
    char last_layer;          /* what the last one is instead */
    bool layers_from_end;     /* the letters count from the last layer */
    const char *period_key;   /* the field that sets how many letters repeat */
    const char *rope;         /* rope_parameters as JSON [default] */
    const char *theta_key;    /* read before rope_theta */
    const char *local_key;    /* local_theta in the file [rope_local_base_freq] */
    const char *partial_key;  /* [partial_rotary_factor] */
    /* The field and its value without which the model has something else. */
    struct {
        const char *key;
        const char *value; /* NULL: true */
        const char *otherwise;
    } rope_switch;
} rwi_model_type;

/* NULL for a model_type that is not known, or has no rotary embedding of its own. */
const rwi_model_type *rwi_model_type_find(const char *name);

/* A model_type of several models, of which one is the language model. */
typedef struct rwi_model_whole {
    const char *name;
    const char *key;      /* where its config stands; NULL: the same object */
    const char *part;     /* its model_type where the file does not say */
    bool flat;            /* old files have its fields outside */
    bool fills;           /* `defaults` hold for what the file leaves out of it, too */
    const char *defaults; /* as JSON, where the file does not have it at all [its class's] */
} rwi_model_whole;

/* NULL for other model types. */
const rwi_model_whole *rwi_model_whole_find(const char *name);

/* What a model_type has in place of a rotary embedding that could be read, as the end of a
 * sentence; NULL for other model types. */
const char *rwi_model_without_rope_find(const char *name);

#endif
