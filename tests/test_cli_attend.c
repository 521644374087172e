/* `ropewalk attend`, run as a user runs it, compared with attention in double. */
#include "harness/program_support.h"

#include <jansson.h>

/* ---- the reference ---- */

typedef bool sees_key(int64_t p, int64_t j);

static bool all(int64_t p, int64_t j) {
    (void)p, (void)j;
    return true;
}

static bool causal(int64_t p, int64_t j) {
    return j <= p;
}

static bool window(int64_t p, int64_t j) {
    return p - 2 <= j && j <= p + 2;
}

static bool causal_window(int64_t p, int64_t j) {
    return p - 2 <= j && j <= p;
}

static bool prefixed(int64_t p, int64_t j) {
    return j < 3 || j <= p;
}

static bool documents(int64_t p, int64_t j) {
    return (p >= 2) == (j >= 2) && (p >= 5) == (j >= 5) && j <= p;
}

static bool global(int64_t p, int64_t j) {
    return (p - 1 <= j && j <= p + 1) || p == 0 || j == 0 || p == 4 || j == 4;
}

typedef struct attention {
    const char *pattern; /* NULL: no option */
    sees_key *sees;
    int64_t batch, heads, kv_heads, seq_q, seq_k, width, v_width;
    rw_dtype dtype;
    const char *scale; /* NULL: no option */
    const char *softcap;
    bool alibi;
    bool bhsd;
    int mask_rank; /* 0: none */
    bool whole;    /* no axis of the mask is broadcast */
    bool is_bool;  /* the mask is BOOL */
} attention;

/* The element (b, h, s, i) of a tensor of four axes. */
static int64_t at(const attention *a, const held *t, int64_t b, int64_t h, int64_t s, int64_t i) {
    const int64_t *n = t->shape;
    return a->bhsd ? ((b * n[1] + h) * n[2] + s) * n[3] + i
                   : ((b * n[1] + s) * n[2] + h) * n[3] + i;
}

static held make_heads(const attention *a, const char *name, int64_t heads, int64_t seq,
                       int64_t width) {
    int64_t shape[] = {a->batch, seq, heads, width};
    if (a->bhsd) {
        shape[1] = heads;
        shape[2] = seq;
    }
    return make(name, a->dtype, 4, shape);
}

static held make_mask(const attention *a) {
    int64_t full[] = {a->batch, a->heads, a->seq_q, a->seq_k};
    const int64_t skipped = 4 - a->mask_rank;
    if (a->mask_rank == 3)
        full[1] = a->batch;
    for (int axis = 0; !a->whole && axis < 3; axis++)
        full[axis] = axis == 2 || a->mask_rank == 4 ? 1 : full[axis];
    held mask = make("mask", a->dtype, (size_t)a->mask_rank, full + skipped);
    rwt_store(mask.dtype, mask.data, 1, -INFINITY);
    rwt_store(mask.dtype, mask.data, 2, -1e4);
    return mask;
}

/* The mask as bytes, 0 where a key is hidden; elsewhere the mask becomes 0. */
static held make_bool(held *mask) {
    held bytes = make("mask", RW_U8, mask->rank, mask->shape);
    for (int64_t i = 0; i < count_of(mask); i++) {
        const bool seen = rwt_load(mask->dtype, mask->data, i) != -INFINITY;
        ((uint8_t *)bytes.data)[i] = seen;
        rwt_store(mask->dtype, mask->data, i, seen ? 0.0 : -INFINITY);
    }
    bytes.dtype = (rw_dtype)RW_FILE_BOOL;
    return bytes;
}

static double mask_at(const attention *a, const held *mask, int64_t b, int64_t h, int64_t i,
                      int64_t j) {
    const int64_t index[] = {b, a->mask_rank == 3 ? b : h, i, j};
    int64_t place = 0;
    for (int axis = 0; axis < a->mask_rank; axis++) {
        int64_t n = mask->shape[axis];
        place = place * n + (n == 1 ? 0 : index[4 - a->mask_rank + axis]);
    }
    return a->mask_rank ? rwt_load(mask->dtype, mask->data, place) : 0;
}

/* The published slopes for 3 and 4 heads. */
static double slope(int64_t heads, int64_t h) {
    static const double of_3[] = {0x1p-4, 0x1p-8, 0x1p-2},
                        of_4[] = {0x1p-2, 0x1p-4, 0x1p-6, 0x1p-8};
    return heads == 3 ? of_3[h] : of_4[h];
}

typedef struct tensors {
    held q, k, v, mask;
} tensors;

static double score(const attention *a, const tensors *t, const int64_t place[3], int64_t j) {
    const int64_t b = place[0], h = place[1], i = place[2], p = i + a->seq_k - a->seq_q;
    double s = 0;
    for (int64_t d = 0; d < a->width; d++)
        s += rwt_load(a->dtype, t->q.data, at(a, &t->q, b, h, i, d)) *
             rwt_load(a->dtype, t->k.data, at(a, &t->k, b, h / (a->heads / a->kv_heads), j, d));
    s *= a->scale ? atof(a->scale) : 1 / sqrt((double)a->width);
    if (a->softcap)
        s = atof(a->softcap) * tanh(s / atof(a->softcap));
    if (a->alibi)
        s -= slope(a->heads, h) * fabs((double)(p - j));
    s += mask_at(a, &t->mask, b, h, i, j);
    return a->sees(p, j) ? s : -INFINITY;
}

/* Computes o and lse of one query. */
static void expect_row(const attention *a, const tensors *t, const int64_t place[3], held *o,
                       held *lse) {
    const int64_t b = place[0], h = place[1], i = place[2];
    double sum = 0, largest = -INFINITY;
    for (int64_t j = 0; j < a->seq_k; j++)
        largest = fmax(largest, score(a, t, place, j));
    for (int64_t j = 0; j < a->seq_k && largest > -INFINITY; j++)
        sum += exp(score(a, t, place, j) - largest);
    ((float *)lse->data)[(b * a->heads + h) * a->seq_q + i] =
        sum > 0 ? (float)(largest + log(sum)) : -INFINITY;
    for (int64_t d = 0; d < a->v_width; d++) {
        double value = 0;
        for (int64_t j = 0; j < a->seq_k && sum > 0; j++)
            value +=
                exp(score(a, t, place, j) - largest) / sum *
                rwt_load(a->dtype, t->v.data, at(a, &t->v, b, h / (a->heads / a->kv_heads), j, d));
        rwt_store(a->dtype, o->data, at(a, o, b, h, i, d), value);
    }
}

static void assert_lse(const held *expected) {
    held got = read_tensor(in("o.safetensors"), "lse");
    assert_int_equal(got.dtype, RW_F32);
    assert_int_equal(got.rank, 3);
    assert_memory_equal(got.shape, expected->shape, 3 * sizeof(int64_t));
    for (int64_t n = 0; n < count_of(&got); n++) {
        double x = ((const float *)got.data)[n], y = ((const float *)expected->data)[n];
        if (x != y && !(fabs(x - y) <= 2e-5 * (1 + fabs(y))))
            fail_msg("lse: element %lld is %g, expected %g", (long long)n, x, y);
    }
    free(got.data);
}

static void free_tensors(tensors *t) {
    free(t->q.data);
    free(t->k.data);
    free(t->v.data);
    free(t->mask.data);
}

static tensors write_input(const attention *a) {
    tensors t = {
        .q = make_heads(a, "q", a->heads, a->seq_q, a->width),
        .k = make_heads(a, "k", a->kv_heads, a->seq_k, a->width),
        .v = make_heads(a, "v", a->kv_heads, a->seq_k, a->v_width),
    };
    if (a->mask_rank) {
        t.mask = make_mask(a);
        held bytes = a->is_bool ? make_bool(&t.mask) : (held){.data = NULL};
        WRITE("i.safetensors", &t.q, &t.k, &t.v, a->is_bool ? &bytes : &t.mask);
        free(bytes.data);
    } else {
        WRITE("i.safetensors", &t.q, &t.k, &t.v);
    }
    return t;
}

/* Runs `attend` over i.safetensors. */
static int run_attend(const attention *a, const char *more) {
    const char *arguments[MAX_ARGUMENTS] = {"attend", "--input", "i.safetensors", "--output",
                                            "o.safetensors"};
    int used = 5;
    const char *const pairs[][2] = {
        {"--pattern", a->pattern}, {"--scale", a->scale}, {"--softcap", a->softcap}};
    for (int n = 0; n < 3; n++)
        if (pairs[n][1]) {
            arguments[used++] = pairs[n][0];
            arguments[used++] = pairs[n][1];
        }
    if (a->bhsd)
        arguments[used++] = "--layout=bhsd";
    if (a->alibi)
        arguments[used++] = "--alibi";
    arguments[used++] = more; /* NULL: nothing */
    return run(arguments);
}

static void check_attention(const attention *a) {
    tensors t = write_input(a);
    const int64_t lse_shape[] = {a->batch, a->heads, a->seq_q};
    held o = make_heads(a, "o", a->heads, a->seq_q, a->v_width);
    held lse = make("lse", RW_F32, 3, lse_shape);
    for (int64_t n = 0; n < a->batch * a->heads * a->seq_q; n++)
        expect_row(
            a, &t,
            (const int64_t[]){n / a->seq_q / a->heads, n / a->seq_q % a->heads, n % a->seq_q}, &o,
            &lse);
    assert_ran(run_attend(a, NULL));
    assert_output("o", &o, a->dtype == RW_F32 ? 1e-5 : 2 * rwt_dtype_epsilon(a->dtype));
    assert_lse(&lse);
    free_tensors(&t);
    free(o.data);
    free(lse.data);
}

/* ---- results ---- */

#define SHAPE(num_heads, num_kv_heads, queries, keys)                                              \
    .batch = 2, .heads = num_heads, .kv_heads = num_kv_heads, .seq_q = queries, .seq_k = keys,     \
    .width = 16, .v_width = 24
#define EVEN SHAPE(4, 2, 7, 7)

static void test_patterns(void **state) {
    (void)state;
    static const struct {
        const char *pattern;
        sees_key *sees;
    } rows[] = {
        {NULL, all},
        {"bidirectional", all},
        {"causal", causal},
        {"window=2", window},
        {"causal,window=2", causal_window},
        {"causal,prefix=3", prefixed},
        {"causal,documents=0:2:5", documents},
        {"window=1,global=0:4", global},
    };
    for (size_t n = 0; n < sizeof rows / sizeof *rows; n++)
        for (int fewer = 0; fewer < 2; fewer++) {
            attention a = {EVEN, .pattern = rows[n].pattern, .sees = rows[n].sees};
            a.seq_q = fewer ? 3 : 7;
            check_attention(&a);
        }
    /* rows that see nothing */
    check_attention(&(attention){SHAPE(4, 2, 9, 4), .pattern = "causal", .sees = causal});
}

static void test_layouts_and_dtypes(void **state) {
    (void)state;
    for (int dtype = RW_F32; dtype <= RW_BF16; dtype++)
        for (int bhsd = 0; bhsd < 2; bhsd++)
            check_attention(&(attention){SHAPE(4, 2, 5, 7), .dtype = (rw_dtype)dtype, .bhsd = bhsd,
                                         .pattern = "causal", .sees = causal});
    check_attention(&(attention){SHAPE(4, 4, 7, 7), .sees = all});
    check_attention(&(attention){SHAPE(4, 1, 7, 7), .bhsd = true, .sees = all});
}

static void test_scores(void **state) {
    (void)state;
    check_attention(&(attention){EVEN, .scale = "0.75", .sees = all});
    check_attention(&(attention){EVEN, .scale = "-2e-1", .softcap = "1.5", .sees = all});
    check_attention(&(attention){EVEN, .alibi = true, .pattern = "causal", .sees = causal});
    check_attention(&(attention){SHAPE(3, 3, 2, 7), .alibi = true, .sees = all});
    for (int rank = 2; rank <= 4; rank++)
        for (int whole = 0; whole < 2; whole++)
            check_attention(&(attention){SHAPE(4, 2, 6, 7), .mask_rank = rank, .whole = whole,
                                         .softcap = "3", .dtype = whole ? RW_F32 : RW_BF16,
                                         .pattern = "causal", .sees = causal});
}

static void test_bool_masks(void **state) {
    (void)state;
    for (int rank = 2; rank <= 4; rank++)
        for (int whole = 0; whole < 2; whole++)
            check_attention(&(attention){SHAPE(4, 2, 6, 7), .mask_rank = rank, .whole = whole,
                                         .is_bool = true, .dtype = whole ? RW_F32 : RW_BF16,
                                         .sees = all});
}

/* The custom pattern of `ropewalk mask`: attend must hide the keys that mask shows as hidden. */
static void test_custom(void **state) {
    (void)state;
    attention a = {EVEN, .pattern = "custom=c.safetensors", .sees = causal_window};
    const int64_t shape[] = {7, 1};
    held bits = make("bits", RW_U8, 2, shape);
    for (int64_t i = 0; i < 7; i++) {
        ((uint8_t *)bits.data)[i] = 0;
        for (int64_t j = 0; j < 7; j++)
            ((uint8_t *)bits.data)[i] |= (uint8_t)(causal_window(i, j) << j);
    }
    WRITE("c.safetensors", &bits);
    check_attention(&a);
    free(bits.data);
}

static void test_empty(void **state) {
    (void)state;
    attention a = {SHAPE(4, 2, 0, 7), .alibi = true, .sees = all};
    check_attention(&a);
    check_attention(&(attention){SHAPE(4, 2, 7, 0), .sees = all}); /* 0 and -inf */
    a.batch = 0;
    check_attention(&a);
}

/* ---- with a rotation ---- */

static const char llama[] = "{\"model_type\":\"llama\",\"head_dim\":16,"
                            "\"max_position_embeddings\":8192}";

/* attend --config must equal rotate followed by attend. Both round the rotated q and k to the
 * dtype. */
static void check_rotation(const attention *a, const held *positions, const char *const more[2]) {
    tensors t = write_input(a);
    write_text("c.json", llama);
    if (positions)
        WRITE("i.safetensors", &t.q, &t.k, &t.v, positions);
    assert_ran(RUN("attend", "--config", "c.json", "--input", "i.safetensors", "--output",
                   "o.safetensors", "--pattern", "causal", more[0], more[1]));
    held o = read_tensor(in("o.safetensors"), "o"), lse = read_tensor(in("o.safetensors"), "lse");
    assert_ran(RUN("rotate", "--config", "c.json", "--input", "i.safetensors", "--output",
                   "r.safetensors", more[0], more[1]));
    held q = read_tensor(in("r.safetensors"), "q"), k = read_tensor(in("r.safetensors"), "k");
    WRITE("i.safetensors", &q, &k, &t.v);
    assert_ran(RUN("attend", "--input", "i.safetensors", "--output", "o.safetensors", "--pattern",
                   "causal"));
    assert_output("o", &o, 0);
    assert_output("lse", &lse, 0);
    const held *const all_of_them[] = {&o, &lse, &q, &k};
    for (int n = 0; n < 4; n++)
        free(all_of_them[n]->data);
    free_tensors(&t);
}

static void test_rotation(void **state) {
    (void)state;
    const attention a = {EVEN};
    const int64_t shape[] = {2, 7};
    held ids = make("positions", RW_I32, 2, shape);
    for (int64_t n = 0; n < 14; n++)
        rwt_store_id(RW_I32, ids.data, n, (n * n) % 1000 + 3);
    check_rotation(&a, NULL, (const char *const[]){NULL, NULL});
    check_rotation(&a, NULL, (const char *const[]){"--offset=100", "--pairing=interleaved"});
    check_rotation(&a, &ids, (const char *const[]){"--offset=1", NULL});
    free(ids.data);
}

/* The result of fewer queries than keys must equal the last rows of the result for all queries. */
static void check_last_queries(const held *positions, const char *offset) {
    const attention whole = {EVEN}, part = {SHAPE(4, 2, 3, 7)};
    tensors t = write_input(&whole);
    write_text("c.json", llama);
    for (int fewer = 0; fewer < 2; fewer++) {
        held q = make_heads(fewer ? &part : &whole, "q", 4, fewer ? 3 : 7, 16);
        for (int64_t b = 0; fewer && b < 2; b++)
            memcpy((float *)q.data + b * 192, (float *)t.q.data + b * 448 + 256, 768);
        if (positions)
            WRITE("i.safetensors", &q, &t.k, &t.v, positions);
        else
            WRITE("i.safetensors", &q, &t.k, &t.v);
        assert_ran(RUN("attend", "--config", "c.json", "--input", "i.safetensors", "--output",
                       fewer ? "o.safetensors" : "whole.safetensors", "--pattern", "causal",
                       offset));
        free(q.data);
    }
    held o = read_tensor(in("whole.safetensors"), "o"), last = make_heads(&part, "o", 4, 3, 24);
    for (int64_t b = 0; b < 2; b++)
        memcpy((float *)last.data + b * 288, (float *)o.data + b * 672 + 384, 1152);
    assert_output("o", &last, 2e-6);
    free(o.data);
    free(last.data);
    free_tensors(&t);
}

static void test_last_queries(void **state) {
    (void)state;
    const int64_t one[] = {7}, rows[] = {2, 7}, axes[] = {3, 2, 7};
    const int64_t *const shapes[] = {one, rows, axes};
    check_last_queries(NULL, "--offset=0");
    check_last_queries(NULL, "--offset=1000");
    for (size_t rank = 1; rank <= 2; rank++) {
        held ids = make("positions", RW_I64, rank, shapes[rank - 1]);
        for (int64_t n = 0; n < count_of(&ids); n++)
            rwt_store_id(RW_I64, ids.data, n, 2 * n + 5);
        check_last_queries(&ids, "--offset=7");
        free(ids.data);
    }
}

/* ---- reports ---- */

static void test_check(void **state) {
    (void)state;
    const attention a = {EVEN, .pattern = "causal", .dtype = RW_BF16};
    tensors t = write_input(&a);
    assert_ran(RUN("attend", "--input", "i.safetensors", "--output", "o.safetensors", "--pattern",
                   "causal", "--check", "--json", "--backend", "cpu"));
    json_t *report = json_load_file(in("out"), 0, NULL), *one;
    size_t i;
    assert_non_null(report);
    assert_string_equal(json_string_value(json_object_get(report, "pattern")), "causal");
    assert_int_equal(json_integer_value(json_object_get(report, "kv_heads")), 2);
    assert_true(json_is_array(json_object_get(report, "check")));
    json_array_foreach(json_object_get(report, "check"), i, one) {
        assert_true(json_is_true(json_object_get(one, "agrees")));
        assert_string_equal(json_string_value(json_object_get(one, "tensor")), i % 2 ? "lse" : "o");
    }
    json_decref(report);
    free_tensors(&t);
}

/* The same tensor without the axis of the batch. */
static held packed(held tensor) {
    const int64_t shape[] = {tensor.shape[0] * tensor.shape[1], tensor.shape[2], tensor.shape[3]};
    tensor.rank = 3;
    memcpy(tensor.shape, shape, sizeof shape);
    return tensor;
}

static held bounds(const char *name, int64_t length) {
    held tensor = make(name, RW_I32, 1, (const int64_t[]){3});
    for (int n = 0; n < 3; n++)
        ((int32_t *)tensor.data)[n] = (int32_t)(n * length);
    return tensor;
}

/* Two sequences of equal lengths are a batch, too: k and v by sequence, packed, or pages. */
static void test_ragged(void **state) {
    (void)state;
    const attention a = {SHAPE(4, 2, 7, 16), .pattern = "causal", .dtype = RW_F32, .sees = causal};
    tensors t = write_input(&a);
    held o = make_heads(&a, "o", a.heads, a.seq_q, a.v_width);
    held lse = make("lse", RW_F32, 3, (const int64_t[]){a.batch, a.heads, a.seq_q});
    for (int64_t n = 0; n < a.batch * a.heads * a.seq_q; n++)
        expect_row(&a, &t,
                   (const int64_t[]){n / a.seq_q / a.heads, n / a.seq_q % a.heads, n % a.seq_q}, &o,
                   &lse);
    held q = packed(t.q), k = packed(t.k), v = packed(t.v), expected = packed(o);
    held cu_q = bounds("cu_seqlens_q", a.seq_q), cu_k = bounds("cu_seqlens_k", a.seq_k);
    held table = make("block_table", RW_I64, 2, (const int64_t[]){2, 1});
    held ends = make("key_end", RW_I32, 1, (const int64_t[]){2});
    ((int64_t *)table.data)[1] = 1;
    ((int32_t *)ends.data)[0] = ((int32_t *)ends.data)[1] = 16;
    for (int form = 0; form < 3; form++) {
        if (form == 0)
            WRITE("i.safetensors", &q, &t.k, &t.v, &cu_q);
        else if (form == 1)
            WRITE("i.safetensors", &q, &k, &v, &cu_q, &cu_k);
        else
            WRITE("i.safetensors", &q, &t.k, &t.v, &cu_q, &table, &ends);
        assert_ran(run_attend(&a, NULL));
        assert_output("o", &expected, 1e-5);
        held got = read_tensor(in("o.safetensors"), "lse");
        assert_int_equal(got.rank, 2);
        assert_int_equal(got.shape[1], 14);
        free(got.data);
        assert_int_equal(run_attend(&a, "--layout=bhsd"), 1);
    }
    held *const owned[] = {&o, &lse, &cu_q, &cu_k, &table, &ends};
    for (size_t n = 0; n < sizeof owned / sizeof *owned; n++)
        free(owned[n]->data);
    free_tensors(&t);
}

/* Codes with a scale for each head are the numbers that they stand for. */
static void test_f8(void **state) {
    (void)state;
    const attention a = {EVEN, .pattern = "causal", .dtype = RW_F32, .sees = causal};
    tensors t = write_input(&a);
    const int64_t heads[] = {a.kv_heads}, lse_shape[] = {a.batch, a.heads, a.seq_q};
    held k = make("k", RW_F8_E4M3, 4, t.k.shape), v = make("v", RW_F8_E4M3, 4, t.v.shape);
    held k_scale = make("k_scale", RW_F32, 1, heads), v_scale = make("v_scale", RW_F32, 1, heads);
    for (int64_t h = 0; h < a.kv_heads; h++) {
        ((float *)k_scale.data)[h] = 0.75f + (float)h;
        ((float *)v_scale.data)[h] = 2.5f - (float)h;
    }
    for (int64_t n = 0; n < count_of(&k); n++)
        ((float *)t.k.data)[n] =
            (float)rwt_load(k.dtype, k.data, n) * ((float *)k_scale.data)[n / a.width % a.kv_heads];
    for (int64_t n = 0; n < count_of(&v); n++)
        ((float *)t.v.data)[n] = (float)rwt_load(v.dtype, v.data, n) *
                                 ((float *)v_scale.data)[n / a.v_width % a.kv_heads];
    held o = make_heads(&a, "o", a.heads, a.seq_q, a.v_width),
         lse = make("lse", RW_F32, 3, lse_shape);
    for (int64_t n = 0; n < a.batch * a.heads * a.seq_q; n++)
        expect_row(&a, &t,
                   (const int64_t[]){n / a.seq_q / a.heads, n / a.seq_q % a.heads, n % a.seq_q}, &o,
                   &lse);
    k.dtype = v.dtype = (rw_dtype)RW_FILE_F8_E4M3;
    WRITE("i.safetensors", &t.q, &k, &v, &k_scale, &v_scale);
    assert_ran(run_attend(&a, NULL));
    assert_output("o", &o, 1e-5);
    assert_lse(&lse);
    held *const owned[] = {&k, &v, &k_scale, &v_scale, &o, &lse};
    for (size_t n = 0; n < sizeof owned / sizeof *owned; n++)
        free(owned[n]->data);
    free_tensors(&t);
}

int main(void) {
    if (!rwt_test_backend_usable())
        return RWT_TEST_SKIPPED;
#define TEST(name) cmocka_unit_test_setup_teardown(name, make_folder, remove_folder)
    const struct CMUnitTest tests[] = {
        TEST(test_patterns), TEST(test_layouts_and_dtypes),
        TEST(test_scores),   TEST(test_bool_masks),
        TEST(test_custom),   TEST(test_empty),
        TEST(test_rotation), TEST(test_last_queries),
        TEST(test_check),    TEST(test_ragged),
        TEST(test_f8),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
