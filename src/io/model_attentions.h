/* The attention of Hugging Face's models, as far as it is known. */
#ifndef RWI_MODEL_ATTENTIONS_H
#define RWI_MODEL_ATTENTIONS_H

#include <ropewalk/io.h>

/* Bits of rwi_attention.traits. */
enum {
    RWI_LAYER_NORM = 1 << 0,     /* LayerNorm instead of RMSNorm */
    RWI_CAST_AFTER = 1 << 1,     /* RW_NORM_CAST_AFTER_WEIGHT */
    RWI_BOTH_WAYS = 1 << 2,      /* attention in both directions, unless is_decoder is true */
    RWI_WINDOW_ALL = 1 << 3,     /* the window applies to every layer, not to sliding_attention */
    RWI_WINDOW_FLAG = 1 << 4,    /* only if use_sliding_window is true */
    RWI_WINDOW_UPPER = 1 << 5,   /* without layer_types: from layer max_window_layers on */
    RWI_SINKS = 1 << 6,          /* a sink for each head */
    RWI_LATENT = 1 << 7,         /* DeepSeek's heads of two parts, k and v from a latent */
    RWI_SCALE_ROOT = 1 << 8,     /* softmax_scale = 1 / sqrt(scale_key) */
    RWI_SCALE_GPT2 = 1 << 9,     /* scale_attn_weights, scale_attn_by_inverse_layer_idx */
    RWI_SCALED_ALIBI = 1 << 10,  /* the bias is added before the scale is multiplied */
    RWI_PADDED_TABLE = 1 << 11,  /* learned positions start after row pad_token_id */
    RWI_OWN_T5_TABLES = 1 << 12, /* each layer has a table of biases */
    RWI_LLAMA4 = 1 << 13,        /* chunks, norm after the rotation, scaled queries */
    RWI_GPT_OSS_GLU = 1 << 14,   /* SwiGLU with swiglu_limit, swiglu_alpha, and 1 added to up */
    RWI_HALF_WINDOW = 1 << 15,   /* ModernBERT: local_attention counts both sides */
    RWI_QK_NORM_ON = 1 << 16,    /* without qk_norm_key in the file the norm is enabled */
    RWI_TWO_STACKS = 1 << 17     /* encoder_layers and decoder_layers with their own heads */
};

/* Zero means the value in brackets. */
typedef struct rwi_attention {
    const char *name; /* model_type */
    unsigned traits;
    rw_model_qk_norm qk_norm;
    const char *qk_norm_key; /* the flag that enables it [always] */
    const char *scale_key;   /* field of the softmax scale [none] */
    double scale;            /* its default, or the scale itself [1 / sqrt(head_dim)] */
    double softcap;          /* default of attn_logit_softcapping [there is none] */
    int64_t window;          /* default of sliding_window [none] */
    int64_t window_from;     /* WINDOW_UPPER: default of max_window_layers [28] */
    const char *eps_key;     /* [rms_norm_eps, layer_norm_eps] */
    double eps;              /* [1e-6; LayerNorm 1e-5]. The only value if eps_key is "" */
    double weight_offset;
    /* of models without a rotary embedding */
    int64_t hidden_size, num_heads, num_layers;
    int64_t max_positions;  /* rows of learned positions, without learned_offset */
    int64_t learned_offset; /* row of position 0 */
} rwi_attention;

/* NULL for other model types. */
const rwi_attention *rwi_attention_find(const char *model_type);

#endif
