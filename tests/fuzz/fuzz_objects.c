/* What operations need: contexts, memory, tables; and the tables that all calls share. */
#include "fuzz_tensors.h"

#include <math.h>

#define MAX_FREQUENCIES 512

/* ---- shared tables ---- */

static const int64_t widths[] = {8, 16, 24, 64};
#define NUM_WIDTHS (sizeof widths / sizeof *widths)
#define WAYS 4

static rw_rope *ropes[NUM_WIDTHS][WAYS];
static rw_sinusoid *sinusoids[NUM_WIDTHS];
static rw_t5 *t5s[2];

static void open_ropes(rw_context *context, size_t n) {
    const int64_t d = widths[n];
    const rw_rope_options options[WAYS] = {
        {.spec = {.head_dim = d}, .max_positions = 64},
        {.spec = {.head_dim = d, .pairing = RW_ROPE_INTERLEAVED}, .max_positions = 9},
        {.spec = {.head_dim = d,
                  .rotary_start = 2,
                  .rotary_dim = d - 2,
                  .axes = RW_ROPE_AXES_MROPE_INTERLEAVED,
                  .sections = {d / 2 - 3, 1, 1}},
         .max_positions = 100},
        {.spec = {.head_dim = d, .rotary_dim = d / 4 * 4, .axes = RW_ROPE_AXES_VISION_2D},
         .max_positions = 32}};
    for (int way = 0; way < WAYS; way++)
        FUZZ_REQUIRE(rw_rope_create(context, &options[way], &ropes[n][way]) == RW_OK);
}

void fuzz_tables_open(rw_context *context) {
    for (size_t n = 0; n < NUM_WIDTHS; n++) {
        const rw_sinusoid_options options = {.hidden = widths[n], .max_positions = 40};
        FUZZ_REQUIRE(rw_sinusoid_create(context, &options, &sinusoids[n]) == RW_OK);
        open_ropes(context, n);
    }
    for (int causal = 0; causal < 2; causal++) {
        const rw_t5_options options = {.num_buckets = 8, .max_distance = 20, .causal = causal};
        FUZZ_REQUIRE(rw_t5_create(context, &options, &t5s[causal]) == RW_OK);
    }
}

static size_t width_index(int64_t width) {
    size_t n = 0;
    while (n < NUM_WIDTHS && widths[n] != width)
        n++;
    return n;
}

const rw_rope *fuzz_rope(fuzz_call *call) {
    const uint8_t byte = fuzz_byte(call);
    const size_t n = byte >= 240 ? byte - 240u : width_index(fuzz_length(call, 'd'));
    return n < NUM_WIDTHS ? ropes[n][byte % WAYS] : NULL;
}

const rw_sinusoid *fuzz_sinusoid(fuzz_call *call) {
    const uint8_t byte = fuzz_byte(call);
    const size_t n = byte >= 240 ? byte - 240u : width_index(fuzz_length(call, 'x'));
    return n < NUM_WIDTHS ? sinusoids[n] : NULL;
}

const rw_t5 *fuzz_t5(fuzz_call *call) {
    const int n = fuzz_choice(call, 2);
    return n == 0 || n == 1 ? t5s[n] : NULL;
}

/* ---- specs ---- */

/* A count with which a valid call neither allocates much nor computes for long: small, or larger
 * than any memory. */
static int64_t bounded(fuzz_call *call, int64_t most) {
    const int64_t number = fuzz_number(call);
    return number > most && number < (int64_t)1 << 60 ? number % most : number;
}

static void fill_spec(fuzz_call *call, rw_rope_spec *spec) {
    *spec = (rw_rope_spec){.type = (rw_rope_type)fuzz_choice(call, 7),
                           .pairing = (rw_rope_pairing)fuzz_choice(call, 2)};
    spec->head_dim = bounded(call, 2 * MAX_FREQUENCIES);
    spec->rotary_start = fuzz_rarely(call) ? fuzz_number(call) : 0;
    spec->rotary_dim = fuzz_rarely(call) ? fuzz_number(call) : 0;
    spec->max_position_embeddings = fuzz_number(call);
    spec->original_max_position_embeddings = fuzz_number(call);
    double *const numbers[] = {&spec->factor,
                               &spec->low_freq_factor,
                               &spec->high_freq_factor,
                               &spec->theta,
                               &spec->partial_rotary_factor,
                               &spec->attention_factor,
                               &spec->beta_fast,
                               &spec->beta_slow,
                               &spec->mscale,
                               &spec->mscale_all_dim,
                               &spec->short_mscale,
                               &spec->long_mscale};
    for (size_t n = 0; n < sizeof numbers / sizeof *numbers; n++)
        *numbers[n] = fuzz_factor(call);
    spec->no_truncate = fuzz_byte(call) % 2;
    spec->axes = (rw_rope_axes)fuzz_choice(call, 5);
    for (int n = 0; n < 3; n++)
        spec->sections[n] = fuzz_number(call);
}

/* The arrays of a spec, as long as the widest head that it may have. */
static void fill_arrays(fuzz_call *call, rw_rope_spec *spec) {
    static double factors[MAX_FREQUENCIES];
    static float divisors[MAX_FREQUENCIES];
    const double first = fuzz_factor(call), all = fuzz_factor(call);
    for (int n = 0; n < MAX_FREQUENCIES; n++) {
        factors[n] = n == 0 && first != 0 ? first : all != 0 ? all : 1;
        divisors[n] = (float)factors[n];
    }
    const uint8_t which = fuzz_byte(call);
    if (spec->type == RW_ROPE_LONGROPE ? which % 8 != 7 : which % 8 == 7) {
        spec->short_factor = factors;
        spec->long_factor = which & 16 ? NULL : factors;
    }
    if (which & 32)
        spec->frequency_factors = divisors;
}

static void rope_frequencies(fuzz_call *call) {
    rw_rope_spec spec;
    rw_message message = {""};
    fill_spec(call, &spec);
    fill_arrays(call, &spec);
    const int64_t seq_len = fuzz_number(call), capacity = fuzz_byte(call) * 2;
    rw_rope_frequency_list list = {.capacity = capacity};
    list.inv_freq = fuzz_memory(call, (size_t)capacity * sizeof *list.inv_freq);
    const rw_tensor out = {.data = list.inv_freq,
                           .dtype = RW_I64,
                           .rank = 1,
                           .shape = {list.inv_freq ? capacity : 0},
                           .stride = {1}};
    fuzz_output(call, &out, NULL);
    const rw_status status = rw_rope_frequencies(&spec, seq_len, &list, &message);
    fuzz_check_message(call, status, &message);
    FUZZ_REQUIRE(status != RW_OK || (list.count > 0 && isfinite(list.attention_factor)));
    (void)rw_rope_regime(&spec, seq_len);
}

static void rope_create(fuzz_call *call) {
    rw_rope *rope = ropes[0][0];
    rw_rope_options options = {.max_positions = 0};
    fill_spec(call, &options.spec);
    fill_arrays(call, &options.spec);
    options.seq_len = fuzz_number(call);
    options.max_positions = bounded(call, 500);
    if (options.max_positions == 0)
        options.max_positions = 1;
    const rw_status status = rw_rope_create(call->context, &options, &rope);
    fuzz_check(call, status);
    if (!call->context)
        return;
    FUZZ_REQUIRE((status == RW_OK) == (rope != NULL));
    rw_rope_destroy(rope);
}

static void sinusoid_create(fuzz_call *call) {
    rw_sinusoid *sinusoid = sinusoids[0];
    const rw_sinusoid_options options = {.hidden = bounded(call, 600),
                                         .max_positions = bounded(call, 500),
                                         .theta = fuzz_factor(call),
                                         .layout = (rw_sinusoid_layout)fuzz_choice(call, 2)};
    const rw_status status = rw_sinusoid_create(call->context, &options, &sinusoid);
    fuzz_check(call, status);
    if (!call->context)
        return;
    FUZZ_REQUIRE((status == RW_OK) == (sinusoid != NULL));
    rw_sinusoid_destroy(sinusoid);
}

static void t5_create(fuzz_call *call) {
    rw_t5 *t5 = t5s[0];
    const rw_t5_options options = {.num_buckets = fuzz_number(call),
                                   .max_distance = bounded(call, 5000),
                                   .causal = fuzz_byte(call) % 2};
    const rw_status status = rw_t5_create(call->context, &options, &t5);
    fuzz_check(call, status);
    if (!call->context)
        return;
    FUZZ_REQUIRE((status == RW_OK) == (t5 != NULL));
    const int64_t bucket = rw_t5_bucket(t5, fuzz_number(call));
    FUZZ_REQUIRE(t5 ? bucket >= 0 : bucket == -1);
    rw_t5_destroy(t5);
}

/* ---- contexts and memory ---- */

static void context_create(fuzz_call *call) {
    rw_context *context = call->context;
    rw_message message = {""};
    rw_context_options options = {.backend = (rw_backend_kind)fuzz_choice(call, 4),
                                  .cpu_isa = (rw_cpu_isa)fuzz_choice(call, 4)};
    if (options.backend != RW_BACKEND_CPU && fuzz_byte(call) % 16)
        options.backend = RW_BACKEND_CPU; /* the others search for a module, which is slow */
    options.device = fuzz_rarely(call) ? (int32_t)fuzz_number(call) : 0;
    options.num_threads = (int32_t)fuzz_number(call);
    options.parallel_for_user = fuzz_rarely(call) ? &message : NULL;
    const rw_status status =
        rw_context_create(&options, fuzz_rarely(call) ? NULL : &context, &message);
    FUZZ_REQUIRE(status == RW_OK || status == RW_INVALID_ARGUMENT ||
                 status == RW_BACKEND_UNAVAILABLE);
    if (status != RW_OK) {
        fuzz_require_sentence(message.text);
        return;
    }
    FUZZ_REQUIRE(strcmp(rw_context_get_info(context).backend, "cpu") == 0);
    rw_context_destroy(context);
}

static void memory(fuzz_call *call) {
    const int64_t number = fuzz_number(call);
    const size_t bytes = number < 0 ? (size_t)number : (size_t)number % 4096;
    const rw_copy_kind kind = (rw_copy_kind)fuzz_choice(call, 3);
    void *pointer = NULL;
    const rw_status status = rw_alloc(call->context, bytes, fuzz_rarely(call) ? NULL : &pointer);
    fuzz_check(call, status);
    if (status == RW_OK) {
        const void *source = fuzz_memory(call, bytes);
        const rw_copy_args copy = {fuzz_rarely(call) ? NULL : pointer, source, bytes, kind};
        fuzz_check(call, rw_copy(call->context, &copy));
    }
    fuzz_check(call, rw_free(call->context, pointer));
    fuzz_check(call, rw_context_set_stream(call->context, fuzz_rarely(call) ? pointer : NULL));
}

static void supports(fuzz_call *call) {
    char name[32];
    const int64_t index = fuzz_number(call);
    const char *known = rw_operation_name((int32_t)index);
    snprintf(name, sizeof name, "%s", known ? known : "attention");
    if (fuzz_rarely(call))
        name[fuzz_byte(call) % (sizeof name - 1)] = (char)fuzz_byte(call);
    const rw_dtype dtype = (rw_dtype)fuzz_choice(call, 6);
    fuzz_check(call, rw_supports(call->context, fuzz_rarely(call) ? NULL : name, dtype));
    FUZZ_REQUIRE(rw_dtype_name(dtype) && rw_status_name((rw_status)dtype));
}

fuzz_operation *const fuzz_objects[] = {rope_frequencies, rope_create, sinusoid_create, t5_create,
                                        context_create,   memory,      supports,        NULL};
