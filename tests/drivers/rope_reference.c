#include "drivers/rope_reference.h"

#include <math.h>

static const double pi = 3.14159265358979323846;

static double either(double value, double fallback) {
    return value != 0.0 ? value : fallback;
}

static int64_t original_length(const rw_rope_spec *spec) {
    return spec->original_max_position_embeddings ? spec->original_max_position_embeddings
                                                  : spec->max_position_embeddings;
}

static double length_factor(const rw_rope_spec *spec) {
    return either(spec->factor,
                  (double)spec->max_position_embeddings / (double)original_length(spec));
}

static int64_t width(const rw_rope_spec *spec) {
    if (spec->type == RW_ROPE_PROPORTIONAL)
        return spec->head_dim;
    if (spec->rotary_dim)
        return spec->rotary_dim;
    return (int64_t)((double)spec->head_dim * either(spec->partial_rotary_factor, 1.0));
}

static double yarn_correction(double rotations, double d, double theta, double original) {
    return d * log(original / (rotations * 2.0 * pi)) / (2.0 * log(theta));
}

static double yarn_frequency(const rw_rope_spec *spec, double f, int64_t i, double d) {
    double theta = either(spec->theta, 10000.0);
    double original = (double)original_length(spec);
    double low = yarn_correction(either(spec->beta_fast, 32.0), d, theta, original);
    double high = yarn_correction(either(spec->beta_slow, 1.0), d, theta, original);
    if (!spec->no_truncate) {
        low = floor(low);
        high = ceil(high);
    }
    low = fmax(low, 0.0);
    high = fmin(high, d - 1.0);
    if (low == high)
        high += 0.001;
    double ramp = fmin(fmax(((double)i - low) / (high - low), 0.0), 1.0);
    return f / length_factor(spec) * ramp + f * (1.0 - ramp);
}

static double yarn_gain(double scale, double mscale) {
    return scale <= 1.0 ? 1.0 : 0.1 * mscale * log(scale) + 1.0;
}

static double yarn_attention(const rw_rope_spec *spec) {
    double factor = length_factor(spec);
    if (spec->mscale != 0.0 && spec->mscale_all_dim != 0.0)
        return yarn_gain(factor, spec->mscale) / yarn_gain(factor, spec->mscale_all_dim);
    return yarn_gain(factor, 1.0);
}

static double longrope_attention(const rw_rope_spec *spec) {
    double factor = length_factor(spec);
    return factor <= 1.0 ? 1.0 : sqrt(1.0 + log(factor) / log((double)original_length(spec)));
}

static double llama3_frequency(const rw_rope_spec *spec, double f) {
    double original = (double)original_length(spec);
    double wavelength = 2.0 * pi / f;
    double low = spec->low_freq_factor;
    double high = spec->high_freq_factor;
    if (wavelength < original / high)
        return f;
    if (wavelength > original / low)
        return f / spec->factor;
    double smooth = (original / wavelength - low) / (high - low);
    return (1.0 - smooth) * f / spec->factor + smooth * f;
}

static double dynamic_theta(const rw_rope_spec *spec, int64_t seq_len, double theta, double d) {
    double length = (double)spec->max_position_embeddings;
    double n = fmax((double)seq_len, length);
    return theta * pow(spec->factor * n / length - (spec->factor - 1.0), d / (d - 2.0));
}

/* Frequency i of a rotation over d columns. */
static double frequency(const rw_rope_spec *spec, int64_t seq_len, int64_t i, double d) {
    double theta = either(spec->theta, 10000.0);
    double f = pow(theta, -2.0 * (double)i / d);
    switch (spec->type) {
    case RW_ROPE_DEFAULT:
        return f;
    case RW_ROPE_LINEAR:
        return f / spec->factor;
    case RW_ROPE_DYNAMIC:
        return pow(dynamic_theta(spec, seq_len, theta, d), -2.0 * (double)i / d);
    case RW_ROPE_YARN:
        return yarn_frequency(spec, f, i, d);
    case RW_ROPE_LONGROPE:
        return f / (seq_len > original_length(spec) ? spec->long_factor : spec->short_factor)[i];
    case RW_ROPE_LLAMA3:
        return llama3_frequency(spec, f);
    case RW_ROPE_PROPORTIONAL: {
        double turning = either(spec->partial_rotary_factor, 1.0) * (double)spec->head_dim;
        int64_t k = (int64_t)floor(turning / 2.0);
        return i < k ? f / either(spec->factor, 1.0) : 0.0;
    }
    }
    return NAN;
}

static double attention(const rw_rope_spec *spec, int64_t seq_len) {
    bool scaled = spec->type == RW_ROPE_YARN || spec->type == RW_ROPE_LONGROPE;
    if (!scaled)
        return 1.0;
    bool is_long = seq_len > original_length(spec);
    double mscale = is_long ? spec->long_mscale : spec->short_mscale;
    if (spec->type == RW_ROPE_LONGROPE && mscale != 0.0)
        return mscale;
    if (spec->attention_factor != 0.0)
        return spec->attention_factor;
    return spec->type == RW_ROPE_YARN ? yarn_attention(spec) : longrope_attention(spec);
}

int64_t rwt_rope_frequencies(const rw_rope_spec *spec, int64_t seq_len, double *inv_freq,
                             double *attention_factor) {
    int64_t count = width(spec) / 2;
    /* Vision: rows and columns each rotate half of the columns, with the frequencies of a head of
     * half the width. */
    int64_t distinct = spec->axes == RW_ROPE_AXES_VISION_2D ? count / 2 : count;
    for (int64_t i = 0; i < count; i++) {
        inv_freq[i] = frequency(spec, seq_len, i % distinct, 2.0 * (double)distinct);
        if (spec->frequency_factors)
            inv_freq[i] /= (double)spec->frequency_factors[i];
    }
    *attention_factor = attention(spec, seq_len);
    return count;
}

int64_t rwt_rope_num_axes(const rw_rope_spec *spec) {
    switch (spec->axes) {
    case RW_ROPE_AXES_ONE:
        return 1;
    case RW_ROPE_AXES_MROPE_CHUNKED:
    case RW_ROPE_AXES_MROPE_INTERLEAVED:
        return 3;
    case RW_ROPE_AXES_VISION_2D:
    case RW_ROPE_AXES_2D_INTERLEAVED:
        return 2;
    }
    return 0;
}

int64_t rwt_rope_axis(const rw_rope_spec *spec, int64_t i, int64_t count) {
    const int64_t *sections = spec->sections;
    switch (spec->axes) {
    case RW_ROPE_AXES_ONE:
        return 0;
    case RW_ROPE_AXES_MROPE_CHUNKED:
        return i < sections[0] ? 0 : i < sections[0] + sections[1] ? 1 : 2;
    case RW_ROPE_AXES_MROPE_INTERLEAVED:
        if (i % 3 == 1 && i < 3 * sections[1])
            return 1;
        if (i % 3 == 2 && i < 3 * sections[2])
            return 2;
        return 0;
    case RW_ROPE_AXES_VISION_2D:
        return i < count / 2 ? 0 : 1;
    case RW_ROPE_AXES_2D_INTERLEAVED:
        return i & 1;
    }
    return 0;
}
