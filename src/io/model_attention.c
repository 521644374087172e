/* The attention of a model and of its layers.
 *
 * Source: transformers 5.24, the configurations and attention classes of the models. */
#include <math.h>
#include <string.h>

#include <ropewalk/norm.h>

#include "model_attentions.h"
#include "model_object.h"

#define RWI_ATTENTION(...) {.name = __VA_ARGS__},

static const rwi_attention attentions[] = {
#include "model_attentions.def"
};

const rwi_attention *rwi_attention_find(const char *model_type) {
    for (size_t i = 0; i < sizeof attentions / sizeof attentions[0]; i++)
        if (strcmp(attentions[i].name, model_type) == 0)
            return &attentions[i];
    return NULL;
}

static bool has_trait(const rwi_attention *attention, unsigned trait) {
    return (attention->traits & trait) != 0;
}

static bool flag(rwi_model_reader *reader, const char *key, bool absent) {
    return rwi_json_bool(&reader->json, rwi_model_field(reader, key), absent);
}

static int64_t length(rwi_model_reader *reader, const char *key, int64_t absent) {
    return rwi_json_length(&reader->json, rwi_model_field(reader, key), absent);
}

/* Whether the file removes the class's value. */
static bool is_null(const rwi_model_reader *reader, const char *key) {
    return json_is_null(json_object_get(reader->config, key));
}

static int64_t or_unknown(int64_t value) {
    return value > 0 ? value : RW_MODEL_UNKNOWN;
}

/* ---- numbers of layers and heads without a rotary embedding ---- */

static const rwi_attention *class_of(const rwi_model_reader *reader) {
    return rwi_attention_find(reader->result->model_type);
}

static bool is_t5(const rwi_model_reader *reader) {
    return reader->result->positions == RW_POSITIONS_T5;
}

/* The layers of the decoder beside an encoder; 0 in other models. */
static int64_t decoder_layers(rwi_model_reader *reader, const rwi_attention *attention,
                              int64_t encoder_layers) {
    if (attention && has_trait(attention, RWI_TWO_STACKS))
        return length(reader, "decoder_layers", attention->num_layers);
    return attention && is_t5(reader) ? length(reader, "num_decoder_layers", encoder_layers) : 0;
}

static int64_t encoder_layers(rwi_model_reader *reader, const rwi_attention *attention) {
    if (attention && has_trait(attention, RWI_TWO_STACKS))
        return length(reader, "encoder_layers", attention->num_layers);
    int64_t count = rwi_model_count_layers(reader);
    return count == 0 && attention ? attention->num_layers : count;
}

int64_t rwi_model_attention_layers(rwi_model_reader *reader) {
    const rwi_attention *attention = class_of(reader);
    int64_t count = encoder_layers(reader, attention);
    int64_t decoder = decoder_layers(reader, attention, count);
    if (count > RWI_MAX_LAYERS || decoder > RWI_MAX_LAYERS - count)
        rwi_json_fail(&reader->json, "the model has %lld layers, expected at most %d",
                      (long long)(count > RWI_MAX_LAYERS ? count : decoder), RWI_MAX_LAYERS);
    return reader->json.status == RW_OK ? count + decoder : 0;
}

static int64_t read_hidden_size(rwi_model_reader *reader, const rwi_attention *attention) {
    static const char *const keys[] = {"hidden_size", "n_embd", "d_model", "dim", NULL};
    int64_t absent = rwi_model_default(reader, reader->model->hidden_size, 4096);
    if (absent == 0 && attention)
        absent = attention->hidden_size;
    return rwi_json_length(&reader->json, rwi_model_alias(reader, keys), absent);
}

static int64_t read_max_positions(rwi_model_reader *reader, const rwi_attention *attention) {
    static const char *const keys[] = {
        "max_position_embeddings", "n_positions", "seq_length", "max_seq_len",
        "model_max_length",        NULL};
    int64_t absent = rwi_model_default(reader, reader->model->max_positions, 2048);
    if (absent == 0 && attention)
        absent = attention->max_positions;
    if (attention && has_trait(attention, RWI_TWO_STACKS))
        absent = length(reader, "max_target_positions", absent);
    return rwi_json_length(&reader->json, rwi_model_alias(reader, keys), absent);
}

/* The heads of a model without a rotary embedding, whose number is in the field `key` or under a
 * usual name; unknown fields remain 0. */
static rwi_layer_kind read_plain_heads(rwi_model_reader *reader, const rwi_attention *attention,
                                       const char *key, int64_t hidden) {
    static const char *const keys[] = {"num_attention_heads", "n_head", "n_heads", "num_heads",
                                       NULL};
    rwi_layer_kind kind = {.rope = -1};
    if (reader->known) { /* a class that has a rotary embedding with other fields */
        const rw_model_rope *heads = &reader->result->rope;
        rwi_model_read_heads(reader);
        return (rwi_layer_kind){"", -1, heads->num_heads, heads->num_kv_heads,
                                heads->spec.head_dim};
    }
    kind.num_heads = rwi_json_length(
        &reader->json, key ? rwi_model_field(reader, key) : rwi_model_alias(reader, keys),
        attention ? attention->num_heads : 0);
    if (!attention || kind.num_heads == 0)
        return kind;
    kind.num_kv_heads = kind.num_heads;
    kind.head_dim = is_t5(reader) ? length(reader, "d_kv", 64) : hidden / kind.num_heads;
    return kind;
}

/* ---- one layer ---- */

/* What the layers have in common. */
typedef struct shared {
    rwi_model_reader *reader;
    rw_model *model;
    const rwi_attention *attention; /* NULL: unknown */
    rwi_layer_kind plain;           /* heads of a model without a rotary embedding */
    rwi_layer_kind decoder;         /* those of its decoder */
    int64_t nope_dim, v_head_dim, kv_rank;
    double scale;   /* 0: 1 / sqrt(head_dim) */
    double factor;  /* of the scale */
    double softcap; /* 0: none */
    int64_t window; /* 0: none */
    int64_t window_from;
    bool by_layer_index; /* scale / (layer + 1) */
    int32_t causal;
    rw_model_qk_norm qk_norm;
    int64_t chunk;
    double query_floor, query_scale;
    int64_t decoder_from; /* first layer of the decoder beside an encoder; 0: no encoder */
} shared;

static void set_unknown(rw_model_layer *layer) {
    layer->v_head_dim = layer->rope_begin = layer->kv_rank = RW_MODEL_UNKNOWN;
    layer->softmax_scale = layer->softcap = RW_MODEL_UNKNOWN;
    layer->window = layer->chunk = RW_MODEL_UNKNOWN;
    layer->causal = layer->sinks = RW_MODEL_UNKNOWN;
    layer->qk_norm = RW_QK_NORM_UNKNOWN;
    layer->query_floor = layer->query_scale = RW_MODEL_UNKNOWN;
}

static void set_heads(const shared *s, int64_t index, rw_model_layer *layer) {
    const rwi_layer_kind *kind = rwi_model_find_kind(s->model, layer->type);
    bool ropeless = s->model->info.positions != RW_POSITIONS_ROPE;
    if (!kind && ropeless)
        kind = s->decoder_from > 0 && index >= s->decoder_from ? &s->decoder : &s->plain;
    layer->num_heads = layer->num_kv_heads = layer->head_dim = RW_MODEL_UNKNOWN;
    if (!kind)
        return;
    layer->num_heads = or_unknown(kind->num_heads);
    /* if the rotated part is separate and the class unknown, so are whole heads of k */
    if (s->reader->model->rope_part > 0 && !s->attention)
        return;
    layer->num_kv_heads = or_unknown(kind->num_kv_heads);
    layer->head_dim = or_unknown(kind->head_dim);
    if (!s->attention)
        return;
    layer->v_head_dim = layer->head_dim;
    layer->rope_begin = layer->kv_rank = 0;
    if (s->nope_dim == 0)
        return;
    layer->num_kv_heads = layer->num_heads;
    layer->head_dim = kind->head_dim + s->nope_dim;
    layer->v_head_dim = s->v_head_dim;
    layer->rope_begin = s->nope_dim;
    layer->kv_rank = s->kv_rank;
}

static int64_t window_of(const shared *s, int64_t index, const rw_model_layer *layer) {
    if (has_trait(s->attention, RWI_WINDOW_ALL))
        return s->window;
    if (has_trait(s->attention, RWI_WINDOW_UPPER) && layer->type[0] == '\0')
        return index >= s->window_from ? s->window : 0;
    return strcmp(layer->type, "sliding_attention") == 0 ? s->window : 0;
}

static void set_attention(const shared *s, int64_t index, rw_model_layer *layer) {
    const rwi_attention *attention = s->attention;
    double scale = s->scale > 0 ? s->scale : 1 / sqrt((double)layer->head_dim);
    layer->softmax_scale = scale * s->factor / (s->by_layer_index ? (double)index + 1 : 1);
    layer->softcap = s->softcap;
    layer->causal = s->decoder_from > 0 ? index >= s->decoder_from : s->causal;
    layer->window = window_of(s, index, layer);
    layer->sinks = has_trait(attention, RWI_SINKS);
    layer->qk_norm = s->qk_norm;
    layer->chunk = 0;
    layer->query_floor = layer->query_scale = 0;
    if (!has_trait(attention, RWI_LLAMA4))
        return;
    if (layer->has_rope == 0)
        layer->qk_norm = RW_QK_NORM_NONE;
    if (strcmp(layer->type, "chunked_attention") == 0)
        layer->chunk = s->chunk;
    if (layer->has_rope == 0) {
        layer->query_floor = s->query_floor;
        layer->query_scale = s->query_scale;
    }
}

static void set_layer(const shared *s, int64_t index) {
    rw_model_layer *layer = &s->model->layers[index];
    set_unknown(layer);
    if (layer->type[0] && !rwi_model_attends(layer->type)) {
        layer->num_heads = layer->num_kv_heads = layer->head_dim = RW_MODEL_UNKNOWN;
        return;
    }
    set_heads(s, index, layer);
    if (s->attention && layer->head_dim > 0)
        set_attention(s, index, layer);
}

/* ---- what the layers have in common ---- */

/* yarn's factor of the softmax scale, mscale^2: arXiv:2309.00071 as in DeepSeek's classes. */
static double latent_factor(const rw_model *model) {
    const rw_rope_spec *spec = model->info.num_ropes > 0 ? &model->ropes[0].spec : NULL;
    if (!spec || spec->type == RW_ROPE_DEFAULT || spec->mscale_all_dim == 0 || spec->factor <= 1)
        return 1;
    double mscale = 0.1 * spec->mscale_all_dim * log(spec->factor) + 1;
    return mscale * mscale;
}

static void read_scale(shared *s) {
    rwi_model_reader *reader = s->reader;
    const rwi_attention *attention = s->attention;
    const json_t *mpt = rwi_json_value(rwi_model_field(reader, "attn_config"));
    s->scale = attention->scale;
    s->factor = has_trait(attention, RWI_LATENT) ? latent_factor(s->model) : 1;
    if (attention->scale_key)
        s->scale = rwi_json_positive(&reader->json, rwi_model_field(reader, attention->scale_key),
                                     attention->scale);
    if (has_trait(attention, RWI_SCALE_ROOT))
        s->scale = 1 / sqrt(s->scale);
    if (rwi_model_is(reader, "mpt"))
        s->scale = rwi_json_positive(&reader->json, (rwi_json_field){mpt, "softmax_scale"}, 0);
    if (!has_trait(attention, RWI_SCALE_GPT2))
        return;
    if (!flag(reader, "scale_attn_weights", true))
        s->scale = 1;
    s->by_layer_index = flag(reader, "scale_attn_by_inverse_layer_idx", false);
}

/* Sets s->attention to NULL if the layers with a window are not known. */
static void read_window(shared *s) {
    rwi_model_reader *reader = s->reader;
    const rwi_attention *attention = s->attention;
    bool enabled =
        !has_trait(attention, RWI_WINDOW_FLAG) || flag(reader, "use_sliding_window", false);
    bool listed = json_is_array(rwi_json_value(rwi_model_field(reader, "layer_types")));
    if (has_trait(attention, RWI_HALF_WINDOW)) {
        /* a key at a distance of local_attention / 2 is visible */
        s->window = length(reader, "local_attention", attention->window) / 2 + 1;
        return;
    }
    if (!enabled || is_null(reader, "sliding_window"))
        return;
    s->window = length(reader, "sliding_window", attention->window);
    s->window_from = rwi_json_count(&reader->json, rwi_model_field(reader, "max_window_layers"),
                                    attention->window_from > 0 ? attention->window_from : 28);
    if (has_trait(attention, RWI_WINDOW_FLAG) && !listed &&
        !has_trait(attention, RWI_WINDOW_ALL | RWI_WINDOW_UPPER))
        s->attention = NULL;
}

static void read_llama4(shared *s) {
    rwi_model_reader *reader = s->reader;
    s->chunk = length(reader, "attention_chunk_size", 8192);
    if (!flag(reader, "attn_temperature_tuning", true))
        return;
    s->query_floor = rwi_json_positive(&reader->json, rwi_model_field(reader, "floor_scale"), 8192);
    s->query_scale =
        rwi_json_not_negative(&reader->json, rwi_model_field(reader, "attn_scale"), 0.1);
}

static void read_latent(shared *s) {
    rwi_model_reader *reader = s->reader;
    const json_t *part = rwi_json_value(rwi_model_field(reader, "qk_rope_head_dim"));
    bool whole = json_is_number(part) && json_number_value(part) == 0; /* DeepSeek-OCR */
    if (whole || !flag(reader, "use_mla", true))
        return;
    s->nope_dim = length(reader, "qk_nope_head_dim", 128);
    s->v_head_dim = length(reader, "v_head_dim", 128);
    s->kv_rank = length(reader, "kv_lora_rank", 512);
}

static void read_shared(shared *s) {
    rwi_model_reader *reader = s->reader;
    const rwi_attention *attention = s->attention;
    bool decoder = flag(reader, "is_decoder", false);
    const json_t *both = rwi_json_value(rwi_model_field(reader, "use_bidirectional_attention"));
    /* attention in both directions is another model with the same model_type */
    if (!attention || (both && !json_is_false(both))) {
        s->attention = NULL;
        return;
    }
    s->causal = !has_trait(attention, RWI_BOTH_WAYS) || decoder;
    s->qk_norm = attention->qk_norm;
    if (attention->qk_norm_key &&
        !flag(reader, attention->qk_norm_key, has_trait(attention, RWI_QK_NORM_ON)))
        s->qk_norm = RW_QK_NORM_NONE;
    if (attention->softcap > 0 && !is_null(reader, "attn_logit_softcapping"))
        s->softcap = rwi_json_positive(
            &reader->json, rwi_model_field(reader, "attn_logit_softcapping"), attention->softcap);
    read_scale(s);
    if (has_trait(attention, RWI_LATENT))
        read_latent(s);
    if (has_trait(attention, RWI_LLAMA4))
        read_llama4(s);
    read_window(s);
}

/* ---- the model as a whole ---- */

static void set_model_unknown(rw_model_info *info) {
    info->learned_offset = info->learned_rows = RW_MODEL_UNKNOWN;
    info->alibi_factor = RW_MODEL_UNKNOWN;
    info->t5_num_buckets = info->t5_max_distance = RW_MODEL_UNKNOWN;
    info->t5_every_layer = RW_MODEL_UNKNOWN;
    info->norm = RW_MODEL_NORM_UNKNOWN;
    info->norm_eps = info->norm_weight_offset = RW_MODEL_UNKNOWN;
    info->norm_cast = RW_MODEL_UNKNOWN;
    info->activation_limit = info->activation_alpha = RW_MODEL_UNKNOWN;
    info->activation_up_offset = RW_MODEL_UNKNOWN;
}

static void read_norm(rwi_model_reader *reader, const rwi_attention *attention,
                      rw_model_info *info) {
    bool layer_norm = has_trait(attention, RWI_LAYER_NORM);
    const char *key = attention->eps_key;
    double absent = attention->eps;
    if (absent == 0)
        absent = layer_norm ? 1e-5 : 1e-6;
    if (!key)
        key = layer_norm ? "layer_norm_eps" : "rms_norm_eps";
    info->norm = layer_norm ? RW_MODEL_NORM_LAYER : RW_MODEL_NORM_RMS;
    info->norm_eps =
        key[0] ? rwi_json_not_negative(&reader->json, rwi_model_field(reader, key), absent)
               : absent;
    info->norm_weight_offset = attention->weight_offset;
    if (!layer_norm)
        info->norm_cast = has_trait(attention, RWI_CAST_AFTER) ? RW_NORM_CAST_AFTER_WEIGHT
                                                               : RW_NORM_CAST_BEFORE_WEIGHT;
}

static void read_activation(rwi_model_reader *reader, const rwi_attention *attention,
                            rw_model_info *info) {
    rwi_json_reader *json = &reader->json;
    info->activation_limit = info->activation_up_offset = 0;
    info->activation_alpha = 1;
    if (!has_trait(attention, RWI_GPT_OSS_GLU))
        return;
    info->activation_limit = rwi_json_positive(json, rwi_model_field(reader, "swiglu_limit"), 7);
    info->activation_alpha =
        rwi_json_positive(json, rwi_model_field(reader, "swiglu_alpha"), 1.702);
    info->activation_up_offset = 1;
}

static void read_positions(rwi_model_reader *reader, const rwi_attention *attention,
                           rw_model *model) {
    rw_model_info *info = &model->info;
    switch (info->positions) {
    case RW_POSITIONS_LEARNED:
        info->learned_offset = attention->learned_offset;
        if (has_trait(attention, RWI_PADDED_TABLE))
            info->learned_offset =
                1 + rwi_json_count(&reader->json, rwi_model_field(reader, "pad_token_id"), 1);
        info->learned_rows = info->max_positions + attention->learned_offset;
        if (has_trait(attention, RWI_PADDED_TABLE) && info->max_positions > info->learned_offset)
            info->max_positions -= info->learned_offset;
        break;
    case RW_POSITIONS_ALIBI:
        info->alibi_factor = 1;
        if (has_trait(attention, RWI_SCALED_ALIBI) && info->num_layers > 0)
            info->alibi_factor = model->layers[0].softmax_scale;
        break;
    case RW_POSITIONS_T5:
        info->t5_num_buckets = length(reader, "relative_attention_num_buckets", 32);
        info->t5_max_distance = length(reader, "relative_attention_max_distance", 128);
        info->t5_every_layer = has_trait(attention, RWI_OWN_T5_TABLES);
        break;
    case RW_POSITIONS_NONE:
    case RW_POSITIONS_ROPE:
    case RW_POSITIONS_SINUSOIDAL:
        break;
    }
}

/* The heads of a model without a rotary embedding, and where its decoder begins. */
static void read_stacks(shared *s, int64_t hidden) {
    rwi_model_reader *reader = s->reader;
    const bool two = s->attention && has_trait(s->attention, RWI_TWO_STACKS);
    const int64_t layers = s->model->info.num_layers;
    int64_t encoder = s->attention ? encoder_layers(reader, s->attention) : 0;
    s->plain =
        read_plain_heads(reader, s->attention, two ? "encoder_attention_heads" : NULL, hidden);
    s->decoder =
        read_plain_heads(reader, s->attention, two ? "decoder_attention_heads" : NULL, hidden);
    if (encoder > 0 && encoder < layers)
        s->decoder_from = encoder;
}

void rwi_model_read_attention(rwi_model_reader *reader, rw_model *model) {
    rw_model_info *info = &model->info;
    shared s = {.reader = reader, .model = model, .attention = class_of(reader)};
    int64_t hidden = read_hidden_size(reader, s.attention);
    int64_t longest = read_max_positions(reader, s.attention);
    if (longest == 0 && info->num_ropes > 0)
        longest = model->ropes[0].spec.max_position_embeddings;
    info->hidden_size = or_unknown(hidden);
    info->max_positions = or_unknown(longest);
    set_model_unknown(info);
    read_shared(&s);
    if (info->positions != RW_POSITIONS_ROPE)
        read_stacks(&s, hidden);
    info->attention_known = s.attention != NULL;
    for (int64_t i = 0; i < info->num_layers; i++)
        set_layer(&s, i);
    if (!s.attention)
        return;
    read_norm(reader, s.attention, info);
    read_activation(reader, s.attention, info);
    read_positions(reader, s.attention, model);
}
