/* Frequencies of every published rotary scaling, in f64.
 *
 * Formulas and names: transformers:src/transformers/modeling_rope_utils.py.
 */
#include "rope_frequencies.h"

#include <math.h>

#include "call.h"
#include "numbers.h"

/* Kernels count columns in 32 bits. */
#define MAX_HEAD_DIM ((int64_t)1 << 30)

static const double pi = 3.14159265358979323846;

static rw_status invalid(rw_message *message, const char *field, double value,
                         const char *expected) {
    return rwi_message_set(message, RW_INVALID_ARGUMENT, "spec.%s is %.17g, expected %s", field,
                           value, expected);
}

/* A field that is 0 (absent) or positive and finite. */
static rw_status check_positive(rw_message *message, const char *field, double value) {
    if (value >= 0 && isfinite(value))
        return RW_OK;
    return invalid(message, field, value, "a positive number");
}

static rw_status check_numbers(const rw_rope_spec *spec, rw_message *message) {
    const struct {
        const char *field;
        double value;
    } numbers[] = {
        {"partial_rotary_factor", spec->partial_rotary_factor},
        {"theta", spec->theta},
        {"max_position_embeddings", (double)spec->max_position_embeddings},
        {"original_max_position_embeddings", (double)spec->original_max_position_embeddings},
        {"factor", spec->factor},
        {"attention_factor", spec->attention_factor},
        {"beta_fast", spec->beta_fast},
        {"beta_slow", spec->beta_slow},
        {"mscale", spec->mscale},
        {"mscale_all_dim", spec->mscale_all_dim},
        {"low_freq_factor", spec->low_freq_factor},
        {"high_freq_factor", spec->high_freq_factor},
        {"short_mscale", spec->short_mscale},
        {"long_mscale", spec->long_mscale},
    };
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
        RWI_TRY(check_positive(message, numbers[i].field, numbers[i].value));
    if (spec->partial_rotary_factor > 1)
        return invalid(message, "partial_rotary_factor", spec->partial_rotary_factor, "at most 1");
    return RW_OK;
}

/* Fields that give the attention factor, by which cos and sin are multiplied. */
static rw_status check_scales(const rw_rope_spec *spec, rw_message *message) {
    const struct {
        const char *field;
        double value;
    } scales[] = {
        {"attention_factor", spec->attention_factor}, {"mscale", spec->mscale},
        {"mscale_all_dim", spec->mscale_all_dim},     {"short_mscale", spec->short_mscale},
        {"long_mscale", spec->long_mscale},
    };
    for (size_t i = 0; i < sizeof scales / sizeof scales[0]; i++)
        if (!rwi_f32_holds(scales[i].value))
            return invalid(message, scales[i].field, scales[i].value, "a number that f32 holds");
    return RW_OK;
}

static rw_status check_enums(const rw_rope_spec *spec, rw_message *message) {
    if ((unsigned)spec->type > RW_ROPE_PROPORTIONAL)
        return invalid(message, "type", spec->type, "one of rw_rope_type");
    if ((unsigned)spec->pairing > RW_ROPE_INTERLEAVED)
        return invalid(message, "pairing", spec->pairing, "one of rw_rope_pairing");
    if ((unsigned)spec->axes > RW_ROPE_AXES_2D_INTERLEAVED)
        return invalid(message, "axes", spec->axes, "one of rw_rope_axes");
    return RW_OK;
}

/* head_dim, rotary_start and rotary_dim, the last with its default. */
static rw_status resolve_window(rw_rope_spec *spec, rw_message *message) {
    if (spec->head_dim <= 0 || spec->head_dim > MAX_HEAD_DIM)
        return invalid(message, "head_dim", (double)spec->head_dim, "1 to 2^30");
    if (spec->rotary_dim == 0)
        spec->rotary_dim = spec->type == RW_ROPE_PROPORTIONAL
                               ? spec->head_dim
                               : (int64_t)((double)spec->head_dim * spec->partial_rotary_factor);
    if (spec->rotary_dim <= 0 || spec->rotary_dim % 2 != 0)
        return invalid(message, "rotary_dim", (double)spec->rotary_dim, "an even number from 2");
    if (spec->rotary_start < 0 || spec->rotary_start > spec->head_dim ||
        spec->rotary_dim > spec->head_dim - spec->rotary_start)
        return rwi_message_set(message, RW_INVALID_ARGUMENT,
                               "spec rotates %lld columns from %lld, expected them within "
                               "head_dim %lld",
                               (long long)spec->rotary_dim, (long long)spec->rotary_start,
                               (long long)spec->head_dim);
    return RW_OK;
}

static rw_status check_axes(const rw_rope_spec *spec, rw_message *message) {
    int64_t sum = 0;
    switch (spec->axes) {
    case RW_ROPE_AXES_ONE:
    case RW_ROPE_AXES_2D_INTERLEAVED:
        return RW_OK;
    case RW_ROPE_AXES_VISION_2D:
        if (spec->rotary_dim % 4 == 0)
            return RW_OK;
        return invalid(message, "rotary_dim", (double)spec->rotary_dim,
                       "a multiple of 4 for row and column ids");
    case RW_ROPE_AXES_MROPE_CHUNKED:
    case RW_ROPE_AXES_MROPE_INTERLEAVED:
        break;
    }
    for (int axis = 0; axis < 3; axis++) {
        if (spec->sections[axis] < 0 || spec->sections[axis] > spec->rotary_dim)
            return invalid(message, "sections", (double)spec->sections[axis],
                           "frequencies of t, h and w");
        sum += spec->sections[axis];
    }
    if (sum == spec->rotary_dim / 2)
        return RW_OK;
    return rwi_message_set(message, RW_INVALID_ARGUMENT,
                           "spec.sections sum to %lld, expected rotary_dim / 2 = %lld",
                           (long long)sum, (long long)spec->rotary_dim / 2);
}

/* The required fields of each type, and their defaults. */
static rw_status resolve_type(rw_rope_spec *spec, rw_message *message) {
    double length = (double)spec->max_position_embeddings;
    double original = (double)spec->original_max_position_embeddings;
    switch (spec->type) {
    case RW_ROPE_DEFAULT:
        return RW_OK;
    case RW_ROPE_LINEAR:
        if (spec->factor == 0)
            return invalid(message, "factor", 0, "a positive number for linear");
        return RW_OK;
    case RW_ROPE_DYNAMIC:
        if (spec->factor == 0)
            return invalid(message, "factor", 0, "a positive number for dynamic");
        if (length == 0)
            return invalid(message, "max_position_embeddings", 0, "a length for dynamic");
        return RW_OK;
    case RW_ROPE_LLAMA3:
        if (spec->factor == 0 || spec->low_freq_factor == 0 || spec->high_freq_factor == 0)
            return rwi_message_set(message, RW_INVALID_ARGUMENT,
                                   "spec.factor, low_freq_factor and high_freq_factor are %g, %g "
                                   "and %g, expected positive numbers for llama3",
                                   spec->factor, spec->low_freq_factor, spec->high_freq_factor);
        if (spec->low_freq_factor == spec->high_freq_factor)
            return invalid(message, "low_freq_factor", spec->low_freq_factor,
                           "another value than high_freq_factor");
        break;
    case RW_ROPE_YARN:
        if (spec->theta == 1)
            return invalid(message, "theta", 1, "another value than 1 for yarn");
        break;
    case RW_ROPE_LONGROPE:
        if (!spec->short_factor || !spec->long_factor)
            return rwi_message_set(message, RW_INVALID_ARGUMENT,
                                   "spec.%s_factor is NULL, expected rotary_dim / 2 values for "
                                   "longrope",
                                   spec->short_factor ? "long" : "short");
        break;
    case RW_ROPE_PROPORTIONAL:
        if (spec->factor == 0)
            spec->factor = 1;
        return RW_OK;
    }
    if (original == 0)
        return invalid(message, "original_max_position_embeddings", 0,
                       "a length, or max_position_embeddings in its place");
    if (spec->factor == 0 && length == 0)
        return invalid(message, "factor", 0, "a positive number, or max_position_embeddings");
    if (spec->factor == 0)
        spec->factor = length / original;
    if (spec->type == RW_ROPE_LONGROPE && spec->factor > 1 && original <= 1)
        return invalid(message, "original_max_position_embeddings", original,
                       "at least 2 for longrope");
    return RW_OK;
}

rw_status rwi_rope_resolve(const rw_rope_spec *spec, rw_rope_spec *resolved, rw_message *message) {
    *resolved = *spec;
    RWI_TRY(check_enums(spec, message));
    RWI_TRY(check_numbers(spec, message));
    RWI_TRY(check_scales(spec, message));
    if (spec->partial_rotary_factor == 0)
        resolved->partial_rotary_factor = 1;
    if (spec->theta == 0)
        resolved->theta = 10000;
    if (spec->original_max_position_embeddings == 0)
        resolved->original_max_position_embeddings = spec->max_position_embeddings;
    if (spec->beta_fast == 0)
        resolved->beta_fast = 32;
    if (spec->beta_slow == 0)
        resolved->beta_slow = 1;
    RWI_TRY(resolve_window(resolved, message));
    RWI_TRY(check_axes(resolved, message));
    return resolve_type(resolved, message);
}

int rwi_rope_num_axes(const rw_rope_spec *spec) {
    switch (spec->axes) {
    case RW_ROPE_AXES_ONE:
        break;
    case RW_ROPE_AXES_MROPE_CHUNKED:
    case RW_ROPE_AXES_MROPE_INTERLEAVED:
        return 3;
    case RW_ROPE_AXES_VISION_2D:
    case RW_ROPE_AXES_2D_INTERLEAVED:
        return 2;
    }
    return 1;
}

int rwi_rope_axis(const rw_rope_spec *resolved, int64_t i) {
    const int64_t *sections = resolved->sections;
    switch (resolved->axes) {
    case RW_ROPE_AXES_ONE:
        break;
    case RW_ROPE_AXES_MROPE_CHUNKED:
        return i < sections[0] ? 0 : i < sections[0] + sections[1] ? 1 : 2;
    case RW_ROPE_AXES_MROPE_INTERLEAVED:
        return i % 3 != 0 && i < 3 * sections[i % 3] ? (int)(i % 3) : 0;
    case RW_ROPE_AXES_VISION_2D:
        return i >= resolved->rotary_dim / 4;
    case RW_ROPE_AXES_2D_INTERLEAVED:
        return i % 2 != 0;
    }
    return 0;
}

/* theta^(-2i/d) */
static double base_frequency(double theta, int64_t i, int64_t d) {
    return pow(theta, -2.0 * (double)i / (double)d);
}

/* yarn: the interpolation weight of frequency i: 0 keeps it, 1 divides it by the factor. */
static double yarn_ramp(const rw_rope_spec *spec, int64_t i, int64_t d) {
    double original = (double)spec->original_max_position_embeddings;
    double per_log = (double)d / (2 * log(spec->theta));
    double low = per_log * log(original / (2 * pi * spec->beta_fast));
    double high = per_log * log(original / (2 * pi * spec->beta_slow));
    if (!spec->no_truncate) {
        low = floor(low);
        high = ceil(high);
    }
    low = fmax(low, 0);
    high = fmin(high, (double)(d - 1));
    if (low == high)
        high += 0.001;
    return fmin(fmax(((double)i - low) / (high - low), 0), 1);
}

static double llama3_frequency(const rw_rope_spec *spec, double f) {
    double original = (double)spec->original_max_position_embeddings;
    double wavelength = 2 * pi / f;
    if (wavelength < original / spec->high_freq_factor)
        return f;
    if (wavelength > original / spec->low_freq_factor)
        return f / spec->factor;
    double smooth = (original / wavelength - spec->low_freq_factor) /
                    (spec->high_freq_factor - spec->low_freq_factor);
    return (1 - smooth) * f / spec->factor + smooth * f;
}

static bool longrope_is_long(const rw_rope_spec *resolved, int64_t seq_len) {
    return seq_len > resolved->original_max_position_embeddings;
}

/* Frequency i of d/2, for a resolved spec. */
static double frequency(const rw_rope_spec *spec, int64_t seq_len, int64_t i, int64_t d) {
    double f = base_frequency(spec->theta, i, d);
    switch (spec->type) {
    case RW_ROPE_DEFAULT:
        return f;
    case RW_ROPE_LINEAR:
        return f / spec->factor;
    case RW_ROPE_DYNAMIC: {
        double length = (double)spec->max_position_embeddings;
        double n = fmax((double)seq_len, length);
        double growth = spec->factor * n / length - (spec->factor - 1);
        return base_frequency(spec->theta * pow(growth, (double)d / (double)(d - 2)), i, d);
    }
    case RW_ROPE_YARN: {
        double ramp = yarn_ramp(spec, i, d);
        return f / spec->factor * ramp + f * (1 - ramp);
    }
    case RW_ROPE_LONGROPE:
        return f / (longrope_is_long(spec, seq_len) ? spec->long_factor : spec->short_factor)[i];
    case RW_ROPE_LLAMA3:
        return llama3_frequency(spec, f);
    case RW_ROPE_PROPORTIONAL:
        if (i >= (int64_t)(spec->partial_rotary_factor * (double)d / 2))
            return 0;
        return f / spec->factor;
    }
    return f;
}

static double yarn_mscale(double factor, double mscale) {
    return factor <= 1 ? 1 : 0.1 * mscale * log(factor) + 1;
}

static double attention_factor(const rw_rope_spec *spec, int64_t seq_len) {
    bool derived = spec->type == RW_ROPE_YARN || spec->type == RW_ROPE_LONGROPE;
    if (!derived)
        return 1;
    if (spec->type == RW_ROPE_LONGROPE) {
        double mscale = longrope_is_long(spec, seq_len) ? spec->long_mscale : spec->short_mscale;
        if (mscale != 0)
            return mscale;
    }
    if (spec->attention_factor != 0)
        return spec->attention_factor;
    if (spec->type == RW_ROPE_YARN) {
        if (spec->mscale != 0 && spec->mscale_all_dim != 0)
            return yarn_mscale(spec->factor, spec->mscale) /
                   yarn_mscale(spec->factor, spec->mscale_all_dim);
        return yarn_mscale(spec->factor, 1);
    }
    if (spec->factor <= 1)
        return 1;
    return sqrt(1 + log(spec->factor) / log((double)spec->original_max_position_embeddings));
}

/* Vision 2-D: row and column ids each rotate half of the width. */
static int64_t frequency_width(const rw_rope_spec *spec) {
    return spec->axes == RW_ROPE_AXES_VISION_2D ? spec->rotary_dim / 2 : spec->rotary_dim;
}

/* Frequency i of the whole list, divided by its frequency factor; NAN if that is negative or not
 * finite, or if f32 rounds it to infinity or, unless it is 0, to 0. */
static double listed_frequency(const rw_rope_spec *spec, int64_t seq_len, int64_t i) {
    int64_t d = frequency_width(spec);
    double f = frequency(spec, seq_len, i % (d / 2), d);
    if (spec->frequency_factors)
        f /= spec->frequency_factors[i];
    float rounded = (float)f;
    return isfinite(rounded) && f >= 0 && (f == 0 || rounded > 0) ? f : NAN;
}

rw_status rw_rope_frequencies(const rw_rope_spec *spec, int64_t seq_len,
                              rw_rope_frequency_list *list, rw_message *message) {
    rw_rope_spec resolved;
    if (!spec || !list)
        return rwi_message_set(message, RW_INVALID_ARGUMENT, "rw_rope_frequencies: %s is NULL",
                               spec ? "list" : "spec");
    if (seq_len < 0)
        return rwi_message_set(message, RW_INVALID_ARGUMENT,
                               "rw_rope_frequencies: seq_len is %lld, expected 0 or more",
                               (long long)seq_len);
    RWI_TRY(rwi_rope_resolve(spec, &resolved, message));
    int64_t d = frequency_width(&resolved);
    if (resolved.type == RW_ROPE_DYNAMIC && d == 2)
        return invalid(message, "rotary_dim", (double)resolved.rotary_dim,
                       "more than one frequency for dynamic");
    int64_t count = resolved.rotary_dim / 2;
    bool wanted = list->inv_freq || list->capacity != 0;
    if (wanted && (!list->inv_freq || list->capacity < count))
        return rwi_message_set(message, RW_INVALID_ARGUMENT,
                               "rw_rope_frequencies: inv_freq holds %lld values, expected %lld",
                               (long long)(list->inv_freq ? list->capacity : 0), (long long)count);
    for (int64_t i = 0; i < count; i++)
        if (isnan(listed_frequency(&resolved, seq_len, i)))
            return rwi_message_set(message, RW_INVALID_ARGUMENT,
                                   "spec gives no finite frequency %lld that f32 holds; check "
                                   "theta, factor and the factors of each frequency",
                                   (long long)i);
    double factor = attention_factor(&resolved, seq_len);
    if (!(factor > 0) || !rwi_f32_holds(factor))
        return rwi_message_set(
            message, RW_INVALID_ARGUMENT,
            "spec gives the attention factor %g, expected a positive number that f32 holds; "
            "check attention_factor, factor, mscale and mscale_all_dim",
            factor);
    for (int64_t i = 0; wanted && i < count; i++)
        list->inv_freq[i] = listed_frequency(&resolved, seq_len, i);
    list->count = count;
    list->attention_factor = factor;
    return RW_OK;
}

int64_t rw_rope_regime(const rw_rope_spec *spec, int64_t seq_len) {
    rw_rope_spec resolved;
    if (!spec || rwi_rope_resolve(spec, &resolved, NULL) != RW_OK)
        return 0;
    if (resolved.type == RW_ROPE_DYNAMIC)
        return seq_len > resolved.max_position_embeddings ? seq_len
                                                          : resolved.max_position_embeddings;
    return resolved.type == RW_ROPE_LONGROPE && longrope_is_long(&resolved, seq_len);
}
