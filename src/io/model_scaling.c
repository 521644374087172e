/* Selects the part of a file that describes the rotary embedding of the chosen layers.
 *
 * Source: transformers 5.24, modeling_rope_utils.py (RotaryEmbeddingConfigMixin) and
 * convert_rope_params_to_dict() of the configurations.
 */
#include <string.h>

#include "model_reader.h"

static const char full[] = "full_attention";
static const char sliding[] = "sliding_attention";

static bool describes_layers(const json_t *value) {
    static const char *const keys[] = {"rope_theta", "rope_type", "type", "partial_rotary_factor"};
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++)
        if (json_object_get(value, keys[i]))
            return true;
    return false;
}

/* Whether it contains one object for each layer type. */
static bool is_nested(const json_t *scaling) {
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)scaling, key, value) {
        if (describes_layers(value))
            return true;
    }
    return false;
}

/* Classes with separate embeddings of full and sliding layers, also in old files. */
static bool has_two(const rwi_model_reader *reader) {
    return reader->model->local_theta > 0 &&
           !(reader->model->traits & (RWI_LOCAL_IF_PLAIN | RWI_TRAILING));
}

/* Fails if there is one object for all layers, which these classes do not support. */
static void check_flat(rwi_model_reader *reader, bool old) {
    const json_t *scaling = reader->scaling;
    const char *name = reader->result->model_type;
    if (reader->model->traits & RWI_BY_LAYER && !is_nested(scaling))
        rwi_json_fail(&reader->json,
                      "rope_parameters of the layer types are absent, which model_type %s requires",
                      name);
    bool by_layer = has_two(reader) || reader->model->traits & (RWI_FULL_SCALING | RWI_MERGES);
    if (!by_layer || json_object_size(scaling) == 0 || is_nested(scaling))
        return;
    if (!old)
        rwi_json_fail(&reader->json,
                      "rope_parameters is one for all layers, expected one for each layer type of "
                      "model_type %s",
                      name);
    else if (json_object_get(scaling, "type") && !json_object_get(scaling, "rope_type"))
        rwi_json_fail(&reader->json,
                      "rope_scaling has a type, expected a rope_type for model_type %s", name);
}

/* rope_scaling first (an empty one is ignored); else the class's default. */
static void find_object(rwi_model_reader *reader) {
    rwi_json_reader *json = &reader->json;
    if (reader->model->traits & RWI_PLAIN)
        return;
    if (!(reader->model->traits & RWI_NEW_ONLY))
        reader->scaling = rwi_json_object(json, rwi_model_field(reader, "rope_scaling"));
    bool old = json_object_size(reader->scaling) > 0;
    if (!old)
        reader->scaling = rwi_json_object(json, rwi_model_field(reader, "rope_parameters"));
    if (json_object_size(reader->scaling) == 0) {
        if (reader->model->rope)
            reader->scaling = rwi_model_parse(reader, reader->model->rope);
    }
    check_flat(reader, old);
    reader->all_scaling = reader->scaling;
}

/* ---- one object for each layer type ---- */

static void note_layers_without_rope(rwi_model_reader *reader) {
    if (has_two(reader))
        return; /* these classes replace null by defaults */
    for (int64_t i = 0; i < reader->result->num_layers; i++) {
        rwi_layer_outline *layer = &reader->result->layers[i];
        if (json_is_null(json_object_get(reader->all_scaling, layer->type)))
            layer->has_rope = false;
    }
}

/* full_attention, or the only layer type that is present and has an embedding. */
static const char *only_type(const rwi_model_reader *reader) {
    const char *key, *found = NULL;
    json_t *value;
    int count = 0;
    if (json_is_object(json_object_get(reader->all_scaling, full)))
        return full;
    json_object_foreach((json_t *)reader->all_scaling, key, value) {
        bool occurs = reader->result->num_layers == 0 || rwi_model_find_layer(reader, key) >= 0;
        if (json_is_object(value) && occurs) {
            found = key;
            count++;
        }
    }
    return count == 1 ? found : NULL;
}

/* Adds the class's defaults for this type of layers, except theta if the file has one for all. */
static void merge_defaults(rwi_model_reader *reader, const char *name) {
    const json_t *defaults = json_object_get(rwi_model_parse(reader, reader->model->rope), name);
    const json_t *theta = rwi_json_value(rwi_model_field(reader, "rope_theta"));
    const json_t *file = rwi_json_value(rwi_model_field(reader, "rope_parameters"));
    const json_t *given = file ? json_object_get(file, name) : NULL;
    const json_t *scaling = given ? given : rwi_model_keep(reader, json_object());
    if (theta && !json_object_get(scaling, "rope_theta")) {
        const json_t *outer =
            rwi_model_keep(reader, json_pack("{s:O}", "rope_theta", (json_t *)theta));
        scaling = rwi_model_fill(reader, scaling, outer);
    }
    reader->scaling = rwi_model_fill(reader, scaling, defaults);
}

static void choose_nested(rwi_model_reader *reader) {
    const char *name = reader->layer_type ? reader->layer_type : only_type(reader);
    if (!name) {
        rwi_json_fail(&reader->json, "rope_parameters has no full_attention and differs by "
                                     "layer type");
        return;
    }
    reader->chosen = name;
    reader->scaling = json_object_get(reader->all_scaling, name);
    reader->local = has_two(reader) && strcmp(name, sliding) == 0;
    if (has_two(reader) && !json_is_object(reader->scaling) &&
        (reader->local || strcmp(name, full) == 0)) {
        reader->scaling = NULL;
    } else if (json_is_null(reader->scaling)) {
        rwi_json_fail(&reader->json, "layers of type %.40s have no rotary position embedding",
                      name);
    } else if (!json_is_object(reader->scaling)) {
        rwi_json_fail(&reader->json, "rope_parameters has no layer type %.40s", name);
    } else if (reader->model->traits & RWI_MERGES) {
        merge_defaults(reader, name);
    }
}

/* ---- one for all layers ---- */

/* Old files: whether the sliding layers have their own theta. */
static bool has_local_theta(const rwi_model_reader *reader) {
    if (reader->model->traits & RWI_LOCAL_IF_PLAIN)
        return json_object_size(reader->scaling) == 0;
    if (reader->known)
        return has_two(reader);
    return rwi_json_value(rwi_model_field(reader, "rope_local_base_freq")) ||
           rwi_json_value(rwi_model_field(reader, "local_rope_theta"));
}

/* DeepSeek V4's two embeddings are named main and compress. */
static void choose_main_or_compress(rwi_model_reader *reader) {
    const char *name = reader->layer_type;
    if (name && strcmp(name, "main") == 0)
        reader->scaling = NULL;
    else if (!name || strcmp(name, "compress") != 0)
        rwi_json_fail(&reader->json, "the layer type is %.40s, expected main or compress",
                      name ? name : "absent");
    reader->local = name && strcmp(name, "compress") == 0;
}

static void choose_flat(rwi_model_reader *reader) {
    const char *name = reader->layer_type;
    reader->chosen = name ? name : full;
    if (reader->model->traits & RWI_TRAILING) {
        choose_main_or_compress(reader);
        return;
    }
    if (!name)
        return;
    bool slides = strcmp(name, sliding) == 0;
    reader->local = slides && has_local_theta(reader);
    if (reader->local ? !(reader->model->traits & RWI_SCALED_LOCAL)
                      : slides && reader->model->traits & RWI_FULL_SCALING)
        reader->scaling = NULL;
    bool is_there = reader->result->num_layers > 0 ? rwi_model_find_layer(reader, name) >= 0
                                                   : reader->local || strcmp(name, full) == 0;
    if (!is_there)
        rwi_json_fail(&reader->json, "the model has no layer type %.40s", name);
}

void rwi_model_find_scaling(rwi_model_reader *reader) {
    find_object(reader);
    reader->nested = is_nested(reader->scaling);
    if (reader->nested)
        note_layers_without_rope(reader);
}

void rwi_model_choose_scaling(rwi_model_reader *reader) {
    if (reader->nested)
        choose_nested(reader);
    else
        choose_flat(reader);
}

void rwi_model_each_scaling(const rwi_model_reader *reader, rwi_layer_type_visitor visitor) {
    const rwi_model_config *config = reader->result;
    const char *key;
    json_t *value;
    if (reader->nested) {
        json_object_foreach((json_t *)reader->all_scaling, key, value) {
            if (json_is_object(value) && config->num_layers == 0)
                visitor.visit(visitor.user, key);
        }
    } else if (reader->model->traits & RWI_TRAILING) {
        visitor.visit(visitor.user, "main");
        visitor.visit(visitor.user, "compress");
        return;
    } else if (config->num_layers == 0 && has_local_theta(reader)) {
        visitor.visit(visitor.user, full);
        visitor.visit(visitor.user, sliding);
    } else if (config->num_layers == 0) {
        visitor.visit(visitor.user, "");
    }
    for (int64_t i = 0; i < config->num_layers; i++)
        if (config->layers[i].has_rope)
            visitor.visit(visitor.user, config->layers[i].type);
}
