/* Combines the partial results of attention split over the keys, on the CPU; the twin of
 * attention_combine.hip. */
#include "attention/attention_ragged_cpu.h"
#include "attention/attention_store_cpu.h"
#include "shared/exponential.h"

/* Combines the parts of row `number`, counted over all groups. */
static void combine_row(const rw_attention_params *p, int64_t number) {
    float out[RWI_ATTENTION_MAX_DIM] = {0}, largest = -INFINITY, sum = 0.0f;
    int64_t rows = p->num_rows, group, r, b, kv_head;
    rwi_bad_id bad;
    rwi_attention_row row;
    rwi_split_index(number, rwi_attention_group_rows(p), &group, &r);
    rwi_split_index(group, p->kv_heads, &b, &kv_head);
    rwi_attention_find_whole_row(p, b, kv_head, r, &row, &bad);
    if (!row.valid)
        return;
    for (int64_t part = 0; part < p->parts.count; part++) {
        float of_part = p->parts.largest[part * rows + number];
        if (p->parts.sum[part * rows + number] != 0.0f && of_part > largest)
            largest = of_part;
    }
    float base = rwi_softmax_base(largest);
    for (int64_t part = 0; part < p->parts.count; part++) {
        int64_t at = part * rows + number;
        if (p->parts.sum[at] == 0.0f)
            continue;
        float weight = rwi_exp(p->parts.largest[at] - base);
        const float *from = p->parts.out + at * rwi_attention_part_width(p);
        sum += weight * p->parts.sum[at];
#pragma omp simd
        for (int64_t d = 0; d < p->v_dim; d++)
            out[d] += weight * from[d];
    }
    rwi_attention_store_any(p, b, &row, out, rwi_attention_finish(p, row.h, base, sum));
}

/* Rows of sequences of different lengths, one sequence after another. */
static void combine_sequences(const rw_attention_params *p, int64_t begin, int64_t end) {
    const int64_t heads = p->rules.scores.heads;
    if (!rwi_attention_check_sequences(p, NULL))
        return;
    for (int64_t number = begin, next; number < end; number = next) {
        rwi_attention_sequence sequence;
        rwi_bad_id bad;
        rw_attention_params own = *p;
        if (!rwi_attention_load_sequence(p, rwi_attention_sequence_of_token(p, number / heads),
                                         &sequence, &bad) ||
            sequence.q_end <= number / heads) /* padding */
            return;
        rwi_attention_narrow(&own, &sequence);
        next = rwi_min(end, sequence.q_end * heads);
        for (int64_t n = number; n < next; n++)
            combine_row(&own, n - sequence.q_begin * heads);
    }
}

void RWI_CPU_KERNEL(attention_combine)(const rw_attention_combine_params *p, int64_t begin,
                                       int64_t end, rwi_fault_sink *sink) {
    (void)sink; /* attention has already reported invalid values */
    if (p->ragged.queries.data) {
        combine_sequences(p, begin, end);
        return;
    }
    for (int64_t number = begin; number < end; number++)
        combine_row(p, number);
}
