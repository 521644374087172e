/* Sources: transformers:src/transformers/modeling_rope_utils.py (RotaryEmbeddingConfigMixin) and
 * the configuration_*.py of each model. */
#include "model_config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "io_error.h"
#include "json_fields.h"
#include "model_types.h"

#define MAX_CONFIG_BYTES (16 << 20)
#define MAX_HEAD_DIM 65536

/* What is known while a config is read. */
typedef struct config_reader {
    rwi_json_reader json;
    const json_t *config;        /* the language model's object */
    const json_t *scaling;       /* rope_parameters or rope_scaling, for the layer type; or NULL */
    const rwi_model_type *model; /* what holds where the file is silent */
    const char *layer_type;      /* as asked for, or NULL */
    const char *chosen;          /* the layer type whose embedding is read */
    bool local;                  /* sliding layers of an old file, without any scaling */
    rwi_model_config *result;
} config_reader;

/* The width of the part of a head that turns, where it is a part of its own. */
static const char rope_part[] = "qk_rope_head_dim";

static const char *const type_names[] = {
    [RW_ROPE_DEFAULT] = "default",           [RW_ROPE_LINEAR] = "linear",
    [RW_ROPE_DYNAMIC] = "dynamic",           [RW_ROPE_YARN] = "yarn",
    [RW_ROPE_LONGROPE] = "longrope",         [RW_ROPE_LLAMA3] = "llama3",
    [RW_ROPE_PROPORTIONAL] = "proportional",
};

const char *rwi_rope_type_name(rw_rope_type type) {
    return type_names[type];
}

const char *rwi_rope_pairing_name(rw_rope_pairing pairing) {
    return pairing == RW_ROPE_INTERLEAVED ? "interleaved" : "half";
}

static rwi_json_field top(const config_reader *reader, const char *key) {
    return (rwi_json_field){reader->config, key};
}

static rwi_json_field inner(const config_reader *reader, const char *key) {
    return (rwi_json_field){reader->scaling, key};
}

/* The first of `keys`, which end with NULL, that the config has; else the last. */
static rwi_json_field top_alias(const config_reader *reader, const char *const *keys) {
    while (keys[1] && !rwi_json_value(top(reader, keys[0])))
        keys++;
    return top(reader, keys[0]);
}

/* Goes down to the language model and finds out what it is. */
static void find_model(config_reader *reader) {
    static const char *const containers[] = {"thinker_config", "text_config", "llm_config",
                                             "language_config"};
    const char *name = rwi_json_string(&reader->json, top(reader, "model_type"), "");
    for (size_t i = 0; i < sizeof containers / sizeof containers[0]; i++) {
        const json_t *part = rwi_json_object(&reader->json, top(reader, containers[i]));
        if (!part)
            continue;
        reader->config = part;
        name = rwi_json_string(&reader->json, top(reader, "model_type"), name);
    }
    snprintf(reader->result->model_type, sizeof reader->result->model_type, "%s", name);
    reader->model = rwi_model_type_find(name);
    if (reader->model->refusal)
        rwi_json_fail(&reader->json, "model_type %s %s", name, reader->model->refusal);
    if (rwi_json_bool(&reader->json, top(reader, "alibi"), false))
        rwi_json_fail(&reader->json, "alibi is true: the model has no rotary position embedding");
}

static bool describes_layers(const json_t *value) {
    return json_object_get(value, "rope_theta") || json_object_get(value, "rope_type") ||
           json_object_get(value, "type");
}

/* Whether `scaling` holds one object for each layer type, and the only one if there is only one. */
static bool is_nested(const json_t *scaling, const char **only) {
    const char *key;
    json_t *value;
    size_t layer_types = 0;
    json_object_foreach((json_t *)scaling, key, value) {
        if (!describes_layers(value))
            continue;
        layer_types++;
        *only = key;
    }
    if (layer_types != 1)
        *only = NULL;
    return layer_types > 0;
}

static bool has_layer_type(const config_reader *reader, const char *name) {
    const json_t *types = rwi_json_value(top(reader, "layer_types"));
    for (size_t i = 0; i < json_array_size(types); i++) {
        const char *type = json_string_value(json_array_get(types, i));
        if (type && strcmp(type, name) == 0)
            return true;
    }
    return false;
}

/* A file whose scaling is not given for each layer type. */
static void choose_layer_of_flat(config_reader *reader) {
    const char *name = reader->layer_type;
    if (!name || strcmp(name, "full_attention") == 0)
        return;
    bool sliding = strcmp(name, "sliding_attention") == 0;
    reader->local = sliding && (rwi_json_value(top(reader, "rope_local_base_freq")) ||
                                rwi_json_value(top(reader, "local_rope_theta")));
    if (reader->local)
        reader->scaling = NULL;
    else if (!has_layer_type(reader, name))
        rwi_json_fail(&reader->json, "the model has no layer type %.40s", name);
}

/* Finds the object with the scaling of the layer type. */
static void find_scaling(config_reader *reader) {
    /* as Hugging Face does: rope_scaling first, an empty one is none */
    reader->scaling = rwi_json_object(&reader->json, top(reader, "rope_scaling"));
    if (json_object_size(reader->scaling) == 0)
        reader->scaling = rwi_json_object(&reader->json, top(reader, "rope_parameters"));
    const char *only = NULL;
    if (!is_nested(reader->scaling, &only)) {
        choose_layer_of_flat(reader);
        return;
    }
    if (!json_object_get(reader->scaling, reader->chosen) && !reader->layer_type && only)
        reader->chosen = only;
    const char *name = reader->chosen;
    const json_t *chosen = json_object_get(reader->scaling, name);
    if (json_is_null(chosen))
        rwi_json_fail(&reader->json, "layers of type %.40s have no rotary position embedding",
                      name);
    else if (!json_is_object(chosen))
        rwi_json_fail(&reader->json,
                      "rope_parameters has no layer type %.40s; choose another with --layer-type",
                      name);
    reader->scaling = chosen;
}

/* rope_type, once called type. */
static void read_type(config_reader *reader) {
    rw_rope_spec *spec = &reader->result->spec;
    const char *key = rwi_json_value(inner(reader, "rope_type")) ? "rope_type" : "type";
    const char *name = rwi_json_string(&reader->json, inner(reader, key), "default");
    bool phi3 = strncmp(reader->result->model_type, "phi3", 4) == 0;
    if (strcmp(name, "su") == 0 || (phi3 && strcmp(name, "yarn") == 0))
        name = "longrope"; /* what Phi-3 once called it */
    if (strcmp(name, "mrope") == 0) {
        name = "default"; /* Qwen2-VL: the sections say the rest */
        if (!rwi_json_value(inner(reader, "mrope_section")))
            rwi_json_fail(&reader->json, "mrope_section is absent, expected one for type mrope");
    }
    for (size_t i = 0; i < sizeof type_names / sizeof type_names[0]; i++) {
        if (strcmp(type_names[i], name) == 0) {
            spec->type = (rw_rope_type)i;
            return;
        }
    }
    rwi_json_fail(&reader->json,
                  "%s is \"%.40s\", expected default, linear, dynamic, yarn, longrope, llama3 or "
                  "proportional",
                  key, name);
}

static void read_heads(config_reader *reader) {
    static const char *const keys[] = {"num_attention_heads", "n_head", "n_heads", NULL};
    static const char *const kv_keys[] = {"multi_query_group_num", "num_key_value_heads", NULL};
    rwi_model_config *config = reader->result;
    config->num_heads = rwi_json_length(&reader->json, top_alias(reader, keys), 0);
    config->num_kv_heads =
        rwi_json_length(&reader->json, top_alias(reader, kv_keys), config->num_heads);
    if (rwi_json_value(top(reader, "qk_rope_head_dim")))
        config->num_kv_heads = 1;
}

/* hidden_size / num_attention_heads */
static int64_t derived_head_dim(config_reader *reader) {
    static const char *const hidden_keys[] = {"hidden_size", "n_embd", "d_model", NULL};
    int64_t hidden = rwi_json_length(&reader->json, top_alias(reader, hidden_keys), 0);
    int64_t heads = reader->result->num_heads;
    if (hidden == 0 || heads == 0) {
        rwi_json_fail(&reader->json,
                      "no head_dim, and no hidden_size with num_attention_heads to derive it from");
        return 0;
    }
    return hidden / heads;
}

/* Whether layer number `index` is of the type that is asked for. */
static bool is_chosen_layer(const config_reader *reader, long index) {
    const json_t *types = rwi_json_value(top(reader, "layer_types"));
    const char *type = json_string_value(json_array_get(types, (size_t)index));
    return type && strcmp(type, reader->chosen) == 0;
}

/* Gemma 4 has wider heads in the layers that see everything; 0 where nothing is said of it. */
static int64_t head_dim_of_layers(config_reader *reader) {
    const json_t *layers = rwi_json_object(&reader->json, top(reader, "per_layer_config"));
    const char *key;
    json_t *layer;
    json_object_foreach((json_t *)layers, key, layer) {
        if (is_chosen_layer(reader, strtol(key, NULL, 10)))
            return rwi_json_length(&reader->json, (rwi_json_field){layer, "head_dim"}, 0);
    }
    if (strcmp(reader->chosen, "full_attention") != 0)
        return 0;
    return rwi_json_length(&reader->json, top(reader, "global_head_dim"), 0);
}

static void read_head_dim(config_reader *reader) {
    static const char *const keys[] = {"head_dim", "attention_head_dim", "kv_channels", NULL};
    rw_rope_spec *spec = &reader->result->spec;
    /* what turns in DeepSeek's heads is a part of its own, with its own width */
    spec->head_dim = rwi_json_length(&reader->json, top(reader, rope_part), 0);
    if (spec->head_dim == 0)
        spec->head_dim = head_dim_of_layers(reader);
    if (spec->head_dim == 0)
        spec->head_dim = rwi_json_length(&reader->json, top_alias(reader, keys), 0);
    if (spec->head_dim == 0 && !json_object_get(reader->config, "head_dim"))
        spec->head_dim = reader->model->head_dim;
    if (spec->head_dim == 0)
        spec->head_dim = derived_head_dim(reader);
    if (reader->json.status == RW_OK && (spec->head_dim < 1 || spec->head_dim > MAX_HEAD_DIM))
        rwi_json_fail(&reader->json, "head_dim is %lld, expected 1 to %d",
                      (long long)spec->head_dim, MAX_HEAD_DIM);
}

static void read_window(config_reader *reader) {
    static const char *const factor_keys[] = {"partial_rotary_factor", "rotary_pct", NULL};
    rw_rope_spec *spec = &reader->result->spec;
    const rwi_model_type *model = reader->model;
    if (rwi_json_value(top(reader, rope_part))) {
        spec->rotary_dim = spec->head_dim;
        return;
    }
    spec->partial_rotary_factor =
        rwi_json_positive(&reader->json, top_alias(reader, factor_keys), 0);
    spec->partial_rotary_factor = rwi_json_positive(
        &reader->json, inner(reader, "partial_rotary_factor"), spec->partial_rotary_factor);
    if (spec->partial_rotary_factor == 0)
        spec->rotary_dim =
            rwi_json_length(&reader->json, top(reader, "rotary_dim"), model->rotary_dim);
    /* GPT-J and CodeGen without a width turn the whole head */
    if (model->rotary_dim != 0 && json_is_null(json_object_get(reader->config, "rotary_dim")))
        spec->rotary_dim = 0;
    if (spec->partial_rotary_factor == 0)
        spec->partial_rotary_factor = model->partial_rotary_factor;
    if (reader->json.status != RW_OK || spec->type == RW_ROPE_PROPORTIONAL || spec->rotary_dim != 0)
        return;
    double factor = spec->partial_rotary_factor == 0 ? 1 : spec->partial_rotary_factor;
    spec->rotary_dim = (int64_t)((double)spec->head_dim * factor);
    if (factor > 1 || spec->rotary_dim < 2)
        rwi_json_fail(
            &reader->json,
            "partial_rotary_factor is %g, expected at most 1 and at least 2 of head_dim's "
            "%lld columns",
            factor, (long long)spec->head_dim);
}

static void read_theta(config_reader *reader) {
    static const char *const global_keys[] = {"rotary_emb_base", "global_rope_theta", "rope_theta",
                                              NULL};
    static const char *const local_keys[] = {"local_rope_theta", "rope_local_base_freq", NULL};
    rwi_json_field field = top_alias(reader, reader->local ? local_keys : global_keys);
    double theta = reader->model->theta == 0 ? 10000 : reader->model->theta;
    theta = rwi_json_positive(&reader->json, field, theta);
    theta = rwi_json_positive(&reader->json, inner(reader, "rope_theta"), theta);
    if (strcmp(reader->result->model_type, "chatglm") == 0)
        theta *= rwi_json_positive(&reader->json, top(reader, "rope_ratio"), 1);
    reader->result->spec.theta = theta;
}

static void read_lengths(config_reader *reader) {
    static const char *const keys[] = {"max_position_embeddings", "n_positions", "seq_length",
                                       "max_seq_len", NULL};
    static const char original[] = "original_max_position_embeddings";
    rw_rope_spec *spec = &reader->result->spec;
    spec->max_position_embeddings = rwi_json_length(&reader->json, top_alias(reader, keys), 0);
    /* Phi-3 keeps it outside, and there it wins. */
    int64_t inside = rwi_json_length(&reader->json, inner(reader, original), 0);
    spec->original_max_position_embeddings =
        rwi_json_length(&reader->json, top(reader, original), inside);
}

static void require(config_reader *reader, const char *key) {
    if (!rwi_json_value(inner(reader, key)))
        rwi_json_fail(&reader->json, "%s is absent, expected one for rope_type %s", key,
                      rwi_rope_type_name(reader->result->spec.type));
}

/* Copies an array of positive numbers to `factors`. */
static void read_factors(config_reader *reader, const char *key, double *factors) {
    const json_t *array = rwi_json_array(&reader->json, inner(reader, key));
    size_t expected = (size_t)reader->result->spec.rotary_dim / 2;
    if (reader->json.status == RW_OK && json_array_size(array) != expected)
        rwi_json_fail(&reader->json, "%s has %zu values, expected %zu, half the rotary width", key,
                      json_array_size(array), expected);
    for (size_t i = 0; i < expected && reader->json.status == RW_OK; i++) {
        const json_t *value = json_array_get(array, i);
        factors[i] = json_number_value(value);
        if (!json_is_number(value) || !(factors[i] > 0))
            rwi_json_fail(&reader->json, "%s[%zu] is not a positive number", key, i);
    }
}

static void read_longrope(config_reader *reader) {
    rw_rope_spec *spec = &reader->result->spec;
    require(reader, "short_factor");
    require(reader, "long_factor");
    if (reader->json.status != RW_OK)
        return;
    size_t count = (size_t)spec->rotary_dim / 2;
    double *factors = calloc(2 * count + 1, sizeof *factors);
    if (!factors) {
        reader->json.status =
            rwi_io_fail(reader->json.message, RW_OUT_OF_MEMORY, "no memory for %zu factors", count);
        return;
    }
    reader->result->factors = factors;
    spec->short_factor = factors;
    spec->long_factor = factors + count;
    read_factors(reader, "short_factor", factors);
    read_factors(reader, "long_factor", factors + count);
}

/* What each type takes from the scaling; the library checks what it needs besides. */
static void read_scaling(config_reader *reader) {
    rw_rope_spec *spec = &reader->result->spec;
    rwi_json_reader *json = &reader->json;
    if (spec->type == RW_ROPE_DEFAULT)
        return; /* Hugging Face ignores whatever else stands there */
    spec->factor = rwi_json_positive(json, inner(reader, "factor"), 0);
    switch (spec->type) {
    case RW_ROPE_DEFAULT:
    case RW_ROPE_PROPORTIONAL:
        break;
    case RW_ROPE_LINEAR:
        require(reader, "factor");
        break;
    case RW_ROPE_DYNAMIC:
        require(reader, "factor");
        if (rwi_json_value(inner(reader, "alpha")))
            rwi_json_fail(json, "alpha is given, which is not supported for rope_type dynamic");
        break;
    case RW_ROPE_YARN:
        spec->beta_fast = rwi_json_not_negative(json, inner(reader, "beta_fast"), 0);
        spec->beta_slow = rwi_json_not_negative(json, inner(reader, "beta_slow"), 0);
        spec->mscale = rwi_json_not_negative(json, inner(reader, "mscale"), 0);
        spec->mscale_all_dim = rwi_json_not_negative(json, inner(reader, "mscale_all_dim"), 0);
        spec->no_truncate = !rwi_json_bool(json, inner(reader, "truncate"), true);
        spec->attention_factor = rwi_json_positive(json, inner(reader, "attention_factor"), 0);
        break;
    case RW_ROPE_LONGROPE:
        spec->attention_factor = rwi_json_positive(json, inner(reader, "attention_factor"), 0);
        read_longrope(reader);
        break;
    case RW_ROPE_LLAMA3:
        require(reader, "factor");
        require(reader, "low_freq_factor");
        require(reader, "high_freq_factor");
        spec->low_freq_factor = rwi_json_positive(json, inner(reader, "low_freq_factor"), 0);
        spec->high_freq_factor = rwi_json_positive(json, inner(reader, "high_freq_factor"), 0);
        break;
    }
}

static void read_sections(config_reader *reader) {
    rw_rope_spec *spec = &reader->result->spec;
    const json_t *sections = rwi_json_array(&reader->json, inner(reader, "mrope_section"));
    bool interleaved = rwi_json_bool(&reader->json, inner(reader, "mrope_interleaved"),
                                     reader->model->mrope_interleaved);
    if (!sections)
        return;
    bool valid = json_array_size(sections) == 3;
    for (size_t axis = 0; axis < 3 && valid; axis++) {
        const json_t *section = json_array_get(sections, axis);
        spec->sections[axis] = json_integer_value(section);
        valid = json_is_integer(section) && spec->sections[axis] >= 0 &&
                spec->sections[axis] <= MAX_HEAD_DIM;
    }
    if (!valid)
        rwi_json_fail(&reader->json, "mrope_section is not three numbers of frequencies");
    spec->axes = interleaved ? RW_ROPE_AXES_MROPE_INTERLEAVED : RW_ROPE_AXES_MROPE_CHUNKED;
}

/* The library's own checks, so that its sentence comes with the file's name. */
static void check_spec(config_reader *reader) {
    rw_message message = {""};
    rw_rope_frequency_list list = {0};
    if (reader->json.status == RW_OK &&
        rw_rope_frequencies(&reader->result->spec, 0, &list, &message) != RW_OK)
        rwi_json_fail(&reader->json, "%s", message.text);
}

static void read_config(config_reader *reader) {
    find_model(reader);
    find_scaling(reader);
    read_type(reader);
    read_heads(reader);
    read_head_dim(reader);
    read_window(reader);
    read_theta(reader);
    read_lengths(reader);
    read_scaling(reader);
    read_sections(reader);
    reader->result->spec.pairing = reader->model->pairing;
    check_spec(reader);
}

rw_status rwi_model_config_parse(const rwi_model_config_text *text, rwi_model_config *config,
                                 rw_message *message) {
    json_error_t error;
    json_t *root = json_loadb(text->text, text->length, 0, &error);
    *config = (rwi_model_config){0};
    if (!root)
        return rwi_io_fail(message, RW_INVALID_ARGUMENT, "%.100s is not JSON: %.100s (line %d)",
                           text->source, error.text, error.line);
    config_reader reader = {
        .json = {text->source, RW_OK, message},
        .config = root,
        .layer_type = text->layer_type,
        .chosen = text->layer_type ? text->layer_type : "full_attention",
        .result = config,
    };
    if (!json_is_object(root))
        rwi_json_fail(&reader.json, "not a model's config: expected a JSON object");
    else
        read_config(&reader);
    json_decref(root);
    if (reader.json.status != RW_OK)
        rwi_model_config_free(config);
    return reader.json.status;
}

/* The file's bytes and their number; NULL with errno set, EFBIG for a file that is no config. */
static char *read_text(const char *path, size_t *length) {
    int descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    char *text = NULL;
    struct stat info;
    int error = 0;
    size_t used = 0;
    if (descriptor < 0)
        return NULL;
    if (fstat(descriptor, &info) != 0)
        error = errno;
    else if (!S_ISREG(info.st_mode))
        error = S_ISDIR(info.st_mode) ? EISDIR : EINVAL;
    else if (info.st_size > MAX_CONFIG_BYTES)
        error = EFBIG;
    else if (!(text = malloc((size_t)info.st_size + 1)))
        error = ENOMEM;
    while (error == 0 && used < (size_t)info.st_size) {
        ssize_t got = read(descriptor, text + used, (size_t)info.st_size - used);
        if (got == 0)
            break;
        if (got > 0)
            used += (size_t)got;
        else if (errno != EINTR)
            error = errno;
    }
    close(descriptor);
    if (error != 0) {
        free(text);
        errno = error;
        return NULL;
    }
    *length = used;
    return text;
}

rw_status rwi_model_config_load(const char *path, const char *layer_type, rwi_model_config *config,
                                rw_message *message) {
    rwi_model_config_text text = {.source = path, .layer_type = layer_type};
    *config = (rwi_model_config){0};
    char *bytes = read_text(path, &text.length);
    if (!bytes)
        return rwi_io_fail(message, errno == ENOMEM ? RW_OUT_OF_MEMORY : RW_INVALID_ARGUMENT,
                           "cannot read %.140s: %s", path, strerror(errno));
    text.text = bytes;
    rw_status status = rwi_model_config_parse(&text, config, message);
    free(bytes);
    return status;
}

void rwi_model_config_free(rwi_model_config *config) {
    free(config->factors);
    *config = (rwi_model_config){0};
}
