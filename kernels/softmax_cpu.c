/* Scale, mask and softmax on the CPU; the twin of softmax.hip. An item is a row. */
#include "cpu/block_cpu.h"
#include "cpu/exponentials_cpu.h"
#include "softmax_params.h"

/* Scores of a row that are kept between the passes; they fit in the first-level cache. */
#define BUFFER 8192

#define BLOCK RWI_EXPONENTIALS

/* ---- scale ---- */

RWI_INLINE void scale_floats(const float *x, int64_t count, float scale, float *s) {
#pragma omp simd
    for (int64_t j = 0; j < count; j++)
        s[j] = x[j] * scale;
}

RWI_INLINE void scale_rows(const rw_scale_params *p, rw_dtype dtype, int64_t begin, int64_t end) {
    const rwi_scores *scores = &p->scores;
    for (int64_t row = begin; row < end; row++) {
        rwi_scores_row at = rwi_scores_find(scores, row);
        const void *in = rwi_element(dtype, scores->in, rwi_scores_offset(&at, scores->in_stride));
        void *out = rwi_element(dtype, scores->out, rwi_scores_offset(&at, scores->out_stride));
        if (dtype == RW_F32)
            scale_floats(in, scores->seq_k, p->scale, out);
        for (int64_t first = 0; dtype != RW_F32 && first < scores->seq_k; first += BLOCK) {
            int64_t count = rwi_min(BLOCK, scores->seq_k - first);
            float s[BLOCK];
            rwi_load_many(dtype, rwi_element(dtype, in, first), count, s);
            scale_floats(s, count, p->scale, s);
            rwi_store_many(dtype, rwi_element(dtype, out, first), count, s);
        }
    }
}

void RWI_CPU_KERNEL(scale)(const rw_scale_params *p, int64_t begin, int64_t end,
                           rwi_fault_sink *sink) {
    (void)sink;
    switch (p->scores.dtype) {
    case RW_F32:
        scale_rows(p, RW_F32, begin, end);
        return;
    case RW_F16:
        scale_rows(p, RW_F16, begin, end);
        return;
    case RW_BF16:
        scale_rows(p, RW_BF16, begin, end);
        return;
    case RW_I32:
    case RW_I64:
    case RW_U8:
    case RW_F8_E4M3:
    case RW_F8_E5M2:
        return;
    }
}

/* ---- shared by mask_apply and softmax: keys [first, first + count) of a row, as f32 ---- */

/* A mask that is not f32 is converted in blocks. */
RWI_INLINE void add_mask_of(rw_dtype dtype, const char *mask, int64_t count, float *s) {
    float converted[BLOCK];
    for (int64_t first = 0; first < count; first += BLOCK) {
        int64_t part = rwi_min(BLOCK, count - first);
        const void *data = rwi_element(dtype, mask, first);
        if (dtype != RW_F32)
            rwi_load_mask_many(dtype, data, part, converted);
        const float *added = dtype == RW_F32 ? data : converted;
#pragma omp simd
        for (int64_t j = 0; j < part; j++)
            s[first + j] += added[j];
    }
}

static void add_mask(const rwi_score_mask *mask, const rwi_scores_row *at, int64_t first,
                     int64_t count, float *s) {
    const void *data =
        rwi_element(mask->dtype, mask->data, rwi_scores_offset(at, mask->stride) + first);
    switch (mask->dtype) {
    case RW_F32:
        add_mask_of(RW_F32, data, count, s);
        return;
    case RW_F16:
        add_mask_of(RW_F16, data, count, s);
        return;
    case RW_BF16:
        add_mask_of(RW_BF16, data, count, s);
        return;
    case RW_U8:
        add_mask_of(RW_U8, data, count, s);
        return;
    case RW_I32:
    case RW_I64:
    case RW_F8_E4M3:
    case RW_F8_E5M2:
        return;
    }
}

/* Sets the scores of hidden keys to -inf. */
static void hide(const rwi_pattern *pattern, const rwi_pattern_row *row, int64_t first,
                 int64_t count, float *s) {
    int32_t begin = (int32_t)first, end = (int32_t)(first + count);
    bool cells = rwi_pattern_has_cells(pattern);
    if (!cells && row->window.begin <= begin && end <= row->window.end)
        return;
    if (cells) {
        for (int32_t j = begin; j < end; j++)
            s[j - begin] = rwi_pattern_visible(pattern, row, true, j) ? s[j - begin] : -INFINITY;
        return;
    }
#pragma omp simd
    for (int32_t j = begin; j < end; j++)
        s[j - begin] = rwi_pattern_visible(pattern, row, false, j) ? s[j - begin] : -INFINITY;
}

/* ---- mask ---- */

RWI_INLINE void mask_rows(const rw_mask_apply_params *p, rw_dtype dtype, int64_t begin, int64_t end,
                          rwi_fault_sink *sink) {
    const rwi_scores *scores = &p->scores;
    float s[BLOCK];
    rwi_pattern_row row;
    rwi_bad_id bad;
    for (int64_t n = begin; n < end; n++) {
        rwi_scores_row at = rwi_scores_find(scores, n);
        if (!rwi_pattern_row_at(&p->pattern, at.b, at.i, &row, &bad)) {
            rwi_cpu_fault_raise(sink, rwi_scores_token(scores, &at), bad);
            continue;
        }
        int64_t in = rwi_scores_offset(&at, scores->in_stride);
        int64_t out = rwi_scores_offset(&at, scores->out_stride);
        for (int64_t first = 0; first < scores->seq_k; first += BLOCK) {
            int64_t count = rwi_min(BLOCK, scores->seq_k - first);
            rwi_load_many(dtype, rwi_element(dtype, scores->in, in + first), count, s);
            if (p->mask.data)
                add_mask(&p->mask, &at, first, count, s);
            hide(&p->pattern, &row, first, count, s);
            rwi_store_many(dtype, rwi_element(dtype, scores->out, out + first), count, s);
        }
    }
}

void RWI_CPU_KERNEL(mask_apply)(const rw_mask_apply_params *p, int64_t begin, int64_t end,
                                rwi_fault_sink *sink) {
    switch (p->scores.dtype) {
    case RW_F32:
        mask_rows(p, RW_F32, begin, end, sink);
        return;
    case RW_F16:
        mask_rows(p, RW_F16, begin, end, sink);
        return;
    case RW_BF16:
        mask_rows(p, RW_BF16, begin, end, sink);
        return;
    case RW_I32:
    case RW_I64:
    case RW_U8:
    case RW_F8_E4M3:
    case RW_F8_E5M2:
        return;
    }
}

/* ---- softmax ---- */

/* The current row. */
typedef struct softmax_row {
    rwi_scores_row at;
    rwi_pattern_row pattern;
    const void *in;
    void *out;
    rwi_span spans[2]; /* the keys to read: disjoint, in order */
    int num_spans;
    const void *ahead; /* the first key of the next row; NULL after the last */
    bool every;        /* every key of the spans is visible */
    bool stream;       /* the results are not read soon, and not read now */
} softmax_row;

/* Prefix and window, joined where they touch; with cells or globals, one span from the first to the
 * last. */
static void find_spans(const rw_softmax_params *p, softmax_row *row) {
    rwi_span prefix = row->pattern.prefix, window = row->pattern.window;
    row->every = !rwi_pattern_has_cells(&p->pattern);
    bool joined = rwi_span_empty(prefix) || rwi_span_empty(window) || window.begin <= prefix.end;
    row->spans[0] = row->every && !joined ? prefix : rwi_pattern_hull(&row->pattern);
    row->spans[1] = window;
    row->num_spans = row->every && !joined ? 2 : 1;
}

/* Whether the results are not read soon, and not read now. */
static bool is_streamed(const rwi_scores *scores) {
    const int64_t bytes =
        rwi_scores_rows(scores) * scores->seq_k * (int64_t)rwi_dtype_size(scores->dtype);
    return scores->out != scores->in && bytes >= RWI_CPU_STREAM_BYTES;
}

static void clear(char *out, int64_t bytes, bool stream) {
    static const float zeros[BLOCK] = {0};
    for (int64_t at = 0; stream && at < bytes; at += (int64_t)sizeof zeros)
        rwi_cpu_stream(out + at, zeros, (size_t)rwi_min(bytes - at, (int64_t)sizeof zeros));
    if (!stream)
        memset(out, 0, (size_t)bytes);
}

/* Writes 0 to the keys outside the spans. */
RWI_INLINE void clear_rest(rw_dtype dtype, const softmax_row *row, int64_t seq_k) {
    int64_t size = (int64_t)rwi_dtype_size(dtype);
    int64_t from = 0;
    for (int n = 0; n <= row->num_spans; n++) {
        int64_t to = n < row->num_spans ? row->spans[n].begin : seq_k;
        clear((char *)row->out + from * size, (to - from) * size, row->stream);
        if (n < row->num_spans)
            from = row->spans[n].end;
    }
}

/* s = x * scale, with the softcap applied. */
RWI_INLINE void load_scores(const rw_softmax_params *p, rw_dtype dtype, const void *in,
                            int64_t count, float *s) {
    const float *x = in;
    if (dtype != RW_F32) {
        rwi_load_many(dtype, in, count, s);
        x = s;
    }
    if (p->softcap > 0.0f) {
#pragma omp simd
        for (int64_t j = 0; j < count; j++)
            s[j] = rwi_softmax_score(p, x[j]);
    } else {
        scale_floats(x, count, p->scale, s);
    }
}

static void add_alibi(const rwi_alibi *alibi, const softmax_row *row, int64_t first, int64_t count,
                      float *s) {
    float slope = alibi->slopes[row->at.h];
    int32_t distance = (int32_t)first - rwi_alibi_position(alibi, &row->pattern);
    bool is_signed = alibi->is_signed;
#pragma omp simd
    for (int32_t j = 0; j < (int32_t)count; j++)
        s[j] += rwi_alibi_at(is_signed, slope, distance + j);
}

/* The largest of some scores; NaN is ignored. Many lanes, since each step of one lane waits for the
 * last. */
static float largest_of(const float *s, int64_t count, float largest) {
    enum {
        LANES = 64
    };
    float lanes[LANES];
    int64_t first = 0;
    for (int n = 0; n < LANES; n++)
        lanes[n] = largest;
    for (; first + LANES <= count; first += LANES)
#pragma omp simd
        for (int n = 0; n < LANES; n++)
            lanes[n] = s[first + n] > lanes[n] ? s[first + n] : lanes[n];
    for (int64_t j = first; j < count; j++)
        largest = s[j] > largest ? s[j] : largest;
    for (int n = 0; n < LANES; n++)
        largest = lanes[n] > largest ? lanes[n] : largest;
    return largest;
}

/* The scores of keys [first, first + count) into s; returns the largest of them and `largest`. */
RWI_INLINE float compute_scores(const rw_softmax_params *p, rw_dtype dtype, const softmax_row *row,
                                int64_t first, int64_t count, float *s, float largest) {
    load_scores(p, dtype, rwi_element(dtype, row->in, first), count, s);
    if (p->alibi.slopes)
        add_alibi(&p->alibi, row, first, count, s);
    if (p->mask.data)
        add_mask(&p->mask, &row->at, first, count, s);
    if (!row->every)
        hide(&p->pattern, &row->pattern, first, count, s);
    return largest_of(s, count, largest);
}

#if defined(__AVX512F__)
/* exp of numbers up to 0, twice as fast as rwi_exp(): 2^k * 2^r, where one instruction multiplies
 * by 2^k. Relative error |x| * 2^-24, plus 1 ulp. */
RWI_INLINE __m512 exponential_16(__m512 x) {
    enum {
        NEAREST = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC
    };
    __m512 t = _mm512_mul_ps(x, _mm512_set1_ps(0x1.715476p+0f));
    t = _mm512_max_ps(_mm512_set1_ps(-200.0f), t); /* NaN is kept */
    __m512 k = _mm512_roundscale_ps(t, NEAREST);
    __m512 r = _mm512_sub_ps(t, k);
    __m512 p = _mm512_set1_ps(0x1.4258d8p-13f);
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.5f44dcp-10f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.3b2cc4p-7f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.c6aed6p-5f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.ebfbdcp-3f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.62e43p-1f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
    return _mm512_scalef_ps(p, k);
}
#endif

/* Prefetches memory of the next row while this one is computed. */
static void prefetch(const char *data, int64_t bytes) {
    for (int64_t line = 0; data && line < bytes; line += 64)
        __builtin_prefetch(data + line);
}

/* s = exp(s - base), where base is the largest of s; returns the sum. `ahead`: memory to prefetch,
 * an element of `size` bytes for each of s; or NULL. */
static double exponentials(float *s, int64_t count, float base, const char *ahead, int64_t size) {
    double sum = 0.0;
    for (int64_t first = 0; first < count; first += BLOCK) {
        int64_t end = rwi_min(first + BLOCK, count);
        prefetch(ahead ? ahead + first * size : NULL, (end - first) * size);
        int64_t j = first;
        float part = 0.0f;
#if defined(__AVX512F__)
        __m512 parts = _mm512_setzero_ps();
        for (; j + 16 <= end; j += 16) {
            __m512 e = exponential_16(_mm512_sub_ps(_mm512_loadu_ps(s + j), _mm512_set1_ps(base)));
            _mm512_storeu_ps(s + j, e);
            parts = _mm512_add_ps(parts, e);
        }
        part = _mm512_reduce_add_ps(parts);
#endif
#pragma omp simd reduction(+ : part)
        for (int64_t k = j; k < end; k++) {
            s[k] = rwi_exp(s[k] - base);
            part += s[k];
        }
        sum += (double)part;
    }
    return sum;
}

/* The probabilities of keys [first, first + count), from their exponentials. */
RWI_INLINE void store_shares(const rw_softmax_params *p, rw_dtype dtype, const softmax_row *row,
                             int64_t first, int64_t count, float *s, float share) {
    for (int64_t at = 0; at < count; at += BLOCK) {
        const int64_t part = rwi_min(BLOCK, count - at);
        void *target = rwi_element(dtype, row->out, first + at);
        float *out = rwi_cpu_target(dtype, target, row->stream, s + at);
        scale_floats(s + at, part, share, out);
        if (!row->every && share != share) { /* hidden keys are 0 also in a row of NaN */
            bool cells = rwi_pattern_has_cells(&p->pattern);
            int32_t j = (int32_t)(first + at);
            for (int32_t n = 0; n < (int32_t)part; n++)
                if (!rwi_pattern_visible(&p->pattern, &row->pattern, cells, j + n))
                    out[n] = 0.0f;
        }
        rwi_cpu_write(dtype, target, part, row->stream, out);
    }
}

/* ---- rows without softcap, biases and sinks: scores are not stored, only exponentials ----------
 *
 * exp(x * scale - base) = 2^(x * factor - base * log2(e)): one multiplication and addition from an
 * element to its exponent. An error of the base is a factor of the whole row, which cancels.
 */
#if defined(__AVX512F__)

/* The factor of the elements; 0 if the row is not plain. */
static float plain_factor(const rw_softmax_params *p, const softmax_row *row) {
    const float factor = p->scale * 0x1.715476p+0f;
    const bool plain = row->every && p->softcap == 0.0f && !p->alibi.slopes && !p->mask.data &&
                       !p->sinks && factor >= 0x1p-126f && factor < INFINITY;
    return plain ? factor : 0.0f;
}

/* False if the scores are so large that the error of the base matters. */
RWI_INLINE bool softmax_plain(rw_dtype dtype, const softmax_row *row, float factor) {
    _Alignas(64) float s[BUFFER + 2 * RWI_TWO_LANES];
    float largest = -INFINITY, *at = s;
    for (int n = 0; n < row->num_spans; n++)
        largest = rwi_largest_element(dtype, rwi_element(dtype, row->in, row->spans[n].begin),
                                      row->spans[n].end - row->spans[n].begin, largest);
    const float base = rwi_softmax_base(largest) * factor;
    if (!(fabsf(base) < 0x1p24f))
        return false;
    double sum = 0.0;
    for (int n = 0; n < row->num_spans; n++) {
        const int64_t count = row->spans[n].end - row->spans[n].begin;
        sum += rwi_exponentials(dtype, rwi_element(dtype, row->in, row->spans[n].begin), count,
                                factor, base, n == 0 ? row->ahead : NULL, at);
        at += rwi_ceil_div(count, RWI_TWO_LANES) * RWI_TWO_LANES;
    }
    const float share = rwi_softmax_share((float)sum);
    at = s;
    for (int n = 0; n < row->num_spans; n++) {
        const int64_t count = row->spans[n].end - row->spans[n].begin;
        rwi_store_shares(dtype, at, count, share, rwi_element(dtype, row->out, row->spans[n].begin),
                         row->stream);
        at += rwi_ceil_div(count, RWI_TWO_LANES) * RWI_TWO_LANES;
    }
    return true;
}

#else

static float plain_factor(const rw_softmax_params *p, const softmax_row *row) {
    (void)p, (void)row;
    return 0.0f;
}

RWI_INLINE bool softmax_plain(rw_dtype dtype, const softmax_row *row, float factor) {
    (void)dtype, (void)row, (void)factor;
    return false;
}

#endif

/* ---- rows ---- */

/* A row whose scores fit in the buffer: it is read once. */
RWI_INLINE void softmax_short(const rw_softmax_params *p, rw_dtype dtype, const softmax_row *row,
                              float sink) {
    float s[BUFFER];
    float largest = sink;
    int64_t used = 0;
    for (int n = 0; n < row->num_spans; n++) {
        int64_t count = row->spans[n].end - row->spans[n].begin;
        largest = compute_scores(p, dtype, row, row->spans[n].begin, count, s + used, largest);
        used += count;
    }
    float base = rwi_softmax_base(largest);
    int64_t size = (int64_t)rwi_dtype_size(dtype);
    double sum = exponentials(s, used, base, row->ahead, size) + (double)rwi_exp(sink - base);
    float share = rwi_softmax_share((float)sum);
    used = 0;
    for (int n = 0; n < row->num_spans; n++) {
        int64_t count = row->spans[n].end - row->spans[n].begin;
        store_shares(p, dtype, row, row->spans[n].begin, count, s + used, share);
        used += count;
    }
}

/* A longer row: the sum is kept relative to the largest score so far, and a second pass computes
 * the scores again. */
RWI_INLINE void softmax_long(const rw_softmax_params *p, rw_dtype dtype, const softmax_row *row,
                             float sink) {
    float s[BUFFER];
    float base = rwi_softmax_base(sink);
    float largest = sink;
    double sum = (double)rwi_exp(sink - base);
    for (int n = 0; n < row->num_spans; n++)
        for (int64_t first = row->spans[n].begin; first < row->spans[n].end; first += BUFFER) {
            int64_t count = rwi_min(BUFFER, row->spans[n].end - first);
            float before = largest;
            largest = compute_scores(p, dtype, row, first, count, s, largest);
            base = rwi_softmax_base(largest);
            if (before > -INFINITY)
                sum *= (double)rwi_exp(before - base);
            sum += exponentials(s, count, base, NULL, 0);
        }
    float share = rwi_softmax_share((float)sum);
    for (int n = 0; n < row->num_spans; n++)
        for (int64_t first = row->spans[n].begin; first < row->spans[n].end; first += BUFFER) {
            int64_t count = rwi_min(BUFFER, row->spans[n].end - first);
            compute_scores(p, dtype, row, first, count, s, largest);
            exponentials(s, count, base, NULL, 0);
            store_shares(p, dtype, row, first, count, s, share);
        }
}

RWI_INLINE void softmax_rows(const rw_softmax_params *p, rw_dtype dtype, int64_t begin, int64_t end,
                             rwi_fault_sink *sink) {
    const rwi_scores *scores = &p->scores;
    const bool stream = is_streamed(scores);
    for (int64_t n = begin; n < end; n++) {
        softmax_row row = {.at = rwi_scores_find(scores, n), .stream = stream};
        rwi_bad_id bad;
        if (!rwi_pattern_row_at(&p->pattern, row.at.b, row.at.i, &row.pattern, &bad)) {
            rwi_cpu_fault_raise(sink, rwi_scores_token(scores, &row.at), bad);
            continue;
        }
        row.in = rwi_element(dtype, scores->in, rwi_scores_offset(&row.at, scores->in_stride));
        row.out = rwi_element(dtype, scores->out, rwi_scores_offset(&row.at, scores->out_stride));
        find_spans(p, &row);
        if (n + 1 < end) {
            rwi_scores_row next = rwi_scores_find(scores, n + 1);
            row.ahead =
                rwi_element(dtype, scores->in,
                            rwi_scores_offset(&next, scores->in_stride) + row.spans[0].begin);
        }
        float logit = p->sinks ? rwi_load(p->sinks_dtype, p->sinks, row.at.h) : -INFINITY;
        int64_t count = 0;
        for (int k = 0; k < row.num_spans; k++)
            count += row.spans[k].end - row.spans[k].begin;
        const float factor = count <= BUFFER ? plain_factor(p, &row) : 0.0f;
        if (factor == 0.0f || !softmax_plain(dtype, &row, factor)) {
            if (count <= BUFFER)
                softmax_short(p, dtype, &row, logit);
            else
                softmax_long(p, dtype, &row, logit);
        }
        clear_rest(dtype, &row, scores->seq_k);
    }
    if (stream)
        rwi_cpu_stream_end();
}

void RWI_CPU_KERNEL(softmax)(const rw_softmax_params *p, int64_t begin, int64_t end,
                             rwi_fault_sink *sink) {
    switch (p->scores.dtype) {
    case RW_F32:
        softmax_rows(p, RW_F32, begin, end, sink);
        return;
    case RW_F16:
        softmax_rows(p, RW_F16, begin, end, sink);
        return;
    case RW_BF16:
        softmax_rows(p, RW_BF16, begin, end, sink);
        return;
    case RW_I32:
    case RW_I64:
    case RW_U8:
    case RW_F8_E4M3:
    case RW_F8_E5M2:
        return;
    }
}
