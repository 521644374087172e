/* The public functions of models. */
#include <stdlib.h>
#include <stdio.h>
#include <string.h>

#include "common/io_error.h"
#include "json_lenient.h"
#include "model_file.h"
#include "model_object.h"

/* ---- reading ---- */

/* What the readers of all types of layers have in common. */
typedef struct input {
    const char *name;
    const json_t *root;
    const rw_rope_pairing *pairing;
    rw_message *message;
    rw_model *model;
    rw_status status;
    const rwi_model_reader *outline;
} input;

/* Reads the outline for one type of layers. Close the reader in any case. */
static void open_reader(const input *in, const char *layer_type, rwi_model_config *config,
                        rwi_model_reader *reader) {
    *config = (rwi_model_config){0};
    *reader = (rwi_model_reader){
        .json = {in->name, RW_OK, in->message},
        .config = in->root,
        .layer_type = layer_type,
        .pairing = in->pairing,
        .result = config,
        .owned = json_array(),
    };
    if (!json_is_object(in->root))
        rwi_json_fail(&reader->json, "not a model's config: expected a JSON object");
    else if (!reader->owned)
        reader->json.status = rwi_io_fail(in->message, RW_OUT_OF_MEMORY, "no memory for a config");
    else
        rwi_model_read_outline(reader);
}

static void close_reader(rwi_model_reader *reader) {
    json_decref(reader->owned);
    rwi_model_config_free(reader->result);
}

static bool equal_arrays(const double *a, const double *b, int64_t count) {
    if (!a || !b)
        return a == b;
    for (int64_t i = 0; i < count; i++)
        if (a[i] != b[i])
            return false;
    return true;
}

/* Compares bytes: if padding differs, a model has the same embedding twice, which is valid. */
static bool equal_ropes(const rw_model_rope *a, const rw_model_rope *b) {
    rw_model_rope x = *a, y = *b;
    x.spec.short_factor = y.spec.short_factor = NULL;
    x.spec.long_factor = y.spec.long_factor = NULL;
    return memcmp(&x, &y, sizeof x) == 0 &&
           equal_arrays(a->spec.short_factor, b->spec.short_factor, a->spec.rotary_dim / 2) &&
           equal_arrays(a->spec.long_factor, b->spec.long_factor, a->spec.rotary_dim / 2);
}

/* The index of an embedding, which is added if it is new; then the model takes its arrays. */
static int32_t keep_rope(rw_model *model, rwi_model_config *config) {
    int32_t n = 0;
    while (n < model->info.num_ropes && !equal_ropes(&model->ropes[n], &config->rope))
        n++;
    if (n == model->info.num_ropes) {
        model->ropes[n] = config->rope;
        model->factors[n] = config->factors;
        config->factors = NULL;
        model->info.num_ropes++;
    }
    return n;
}

const rwi_layer_kind *rwi_model_find_kind(const rw_model *model, const char *type) {
    for (int32_t i = 0; i < model->num_kinds; i++)
        if (strcmp(model->kinds[i].type, type) == 0)
            return &model->kinds[i];
    return NULL;
}

/* A new kind; NULL if there is one already or there are too many. */
static rwi_layer_kind *add_kind(input *in, const char *type) {
    if (in->status != RW_OK || rwi_model_find_kind(in->model, type))
        return NULL;
    if (in->model->num_kinds == RWI_MAX_LAYER_TYPES || strlen(type) >= RWI_LAYER_TYPE) {
        in->status = rwi_io_fail(in->message, RW_INVALID_ARGUMENT,
                                 "%.100s: layer type %.40s is too long or one of more than %d",
                                 in->name, type, RWI_MAX_LAYER_TYPES);
        return NULL;
    }
    rwi_layer_kind *kind = &in->model->kinds[in->model->num_kinds++];
    *kind = (rwi_layer_kind){.rope = -1};
    strcpy(kind->type, type);
    return kind;
}

/* Reads the embedding of a type of layers. */
static void visit_rope(void *user, const char *type) {
    input *in = user;
    rwi_layer_kind *kind = add_kind(in, type);
    rwi_model_config config;
    rwi_model_reader reader;
    if (!kind)
        return;
    open_reader(in, type[0] ? type : NULL, &config, &reader);
    rwi_model_read_rope(&reader);
    in->status = reader.json.status;
    if (in->status == RW_OK) {
        kind->num_heads = config.rope.num_heads;
        kind->num_kv_heads = config.rope.num_kv_heads;
        kind->head_dim = config.rope.spec.head_dim;
        kind->rope = keep_rope(in->model, &config);
    }
    close_reader(&reader);
}

/* Reads the heads of a type of layers without a rotary embedding, if the class is known. */
static void read_other_kind(input *in, const char *type) {
    if (in->outline->model->name[0] == '\0')
        return;
    rwi_layer_kind *kind = add_kind(in, type);
    rwi_model_config config;
    rwi_model_reader reader;
    if (!kind)
        return;
    open_reader(in, type, &config, &reader);
    reader.chosen = type;
    if (reader.json.status == RW_OK)
        rwi_model_read_heads(&reader);
    in->status = reader.json.status;
    kind->num_heads = config.rope.num_heads;
    kind->num_kv_heads = config.rope.num_kv_heads;
    kind->head_dim = config.rope.spec.head_dim;
    close_reader(&reader);
}

static void read_kinds(input *in, const rwi_model_reader *outline) {
    const rwi_model_config *config = outline->result;
    if (config->positions != RW_POSITIONS_ROPE)
        return;
    rwi_model_each_scaling(outline, (rwi_layer_type_visitor){visit_rope, in});
    for (int64_t i = 0; i < config->num_layers; i++)
        if (!config->layers[i].has_rope && rwi_model_attends(config->layers[i].type))
            read_other_kind(in, config->layers[i].type);
}

/* ---- layers ---- */

/* Sets has_rope and rope. */
static void set_rope(const rw_model *model, const rwi_layer_outline *outline,
                     rw_model_layer *layer) {
    const rwi_layer_kind *kind = rwi_model_find_kind(model, layer->type);
    if (!kind && layer->type[0]) /* DeepSeek V4 */
        kind = rwi_model_find_kind(
            model, strcmp(layer->type, "sliding_attention") == 0 ? "main" : "compress");
    layer->rope = -1;
    if (model->info.positions != RW_POSITIONS_ROPE || (outline && !outline->has_rope)) {
        layer->has_rope = 0;
    } else if (kind && kind->rope >= 0) {
        layer->has_rope = 1;
        layer->rope = kind->rope;
    } else {
        layer->has_rope = RW_MODEL_UNKNOWN;
    }
}

static void make_layers(input *in, rwi_model_reader *reader) {
    rw_model *model = in->model;
    rwi_model_config *config = reader->result;
    int64_t count = config->layers ? config->num_layers : rwi_model_attention_layers(reader);
    in->status = reader->json.status;
    if (in->status != RW_OK || count == 0)
        return;
    model->layers = calloc((size_t)count, sizeof *model->layers);
    if (!model->layers) {
        in->status = rwi_io_fail(in->message, RW_OUT_OF_MEMORY, "no memory for %lld layers",
                                 (long long)count);
        return;
    }
    model->info.num_layers = count;
    model->outline = config->layers;
    config->layers = NULL;
    config->num_layers = 0;
    for (int64_t i = 0; i < count; i++) {
        const rwi_layer_outline *outline = model->outline ? &model->outline[i] : NULL;
        model->layers[i].type = outline ? outline->type : "";
        set_rope(model, outline, &model->layers[i]);
    }
}

/* ---- the whole model ---- */

static rw_status read_root(input *in) {
    rw_model *model = in->model;
    rwi_model_config config;
    rwi_model_reader reader;
    open_reader(in, NULL, &config, &reader);
    in->status = reader.json.status;
    in->outline = &reader;
    snprintf(model->model_type, sizeof model->model_type, "%s", config.model_type);
    snprintf(model->source, sizeof model->source, "%s", in->name);
    model->info = (rw_model_info){.model_type = model->model_type, .positions = config.positions};
    snprintf(model->without, sizeof model->without, "%s",
             config.without[0] ? config.without : "no layer has a rotary position embedding");
    if (in->status == RW_OK)
        read_kinds(in, &reader);
    if (in->status == RW_OK)
        make_layers(in, &reader);
    if (in->status == RW_OK) {
        rwi_model_read_attention(&reader, model);
        in->status = reader.json.status;
    }
    if (model->info.num_ropes == 0 && model->info.positions == RW_POSITIONS_ROPE)
        model->info.positions = RW_POSITIONS_NONE;
    close_reader(&reader);
    return in->status;
}

static rw_status read_text(const rw_model_source *source, rw_model *model, rw_message *message) {
    const char *text = source->text;
    char *bytes = NULL;
    size_t length = (size_t)source->text_bytes;
    json_t *root = NULL;
    rw_status status = RW_OK;
    if (!text)
        status = rwi_model_file_read(source->path, &bytes, &length, message);
    input in = {.name = source->path ? source->path : "config.json",
                .pairing = source->pairing,
                .message = message,
                .model = model};
    if (status == RW_OK)
        status = rwi_json_load(in.name, text ? text : bytes, length, &root, message);
    in.root = root;
    if (status == RW_OK)
        status = read_root(&in);
    json_decref(root);
    free(bytes);
    return status;
}

static rw_status check_source(const rw_model_source *source, rw_message *message) {
    static const char operation[] = "rw_model_read";
    if (!source || (!source->path && !source->text))
        return rwi_io_fail(message, RW_INVALID_ARGUMENT, "%s: expected a path or a text",
                           operation);
    if (source->text_bytes < 0 || (!source->text && source->text_bytes > 0))
        return rwi_io_fail(message, RW_INVALID_ARGUMENT,
                           "%s: text_bytes is %lld, expected the length of text", operation,
                           (long long)source->text_bytes);
    if (source->text_bytes > RWI_MAX_CONFIG_BYTES)
        return rwi_io_fail(message, RW_INVALID_ARGUMENT,
                           "%s: text_bytes is %lld, expected at most %d", operation,
                           (long long)source->text_bytes, RWI_MAX_CONFIG_BYTES);
    if (source->pairing && *source->pairing != RW_ROPE_HALF &&
        *source->pairing != RW_ROPE_INTERLEAVED)
        return rwi_io_fail(message, RW_INVALID_ARGUMENT,
                           "%s: pairing is %d, expected RW_ROPE_HALF or RW_ROPE_INTERLEAVED",
                           operation, (int)*source->pairing);
    return RW_OK;
}

rw_status rw_model_read(const rw_model_source *source, rw_model **model, rw_message *message) {
    *model = NULL;
    rw_status status = check_source(source, message);
    if (status != RW_OK)
        return status;
    rw_model *made = calloc(1, sizeof *made);
    if (!made)
        return rwi_io_fail(message, RW_OUT_OF_MEMORY, "no memory for a model");
    status = read_text(source, made, message);
    if (status == RW_OK)
        *model = made;
    else
        rw_model_free(made);
    return status;
}

void rw_model_free(rw_model *model) {
    if (!model)
        return;
    for (int32_t i = 0; i < model->info.num_ropes; i++)
        free(model->factors[i]);
    free(model->outline);
    free(model->layers);
    free(model);
}

/* ---- access ---- */

const rw_model_info *rw_model_get_info(const rw_model *model) {
    return &model->info;
}

const rw_model_layer *rw_model_get_layer(const rw_model *model, int64_t index) {
    return index >= 0 && index < model->info.num_layers ? &model->layers[index] : NULL;
}

const rw_model_rope *rw_model_get_rope(const rw_model *model, int64_t index) {
    return index >= 0 && index < model->info.num_ropes ? &model->ropes[index] : NULL;
}

/* The embedding of full_attention, or the only one; else NULL. */
static const rwi_layer_kind *default_kind(const rw_model *model) {
    const rwi_layer_kind *kind = rwi_model_find_kind(model, "full_attention");
    if (kind && kind->rope >= 0)
        return kind;
    for (int32_t i = 0; i < model->num_kinds && model->info.num_ropes == 1; i++)
        if (model->kinds[i].rope >= 0)
            return &model->kinds[i];
    return NULL;
}

static rw_status fail_default(const rw_model *model, rw_message *message) {
    char names[160] = "";
    for (int32_t i = 0; i < model->num_kinds; i++) {
        size_t used = strlen(names);
        if (model->kinds[i].rope >= 0)
            snprintf(names + used, sizeof names - used, "%s%s", used ? " or " : "",
                     model->kinds[i].type);
    }
    return rwi_io_fail(message, RW_INVALID_ARGUMENT,
                       "%.60s: no layer type is given, expected %.150s", model->source, names);
}

static bool has_type(const rw_model *model, const char *type) {
    for (int64_t i = 0; i < model->info.num_layers; i++)
        if (strcmp(model->layers[i].type, type) == 0)
            return true;
    return false;
}

rw_status rw_model_find_rope(const rw_model *model, const char *layer_type,
                             const rw_model_rope **rope, rw_message *message) {
    const rwi_layer_kind *kind;
    *rope = NULL;
    if (model->info.num_ropes == 0)
        return rwi_io_fail(message, RW_INVALID_ARGUMENT, "%.100s: %.140s", model->source,
                           model->without);
    if (!layer_type)
        kind = default_kind(model);
    else if (strcmp(layer_type, "full_attention") == 0 && rwi_model_find_kind(model, ""))
        kind = rwi_model_find_kind(model, "");
    else
        kind = rwi_model_find_kind(model, layer_type);
    if (kind && kind->rope >= 0) {
        *rope = &model->ropes[kind->rope];
        return RW_OK;
    }
    if (!layer_type)
        return fail_default(model, message);
    return rwi_io_fail(message, RW_INVALID_ARGUMENT,
                       has_type(model, layer_type)
                           ? "%.100s: layers of type %.40s have no rotary position embedding"
                           : "%.100s: the model has no layer type %.40s",
                       model->source, layer_type);
}
