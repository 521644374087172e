/* Attention over a sequence whose keys and values are sharded over MPI ranks: rw_attention() over
 * the keys of each rank, then rw_attention_merge() of the partial results, by an all-gather or by a
 * ring. Prints time, bytes sent and the largest difference from one rank that has all keys.
 *
 *   mpicc context_parallel.c -o context_parallel $(pkg-config --cflags --libs ropewalk) -lm
 *   mpirun -n 4 ./context_parallel
 */
#include <math.h>
#include <mpi.h>
#include <ropewalk/ropewalk.h>
#include <stdio.h>
#include <stdlib.h>

/* The last queries of a causal sequence, e.g. a chunk of a long prompt; every rank has all of them.
 */
enum {
    HEADS = 8,
    KV_HEADS = 2,
    WIDTH = 64,
    SEQ_Q = 64,
    SEQ_K = 8000,
    ROWS = HEADS * SEQ_Q,
    RUNS = 5
};

/* Partial results, row after row: [heads, seq_q] rows of WIDTH columns, then their LSE. */
typedef struct partial {
    float out[ROWS * WIDTH];
    float lse[ROWS];
} partial;

typedef struct ranks {
    rw_context *context;
    int rank;
    int size;
    int64_t sent_bytes; /* the data of an all-gather counts once for each other rank */
} ranks;

static void fail(const char *sentence) {
    fprintf(stderr, "%s\n", sentence);
    MPI_Abort(MPI_COMM_WORLD, 1);
}

static void check(const ranks *r, rw_status status) {
    if (status == RW_OK)
        status = rw_synchronize(r->context);
    if (status != RW_OK)
        fail(rw_last_error(r->context));
}

static void *allocate(size_t bytes) {
    void *memory = malloc(bytes);
    if (!memory)
        fail("out of memory");
    return memory;
}

/* The same numbers on every rank. */
static float *random_numbers(int64_t count, uint32_t seed) {
    float *numbers = allocate((size_t)count * sizeof *numbers);
    for (int64_t i = 0; i < count; i++) {
        seed = seed * 1664525u + 1013904223u;
        numbers[i] = (float)(seed >> 8) / (1 << 23) - 1.0f;
    }
    return numbers;
}

/* ---- attention over the keys [begin, end) ---------------------------------------------------- */

typedef struct tensors {
    float *q; /* [SEQ_Q, HEADS, WIDTH] */
    float *k; /* [SEQ_K, KV_HEADS, WIDTH] */
    float *v;
} tensors;

static rw_tensor packed(float *data, int64_t tokens, int64_t heads) {
    return rw_tensor_contiguous(data, RW_F32, 3, (int64_t[]){tokens, heads, WIDTH});
}

/* The pattern's positions are those of the keys that it is called with: the last query is aligned
 * with their last key, from which it is SEQ_K - end positions away. */
static void attend(const ranks *r, const tensors *in, int64_t begin, int64_t end, partial *result) {
    rw_pattern causal = {.right = {.given = true, .keys = SEQ_K - end}};
    rw_attention_args args = {
        .q = packed(in->q, SEQ_Q, HEADS),
        .k = packed(in->k + begin * KV_HEADS * WIDTH, end - begin, KV_HEADS),
        .v = packed(in->v + begin * KV_HEADS * WIDTH, end - begin, KV_HEADS),
        .out = rw_tensor_transpose(
            rw_tensor_contiguous(result->out, RW_F32, 3, (int64_t[]){HEADS, SEQ_Q, WIDTH}), 0, 1),
        .lse = rw_tensor_contiguous(result->lse, RW_F32, 2, (int64_t[]){HEADS, SEQ_Q}),
        .pattern = &causal};
    check(r, rw_attention(r->context, &args));
}

/* ---- merging --------------------------------------------------------------------------------- */

/* Rows [begin, end), as packed results of one head. */
static rw_attention_part rows_of(partial *p, int64_t begin, int64_t end) {
    int64_t rows = end - begin;
    return (rw_attention_part){
        rw_tensor_contiguous(p->out + begin * WIDTH, RW_F32, 3, (int64_t[]){rows, 1, WIDTH}),
        rw_tensor_contiguous(p->lse + begin, RW_F32, 2, (int64_t[]){1, rows})};
}

/* into = into merged with other, rows [begin, end) */
static void merge(const ranks *r, partial *into, partial *other, int64_t begin, int64_t end) {
    rw_attention_part target = rows_of(into, begin, end);
    rw_attention_merge_args args = {target, rows_of(other, begin, end), target};
    check(r, rw_attention_merge(r->context, &args));
}

/* Every rank gets and merges everything: one exchange. */
static void merge_gathered(ranks *r, partial *result) {
    partial *all = allocate((size_t)r->size * sizeof *all);
    MPI_Allgather(result, sizeof *result, MPI_BYTE, all, sizeof *all, MPI_BYTE, MPI_COMM_WORLD);
    r->sent_bytes += (int64_t)sizeof *result * (r->size - 1);
    *result = all[0];
    for (int n = 1; n < r->size; n++)
        merge(r, result, &all[n], 0, ROWS);
    free(all);
}

static int64_t share_begin(const ranks *r, int share) {
    return (int64_t)ROWS * share / r->size;
}

/* Sends a share of the rows to the next rank and receives another one from the previous rank. */
static void pass_on(ranks *r, partial *from, int sent, partial *to, int received) {
    int next = (r->rank + 1) % r->size, previous = (r->rank + r->size - 1) % r->size;
    int64_t s0 = share_begin(r, sent), s1 = share_begin(r, sent + 1);
    int64_t r0 = share_begin(r, received), r1 = share_begin(r, received + 1);
    MPI_Sendrecv(from->out + s0 * WIDTH, (int)(s1 - s0) * WIDTH, MPI_FLOAT, next, 0,
                 to->out + r0 * WIDTH, (int)(r1 - r0) * WIDTH, MPI_FLOAT, previous, 0,
                 MPI_COMM_WORLD, MPI_STATUS_IGNORE);
    MPI_Sendrecv(from->lse + s0, (int)(s1 - s0), MPI_FLOAT, next, 1, to->lse + r0, (int)(r1 - r0),
                 MPI_FLOAT, previous, 1, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
    r->sent_bytes += (s1 - s0) * (WIDTH + 1) * (int64_t)sizeof(float);
}

/* Each share of the rows is merged as it passes all ranks; then the shares are distributed. */
static void merge_in_ring(ranks *r, partial *result) {
    partial *received = allocate(sizeof *received);
    for (int step = 0; step + 1 < r->size; step++) {
        int sent = (r->rank - step + r->size) % r->size;
        int share = (sent + r->size - 1) % r->size;
        pass_on(r, result, sent, received, share);
        merge(r, result, received, share_begin(r, share), share_begin(r, share + 1));
    }
    for (int step = 0; step + 1 < r->size; step++) {
        int share = (r->rank - step + r->size) % r->size;
        pass_on(r, result, (share + 1) % r->size, result, share);
    }
    free(received);
}

/* ---- measurements ---------------------------------------------------------------------------- */

static double largest_difference(const partial *a, const partial *b) {
    double worst = 0;
    for (int64_t i = 0; i < ROWS * WIDTH; i++)
        worst = fmax(worst, fabs((double)a->out[i] - b->out[i]));
    for (int64_t i = 0; i < ROWS; i++)
        worst = fmax(worst, fabs((double)a->lse[i] - b->lse[i]));
    return worst;
}

typedef void merge_function(ranks *r, partial *result);

/* Prints the slowest rank's shortest time and the largest difference; returns that. */
static double measure(ranks *r, const tensors *in, const partial *expected, const char *name,
                      merge_function *function) {
    partial *result = allocate(sizeof *result);
    double figures[2] = {HUGE_VAL, 0}, worst[2];
    for (int run = 0; run < RUNS; run++) {
        r->sent_bytes = 0;
        MPI_Barrier(MPI_COMM_WORLD);
        double begin = MPI_Wtime();
        attend(r, in, (int64_t)SEQ_K * r->rank / r->size, (int64_t)SEQ_K * (r->rank + 1) / r->size,
               result);
        function(r, result);
        figures[0] = fmin(figures[0], MPI_Wtime() - begin);
    }
    figures[1] = largest_difference(result, expected);
    MPI_Allreduce(figures, worst, 2, MPI_DOUBLE, MPI_MAX, MPI_COMM_WORLD);
    if (r->rank == 0)
        printf("%d ranks, %-10s  %8.2f ms  %9lld bytes sent  difference %.1e\n", r->size, name,
               worst[0] * 1e3, (long long)r->sent_bytes, worst[1]);
    free(result);
    return worst[1];
}

int main(int argc, char **argv) {
    ranks r = {0};
    rw_message why;
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &r.rank);
    MPI_Comm_size(MPI_COMM_WORLD, &r.size);
    /* The ranks of a host share its cores. */
    rw_context_options options = {.backend = RW_BACKEND_CPU, .num_threads = 1};
    if (rw_context_create(&options, &r.context, &why) != RW_OK)
        fail(why.text);
    tensors in = {random_numbers((int64_t)SEQ_Q * HEADS * WIDTH, 1),
                  random_numbers((int64_t)SEQ_K * KV_HEADS * WIDTH, 2),
                  random_numbers((int64_t)SEQ_K * KV_HEADS * WIDTH, 3)};
    partial *expected = allocate(sizeof *expected);
    attend(&r, &in, 0, SEQ_K, expected);
    double worst = measure(&r, &in, expected, "all-gather", merge_gathered);
    worst = fmax(worst, measure(&r, &in, expected, "ring", merge_in_ring));
    free(expected);
    free(in.q);
    free(in.k);
    free(in.v);
    rw_context_destroy(r.context);
    MPI_Finalize();
    return worst <= 1e-5 ? 0 : 1;
}
