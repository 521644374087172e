/* Position embeddings that are added to the hidden states, on the CPU; the twin of embed.hip. */
#include "cpu/block_cpu.h"
#include "cpu/lanes_cpu.h"
#include "embed_params.h"

/* One token's rows of x and out. */
typedef struct token_rows {
    const void *x;
    void *out;
    int64_t id;
} token_rows;

/* False where the token's id is out of range, which is reported. */
static bool find_token(const rwi_embed_rows *rows, int64_t max_positions, int64_t item,
                       rwi_fault_sink *sink, token_rows *found) {
    int64_t b, s;
    rwi_split_index(item, rows->batch, &s, &b);
    found->id = rwi_token_id(&rows->ids, 0, b, s);
    if (found->id < 0 || found->id >= max_positions) {
        rwi_cpu_fault_raise(sink, b * rows->seq + s, rwi_bad(RW_FAULT_POSITION, found->id));
        return false;
    }
    found->x = rwi_element(rows->dtype, rows->in, b * rows->in_stride[0] + s * rows->in_stride[1]);
    found->out =
        rwi_element(rows->dtype, rows->out, b * rows->out_stride[0] + s * rows->out_stride[1]);
    return true;
}

/* Whether the results are not read soon, and not read now. */
static bool is_streamed(const rwi_embed_rows *rows) {
    int64_t bytes = rows->batch * rows->seq * rows->hidden * (int64_t)rwi_dtype_size(rows->dtype);
    return rows->out != rows->in && bytes >= RWI_CPU_STREAM_BYTES;
}

/* Adds `embedding` to the columns [first, first + count) of a token, at most one block. */
static void add_block(rw_dtype dtype, const token_rows *rows, int64_t first, int64_t count,
                      const float *embedding, bool stream) {
    float buffer[RWI_CPU_BLOCK];
    void *out = rwi_element(dtype, rows->out, first);
    const float *x = rwi_cpu_read(dtype, rwi_element(dtype, rows->x, first), count, buffer);
    float *sum = rwi_cpu_target(dtype, out, stream, buffer);
#pragma omp simd
    for (int64_t i = 0; i < count; i++)
        sum[i] = x[i] + embedding[i];
    rwi_cpu_write(dtype, out, count, stream, sum);
}

/* The same for an embedding of any dtype; one of the dtype of x is not converted first. */
RWI_INLINE void add_entry(rw_dtype dtype, const token_rows *rows, int64_t first, int64_t count,
                          rw_dtype entry_dtype, const void *entry, bool stream) {
    float buffer[RWI_CPU_BLOCK];
    if (entry_dtype != dtype) {
        rwi_cpu_load(entry_dtype, entry, count, buffer);
        add_block(dtype, rows, first, count, buffer, stream);
        return;
    }
    const void *x = rwi_element(dtype, rows->x, first);
    void *out = rwi_element(dtype, rows->out, first);
    const bool buffered = stream && !rwi_lanes_streamable(out);
    if (buffered)
        rwi_lanes_add(dtype, x, entry, count, buffer, false);
    else
        rwi_lanes_add(dtype, x, entry, count, out, stream);
    if (buffered)
        rwi_cpu_stream(out, buffer, (size_t)count * rwi_dtype_size(dtype));
}

RWI_INLINE void add_learned(const rw_embed_learned_params *p, rw_dtype dtype, int64_t begin,
                            int64_t end, rwi_fault_sink *sink) {
    token_rows rows;
    const bool stream = is_streamed(&p->rows);
    for (int64_t item = begin; item < end; item++) {
        if (!find_token(&p->rows, p->max_positions, item, sink, &rows))
            continue;
        const void *entry = rwi_element(p->table_dtype, p->table, rows.id * p->table_stride);
        for (int64_t first = 0; first < p->rows.hidden; first += RWI_CPU_BLOCK)
            add_entry(dtype, &rows, first, rwi_min(RWI_CPU_BLOCK, p->rows.hidden - first),
                      p->table_dtype, rwi_element(p->table_dtype, entry, first), stream);
    }
    if (stream)
        rwi_cpu_stream_end();
}

void RWI_CPU_KERNEL(embed_learned)(const rw_embed_learned_params *p, int64_t begin, int64_t end,
                                   rwi_fault_sink *sink) {
    switch (p->rows.dtype) {
    case RW_F32:
        add_learned(p, RW_F32, begin, end, sink);
        return;
    case RW_F16:
        add_learned(p, RW_F16, begin, end, sink);
        return;
    case RW_BF16:
        add_learned(p, RW_BF16, begin, end, sink);
        return;
    case RW_I32:
    case RW_I64:
    case RW_U8:
    case RW_F8_E4M3:
    case RW_F8_E5M2:
        return;
    }
}

/* The embedding of a position in columns [first, first + count); first is even. */
static void fill_waves(const rw_embed_sinusoidal_params *p, int64_t id, int64_t first,
                       int64_t count, float *wave) {
    int64_t n = p->rows.hidden / 2;
    if (p->concatenated) {
        int64_t sines = rwi_min(count, rwi_max(0, n - first));
#pragma omp simd
        for (int64_t i = 0; i < sines; i++)
            wave[i] = rwi_angle_at(&p->angles, id, first + i, n).sin;
#pragma omp simd
        for (int64_t i = sines; i < count; i++)
            wave[i] = rwi_angle_at(&p->angles, id, first + i - n, n).cos;
        return;
    }
#pragma omp simd
    for (int64_t i = 0; i < count / 2; i++) {
        rwi_cos_sin turn = rwi_angle_at(&p->angles, id, first / 2 + i, n);
        wave[2 * i] = turn.sin;
        wave[2 * i + 1] = turn.cos;
    }
}

void RWI_CPU_KERNEL(embed_sinusoidal)(const rw_embed_sinusoidal_params *p, int64_t begin,
                                      int64_t end, rwi_fault_sink *sink) {
    token_rows rows;
    float wave[RWI_CPU_BLOCK];
    const bool stream = is_streamed(&p->rows);
    for (int64_t item = begin; item < end; item++) {
        if (!find_token(&p->rows, p->max_positions, item, sink, &rows))
            continue;
        for (int64_t first = 0; first < p->rows.hidden; first += RWI_CPU_BLOCK) {
            int64_t count = rwi_min(RWI_CPU_BLOCK, p->rows.hidden - first);
            fill_waves(p, rows.id, first, count, wave);
            add_block(p->rows.dtype, &rows, first, count, wave, stream);
        }
    }
    if (stream)
        rwi_cpu_stream_end();
}
