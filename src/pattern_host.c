/* Attention patterns evaluated on the host, without a context. */
#include <ropewalk/pattern.h>

#include <stdio.h>
#include <string.h>

#include "pattern_describe.h"

/* The checks write their sentence into a context; this one exists for one call. */
typedef struct question {
    rw_context context; /* holds no device */
    rwi_call call;
} question;

static void ask(question *q, const char *name) {
    memset(q, 0, sizeof *q);
    q->call = (rwi_call){&q->context, name};
}

/* Copies the sentence of a failure to `message`. */
static rw_status answer(const question *q, rw_status status, rw_message *message) {
    return status == RW_OK ? RW_OK : rwi_message_set(message, status, "%s", q->context.error.text);
}

static rw_status describe(const rwi_call *call, const rw_pattern *pattern,
                          const rw_pattern_shape *shape, rwi_pattern *described) {
    RWI_TRY(rwi_check_pointer(call, "pattern", pattern));
    RWI_TRY(rwi_check_pattern_shape(call, shape));
    return rwi_describe_pattern(call, pattern, shape, described);
}

/* 0 <= begin <= end <= length */
static rw_status check_range(const rwi_call *call, const char *name, const int64_t range[2],
                             int64_t length) {
    if (range[0] >= 0 && range[0] <= range[1] && range[1] <= length)
        return RW_OK;
    return rwi_fail(call, RW_INVALID_ARGUMENT, "%s [%lld, %lld) is not within [0, %lld)", name,
                    (long long)range[0], (long long)range[1], (long long)length);
}

static rw_status visible_pair(const rwi_call *call, const rw_pattern *pattern,
                              const rw_pattern_question *asked, bool *visible) {
    rwi_pattern described;
    rwi_pattern_row row;
    rwi_bad_id bad;
    RWI_TRY(rwi_check_pointer(call, "question", asked));
    RWI_TRY(rwi_check_pointer(call, "visible", visible));
    const rw_pattern_shape *shape = &asked->shape;
    const rw_pattern_pair *pair = &asked->pair;
    const int64_t b[] = {pair->b, pair->b + (pair->b < INT64_MAX)};
    const int64_t i[] = {pair->i, pair->i + (pair->i < INT64_MAX)};
    const int64_t j[] = {pair->j, pair->j + (pair->j < INT64_MAX)};
    RWI_TRY(describe(call, pattern, shape, &described));
    RWI_TRY(check_range(call, "sequence", b, shape->batch));
    RWI_TRY(check_range(call, "query", i, shape->seq_q));
    RWI_TRY(check_range(call, "key", j, shape->seq_k));
    if (!rwi_pattern_row_at(&described, pair->b, pair->i, &row, &bad))
        return rwi_fail_fault(call, "", pair->b * shape->seq_q + pair->i, bad);
    *visible =
        rwi_pattern_visible(&described, &row, rwi_pattern_has_cells(&described), (int32_t)pair->j);
    return RW_OK;
}

rw_status rw_pattern_visible(const rw_pattern *pattern, const rw_pattern_question *asked,
                             bool *visible, rw_message *message) {
    question q;
    ask(&q, "rw_pattern_visible");
    return answer(&q, visible_pair(&q.call, pattern, asked, visible), message);
}

static rw_status ask_tile(const rwi_call *call, const rw_pattern *pattern,
                          const rw_pattern_rectangle *rectangle, rw_tile *tile) {
    rwi_pattern described;
    RWI_TRY(rwi_check_pointer(call, "rectangle", rectangle));
    RWI_TRY(rwi_check_pointer(call, "tile", tile));
    const rw_pattern_shape *shape = &rectangle->shape;
    const int64_t i[] = {rectangle->i_begin, rectangle->i_end};
    const int64_t j[] = {rectangle->j_begin, rectangle->j_end};
    const int64_t b[] = {rectangle->b, rectangle->b + (rectangle->b < INT64_MAX)};
    RWI_TRY(describe(call, pattern, shape, &described));
    RWI_TRY(check_range(call, "sequence", b, shape->batch));
    RWI_TRY(check_range(call, "queries", i, shape->seq_q));
    RWI_TRY(check_range(call, "keys", j, shape->seq_k));
    rwi_rectangle asked = {
        rectangle->b, {(int32_t)i[0], (int32_t)i[1]}, {(int32_t)j[0], (int32_t)j[1]}};
    *tile = rwi_pattern_tile(&described, &asked);
    return RW_OK;
}

rw_status rw_pattern_ask_tile(const rw_pattern *pattern, const rw_pattern_rectangle *rectangle,
                              rw_tile *tile, rw_message *message) {
    question q;
    ask(&q, "rw_pattern_ask_tile");
    return answer(&q, ask_tile(&q.call, pattern, rectangle, tile), message);
}

/* Whether each query has a row. */
static rw_status check_rows(const rwi_call *call, const rwi_pattern *described,
                            const rw_pattern_shape *shape) {
    rwi_pattern_row row;
    rwi_bad_id bad;
    for (int64_t b = 0; b < shape->batch; b++)
        for (int64_t i = 0; i < shape->seq_q; i++)
            if (!rwi_pattern_row_at(described, b, i, &row, &bad))
                return rwi_fail_fault(call, "", b * shape->seq_q + i, bad);
    return RW_OK;
}

static rw_status bake(const rwi_call *call, const rw_pattern *pattern,
                      const rw_pattern_shape *shape, uint8_t *bits) {
    rwi_pattern described;
    rwi_pattern_row row;
    rwi_bad_id bad;
    RWI_TRY(rwi_check_pointer(call, "shape", shape));
    RWI_TRY(describe(call, pattern, shape, &described));
    if (shape->batch == 0 || shape->seq_q == 0 || shape->seq_k == 0)
        return RW_OK;
    RWI_TRY(rwi_check_pointer(call, "bits", bits));
    RWI_TRY(check_rows(call, &described, shape));
    const int64_t bytes = rwi_ceil_div(shape->seq_k, 8);
    for (int64_t b = 0; b < shape->batch; b++)
        for (int64_t i = 0; i < shape->seq_q; i++) {
            (void)rwi_pattern_row_at(&described, b, i, &row, &bad);
            for (int64_t n = 0; n < bytes; n++)
                bits[(b * shape->seq_q + i) * bytes + n] =
                    rwi_pattern_byte(&described, &row, rwi_pattern_has_cells(&described), n);
        }
    return RW_OK;
}

rw_status rw_pattern_bake(const rw_pattern *pattern, const rw_pattern_shape *shape, uint8_t *bits,
                          rw_message *message) {
    question q;
    ask(&q, "rw_pattern_bake");
    return answer(&q, bake(&q.call, pattern, shape, bits), message);
}

static rw_status fill_globals(const rwi_call *call, const rw_pattern_globals_list *list,
                              uint8_t *bits) {
    RWI_TRY(rwi_check_pointer(call, "list", list));
    if (list->count > 0)
        RWI_TRY(rwi_check_pointer(call, "positions", list->positions));
    const rw_pattern_shape shape = {1, 0, list->seq_k};
    RWI_TRY(rwi_check_pattern_shape(call, &shape));
    if (list->count < 0)
        return rwi_fail(call, RW_INVALID_ARGUMENT, "count is %lld, expected 0 or more",
                        (long long)list->count);
    if (list->seq_k > 0)
        RWI_TRY(rwi_check_pointer(call, "bits", bits));
    for (int64_t n = 0; n < list->count; n++)
        if (list->positions[n] < 0 || list->positions[n] >= list->seq_k)
            return rwi_fail(call, RW_INVALID_ARGUMENT,
                            "positions[%lld] is %lld, expected 0 to %lld", (long long)n,
                            (long long)list->positions[n], (long long)list->seq_k - 1);
    if (list->seq_k > 0)
        memset(bits, 0, (size_t)rwi_ceil_div(list->seq_k, 8));
    for (int64_t n = 0; n < list->count; n++)
        bits[list->positions[n] / 8] |= (uint8_t)(1u << (list->positions[n] % 8));
    return RW_OK;
}

rw_status rw_pattern_globals(const rw_pattern_globals_list *list, uint8_t *bits,
                             rw_message *message) {
    question q;
    ask(&q, "rw_pattern_globals");
    return answer(&q, fill_globals(&q.call, list, bits), message);
}
