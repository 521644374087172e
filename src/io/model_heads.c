/* Heads and their width.
 *
 * Source: transformers 5.24, the configurations' attribute_map and __post_init__().
 */
#include <stdlib.h>
#include <string.h>

#include "model_reader.h"

/* The width of the rotated part of a head, if that part is separate. */
static const char rope_part[] = "qk_rope_head_dim";

/* The field in per_layer_config for the chosen type of layers. */
static rwi_json_field layer_field(rwi_model_reader *reader, const char *field) {
    const json_t *layers =
        rwi_json_object(&reader->json, rwi_model_field(reader, "per_layer_config"));
    const char *key;
    json_t *layer;
    json_object_foreach((json_t *)layers, key, layer) {
        long index = strtol(key, NULL, 10);
        if (reader->chosen && index >= 0 && index < reader->result->num_layers &&
            strcmp(reader->result->layers[index].type, reader->chosen) == 0)
            return (rwi_json_field){layer, field};
    }
    return (rwi_json_field){NULL, field};
}

/* The rotated part in sliding layers, which Dots 3 defines by the width of the whole head and of
 * the other part. */
static int64_t sliding_rope_part(rwi_model_reader *reader, int64_t part) {
    rwi_json_reader *json = &reader->json;
    if (rwi_model_is(reader, "dots3_note_text")) {
        int64_t whole = rwi_json_length(json, rwi_model_field(reader, "swa_head_dim"), 256);
        int64_t rest = rwi_json_length(json, rwi_model_field(reader, "swa_qk_nope_head_dim"), 192);
        if (whole <= rest)
            rwi_json_fail(json,
                          "swa_head_dim is %lld, expected more than swa_qk_nope_head_dim's %lld",
                          (long long)whole, (long long)rest);
        part = whole - rest;
    }
    return rwi_json_length(json, rwi_model_field(reader, "swa_qk_rope_head_dim"), part);
}

/* qk_rope_head_dim; 0 for heads of one part, as in DeepSeek-OCR. */
static int64_t read_rope_part(rwi_model_reader *reader) {
    const rwi_model_type *model = reader->model;
    rwi_json_field field = rwi_model_field(reader, rope_part);
    const json_t *value = rwi_json_value(field);
    bool whole = !rwi_json_bool(&reader->json, rwi_model_field(reader, "use_mla"), true) ||
                 (json_is_number(value) && json_number_value(value) == 0);
    if (whole || (reader->known && model->rope_part == 0))
        return 0;
    int64_t part = rwi_json_length(&reader->json, field, model->rope_part);
    if (reader->chosen && strcmp(reader->chosen, "sliding_attention") == 0)
        part = sliding_rope_part(reader, part);
    return rwi_json_length(&reader->json, layer_field(reader, rope_part), part);
}

static void read_numbers(rwi_model_reader *reader) {
    static const char *const keys[] = {
        "num_attention_heads",     "n_head", "n_heads", "num_heads", "decoder_num_attention_heads",
        "encoder_attention_heads", NULL};
    static const char *const kv_keys[] = {
        "multi_query_group_num", "num_key_value_heads",         "num_kv_heads",
        "num_attention_groups",  "decoder_num_key_value_heads", NULL};
    rwi_model_config *config = reader->result;
    rwi_json_reader *json = &reader->json;
    const rwi_model_type *model = reader->model;
    const json_t *attention = rwi_json_value(rwi_model_field(reader, "attn_config"));
    int64_t heads = rwi_json_length(json, rwi_model_alias(reader, keys), 0);
    heads = heads ? heads : rwi_model_default(reader, model->num_heads, 32);
    int64_t kv_heads = rwi_model_default(reader, model->num_kv_heads, heads);
    if (kv_heads == 0 || json_is_null(json_object_get(reader->config, "num_key_value_heads")))
        kv_heads = heads;
    kv_heads = rwi_json_length(json, rwi_model_alias(reader, kv_keys), kv_heads);
    kv_heads = rwi_json_length(json, (rwi_json_field){attention, "kv_n_heads"}, kv_heads);
    if (rwi_model_is(reader, "falcon") &&
        !rwi_json_bool(json, rwi_model_field(reader, "new_decoder_architecture"), false))
        kv_heads = rwi_json_bool(json, rwi_model_field(reader, "multi_query"), true) ? 1 : heads;
    config->rope.num_heads =
        rwi_json_length(json, layer_field(reader, "num_attention_heads"), heads);
    config->rope.num_kv_heads =
        rwi_json_length(json, layer_field(reader, "num_key_value_heads"), kv_heads);
}

/* hidden_size / num_attention_heads */
static int64_t derived_head_dim(rwi_model_reader *reader) {
    static const char *const hidden_keys[] = {"hidden_size", "n_embd", "d_model", NULL};
    int64_t hidden = rwi_json_length(&reader->json, rwi_model_alias(reader, hidden_keys),
                                     rwi_model_default(reader, reader->model->hidden_size, 4096));
    int64_t heads = reader->result->rope.num_heads;
    if (hidden == 0 || heads == 0) {
        rwi_json_fail(&reader->json,
                      "no head_dim, and no hidden_size with num_attention_heads to derive it from");
        return 0;
    }
    return (reader->model->traits & RWI_WIDE_HEADS ? 2 : 1) * hidden / heads;
}

/* A head's width in full_attention, if different (Gemma 4); else 0. */
static int64_t full_head_dim(rwi_model_reader *reader) {
    int64_t width = rwi_json_length(&reader->json, layer_field(reader, "head_dim"), 0);
    if (width > 0 || !reader->chosen || strcmp(reader->chosen, "full_attention") != 0 ||
        (reader->known && reader->model->global_head_dim == 0))
        return width;
    return rwi_json_length(&reader->json, rwi_model_field(reader, "global_head_dim"),
                           reader->model->global_head_dim);
}

static void read_head_dim(rwi_model_reader *reader, int64_t part) {
    static const char *const keys[] = {"head_dim", "attention_head_dim", "kv_channels", NULL};
    rw_rope_spec *spec = &reader->result->rope.spec;
    spec->head_dim = part;
    if (spec->head_dim == 0)
        spec->head_dim = full_head_dim(reader);
    if (spec->head_dim == 0 && !(reader->model->traits & RWI_DERIVED_HEAD))
        spec->head_dim = rwi_json_length(&reader->json, rwi_model_alias(reader, keys), 0);
    /* an explicit null removes the class's width */
    if (spec->head_dim == 0 && !json_object_get(reader->config, "head_dim"))
        spec->head_dim = reader->model->head_dim;
    if (spec->head_dim == 0)
        spec->head_dim = derived_head_dim(reader);
    if (reader->json.status == RW_OK && (spec->head_dim < 1 || spec->head_dim > RWI_MAX_HEAD_DIM))
        rwi_json_fail(&reader->json, "head_dim is %lld, expected 1 to %d",
                      (long long)spec->head_dim, RWI_MAX_HEAD_DIM);
}

int64_t rwi_model_read_heads(rwi_model_reader *reader) {
    read_numbers(reader);
    int64_t part = read_rope_part(reader);
    if (part > 0)
        reader->result->rope.num_kv_heads = 1; /* all heads share one rotated part of k */
    read_head_dim(reader, part);
    return part;
}
