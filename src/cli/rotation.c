#include "rotation.h"

#include <math.h>

#include "common/io_error.h"

/* The maximum number of positions of a table. */
#define MAX_TABLE ((int64_t)1 << 31)

rw_status cli_model_load(cli_model *model, const cli_options *options, const char *path,
                         rw_message *message) {
    const rw_model_source source = {
        .path = path,
        .pairing = options->given & CLI_OPTION_PAIRING ? &options->pairing : NULL,
    };
    *model = (cli_model){0};
    rw_status status = rw_model_read(&source, &model->model, message);
    if (status == RW_OK)
        status = rw_model_find_rope(model->model, options->layer_type, &model->rope, message);
    if (status == RW_OK)
        model->info = rw_model_get_info(model->model);
    else
        cli_model_free(model);
    return status;
}

void cli_model_free(cli_model *model) {
    rw_model_free(model->model);
    *model = (cli_model){0};
}

rw_status cli_check_config(const cli_model *model, const char *path, rw_message *message) {
    if (!model->rope->learned_scale)
        return RW_OK;
    return rwi_io_fail(message, RW_UNSUPPORTED,
                       "%.120s: model_type %s multiplies its frequencies by exp(%s) of the "
                       "checkpoint, which is not supported",
                       path, model->info->model_type, model->rope->learned_scale);
}

rw_status cli_rotation_load(cli_rotation *rotation, const cli_options *options,
                            rw_message *message) {
    *rotation = (cli_rotation){.options = options};
    rw_status status = cli_model_load(&rotation->config, options, options->config, message);
    return status == RW_OK ? cli_check_config(&rotation->config, options->config, message) : status;
}

void cli_rotation_free(cli_rotation *rotation) {
    cli_array_free(&rotation->q);
    cli_array_free(&rotation->k);
    cli_array_free(&rotation->positions);
    cli_model_free(&rotation->config);
}

/* ---- lengths ---- */

static int64_t heads_of(const cli_array *array, bool bhsd) {
    return array->shape[bhsd ? 1 : 2];
}

/* Checks that the number of heads is the model's `whole` (0: not in the config) or a divisor of it
 * (a shard): an axis of positions in its place would be treated as heads. */
static rw_status check_shard(const cli_rotation *rotation, const cli_array *array, int64_t whole,
                             rw_message *message) {
    bool bhsd = rotation->options->bhsd;
    int64_t heads = heads_of(array, bhsd);
    if (whole == 0 || heads == 0 || whole % heads == 0)
        return RW_OK;
    return rwi_io_fail(message, RW_INVALID_ARGUMENT,
                       "%.80s: %s has %lld heads with --layout %s, expected the config's "
                       "%lld or a divisor of them",
                       rotation->options->input, array->name, (long long)heads,
                       bhsd ? "bhsd" : "bshd", (long long)whole);
}

/* Whether q and k, read in this order of axes, have all heads of the model. */
static bool has_all_heads(const cli_rotation *rotation, bool bhsd) {
    const rw_model_rope *config = rotation->config.rope;
    const cli_array *q = &rotation->q, *k = &rotation->k;
    return (!q->data || heads_of(q, bhsd) == config->num_heads) &&
           (!k->data || heads_of(k, bhsd) == config->num_kv_heads);
}

/* If one order of axes matches a shard and the other the whole model, --layout is required. */
static rw_status check_order(const cli_rotation *rotation, rw_message *message) {
    const cli_options *options = rotation->options;
    const cli_array *any = rotation->q.data ? &rotation->q : &rotation->k;
    if (rotation->config.rope->num_heads == 0 || options->given & CLI_OPTION_LAYOUT ||
        has_all_heads(rotation, options->bhsd) || !has_all_heads(rotation, !options->bhsd))
        return RW_OK;
    return rwi_io_fail(message, RW_INVALID_ARGUMENT,
                       "%.80s: %s may have %lld heads of %lld positions or the config's %lld heads "
                       "of %lld positions, expected --layout to say which",
                       options->input, any->name, (long long)any->shape[2],
                       (long long)any->shape[1], (long long)any->shape[1],
                       (long long)any->shape[2]);
}

/* Reports errors with the lengths of the file, before the axes are permuted for the library. */
static rw_status check_heads(const cli_rotation *rotation, const cli_array *array, int64_t whole,
                             rw_message *message) {
    int64_t head_dim = rotation->config.rope->spec.head_dim;
    if (!array->data)
        return RW_OK;
    if (array->shape[3] == head_dim)
        return check_shard(rotation, array, whole, message);
    return rwi_io_fail(message, RW_INVALID_ARGUMENT,
                       "%.80s: %s has %lld columns in each head, expected the config's %lld",
                       rotation->options->input, array->name, (long long)array->shape[3],
                       (long long)head_dim);
}

/* One past the largest id plus offset, at least 1. */
static int64_t end_of_ids(const cli_rotation *rotation) {
    const cli_array *heads = rotation->k.data ? &rotation->k : &rotation->q;
    int64_t offset = rotation->options->offset, largest = -1, id;
    if (!rotation->positions.data) {
        int64_t seq = heads->shape[rotation->options->bhsd ? 2 : 1];
        return seq > 0 && !__builtin_add_overflow(seq, offset, &id) && id > 0 ? id : 1;
    }
    for (int64_t i = 0; i < cli_array_count(&rotation->positions); i++) {
        if (__builtin_add_overflow(cli_array_id(&rotation->positions, i), offset, &id))
            id = -1;
        largest = id > largest ? id : largest;
    }
    return largest < INT64_MAX ? largest + 1 + (largest < 0) : largest;
}

/* The maximum length according to the config and its scaling; 0 if there is none. */
static double promised_length(const rw_rope_spec *spec) {
    double length = (double)spec->max_position_embeddings;
    double original = spec->original_max_position_embeddings
                          ? (double)spec->original_max_position_embeddings
                          : length;
    switch (spec->type) {
    case RW_ROPE_DYNAMIC:
        return 0; /* no maximum: grows with the sequence */
    case RW_ROPE_LINEAR:
        return length * fmax(spec->factor, 1);
    case RW_ROPE_YARN:
    case RW_ROPE_LONGROPE:
    case RW_ROPE_LLAMA3:
        return length > 0 ? fmax(length, original * spec->factor) : 0;
    case RW_ROPE_DEFAULT:
    case RW_ROPE_PROPORTIONAL:
        break;
    }
    return length;
}

/* Chooses the sequence length, as Hugging Face does, and the length of the table: as short as
 * possible; as long as allowed if an id is out of range, so that the error states the limit. */
static void choose_lengths(cli_rotation *rotation) {
    const rw_rope_spec *spec = &rotation->config.rope->spec;
    int64_t needed = end_of_ids(rotation);
    double promised = promised_length(spec);
    int64_t limit = promised > 0 && promised < (double)MAX_TABLE ? (int64_t)promised : MAX_TABLE;
    if (!rotation->positions.data && limit < needed)
        limit = needed < MAX_TABLE ? needed : MAX_TABLE;
    rotation->end_of_ids = promised > 0 || needed > limit ? limit : 0;
    rotation->rope = (rw_rope_options){
        .spec = *spec,
        .seq_len = needed,
        .max_positions = needed <= limit ? needed : limit,
    };
}

rw_status cli_rotation_prepare(cli_rotation *rotation, rw_message *message) {
    const rw_model_rope *config = rotation->config.rope;
    rw_status status = check_heads(rotation, &rotation->q, config->num_heads, message);
    if (status == RW_OK)
        status = check_heads(rotation, &rotation->k, config->num_kv_heads, message);
    if (status == RW_OK)
        status = check_order(rotation, message);
    if (status == RW_OK)
        choose_lengths(rotation);
    return status;
}

/* ---- rotating ---- */

rw_tensor cli_as_bshd(const cli_options *options, rw_tensor tensor) {
    return tensor.rank > 0 && options->bhsd ? rw_tensor_transpose(tensor, 1, 2) : tensor;
}

/* Rotates q alone, whose first token has the id of token `before` of k. */
static rw_status apply_to_last(rw_context *context, const rw_rope *rope, rw_rope_args args,
                               int64_t before) {
    rw_tensor *ids = &args.positions;
    args.k = (rw_tensor){0};
    if (ids->data) {
        ids->data = (char *)ids->data + (size_t)before * rw_dtype_size(ids->dtype);
        ids->shape[ids->rank - 1] -= before;
    } else if (__builtin_add_overflow(args.offset, before, &args.offset)) {
        args.offset = INT64_MAX; /* out of range, as k's ids are */
    }
    return rw_rope_apply(context, rope, &args);
}

static rw_status apply(const cli_rotation *rotation, rw_context *context, const rw_rope *rope,
                       const cli_rotation_tensors *on) {
    rw_rope_args args = {
        .q = cli_as_bshd(rotation->options, on->q),
        .k = cli_as_bshd(rotation->options, on->k),
        .positions = on->positions,
        .offset = rotation->options->offset,
        .direction = rotation->options->inverse != (rotation->config.rope->inverse != 0)
                         ? RW_ROPE_INVERSE
                         : RW_ROPE_FORWARD,
    };
    int64_t before = args.k.shape[1] - args.q.shape[1];
    if (!rotation->queries_are_last || before == 0)
        return rw_rope_apply(context, rope, &args);
    rw_rope_args keys = args;
    keys.q = (rw_tensor){0};
    rw_status status = rw_rope_apply(context, rope, &keys);
    return status == RW_OK ? apply_to_last(context, rope, args, before) : status;
}

static rw_status explain(const cli_rotation *rotation, rw_context *context, rw_status status,
                         rw_message *message) {
    const char *why = rw_last_error(context);
    if (status != RW_OUT_OF_RANGE)
        return rwi_io_fail(message, status, "%s", why);
    if (rotation->end_of_ids == 0)
        return rwi_io_fail(message, status, "%.180s; expected nonnegative ids", why);
    return rwi_io_fail(message, status, "%.180s; expected 0 to %lld", why,
                       (long long)rotation->end_of_ids - 1);
}

rw_status cli_rotation_apply(const cli_rotation *rotation, rw_context *context,
                             const cli_rotation_tensors *on, rw_message *message) {
    rw_rope *rope = NULL;
    rw_status status = rw_rope_create(context, &rotation->rope, &rope);
    if (status == RW_OK)
        status = apply(rotation, context, rope, on);
    /* also after a failure: no work may be pending when the tables are destroyed */
    rw_status finished = rw_synchronize(context);
    rw_rope_destroy(rope);
    status = status != RW_OK ? status : finished;
    return status == RW_OK ? RW_OK : explain(rotation, context, status, message);
}
