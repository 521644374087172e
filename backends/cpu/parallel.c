/* The only file that uses OpenMP. */
#define _GNU_SOURCE /* sched_getaffinity */
#include "parallel.h"

#include <omp.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#include "backend.h"

/* LLVM's omp_get_num_procs() is the number when OpenMP started. But where OpenMP binds threads, the
 * calling one may be bound to a single core. */
int rwi_parallel_max_threads(void) {
    cpu_set_t own;
    const bool bound = omp_get_proc_bind() != omp_proc_bind_false;
    const int cores = !bound && sched_getaffinity(0, sizeof own, &own) == 0 ? CPU_COUNT(&own)
                                                                            : omp_get_num_procs();
    return cores < RWI_MAX_THREADS ? cores : RWI_MAX_THREADS;
}

/* The range [begin, end) of thread `index` of `count`; sizes differ by at most one. */
static int64_t range_begin(int64_t items, int index, int count) {
    return items / count * index + items % count * index / count;
}

static void run_range(const rwi_loop *loop, int index, int count) {
    loop->body(loop->task, range_begin(loop->items, index, count),
               range_begin(loop->items, index + 1, count));
}

/* Ranges of a thread if they are taken in turn: a thread that lost its core to another process
 * delays the others by one of them. */
#define TURNS 8

/* A loop that threads share; `next` is the range to take. */
typedef struct shared_loop {
    const rwi_loop *loop;
    atomic_int next;
} shared_loop;

/* The share of thread `index` of `count`. */
static void run_share(shared_loop *shared, int index, int count) {
    const rwi_loop *loop = shared->loop;
    if (!loop->in_turn) {
        run_range(loop, index, count);
        return;
    }
    const int ranges = (int)rwi_min(loop->items, (int64_t)TURNS * count);
    for (int range; (range = atomic_fetch_add(&shared->next, 1)) < ranges;)
        run_range(loop, range, ranges);
}

/* GNU OpenMP keeps the threads of a team, also one of the caller's, for the next one of the same
 * thread, and in the child of fork(), which does not have them, would wait for them forever. So that
 * both processes start new ones, the thread that forks ends them first. */
static void end_team(void) {
    (void)omp_pause_resource(omp_pause_soft, omp_get_initial_device());
}

static void watch_forks(void) {
    (void)pthread_atfork(end_team, NULL, NULL);
}

void rwi_parallel_prepare_for_fork(void) {
    static pthread_once_t watched = PTHREAD_ONCE_INIT;
    pthread_once(&watched, watch_forks);
}

static void run_openmp(const rwi_loop *loop, int team) {
    shared_loop shared = {.loop = loop};
#pragma omp parallel num_threads(team)
    {
        const int index = omp_get_thread_num();
        const int count = (int)rwi_min(omp_get_num_threads(), loop->items);
        if (index < count)
            run_share(&shared, index, count);
    }
}

#define WORD_BITS 32

/* One call of the caller's parallel_for. */
typedef struct pool_call {
    shared_loop shared;
    int count;
    atomic_int done;
    atomic_bool misused; /* an index was repeated or out of range */
    atomic_uint claimed[(RWI_MAX_THREADS + WORD_BITS - 1) / WORD_BITS]; /* a bit for every index */
} pool_call;

static void pool_task(void *data, int32_t index) {
    pool_call *call = data;
    const unsigned bit = 1u << (unsigned)index % WORD_BITS;
    if (index < 0 || index >= call->count ||
        (atomic_fetch_or(&call->claimed[index / WORD_BITS], bit) & bit)) {
        atomic_store(&call->misused, true);
        return;
    }
    run_share(&call->shared, index, call->count);
    atomic_fetch_add(&call->done, 1);
}

static bool run_pool(const rwi_threads *threads, const rwi_loop *loop, int count) {
    pool_call call = {.shared = {.loop = loop}, .count = count};
    threads->parallel_for(threads->user, count, pool_task, &call);
    return atomic_load(&call.done) == count && !atomic_load(&call.misused);
}

bool rwi_parallel_for(const rwi_threads *threads, int64_t useful, const rwi_loop *loop) {
    const int count = (int)rwi_min(rwi_min(useful, threads->team), loop->items);
    if (count <= 1) {
        loop->body(loop->task, 0, loop->items);
        return true;
    }
    if (threads->parallel_for)
        return run_pool(threads, loop, count);
    run_openmp(loop, threads->team);
    return true;
}
