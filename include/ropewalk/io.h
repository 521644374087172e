/* Files of models: what a config.json says about positions and attention, and safetensors.
 *
 * These functions are in a library of their own, libropewalk-io (pkg-config ropewalk-io, CMake
 * component io). ropewalk.h does not include this header. None of the functions needs a context;
 * they may be called from any thread, and objects may be read from several threads at once.
 */
#ifndef ROPEWALK_IO_H
#define ROPEWALK_IO_H

#include <ropewalk/rope.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- models ----------------------------------------------------------------------------------
 *
 * Source: Hugging Face's config.json, as transformers 5.24 reads it, and the classes of the models
 * there. Fields that a file omits have the defaults of its model_type. Multimodal files are read
 * for their language model, models with an encoder and a decoder for both at once. Old and new
 * names (rope_scaling, rope_parameters) are both accepted.
 *
 * Nothing is guessed: a number, a flag or an enumeration that neither the file nor the model's
 * class determines is RW_MODEL_UNKNOWN. A config.json of more than 16 MiB is refused.
 */
enum {
    RW_MODEL_UNKNOWN = -1
};

/* The input. A zeroed field is absent.
 *
 * path        a config.json, or a folder that contains one; with `text`, only the name that error
 *             messages use
 * text        the contents of a config.json, UTF-8; need not end with NUL. NULL: read from path
 * text_bytes  length of text
 * pairing     overrides the pairing of the model_type. Required if the model_type is unknown and
 *             the file has fields of a rotary embedding; without it, and for an unknown model_type
 *             without such fields, reading fails
 */
typedef struct rw_model_source {
    const char *path;
    const char *text;
    int64_t text_bytes;
    const rw_rope_pairing *pairing;
} rw_model_source;

/* A model that was read; immutable. It owns everything that its functions return. */
typedef struct rw_model rw_model;

/* Reads a model. The specs have been accepted by rw_rope_frequencies().
 *
 * Returns RW_OK, RW_OUT_OF_MEMORY or RW_INVALID_ARGUMENT with a sentence in `message` (may be
 * NULL): the file cannot be read, is not JSON or invalid, the model_type is unknown, or its
 * position embedding is one that this library does not have. On failure *model is NULL. Free the
 * result with rw_model_free().
 */
RW_API rw_status rw_model_read(const rw_model_source *source, rw_model **model,
                               rw_message *message);

/* NULL is ignored. */
RW_API void rw_model_free(rw_model *model);

/* The kind of position embedding. */
typedef enum rw_model_positions {
    RW_POSITIONS_NONE = 0,   /* none at all */
    RW_POSITIONS_ROPE,       /* q and k are rotated: rw_rope_apply() */
    RW_POSITIONS_LEARNED,    /* rw_embed_learned() */
    RW_POSITIONS_SINUSOIDAL, /* rw_embed_sinusoidal() */
    RW_POSITIONS_ALIBI,      /* rw_alibi */
    RW_POSITIONS_T5          /* T5's bias of relative positions: rw_t5_bias() */
} rw_model_positions;

/* The norm of the hidden states before and after attention. */
typedef enum rw_model_norm {
    RW_MODEL_NORM_UNKNOWN = -1,
    RW_MODEL_NORM_RMS = 0, /* rw_rms_norm() */
    RW_MODEL_NORM_LAYER    /* LayerNorm: mean and variance */
} rw_model_norm;

/* The norm of q and k, if there is one. Its epsilon and weight offset are those of the model. */
typedef enum rw_model_qk_norm {
    RW_QK_NORM_UNKNOWN = -1,
    RW_QK_NORM_NONE = 0,
    RW_QK_NORM_HEAD,      /* RMS over the columns of each head, before the rotation (Qwen3) */
    RW_QK_NORM_ALL_HEADS, /* RMS over the columns of all heads together, before it (OLMo 2) */
    RW_QK_NORM_LAYER,     /* LayerNorm over the columns of each head, before it (Cohere) */
    RW_QK_NORM_AFTER      /* RMS over the columns of each head, without a weight, after the
                           * rotation (Llama 4) */
} rw_model_qk_norm;

/* The model as a whole. Strings are UTF-8 and valid as long as the model. */
typedef struct rw_model_info {
    const char *model_type; /* of the language model, e.g. "llama"; "" if the file has none */
    rw_model_positions positions;
    int32_t num_ropes;       /* different rotary embeddings: rw_model_get_rope() */
    int32_t attention_known; /* 1: the model_type's attention is known, so that the fields below
                              * and those of layers that are marked (a) are set; 0: they are
                              * RW_MODEL_UNKNOWN */
    int64_t num_layers;      /* layers of rw_model_get_layer(); 0 if unknown. With an encoder and a
                              * decoder: the encoder's, then the decoder's */
    int64_t hidden_size;     /* width of the hidden states, or unknown */
    int64_t max_positions;   /* tokens of the longest sequence, according to the file and before any
                              * scaling; or unknown */

    /* LEARNED (a): row of the table for position 0 (OPT: 2, RoBERTa: padding_idx + 1), and the
     * number of rows; with an encoder and a decoder those of the decoder */
    int64_t learned_offset;
    int64_t learned_rows;

    /* ALIBI (a): factor of the slopes of rw_alibi_slopes() (Falcon: the softmax scale) */
    double alibi_factor;

    /* T5 (a): rw_t5_options; 1 if each layer has a table of its own, 0 if all share the first */
    int64_t t5_num_buckets;
    int64_t t5_max_distance;
    int32_t t5_every_layer;

    rw_model_norm norm;        /* (a) */
    double norm_eps;           /* (a) added to the mean of squares or to the variance */
    double norm_weight_offset; /* (a) added to the weight (Gemma: 1) */
    int32_t norm_cast;         /* (a) rw_norm_cast for RMS, else unknown */

    /* (a) rw_glu_args of the feed-forward layers where they differ from plain SwiGLU (gpt-oss):
     * limit, alpha and up_offset; 0, 1 and 0 otherwise */
    double activation_limit;
    double activation_alpha;
    double activation_up_offset;
} rw_model_info;

/* Valid as long as the model; never NULL. */
RW_API const rw_model_info *rw_model_get_info(const rw_model *model);

/* One layer. In a layer without softmax attention over its own tokens (type "linear_attention",
 * "conv", "mamba", "cross_attention", ...) everything but the type is 0 or unknown.
 *
 * type      layer type as the file or the class names it: "full_attention", "sliding_attention",
 *           ...; "" if all layers have the same embedding or none, or if the types are unknown.
 *           Valid as long as the model
 * has_rope  1 if q and k are rotated, 0 if not, or unknown
 * rope      index for rw_model_get_rope(), if has_rope is 1; else -1
 *
 * Heads, each unknown if the file and the class do not say:
 *
 * num_heads, num_kv_heads  heads of q, and of k and v
 * head_dim                 columns of a head of q and of k
 * v_head_dim               columns of a head of v (a)
 * rope_begin               first column of the part that the rope's spec describes (a): 0, or the
 *                          width of the part without positions (DeepSeek: qk_nope_head_dim)
 * kv_rank                  width of the latent from which k and v are projected (DeepSeek:
 *                          kv_lora_rank), 0 if there is none (a)
 *
 * Attention (a):
 *
 * softmax_scale   factor of q k^T, also where it is 1 / sqrt(head_dim); DeepSeek's mscale^2 is
 *                 included
 * softcap         of the scores, 0 if there is none (Gemma 2)
 * causal          1, or 0 for attention in both directions
 * window          0: none. Causal: a query at position p sees the keys p - window < j <= p. In both
 *                 directions: the keys with |p - j| < window
 * chunk           0: none. A query sees only keys in its own chunk of this many positions (Llama 4)
 * sinks           1 if the checkpoint has a sink (a logit) for each head (gpt-oss), else 0
 * qk_norm         norm of q and k
 * query_floor, query_scale  if query_floor is not 0, q at position p is multiplied by
 *                 1 + query_scale * ln(floor((p + 1) / query_floor) + 1) (Llama 4, layers without
 *                 rotary embedding)
 */
typedef struct rw_model_layer {
    const char *type;
    int32_t has_rope;
    int32_t rope;
    int64_t num_heads;
    int64_t num_kv_heads;
    int64_t head_dim;
    int64_t v_head_dim;
    int64_t rope_begin;
    int64_t kv_rank;
    double softmax_scale;
    double softcap;
    int64_t window;
    int64_t chunk;
    int32_t causal;
    int32_t sinks;
    rw_model_qk_norm qk_norm;
    double query_floor;
    double query_scale;
} rw_model_layer;

/* Layer 0 to num_layers - 1, valid as long as the model; NULL for another index. */
RW_API const rw_model_layer *rw_model_get_layer(const rw_model *model, int64_t index);

/* A rotary embedding. The arrays of the spec belong to the model.
 *
 * spec           describes the head, or the rotated part of a head if that is separate (DeepSeek)
 * inverse        1 if the model rotates in the inverse direction: RW_ROPE_INVERSE (NanoChat)
 * learned_scale  name of the weights whose exp() multiplies the frequencies; NULL: none. The spec
 *                alone is then incomplete
 * num_heads      heads of q that are rotated, 0 if unknown
 * num_kv_heads   heads of k that are rotated, 0 if unknown: 1 if all heads share one rotated part
 *                (DeepSeek)
 */
typedef struct rw_model_rope {
    rw_rope_spec spec;
    int32_t inverse;
    const char *learned_scale;
    int64_t num_heads;
    int64_t num_kv_heads;
} rw_model_rope;

/* Embedding 0 to num_ropes - 1, valid as long as the model; NULL for another index. */
RW_API const rw_model_rope *rw_model_get_rope(const rw_model *model, int64_t index);

/* The embedding of the layers of a type.
 *
 * layer_type  as in rw_model_layer; DeepSeek V4: "main" or "compress". NULL: that of
 *             full_attention, or the only one
 *
 * Returns RW_OK and sets *rope, valid as long as the model; or RW_INVALID_ARGUMENT with a sentence
 * in `message` (may be NULL): the model has no such type, or its layers have no rotary embedding.
 */
RW_API rw_status rw_model_find_rope(const rw_model *model, const char *layer_type,
                                    const rw_model_rope **rope, rw_message *message);

/* Hugging Face's name: "default", "linear", "yarn", ...; "unknown type" for an invalid value. */
RW_API const char *rw_rope_type_name(rw_rope_type type);

/* "half" or "interleaved"; "unknown pairing" for an invalid value. */
RW_API const char *rw_rope_pairing_name(rw_rope_pairing pairing);

/* ---- safetensors -----------------------------------------------------------------------------
 *
 * Files of named tensors: https://github.com/huggingface/safetensors, "Format". Eight bytes of
 * header length (little endian), a JSON header {name: {dtype, shape, data_offsets}}, then the data,
 * row-major and little endian, which the tensors cover without holes or overlaps.
 *
 * Files may be as large as the address space. A header of more than 100,000,000 bytes is refused,
 * as by the reference implementation. jansson, which parses headers and configs, may abort the
 * process if memory is exhausted while it parses.
 */

/* Element types of the format; the first six have the values of rw_dtype. */
typedef enum rw_file_dtype {
    RW_FILE_F32 = 0,
    RW_FILE_F16,
    RW_FILE_BF16,
    RW_FILE_I32,
    RW_FILE_I64,
    RW_FILE_U8,
    RW_FILE_BOOL,
    RW_FILE_I8,
    RW_FILE_I16,
    RW_FILE_U16,
    RW_FILE_U32,
    RW_FILE_U64,
    RW_FILE_F64,
    RW_FILE_C64,         /* complex, two f32 */
    RW_FILE_F8_E4M3,     /* OCP, without infinities */
    RW_FILE_F8_E5M2,     /* OCP */
    RW_FILE_F8_E8M0,     /* a power of two: scales of the microscaling formats */
    RW_FILE_F8_E4M3FNUZ, /* one zero, one NaN */
    RW_FILE_F8_E5M2FNUZ, /* one zero, one NaN */
    RW_FILE_F6_E2M3,
    RW_FILE_F6_E3M2,
    RW_FILE_F4
} rw_file_dtype;

/* The name in files, e.g. "F8_E4M3"; "unknown dtype" for an invalid value. */
RW_API const char *rw_file_dtype_name(rw_file_dtype dtype);

/* Bits per element; 0 for an invalid value. */
RW_API int32_t rw_file_dtype_bits(rw_file_dtype dtype);

/* A file that is open for reading, mapped into memory; immutable. */
typedef struct rw_safetensors rw_safetensors;

/* A tensor of an open file; valid until the file is closed.
 *
 * name    UTF-8
 * dtype   has an rw_dtype of the same value if it is at most RW_FILE_U8
 * rank    number of axes; may exceed RW_MAX_RANK
 * shape   `rank` lengths
 * offset  of the first byte in the file; not necessarily a multiple of the element's size
 * bytes   length of the data
 * data    the data in the mapping, read-only, with the alignment of `offset`. Reading it after the
 *         file was truncated by someone raises SIGBUS; rw_safetensors_load() does not
 */
typedef struct rw_safetensor {
    const char *name;
    rw_file_dtype dtype;
    int32_t rank;
    const int64_t *shape;
    int64_t offset;
    int64_t bytes;
    const void *data;
} rw_safetensor;

/* Opens, maps and checks a file, as strictly as the reference implementation; reads no data.
 * Returns RW_OK, RW_OUT_OF_MEMORY or, for a file that cannot be read or violates the format,
 * RW_INVALID_ARGUMENT, with a sentence in `message` (may be NULL). On failure *file is NULL. */
RW_API rw_status rw_safetensors_open(const char *path, rw_safetensors **file, rw_message *message);

/* Invalidates the file's tensors and their data. NULL is ignored. */
RW_API void rw_safetensors_close(rw_safetensors *file);

/* The number of tensors. */
RW_API int64_t rw_safetensors_count(const rw_safetensors *file);

/* Tensor 0 to count - 1, in the order of their data; NULL for another index. */
RW_API const rw_safetensor *rw_safetensors_get(const rw_safetensors *file, int64_t index);

/* NULL if the file has no tensor with that name. */
RW_API const rw_safetensor *rw_safetensors_find(const rw_safetensors *file, const char *name);

/* A value of the header's __metadata__, UTF-8, valid until the file is closed; NULL if absent. */
RW_API const char *rw_safetensors_metadata(const rw_safetensors *file, const char *key);

/* Copies the tensor's data, tensor->bytes, into `buffer`. Returns RW_OK, or RW_INVALID_ARGUMENT
 * with a sentence in `message` (may be NULL) if the file has changed or cannot be read. */
RW_API rw_status rw_safetensors_load(const rw_safetensors *file, const rw_safetensor *tensor,
                                     void *buffer, rw_message *message);

/* A tensor to write; everything is owned by the caller and not needed afterwards.
 *
 * name   UTF-8, not "__metadata__", different from those of the other tensors
 * rank   0 to 64
 * shape  `rank` lengths, not negative; the elements must fill whole bytes
 * data   row-major, without gaps; may be NULL if there are no elements
 */
typedef struct rw_safetensors_item {
    const char *name;
    rw_file_dtype dtype;
    int32_t rank;
    const int64_t *shape;
    const void *data;
} rw_safetensors_item;

/* A pair of strings, UTF-8. */
typedef struct rw_safetensors_entry {
    const char *key; /* different from those of the other entries */
    const char *value;
} rw_safetensors_entry;

/* A file to write: its tensors, in the order of the file, and its __metadata__. */
typedef struct rw_safetensors_content {
    const rw_safetensors_item *items;
    int64_t num_items;
    const rw_safetensors_entry *metadata; /* may be NULL */
    int64_t num_metadata;
} rw_safetensors_content;

/* Writes a file next to `path` and renames it to `path` once it is complete: `path` is either the
 * old file or the complete new one. A `path` that exists and is not a regular file is refused. The
 * data begins at a multiple of 8. Content that readers would refuse, such as a header of more than
 * 100,000,000 bytes, is not written. Returns RW_OK, RW_OUT_OF_MEMORY or RW_INVALID_ARGUMENT with a
 * sentence in `message` (may be NULL). */
RW_API rw_status rw_safetensors_write(const char *path, const rw_safetensors_content *content,
                                      rw_message *message);

#ifdef __cplusplus
}
#endif
#endif
