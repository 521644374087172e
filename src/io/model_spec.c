/* The spec of one type of layers.
 *
 * Source: transformers 5.24, modeling_rope_utils.py and compute_default_rope_parameters() of the
 * modeling files. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/io_error.h"
#include "model_reader.h"

static const char *const type_names[] = {
    [RW_ROPE_DEFAULT] = "default",           [RW_ROPE_LINEAR] = "linear",
    [RW_ROPE_DYNAMIC] = "dynamic",           [RW_ROPE_YARN] = "yarn",
    [RW_ROPE_LONGROPE] = "longrope",         [RW_ROPE_LLAMA3] = "llama3",
    [RW_ROPE_PROPORTIONAL] = "proportional",
};

const char *rw_rope_type_name(rw_rope_type type) {
    const size_t count = sizeof type_names / sizeof type_names[0];
    return (size_t)type < count ? type_names[type] : "unknown type";
}

const char *rw_rope_pairing_name(rw_rope_pairing pairing) {
    if (pairing == RW_ROPE_HALF)
        return "half";
    return pairing == RW_ROPE_INTERLEAVED ? "interleaved" : "unknown pairing";
}

/* ---- type ---- */

/* Names that transformers replaces by others. */
static const char *translate(rwi_model_reader *reader, const char *name) {
    bool phi = reader->model->traits & RWI_YARN_IS_LONGROPE;
    if (strcmp(name, "su") == 0 || (phi && strcmp(name, "yarn") == 0))
        return "longrope"; /* former name in Phi-3 */
    if (strcmp(name, "xdrope") == 0)
        return "dynamic"; /* Hunyuan */
    if (strcmp(name, "mrope") != 0)
        return name;
    if (!rwi_json_value(rwi_model_scaling(reader, "mrope_section")))
        rwi_json_fail(&reader->json, "mrope_section is absent, expected one for type mrope");
    return "default"; /* Qwen2-VL: determined by the sections */
}

/* rope_type, formerly type. */
static void read_type(rwi_model_reader *reader) {
    rw_rope_spec *spec = &reader->result->rope.spec;
    const char *key = rwi_json_value(rwi_model_scaling(reader, "rope_type")) ? "rope_type" : "type";
    const char *name = rwi_json_string(&reader->json, rwi_model_scaling(reader, key), "default");
    const char *known = translate(reader, name);
    for (size_t i = 0; i < sizeof type_names / sizeof type_names[0]; i++) {
        if (strcmp(type_names[i], known) == 0) {
            spec->type = (rw_rope_type)i;
            return;
        }
    }
    rwi_json_fail(&reader->json,
                  "%s is \"%.40s\", expected default, linear, dynamic, yarn, longrope, llama3 or "
                  "proportional",
                  key, name);
}

/* ---- columns ---- */

/* Sets `element` if a file has one number for each layer instead of a single one (Step 3.5). */
static void of_layer(rwi_model_reader *reader, const char *key, const json_t **element) {
    const json_t *list = rwi_json_value(rwi_model_field(reader, key));
    if (!json_is_array(list))
        return;
    int64_t layer = reader->chosen ? rwi_model_find_layer(reader, reader->chosen) : -1;
    *element = layer < 0 ? NULL : json_array_get(list, (size_t)layer);
    if (!json_is_number(*element))
        rwi_json_fail(&reader->json, "%s is an array without a number for layers of type %.40s",
                      key, reader->chosen ? reader->chosen : "full_attention");
}

/* Whether an inner field is used: DeepSeek V4's old scaling applies to yarn only. */
static bool inner_counts(const rwi_model_reader *reader) {
    return !(reader->model->traits & RWI_TRAILING) || reader->nested;
}

/* The share of a head's columns that is rotated, or 0 if not given. */
static double read_partial_factor(rwi_model_reader *reader) {
    static const char *const any_keys[] = {"rotary_pct", "rope_pct", "rotary_emb_fraction",
                                           "partial_rotary_factor", NULL};
    const rwi_model_type *model = reader->model;
    const char *const keys[] = {model->partial_key ? model->partial_key : "partial_rotary_factor",
                                NULL};
    rwi_json_reader *json = &reader->json;
    const json_t *element = NULL;
    double share = 0;
    if (!(model->traits & RWI_NEW_ONLY))
        share =
            rwi_json_positive(json, rwi_model_alias(reader, reader->known ? keys : any_keys), 0);
    of_layer(reader, "partial_rotary_factors", &element);
    if (element)
        share = json_number_value(element);
    if (inner_counts(reader))
        share = rwi_json_positive(json, rwi_model_scaling(reader, "partial_rotary_factor"), share);
    return share;
}

/* Sets rotary_dim columns from rotary_start. An odd width is extended by one column; the
 * frequencies still depend on the odd width: theta^(-2i / d) is (theta^((d + 1) / d))^(-2i / (d +
 * 1)). */
static void set_window(rwi_model_reader *reader, int64_t width, bool is_part) {
    rw_rope_spec *spec = &reader->result->rope.spec;
    spec->rotary_dim = width + width % 2;
    if (width % 2 != 0 && spec->type == RW_ROPE_DYNAMIC)
        rwi_json_fail(&reader->json, "rotary_dim is %lld, expected an even number for dynamic",
                      (long long)width);
    if (width % 2 != 0)
        spec->theta = pow(spec->theta, (double)spec->rotary_dim / (double)width);
    if (reader->model->traits & RWI_TRAILING)
        spec->rotary_start = spec->head_dim - spec->rotary_dim;
    if (width == spec->head_dim && width % 2 != 0)
        rwi_json_fail(&reader->json, "%s is %lld, expected an even number",
                      is_part ? "qk_rope_head_dim" : "head_dim", (long long)width);
    if (spec->rotary_dim < 2 || spec->rotary_dim > spec->head_dim)
        rwi_json_fail(&reader->json, "rotary_dim is %lld, expected 2 to head_dim's %lld",
                      (long long)spec->rotary_dim, (long long)spec->head_dim);
}

/* Whether partial_rotary_factor is used: transformers ignores it in many classes. */
static bool partial_counts(const rwi_model_reader *reader) {
    return !reader->known || reader->model->traits & RWI_PARTIAL ||
           reader->result->rope.spec.type != RW_ROPE_DEFAULT;
}

static void read_window(rwi_model_reader *reader, int64_t part) {
    rw_rope_spec *spec = &reader->result->rope.spec;
    const rwi_model_type *model = reader->model;
    int64_t width = 0;
    if (part > 0) {
        set_window(reader, part, true);
        return;
    }
    double share = partial_counts(reader) ? read_partial_factor(reader) : 0;
    bool plain = spec->type == RW_ROPE_DEFAULT;
    /* DeepSeek V4's class does not complete the rope_parameters of unscaled layers */
    bool complete = !(model->traits & RWI_TRAILING) || !inner_counts(reader) || !plain;
    if (model->traits & RWI_TRAILING && complete && share == 0 && spec->head_dim > 0)
        share =
            (double)rwi_json_length(&reader->json, rwi_model_field(reader, "qk_rope_head_dim"), 0) /
            (double)spec->head_dim;
    if (share == 0 && (!reader->known || model->traits & RWI_ROTARY_DIM))
        width = rwi_json_length(&reader->json, rwi_model_field(reader, "rotary_dim"),
                                model->rotary_dim);
    /* GPT-J and CodeGen without a width rotate the whole head */
    if (model->rotary_dim != 0 && json_is_null(json_object_get(reader->config, "rotary_dim")))
        width = 0;
    if (share == 0 && complete && partial_counts(reader) &&
        (plain || !(model->traits & RWI_NEW_ONLY)))
        share = model->partial_rotary_factor;
    spec->partial_rotary_factor = share;
    if (reader->json.status != RW_OK || spec->type == RW_ROPE_PROPORTIONAL)
        return;
    if (width % 2 != 0)
        rwi_json_fail(&reader->json, "rotary_dim is %lld, expected an even number",
                      (long long)width);
    if (share > 1)
        rwi_json_fail(&reader->json, "partial_rotary_factor is %g, expected at most 1", share);
    else if (width == 0)
        width = (int64_t)((double)spec->head_dim * (share == 0 ? 1 : share));
    if (reader->json.status == RW_OK)
        set_window(reader, width, false);
}

/* ---- theta and lengths ---- */

/* The only theta of layer_rope_theta in the chosen layers; 0 if there is no such list. */
static double read_layer_theta(rwi_model_reader *reader) {
    const json_t *thetas =
        rwi_json_array(&reader->json, rwi_model_field(reader, "layer_rope_theta"));
    double theta = 0;
    for (size_t i = 0; i < json_array_size(thetas); i++) {
        double of_layer = json_number_value(json_array_get(thetas, i));
        const rwi_model_config *config = reader->result;
        if (of_layer == 0 ||
            (reader->layer_type && ((int64_t)i >= config->num_layers ||
                                    strcmp(config->layers[i].type, reader->layer_type) != 0)))
            continue;
        if (theta != 0 && of_layer != theta)
            rwi_json_fail(&reader->json,
                          "layer_rope_theta has %g and %g, expected one theta for a type of layers",
                          theta, of_layer);
        theta = of_layer;
    }
    return theta;
}

/* rope_theta, or the model's name of it, outside the scaling. */
static double read_outer_theta(rwi_model_reader *reader, double absent) {
    static const char *const any_keys[] = {"rotary_emb_base", "rope_embedding_base",
                                           "global_rope_theta", "rope_theta", NULL};
    static const char *const any_local[] = {"local_rope_theta", "rope_local_base_freq", NULL};
    const rwi_model_type *model = reader->model;
    bool own = model->traits & RWI_OWN_THETA;
    const char *own_key = model->theta_key ? model->theta_key : "";
    const char *const keys[] = {own_key, own ? own_key : "rope_theta", NULL};
    const char *const local[] = {model->local_key ? model->local_key : "rope_local_base_freq",
                                 NULL};
    const json_t *element = NULL;
    if (!own)
        of_layer(reader, "rope_theta", &element);
    if (element)
        return json_number_value(element);
    if (reader->local)
        return rwi_json_positive(
            &reader->json, rwi_model_alias(reader, reader->known ? local : any_local), absent);
    return rwi_json_positive(&reader->json,
                             rwi_model_alias(reader, reader->known ? keys : any_keys), absent);
}

static void read_theta(rwi_model_reader *reader) {
    const rwi_model_type *model = reader->model;
    rwi_json_reader *json = &reader->json;
    const json_t *attention = rwi_json_value(rwi_model_field(reader, "attn_config"));
    double of_llama = reader->known ? 10000 : 0;
    double theta = model->theta == 0 ? of_llama : model->theta;
    if (reader->local)
        theta = model->local_theta > 0 ? model->local_theta : of_llama;
    theta = rwi_json_positive(json, (rwi_json_field){attention, "rope_theta"}, theta);
    if (!reader->nested || !(model->traits & RWI_INNER_THETA))
        theta = read_outer_theta(reader, theta);
    double of_layers = model->nope == RWI_NOPE_THETA ? read_layer_theta(reader) : 0;
    if (json_is_null(json_object_get(reader->scaling, "rope_theta")))
        rwi_json_fail(json, "rope_theta is null: the model has no rotary position embedding");
    if (inner_counts(reader))
        theta = rwi_json_positive(json, rwi_model_scaling(reader, "rope_theta"), theta);
    if (rwi_model_is(reader, "chatglm"))
        theta *= rwi_json_positive(json, rwi_model_field(reader, "rope_ratio"), 1);
    reader->result->rope.spec.theta = of_layers > 0 ? of_layers : theta;
    if (reader->result->rope.spec.theta == 0)
        rwi_json_fail(json, "rope_theta is absent or 0, expected a positive number");
}

static void read_lengths(rwi_model_reader *reader) {
    static const char *const keys[] = {
        "max_position_embeddings", "n_positions", "seq_length", "max_seq_len",
        "model_max_length",        NULL};
    static const char original[] = "original_max_position_embeddings";
    rw_rope_spec *spec = &reader->result->rope.spec;
    spec->max_position_embeddings =
        rwi_json_length(&reader->json, rwi_model_alias(reader, keys),
                        rwi_model_default(reader, reader->model->max_positions, 2048));
    /* Phi-3 has it outside the scaling, and that value has priority. */
    int64_t inside = rwi_json_length(&reader->json, rwi_model_scaling(reader, original), 0);
    if (reader->model->original_positions > 0)
        inside = reader->model->original_positions;
    spec->original_max_position_embeddings =
        reader->nested ? inside
                       : rwi_json_length(&reader->json, rwi_model_field(reader, original), inside);
}

/* ---- scaling ---- */

static void require(rwi_model_reader *reader, const char *key) {
    if (!rwi_json_value(rwi_model_scaling(reader, key)))
        rwi_json_fail(&reader->json, "%s is absent, expected one for rope_type %s", key,
                      rw_rope_type_name(reader->result->rope.spec.type));
}

/* Copies an array of positive numbers to `factors`. */
static void read_factors(rwi_model_reader *reader, const char *key, double *factors) {
    const json_t *array = rwi_json_array(&reader->json, rwi_model_scaling(reader, key));
    size_t expected = (size_t)reader->result->rope.spec.rotary_dim / 2;
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

static void read_longrope(rwi_model_reader *reader) {
    rw_rope_spec *spec = &reader->result->rope.spec;
    rwi_json_reader *json = &reader->json;
    spec->attention_factor =
        rwi_json_positive(json, rwi_model_scaling(reader, "attention_factor"), 0);
    spec->short_mscale = rwi_json_positive(json, rwi_model_scaling(reader, "short_mscale"), 0);
    spec->long_mscale = rwi_json_positive(json, rwi_model_scaling(reader, "long_mscale"), 0);
    require(reader, "short_factor");
    require(reader, "long_factor");
    if (reader->json.status != RW_OK)
        return;
    size_t count = (size_t)spec->rotary_dim / 2;
    double *factors = calloc(2 * count + 1, sizeof *factors);
    if (!factors) {
        json->status =
            rwi_io_fail(json->message, RW_OUT_OF_MEMORY, "no memory for %zu factors", count);
        return;
    }
    reader->result->factors = factors;
    spec->short_factor = factors;
    spec->long_factor = factors + count;
    read_factors(reader, "short_factor", factors);
    read_factors(reader, "long_factor", factors + count);
}

static void read_yarn(rwi_model_reader *reader) {
    rw_rope_spec *spec = &reader->result->rope.spec;
    rwi_json_reader *json = &reader->json;
    /* transformers reads truncate next to the layer types, not in them */
    const rwi_json_field truncate = {reader->all_scaling, "truncate"};
    double derived = inner_counts(reader) ? 0 : 1;
    spec->beta_fast = rwi_json_not_negative(json, rwi_model_scaling(reader, "beta_fast"), 0);
    spec->beta_slow = rwi_json_not_negative(json, rwi_model_scaling(reader, "beta_slow"), 0);
    spec->mscale = rwi_json_not_negative(json, rwi_model_scaling(reader, "mscale"), 0);
    spec->mscale_all_dim =
        rwi_json_not_negative(json, rwi_model_scaling(reader, "mscale_all_dim"), 0);
    spec->no_truncate = !rwi_json_bool(json, truncate, true);
    spec->attention_factor =
        rwi_json_positive(json, rwi_model_scaling(reader, "attention_factor"), derived);
}

static void read_llama3(rwi_model_reader *reader) {
    rw_rope_spec *spec = &reader->result->rope.spec;
    rwi_json_reader *json = &reader->json;
    require(reader, "factor");
    require(reader, "low_freq_factor");
    require(reader, "high_freq_factor");
    spec->low_freq_factor =
        rwi_json_positive(json, rwi_model_scaling(reader, "low_freq_factor"), 0);
    spec->high_freq_factor =
        rwi_json_positive(json, rwi_model_scaling(reader, "high_freq_factor"), 0);
    /* Llama 4 Scout has 1 for both: no transition between kept and divided frequencies */
    if (reader->known && spec->high_freq_factor == spec->low_freq_factor)
        spec->high_freq_factor = nextafter(spec->high_freq_factor, INFINITY);
}

/* Hunyuan: dynamic with alpha is a larger theta, independent of the length. */
static void read_alpha(rwi_model_reader *reader) {
    rw_rope_spec *spec = &reader->result->rope.spec;
    double d = (double)spec->head_dim;
    rwi_json_field field = rwi_model_scaling(reader, "alpha");
    if (!reader->known && rwi_json_value(field))
        rwi_json_fail(&reader->json, "alpha is given, which is known only for Hunyuan's models");
    if (!(reader->model->traits & RWI_NTK_ALPHA))
        return;
    double alpha = rwi_json_not_negative(&reader->json, field, 0);
    if (alpha == 0)
        return;
    if (spec->head_dim < 3)
        rwi_json_fail(&reader->json, "head_dim is %lld, expected more than 2 with alpha",
                      (long long)spec->head_dim);
    spec->type = RW_ROPE_DEFAULT;
    spec->theta *= pow(alpha, d / (d - 2));
}

/* Reads the fields of each type; the library checks the remaining ones. */
static void read_scaling(rwi_model_reader *reader) {
    rw_rope_spec *spec = &reader->result->rope.spec;
    rwi_json_reader *json = &reader->json;
    if (spec->type == RW_ROPE_DYNAMIC)
        read_alpha(reader);
    if (spec->type == RW_ROPE_DEFAULT)
        return; /* Hugging Face ignores all other fields */
    spec->factor = rwi_json_positive(json, rwi_model_scaling(reader, "factor"), 0);
    switch (spec->type) {
    case RW_ROPE_DEFAULT:
    case RW_ROPE_PROPORTIONAL:
        break;
    case RW_ROPE_LINEAR:
    case RW_ROPE_DYNAMIC:
        require(reader, "factor");
        break;
    case RW_ROPE_YARN:
        read_yarn(reader);
        break;
    case RW_ROPE_LONGROPE:
        read_longrope(reader);
        break;
    case RW_ROPE_LLAMA3:
        read_llama3(reader);
        break;
    }
}

/* ---- the whole spec ---- */

static void read_pairing(rwi_model_reader *reader, int64_t part) {
    rwi_model_config *config = reader->result;
    config->rope.spec.pairing = reader->model->pairing;
    bool interleaved = config->rope.spec.pairing == RW_ROPE_INTERLEAVED;
    if (reader->model->traits & RWI_PAIRING_FIELD)
        interleaved =
            rwi_json_bool(&reader->json, rwi_model_field(reader, "rope_interleave"), interleaved);
    if (reader->model->rope_part > 0 && part == 0)
        interleaved = false; /* DeepSeek without latent attention is Llama */
    config->rope.spec.pairing = interleaved ? RW_ROPE_INTERLEAVED : RW_ROPE_HALF;
    if (reader->pairing)
        config->rope.spec.pairing = *reader->pairing;
}

/* Refuses fields of some models that this library does not support. */
static void refuse_more(rwi_model_reader *reader) {
    rwi_json_reader *json = &reader->json;
    const json_t *scaled = rwi_json_value(rwi_model_field(reader, "rope_scaling_layers"));
    double scale = rwi_json_positive(json, rwi_model_field(reader, "rope_position_scale"), 1);
    if (rwi_json_bool(json, rwi_model_field(reader, "position_encoding_2d"), false))
        rwi_json_fail(json, "position_encoding_2d is true: each half of a head is rotated by its "
                            "own id, half-split, which is not supported");
    if (rwi_json_bool(json, rwi_model_field(reader, "rotary_value"), false))
        rwi_json_fail(json, "rotary_value is true: v is rotated as well as q and k, which is not "
                            "supported");
    if (scale != 1)
        rwi_json_fail(json, "rope_position_scale is %g, expected 1", scale);
    if (rwi_model_is(reader, "molmo2_text") && reader->result->rope.spec.type != RW_ROPE_DEFAULT &&
        json_is_array(scaled))
        rwi_json_fail(json, "rope_scaling_layers: only some layers are scaled, which is not "
                            "supported");
}

/* Runs the library's own checks, so that their errors include the file's name. */
static void check_spec(rwi_model_reader *reader) {
    rw_message message = {""};
    rw_rope_frequency_list list = {0};
    const rw_rope_spec *spec = &reader->result->rope.spec;
    /* longrope has different factors for lengths beyond the training length */
    const int64_t lengths[] = {0, spec->type == RW_ROPE_LONGROPE ? INT64_MAX : 0};
    for (int i = 0; i < 2; i++)
        if (reader->json.status == RW_OK &&
            rw_rope_frequencies(spec, lengths[i], &list, &message) != RW_OK)
            rwi_json_fail(&reader->json, "%s", message.text);
}

void rwi_model_read_spec(rwi_model_reader *reader) {
    rwi_model_config *config = reader->result;
    read_type(reader);
    refuse_more(reader);
    int64_t part = rwi_model_read_heads(reader);
    read_pairing(reader, part);
    read_theta(reader);
    if (reader->json.status == RW_OK)
        read_window(reader, part);
    read_lengths(reader);
    if (reader->json.status == RW_OK)
        read_scaling(reader);
    rwi_model_read_axes(reader);
    config->rope.inverse = reader->model->traits & RWI_INVERSE;
    config->rope.learned_scale =
        reader->model->traits & RWI_LEARNED_SCALE ? "rotary_emb.alpha" : NULL;
    check_spec(reader);
}
