/* Attention patterns asked on the host, without a context. */
#include <ropewalk/pattern.h>

#include <stdio.h>
#include <string.h>

#include "pattern_describe.h"

/* A question's place for its sentence: checks write into a context. */
typedef struct question {
    rw_context context; /* holds no device */
    rwi_call call;
} question;

static void ask(question *q, const char *name) {
    memset(q, 0, sizeof *q);
    q->call = (rwi_call){&q->context, name};
}

/* Hands the sentence of a failure to the caller. */
static rw_status answer(const question *q, rw_status status, rw_message *message) {
    return status == RW_OK ? RW_OK : rwi_message_set(message, status, "%s", q->context.error.text);
}

static rw_status describe(const rwi_call *call, const rw_pattern *pattern,
                          const rw_pattern_shape *shape, rwi_pattern *described) {
    if (!pattern)
        return rwi_fail(call, RW_INVALID_ARGUMENT, "pattern is NULL");
    rw_status status = rwi_check_pattern_shape(call, shape);
    return status == RW_OK ? rwi_describe_pattern(call, pattern, shape, described) : status;
}

/* 0 <= begin <= end <= length */
static rw_status check_range(const rwi_call *call, const char *name, const int64_t range[2],
                             int64_t length) {
    if (range[0] >= 0 && range[0] <= range[1] && range[1] <= length)
        return RW_OK;
    return rwi_fail(call, RW_INVALID_ARGUMENT, "%s [%lld, %lld) lies not within [0, %lld)", name,
                    (long long)range[0], (long long)range[1], (long long)length);
}

rw_status rw_pattern_visible(const rw_pattern *pattern, const rw_pattern_question *asked,
                             bool *visible, rw_message *message) {
    question q;
    rwi_pattern described;
    rwi_pattern_row row;
    rwi_bad_id bad;
    ask(&q, "rw_pattern_visible");
    if (!asked || !visible)
        return answer(
            &q,
            rwi_fail(&q.call, RW_INVALID_ARGUMENT, "%s is NULL", asked ? "visible" : "question"),
            message);
    const rw_pattern_shape *shape = &asked->shape;
    const rw_pattern_pair *pair = &asked->pair;
    const int64_t b[] = {pair->b, pair->b + (pair->b < INT64_MAX)};
    const int64_t i[] = {pair->i, pair->i + (pair->i < INT64_MAX)};
    const int64_t j[] = {pair->j, pair->j + (pair->j < INT64_MAX)};
    rw_status status = describe(&q.call, pattern, shape, &described);
    if (status == RW_OK)
        status = check_range(&q.call, "sequence", b, shape->batch);
    if (status == RW_OK)
        status = check_range(&q.call, "query", i, shape->seq_q);
    if (status == RW_OK)
        status = check_range(&q.call, "key", j, shape->seq_k);
    if (status == RW_OK && !rwi_pattern_row_at(&described, pair->b, pair->i, &row, &bad))
        status = rwi_fail_fault(&q.call, "", pair->b * shape->seq_q + pair->i, bad);
    if (status == RW_OK)
        *visible = rwi_pattern_visible(&described, &row, rwi_pattern_has_cells(&described),
                                       (int32_t)pair->j);
    return answer(&q, status, message);
}

rw_status rw_pattern_ask_tile(const rw_pattern *pattern, const rw_pattern_rectangle *rectangle,
                              rw_tile *tile, rw_message *message) {
    question q;
    rwi_pattern described;
    ask(&q, "rw_pattern_ask_tile");
    if (!rectangle || !tile)
        return answer(
            &q,
            rwi_fail(&q.call, RW_INVALID_ARGUMENT, "%s is NULL", rectangle ? "tile" : "rectangle"),
            message);
    const rw_pattern_shape *shape = &rectangle->shape;
    const int64_t i[] = {rectangle->i_begin, rectangle->i_end};
    const int64_t j[] = {rectangle->j_begin, rectangle->j_end};
    const int64_t b[] = {rectangle->b, rectangle->b + (rectangle->b < INT64_MAX)};
    rw_status status = describe(&q.call, pattern, shape, &described);
    if (status == RW_OK)
        status = check_range(&q.call, "sequence", b, shape->batch);
    if (status == RW_OK)
        status = check_range(&q.call, "queries", i, shape->seq_q);
    if (status == RW_OK)
        status = check_range(&q.call, "keys", j, shape->seq_k);
    if (status == RW_OK) {
        rwi_rectangle asked = {
            rectangle->b, {(int32_t)i[0], (int32_t)i[1]}, {(int32_t)j[0], (int32_t)j[1]}};
        *tile = rwi_pattern_tile(&described, &asked);
    }
    return answer(&q, status, message);
}

rw_status rw_pattern_bake(const rw_pattern *pattern, const rw_pattern_shape *shape, uint8_t *bits,
                          rw_message *message) {
    question q;
    rwi_pattern described;
    rwi_pattern_row row;
    rwi_bad_id bad;
    ask(&q, "rw_pattern_bake");
    if (!shape)
        return answer(&q, rwi_fail(&q.call, RW_INVALID_ARGUMENT, "shape is NULL"), message);
    rw_status status = describe(&q.call, pattern, shape, &described);
    if (status == RW_OK && !bits && shape->batch > 0 && shape->seq_q > 0 && shape->seq_k > 0)
        status = rwi_fail(&q.call, RW_INVALID_ARGUMENT, "bits is NULL");
    int64_t bytes = rwi_ceil_div(shape->seq_k, 8);
    for (int64_t b = 0; status == RW_OK && b < shape->batch; b++)
        for (int64_t i = 0; status == RW_OK && i < shape->seq_q; i++) {
            int64_t token = b * shape->seq_q + i;
            if (!rwi_pattern_row_at(&described, b, i, &row, &bad))
                status = rwi_fail_fault(&q.call, "", token, bad);
            for (int64_t n = 0; status == RW_OK && n < bytes; n++)
                bits[token * bytes + n] =
                    rwi_pattern_byte(&described, &row, rwi_pattern_has_cells(&described), n);
        }
    return answer(&q, status, message);
}

rw_status rw_pattern_globals(const rw_pattern_globals_list *list, uint8_t *bits,
                             rw_message *message) {
    question q;
    ask(&q, "rw_pattern_globals");
    if (!list || (list->count > 0 && !list->positions))
        return answer(
            &q, rwi_fail(&q.call, RW_INVALID_ARGUMENT, "%s is NULL", list ? "positions" : "list"),
            message);
    const rw_pattern_shape shape = {1, 0, list->seq_k};
    rw_status status = rwi_check_pattern_shape(&q.call, &shape);
    if (status == RW_OK && list->count < 0)
        status = rwi_fail(&q.call, RW_INVALID_ARGUMENT, "count is %lld, expected 0 or more",
                          (long long)list->count);
    if (status == RW_OK && list->seq_k > 0 && !bits)
        status = rwi_fail(&q.call, RW_INVALID_ARGUMENT, "bits is NULL");
    for (int64_t n = 0; status == RW_OK && n < list->count; n++)
        if (list->positions[n] < 0 || list->positions[n] >= list->seq_k)
            status = rwi_fail(&q.call, RW_INVALID_ARGUMENT,
                              "positions[%lld] is %lld, expected 0 to %lld", (long long)n,
                              (long long)list->positions[n], (long long)list->seq_k - 1);
    if (status != RW_OK)
        return answer(&q, status, message);
    if (list->seq_k > 0)
        memset(bits, 0, (size_t)rwi_ceil_div(list->seq_k, 8));
    for (int64_t n = 0; n < list->count; n++)
        bits[list->positions[n] / 8] |= (uint8_t)(1u << (list->positions[n] % 8));
    return RW_OK;
}
