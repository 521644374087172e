/* Sources: transformers 5.24, modeling_rope_utils.py and the configuration_*.py of each model. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/io_error.h"
#include "model_reader.h"

rwi_json_field rwi_model_alias(const rwi_model_reader *reader, const char *const *keys) {
    while (keys[1] && !rwi_json_value(rwi_model_field(reader, keys[0])))
        keys++;
    return rwi_model_field(reader, keys[0]);
}

const json_t *rwi_model_keep(rwi_model_reader *reader, json_t *value) {
    if (json_array_append_new(reader->owned, value) == 0)
        return value;
    if (reader->json.status == RW_OK)
        reader->json.status =
            rwi_io_fail(reader->json.message, RW_OUT_OF_MEMORY, "no memory for a class's defaults");
    return NULL;
}

const json_t *rwi_model_parse(rwi_model_reader *reader, const char *text) {
    return rwi_model_keep(reader, json_loads(text, JSON_DECODE_INT_AS_REAL, NULL));
}

const json_t *rwi_model_fill(rwi_model_reader *reader, const json_t *object,
                             const json_t *defaults) {
    json_t *filled = json_copy((json_t *)object);
    if (json_is_object(filled) && json_is_object(defaults) &&
        json_object_update_missing(filled, (json_t *)defaults) != 0) {
        json_decref(filled);
        filled = NULL;
    }
    return rwi_model_keep(reader, filled);
}

int64_t rwi_model_default(const rwi_model_reader *reader, int64_t of_class, int64_t of_llama) {
    if (!reader->known)
        return 0;
    return of_class > 0 ? of_class : of_llama;
}

bool rwi_model_is(const rwi_model_reader *reader, const char *name) {
    return strcmp(reader->result->model_type, name) == 0;
}

/* ---- the model ---- */

/* Selects the language model's config in an unknown model; false if there is none. */
static bool enter_unknown_composite(rwi_model_reader *reader, const char **name) {
    static const char *const containers[] = {"thinker_config", "text_config", "llm_config",
                                             "language_config"};
    for (size_t i = 0; i < sizeof containers / sizeof containers[0]; i++) {
        const json_t *part = rwi_json_object(&reader->json, rwi_model_field(reader, containers[i]));
        if (!part)
            continue;
        reader->config = part;
        *name = rwi_json_string(&reader->json, rwi_model_field(reader, "model_type"), *name);
        return true;
    }
    return false;
}

/* Selects the language model's config; false if `name` is not a model of several parts. */
static bool enter_composite(rwi_model_reader *reader, const char **name) {
    const rwi_composite_model *composite = rwi_composite_model_find(*name);
    if (!composite)
        return !rwi_model_type_find(*name) && !rwi_model_without_rope_find(*name) &&
               enter_unknown_composite(reader, name);
    if (!composite->key) {
        *name = composite->part;
        return true;
    }
    const json_t *part = rwi_json_object(&reader->json, rwi_model_field(reader, composite->key));
    if (part) {
        reader->config = part;
        if (composite->fills)
            reader->config =
                rwi_model_fill(reader, part, rwi_model_parse(reader, composite->defaults));
        *name =
            rwi_json_string(&reader->json, rwi_model_field(reader, "model_type"), composite->part);
        return true;
    }
    if (!composite->flat)
        reader->config = rwi_model_parse(reader, composite->defaults ? composite->defaults : "{}");
    *name = composite->part;
    return true;
}

/* Whether the file itself states that its model has a rotary embedding. */
static bool has_rope_fields(const rwi_model_reader *reader) {
    static const char *const keys[] = {"rope_theta",          "rope_parameters",
                                       "rope_scaling",        "rotary_emb_base",
                                       "rope_embedding_base", "partial_rotary_factor",
                                       "rotary_pct",          "rope_pct",
                                       "rotary_emb_fraction", "rotary_dim",
                                       "rope_ratio",          "qk_rope_head_dim",
                                       "global_rope_theta"};
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++)
        if (rwi_json_value(rwi_model_field(reader, keys[i])))
            return true;
    return false;
}

static void require_known(rwi_model_reader *reader, const char *name) {
    char what[80];
    snprintf(what, sizeof what, name[0] ? "model_type %.60s is unknown" : "no model_type", name);
    if (!has_rope_fields(reader))
        rwi_json_fail(&reader->json, "%s, and no field of a rotary embedding such as rope_theta",
                      what);
    else if (!reader->pairing)
        rwi_json_fail(&reader->json,
                      "%s: the pairing of its columns is required (half or interleaved)", what);
}

/* The value as text: a string, a number, or whether it is true. */
static void text_of(const json_t *value, char *text, size_t size) {
    if (json_is_string(value))
        snprintf(text, size, "%s",
                 rwi_json_text(value) ? rwi_json_text(value) : "a string that contains NUL");
    else if (json_is_number(value))
        snprintf(text, size, "%.17g", json_number_value(value));
    else
        snprintf(text, size, "%s", !value ? "absent" : json_is_true(value) ? "true" : "not true");
}

/* Sets another kind than ROPE, with the sentence for those who ask for a rotary embedding. */
static void set_positions(rwi_model_reader *reader, rw_model_positions kind, const char *format,
                          ...) {
    char text[160];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    reader->result->positions = kind;
    snprintf(reader->result->without, sizeof reader->result->without, "%s", text);
}

/* Models that have a rotary embedding only if a field enables it. */
static void check_switch(rwi_model_reader *reader) {
    const char *key = reader->model->rope_switch.key, *expected = reader->model->rope_switch.value;
    char text[48];
    const json_t *attention = rwi_json_value(rwi_model_field(reader, "attn_config"));
    static const char with_alibi[] = "alibi is true: the model has no rotary position embedding";
    bool alibi = rwi_json_bool(&reader->json, rwi_model_field(reader, "alibi"), false) ||
                 rwi_json_bool(&reader->json, (rwi_json_field){attention, "alibi"}, false);
    if (alibi && rwi_model_is(reader, "falcon"))
        set_positions(reader, RW_POSITIONS_ALIBI, "%s", with_alibi);
    else if (alibi)
        rwi_json_fail(&reader->json, "%s", with_alibi);
    if (!reader->known) {
        key = "position_embedding_type";
        const json_t *value = rwi_json_value(rwi_model_field(reader, key));
        text_of(value, text, sizeof text);
        if (value && strcmp(text, "rope") != 0 && strcmp(text, "rotary") != 0)
            rwi_json_fail(&reader->json, "%s is %s, expected rope or rotary", key, text);
        return;
    }
    if (!key)
        return;
    const json_t *value = rwi_json_value(rwi_model_field(reader, key));
    text_of(value, text, sizeof text);
    if (strcmp(text, expected ? expected : "true") != 0)
        set_positions(reader, reader->model->rope_switch.kind,
                      "%s is %s: model_type %s then has %s, no rotary one", key, text,
                      reader->result->model_type, reader->model->rope_switch.otherwise);
}

/* What a model has instead of a rotary embedding. Files of models with their own code use the name
 * of a class whose learned embeddings they do not have. */
static void read_without_rope(rwi_model_reader *reader, const rwi_other_positions *has) {
    static const char key[] = "position_embedding_type";
    const json_t *value = rwi_json_value(rwi_model_field(reader, key));
    const char *name = reader->result->model_type;
    char text[48];
    text_of(value, text, sizeof text);
    if (value && strcmp(text, "absolute") != 0 && strstr(has->text, "learned"))
        rwi_json_fail(&reader->json, "%s is %s, which is unknown for model_type %.60s", key, text,
                      name);
    else if (!has->supported)
        rwi_json_fail(&reader->json, "model_type %.60s %s", name, has->text);
    else
        set_positions(reader, has->kind, "model_type %.60s %s", name, has->text);
}

/* Selects the language model's config and finds its model type. */
static void find_model(rwi_model_reader *reader) {
    static const rwi_model_type unknown = {.name = ""};
    const char *name = rwi_json_string(&reader->json, rwi_model_field(reader, "model_type"), "");
    for (int depth = 0; depth < 8 && reader->json.status == RW_OK; depth++)
        if (!enter_composite(reader, &name))
            break;
    if (strlen(name) >= sizeof reader->result->model_type)
        rwi_json_fail(&reader->json, "model_type has %zu bytes, expected fewer than %zu",
                      strlen(name), sizeof reader->result->model_type);
    const rwi_other_positions *has = rwi_model_without_rope_find(name);
    const rwi_model_type *model = rwi_model_type_find(name);
    snprintf(reader->result->model_type, sizeof reader->result->model_type, "%s", name);
    reader->known = model != NULL;
    reader->model = model ? model : &unknown;
    reader->result->positions = RW_POSITIONS_ROPE;
    if (has) {
        read_without_rope(reader, has);
        return;
    }
    if (!model)
        require_known(reader, name);
    check_switch(reader);
}

void rwi_model_read_outline(rwi_model_reader *reader) {
    find_model(reader);
    if (reader->json.status != RW_OK || reader->result->positions != RW_POSITIONS_ROPE)
        return;
    rwi_model_read_layers(reader);
    if (reader->json.status == RW_OK)
        rwi_model_find_scaling(reader);
}

void rwi_model_read_rope(rwi_model_reader *reader) {
    if (reader->json.status == RW_OK)
        rwi_model_choose_scaling(reader);
    if (reader->json.status == RW_OK)
        rwi_model_read_spec(reader);
}

void rwi_model_config_free(rwi_model_config *config) {
    free(config->factors);
    free(config->layers);
    *config = (rwi_model_config){0};
}
