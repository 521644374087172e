/* ropewalk demo: the rotary embeddings of real models, on every backend that this host can use. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "harness/harness.h"
#include "rotation.h"
#include "drivers/rope_reference.h"

/* Tokens at the end of a model's context, where angles are largest. An emulated GPU is slow. */
#define TOKENS 1024
#define EMULATED_TOKENS 32

/* The number of measurements, and the minimum time of one. */
#define MEASUREMENTS 9
#define MEASURED_SECONDS 0.005

/* One model on one backend. */
typedef struct trial {
    rw_context *context;
    const rw_model_rope *model;
    rw_rope *rope;
    int64_t tokens;
    int64_t offset; /* the id of the first token */
    double worst;   /* largest difference from double */
    double seconds; /* a call over q and k in bf16 */
    double bytes;   /* read and written by it */
} trial;

/* k follows q in memory: [tokens, heads, head_dim]. */
static rw_rope_args arguments(const trial *t, void *data, rw_dtype dtype) {
    int64_t width = t->model->spec.head_dim;
    int64_t q_shape[3] = {t->tokens, t->model->num_heads, width};
    int64_t k_shape[3] = {t->tokens, t->model->num_kv_heads, width};
    char *k =
        (char *)data + (size_t)(t->tokens * t->model->num_heads * width) * rw_dtype_size(dtype);
    return (rw_rope_args){.q = rw_tensor_contiguous(data, dtype, 3, q_shape),
                          .k = rw_tensor_contiguous(k, dtype, 3, k_shape),
                          .offset = t->offset,
                          .direction = t->model->inverse ? RW_ROPE_INVERSE : RW_ROPE_FORWARD};
}

static int64_t num_elements(const trial *t) {
    return t->tokens * (t->model->num_heads + t->model->num_kv_heads) * t->model->spec.head_dim;
}

static rw_status copy(const trial *t, void *destination, const void *source, rw_copy_kind kind) {
    size_t bytes = (size_t)num_elements(t) * sizeof(float);
    return rw_copy(t->context, &(rw_copy_args){destination, source, bytes, kind});
}

/* The largest difference between `got` and `source` rotated in double. */
static double worst_error(const trial *t, const float *source, const float *got) {
    const rw_rope_spec *spec = &t->model->spec;
    int64_t width = spec->head_dim, rows = num_elements(t) / width;
    int64_t q_rows = t->tokens * t->model->num_heads;
    double *inv_freq = rwt_allocate((size_t)width * sizeof *inv_freq);
    double factor, worst = 0;
    int64_t n = rwt_rope_frequencies(spec, t->offset + t->tokens, inv_freq, &factor);
    bool pairs = spec->pairing == RW_ROPE_INTERLEAVED;
    for (int64_t row = 0; row < rows; row++) {
        int64_t token =
            row < q_rows ? row / t->model->num_heads : (row - q_rows) / t->model->num_kv_heads;
        const float *x = source + row * width + spec->rotary_start;
        const float *y = got + row * width + spec->rotary_start;
        for (int64_t i = 0; i < n; i++) {
            double angle = (double)(t->offset + token) * inv_freq[i];
            double c = factor * cos(angle), s = factor * sin(t->model->inverse ? -angle : angle);
            int64_t first = pairs ? 2 * i : i, second = pairs ? 2 * i + 1 : n + i;
            worst = rwt_worse(worst, fabs(x[first] * c - x[second] * s - y[first]));
            worst = rwt_worse(worst, fabs(x[second] * c + x[first] * s - y[second]));
        }
    }
    free(inv_freq);
    return worst;
}

static rw_status check_accuracy(trial *t, void *device) {
    int64_t count = num_elements(t);
    float *source = rwt_allocate((size_t)count * sizeof *source);
    float *got = rwt_allocate((size_t)count * sizeof *got);
    rwt_random random = {1};
    for (int64_t i = 0; i < count; i++)
        source[i] = (float)rwt_random_uniform(&random, -2, 2);
    rw_rope_args args = arguments(t, device, RW_F32);
    rw_status status = copy(t, device, source, RW_COPY_HOST_TO_DEVICE);
    if (status == RW_OK)
        status = rw_rope_apply(t->context, t->rope, &args);
    if (status == RW_OK)
        status = rw_synchronize(t->context);
    if (status == RW_OK)
        status = copy(t, got, device, RW_COPY_DEVICE_TO_HOST);
    if (status == RW_OK)
        t->worst = worst_error(t, source, got);
    free(source);
    free(got);
    return status;
}

/* The time of one call, from `calls` consecutive ones. */
static rw_status time_calls(trial *t, const rw_rope_args *args, int64_t calls, double *seconds) {
    rw_status status = RW_OK;
    double begin = rwt_now();
    for (int64_t i = 0; i < calls && status == RW_OK; i++)
        status = rw_rope_apply(t->context, t->rope, args);
    if (status == RW_OK)
        status = rw_synchronize(t->context);
    *seconds = (rwt_now() - begin) / (double)calls;
    return status;
}

static int compare_doubles(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The median of several measurements, each of as many calls as take the minimum time. */
static rw_status measure_speed(trial *t, void *device) {
    rw_rope_args args = arguments(t, device, RW_BF16);
    double seconds[MEASUREMENTS];
    int64_t calls = 1;
    rw_status status = time_calls(t, &args, calls, &seconds[0]);
    while (status == RW_OK && seconds[0] * (double)calls < MEASURED_SECONDS) {
        calls *= 4;
        status = time_calls(t, &args, calls, &seconds[0]);
    }
    for (int i = 0; i < MEASUREMENTS && status == RW_OK; i++)
        status = time_calls(t, &args, calls, &seconds[i]);
    qsort(seconds, MEASUREMENTS, sizeof seconds[0], compare_doubles);
    t->seconds = seconds[MEASUREMENTS / 2];
    double share = (double)t->model->spec.rotary_dim / (double)t->model->spec.head_dim;
    t->bytes = 2 * share * (double)num_elements(t) * (double)rw_dtype_size(RW_BF16);
    return status;
}

static rw_status try_model(trial *t) {
    const rw_rope_spec *spec = &t->model->spec;
    int64_t length =
        spec->max_position_embeddings > t->tokens ? spec->max_position_embeddings : t->tokens;
    t->offset = length - t->tokens;
    rw_rope_options options = {.spec = *spec, .seq_len = length, .max_positions = length};
    void *device = NULL;
    rw_status status = rw_rope_create(t->context, &options, &t->rope);
    if (status == RW_OK)
        status = rw_alloc(t->context, (size_t)num_elements(t) * sizeof(float), &device);
    if (status == RW_OK)
        status = check_accuracy(t, device);
    if (status == RW_OK)
        status = measure_speed(t, device);
    rw_free(t->context, device);
    rw_rope_destroy(t->rope);
    return status;
}

static void print_row(const char *name, const char *target, const trial *t) {
    const rw_rope_spec *spec = &t->model->spec;
    char heads[64], shape[64];
    snprintf(heads, sizeof heads, "%lld+%lld", (long long)t->model->num_heads,
             (long long)t->model->num_kv_heads);
    snprintf(shape, sizeof shape, "%lld/%lld", (long long)spec->rotary_dim,
             (long long)spec->head_dim);
    printf("%-18s %-8s %-11s %8s %8s %8lld  %-17s %9.1e %6lld %10.1f %9.1f\n", name,
           rw_rope_type_name(spec->type), rw_rope_pairing_name(spec->pairing), heads, shape,
           (long long)(t->offset + t->tokens - 1), target, t->worst, (long long)t->tokens,
           t->seconds * 1e6, t->bytes / t->seconds * 1e-9);
}

/* The file's name without folder and ".json". */
static void model_name(const char *path, char *name, size_t size) {
    const char *slash = strrchr(path, '/');
    snprintf(name, size, "%s", slash ? slash + 1 : path);
    char *dot = strrchr(name, '.');
    if (dot)
        *dot = '\0';
}

/* Every backend that can be opened, or the one that was requested. */
typedef struct backends {
    rw_context *contexts[2];
    int count;
} backends;

static int try_on_all(const rw_model_rope *model, const char *path, const backends *on) {
    char name[256];
    model_name(path, name, sizeof name);
    int worst_status = CLI_OK;
    if (model->num_heads == 0)
        return cli_fail(CLI_FAILED, "%s: no num_attention_heads", path);
    for (int i = 0; i < on->count; i++) {
        rw_context_info info = rw_context_get_info(on->contexts[i]);
        bool emulated = strcmp(info.platform, "emulated") == 0;
        trial t = {.context = on->contexts[i],
                   .model = model,
                   .tokens = emulated ? EMULATED_TOKENS : TOKENS};
        if (try_model(&t) == RW_OK)
            print_row(name, cli_label(&info).text, &t);
        else
            worst_status = cli_fail(CLI_FAILED, "%s: %s", path, rw_last_error(t.context));
    }
    return worst_status;
}

static int run_models(const cli_options *options, const backends *on) {
    int worst_status = CLI_OK;
    printf("%-18s %-8s %-11s %8s %8s %8s  %-17s %9s %6s %10s %9s\n", "model", "type", "pairing",
           "heads", "columns", "last id", "on", "f32 error", "tokens", "bf16 us", "GB/s");
    for (int i = 0; i < options->num_operands; i++) {
        cli_model model;
        rw_message message;
        int status = CLI_FAILED;
        if (cli_model_load(&model, options, options->operands[i], &message) != RW_OK) {
            cli_fail(CLI_FAILED, "%s", message.text);
        } else if (cli_check_config(&model, options->operands[i], &message) != RW_OK) {
            cli_fail(CLI_FAILED, "%s", message.text);
            cli_model_free(&model);
        } else {
            status = try_on_all(model.rope, options->operands[i], on);
            cli_model_free(&model);
        }
        if (status != CLI_OK)
            worst_status = status;
    }
    return worst_status;
}

/* Opens the CPU and the GPU if they are usable; a requested backend that is not usable is an error.
 */
static int open_backends(const cli_options *options, backends *on) {
    rw_message message;
    rw_context_options where = cli_context_options(options);
    if (options->given & CLI_OPTION_BACKEND) {
        if (rw_context_create(&where, &on->contexts[0], &message) != RW_OK)
            return cli_fail(CLI_FAILED, "%s", message.text);
        on->count = 1;
        return CLI_OK;
    }
    for (rw_backend_kind kind = RW_BACKEND_CPU; kind <= RW_BACKEND_HIP; kind++) {
        where = (rw_context_options){.backend = kind};
        if (rw_context_create(&where, &on->contexts[on->count], &message) == RW_OK)
            on->count++;
        else
            printf("not used: %s\n", message.text);
    }
    return CLI_OK;
}

/* A pattern of two documents with a window and global positions, as `ropewalk mask` shows it. */
static int draw_pattern(const cli_options *options) {
    cli_options mask = {.given = options->given & CLI_OPTION_BACKEND,
                        .backend = options->backend,
                        .device = options->device,
                        .pattern = "causal,window=12,global=0:30,documents=0:24",
                        .seq_q = 56};
    printf("\n");
    return cli_mask.run(&mask);
}

static int run(const cli_options *options) {
    backends on = {.count = 0};
    if (options->num_operands == 0)
        return cli_fail(CLI_USAGE, "demo: no config.json given; see ropewalk demo --help");
    int status = open_backends(options, &on);
    if (status == CLI_OK)
        status = run_models(options, &on);
    while (on.count > 0)
        rw_context_destroy(on.contexts[--on.count]);
    return status == CLI_OK ? draw_pattern(options) : status;
}

const cli_command cli_demo = {
    .name = "demo",
    .summary = "Rotate the shapes of models on every usable backend",
    .options = CLI_OPTION_BACKEND | CLI_OPTION_PAIRING,
    .operands = "CONFIG...",
    .details =
        "CONFIG is a model's config.json. Rotates q and k of one layer at the end of the\n"
        "model's context. \"f32 error\" is the largest difference from a computation in double,\n"
        "on values from -2 to 2; time and GB/s are those of a call in bf16 whose tensors\n"
        "may stay in the caches. At the end a picture of an attention pattern.\n",
    .run = run,
};
