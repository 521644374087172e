/* The run loop: the blocks of a launch run one after another, the waves of a block in turn from
 * barrier to barrier, and each instruction is a call of its compiled form.
 *
 * Behaviour that a device leaves undefined is made visible. Registers and LDS start with a pattern;
 * waves and blocks run in ascending or descending order; a wave that reaches neither its end nor a
 * barrier is a hang, also if it waits for its own masked-off lanes. Waves take turns after a slice
 * of instructions, so that one may wait for another.
 */
#define _GNU_SOURCE
#include "isa_machine.h"

#include <immintrin.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define API __attribute__((visibility("default")))

/* The emulator's layout of scalar registers: after them the constants of operands, then these. */
enum {
    TTMP = 108,
    RDNA_NULL = 124,
    EXEC = 126,
    CONSTANTS = 128,
    SHARED_BASE = 235,
    FLOATS = 240
};
enum {
    SCC = 253,
    PC = 256,
    SCRATCH_STRIDE = 259
};
enum {
    SH_MEM_BASES = 15
}; /* a hardware register: halves of the apertures' upper halves */
enum {
    SHARED_APERTURE = 0x00010000,
    PRIVATE_APERTURE = 0x00020000
};
enum {
    SLICE = 100000,
    VGPRS = 256
};

typedef struct isa_wave {
    uint32_t sgpr[ISA_SGPRS + ISA_HW_REGISTERS], *vgpr, *acc;
    uint8_t *scratch;
    uint64_t since_barrier;
    bool done, waiting;
} isa_wave;

static uint64_t pair(const uint32_t *low) {
    return low[0] | (uint64_t)low[1] << 32;
}

static void set_pair(uint32_t *low, uint64_t value) {
    low[0] = (uint32_t)value;
    low[1] = (uint32_t)(value >> 32);
}

/* ---- initial state of a wave ---- */

static void fill(uint32_t *words, size_t count, uint32_t value) {
    for (size_t i = 0; i < count; i++)
        words[i] = value;
}

/* Registers that no instruction changes. */
static void init_constants(const isa_launch *l, isa_wave *w) {
    static const float floats[9] = {0.5f, -0.5f, 1, -1, 2, -2, 4, -4, 0.15915494f};
    memset(w->sgpr, 0, sizeof w->sgpr);
    for (uint32_t i = 0; i <= 64; i++)
        w->sgpr[CONSTANTS + i] = i;
    for (uint32_t i = 1; i <= 16; i++)
        w->sgpr[CONSTANTS + 64 + i] = 0u - i;
    w->sgpr[SHARED_BASE] = w->sgpr[SHARED_BASE + 1] = SHARED_APERTURE;
    w->sgpr[SHARED_BASE + 2] = w->sgpr[SHARED_BASE + 3] = PRIVATE_APERTURE;
    memcpy(w->sgpr + FLOATS, floats, sizeof floats);
    w->sgpr[SCRATCH_STRIDE] = l->scratch_bytes;
    w->sgpr[ISA_SGPRS + SH_MEM_BASES] = SHARED_APERTURE | PRIVATE_APERTURE >> 16;
}

static void init_registers(const isa_launch *l, isa_wave *w) {
    fill(w->sgpr, CONSTANTS, l->poison);
    if (l->wave == 32)
        w->sgpr[RDNA_NULL] = 0;
    w->sgpr[SCC] = l->poison & 1;
    fill(w->vgpr, (size_t)l->vgprs * l->wave, l->poison);
    if (l->wave == 64)
        fill(w->acc, (size_t)l->vgprs * l->wave, l->poison);
    memset(w->scratch, (int)(l->poison & 255), (size_t)l->scratch_bytes * l->wave);
    memcpy(w->sgpr, l->user, l->user_count * sizeof *l->user);
}

static void init_wave(const isa_launch *l, isa_wave *w, uint32_t first, const uint32_t *id) {
    const uint32_t threads = l->block[0] * l->block[1] * l->block[2];
    const uint32_t lanes = threads - first < l->wave ? threads - first : l->wave;
    w->done = w->waiting = false;
    w->since_barrier = 0;
    init_registers(l, w);
    set_pair(w->sgpr + EXEC, lanes == 64 ? UINT64_MAX : (UINT64_C(1) << lanes) - 1);
    set_pair(w->sgpr + PC, l->start);
    if (l->ids_in_ttmp) {
        w->sgpr[TTMP + 7] = (id[1] & 0xffff) | id[2] << 16;
        w->sgpr[TTMP + 9] = id[0];
    } else {
        uint32_t at = l->user_count;
        for (int axis = 0; axis < 3; axis++)
            if (l->rsrc2 >> (7 + axis) & 1)
                w->sgpr[at++] = id[axis];
    }
    for (uint32_t lane = 0; lane < lanes; lane++) {
        const uint32_t t = first + lane, x = l->block[0], y = l->block[1];
        w->vgpr[lane] = t / (x * y) << 20 | t / x % y << 10 | t % x;
    }
}

/* ---- failing accesses ---- */

static struct {
    sigjmp_buf back;
    volatile sig_atomic_t armed;
    volatile uint64_t address;
} guard;

static void on_access(int signal_number, siginfo_t *info, void *context) {
    (void)context;
    if (!guard.armed) {
        signal(signal_number, SIG_DFL);
        raise(signal_number);
        return;
    }
    guard.armed = 0;
    /* The processor does not report a noncanonical address. */
    guard.address = info->si_code == SI_KERNEL ? UINT64_MAX : isa_to_device(info->si_addr);
    siglongjmp(guard.back, 1);
}

/* ---- the loop ---- */

typedef struct isa_state {
    isa_launch *launch;
    isa_wave *waves;
    uint32_t num_waves;
    uint32_t *lds;
    unsigned csr; /* the host's */
    isa_wave *current;
    uint64_t pc; /* of the current instruction; the wave may already hold the next one's */
    uint32_t block[3];
} isa_state;

static bool fail(isa_state *s, const isa_wave *w, isa_failure failure) {
    isa_launch *l = s->launch;
    l->failure = failure;
    l->failed_wave = (uint32_t)(w - s->waves);
    l->failed_pc = pair(w->sgpr + PC);
    l->failed_exec = pair(w->sgpr + EXEC);
    if (l->wave == 32)
        l->failed_exec &= UINT32_MAX;
    memcpy(l->failed_block, s->block, sizeof s->block);
    return false;
}

/* Calls Python to look up or compile the form, in the host's floating-point mode. */
static bool get_form(const isa_state *s, uint64_t pc, isa_entry *entry) {
    const unsigned csr = _mm_getcsr();
    _mm_setcsr(s->csr);
    guard.armed = 0;
    s->launch->compile(pc, entry);
    guard.armed = 1;
    _mm_setcsr(csr);
    return entry->fn || entry->flags & ISA_SKIP;
}

/* Runs a wave to its end, to a barrier or to the end of its slice. */
static bool run_wave(isa_state *s, isa_wave *w) {
    isa_launch *l = s->launch;
    void *const memory = (void *)(uintptr_t)(0 - ISA_BIAS);
    void *b[8] = {w->sgpr, w->vgpr, memory, s->lds, w->scratch, l->wave == 64 ? w->acc : w->vgpr,
                  memory,  s->lds};
    s->current = w;
    for (uint32_t n = 0; n < SLICE; n++) {
        const uint64_t pc = pair(w->sgpr + PC);
        const uint64_t at = (pc - l->base) >> 2;
        if (at >= l->words) {
            w->done = pc == UINT64_MAX;
            w->since_barrier += n;
            return w->done || fail(s, w, ISA_LOST);
        }
        isa_entry *e = &l->table[at];
        if (!e->fn && !(e->flags & ISA_SKIP) && !get_form(s, pc, e))
            return fail(s, w, ISA_NO_FORM);
        if (e->flags & ISA_SKIP) {
            set_pair(w->sgpr + PC, pc + e->bytes);
        } else {
            s->pc = pc;
            e->fn(b[e->buffers[0]], b[e->buffers[1]], b[e->buffers[2]], b[e->buffers[3]],
                  b[e->buffers[4]], b[e->buffers[5]]);
        }
        l->executed++;
        if (e->flags & ISA_BARRIER) {
            w->waiting = true;
            w->since_barrier = 0;
            return true;
        }
    }
    w->since_barrier += SLICE;
    return w->since_barrier < l->limit || fail(s, w, ISA_HANG);
}

/* Runs the waves of a block. A barrier opens when every wave that has not ended waits at it. */
static bool run_waves(isa_state *s) {
    const isa_launch *l = s->launch;
    for (;;) {
        bool any_runs = false, any_waits = false;
        for (uint32_t k = 0; k < s->num_waves; k++) {
            isa_wave *w = &s->waves[l->reverse ? s->num_waves - 1 - k : k];
            if (!w->done && !w->waiting && !run_wave(s, w))
                return false;
            any_runs |= !w->done && !w->waiting;
            any_waits |= w->waiting;
        }
        if (any_runs)
            continue;
        if (!any_waits)
            return true;
        for (uint32_t k = 0; k < s->num_waves; k++)
            s->waves[k].waiting = false;
    }
}

static bool run_block(isa_state *s, uint64_t number) {
    isa_launch *l = s->launch;
    s->block[0] = (uint32_t)(number % l->grid[0]);
    s->block[1] = (uint32_t)(number / l->grid[0] % l->grid[1]);
    s->block[2] = (uint32_t)(number / l->grid[0] / l->grid[1]);
    const size_t all = (l->lds_bytes + 4095u) / 4096 * 4096 / sizeof *s->lds;
    fill(s->lds, all, l->poison);
    for (uint32_t i = 0; i < s->num_waves; i++)
        init_wave(l, &s->waves[i], i * l->wave, s->block);
    if (!run_waves(s))
        return false;
    for (size_t i = (l->lds_bytes + 3u) / 4; i < all; i++) {
        if (s->lds[i] != l->poison) {
            l->failed_address = i * 4;
            return fail(s, s->waves, ISA_LDS_OVERRUN);
        }
    }
    return true;
}

static void run_blocks(isa_state *s) {
    const isa_launch *l = s->launch;
    const uint64_t blocks = (uint64_t)l->grid[0] * l->grid[1] * l->grid[2];
    for (uint64_t i = 0; i < blocks; i++)
        if (!run_block(s, l->reverse ? blocks - 1 - i : i))
            return;
}

static void run_guarded(isa_state *s) {
    struct sigaction action = {.sa_sigaction = on_access, .sa_flags = SA_SIGINFO}, segv, bus;
    sigaction(SIGSEGV, &action, &segv);
    sigaction(SIGBUS, &action, &bus);
    if (sigsetjmp(guard.back, 1) == 0) {
        _mm_setcsr((s->csr & ~0x8040u) | (s->launch->flush ? 0x8040u : 0));
        guard.armed = 1;
        run_blocks(s);
    } else {
        s->launch->failed_address = guard.address;
        fail(s, s->current, ISA_ACCESS);
        s->launch->failed_pc = s->pc;
    }
    guard.armed = 0;
    _mm_setcsr(s->csr);
    sigaction(SIGSEGV, &segv, NULL);
    sigaction(SIGBUS, &bus, NULL);
}

API int isa_run(isa_launch *l) {
    const uint32_t threads = l->block[0] * l->block[1] * l->block[2];
    isa_state s = {.launch = l, .num_waves = (threads + l->wave - 1) / l->wave};
    const size_t file = VGPRS * l->wave * sizeof(uint32_t);
    const size_t scratch = (size_t)l->scratch_bytes * l->wave;
    s.waves = calloc(s.num_waves, sizeof *s.waves);
    uint8_t *registers = malloc((2 * file + scratch) * s.num_waves);
    s.lds = isa_lds(l->lds_bytes);
    s.csr = _mm_getcsr();
    l->failure = ISA_NO_FORM;
    if (s.waves && registers && s.lds) {
        l->failure = ISA_RAN;
        for (uint32_t i = 0; i < s.num_waves; i++) {
            uint8_t *mine = registers + i * (2 * file + scratch);
            s.waves[i].vgpr = (uint32_t *)mine;
            s.waves[i].acc = (uint32_t *)(mine + file);
            s.waves[i].scratch = mine + 2 * file;
            init_constants(l, &s.waves[i]);
        }
        run_guarded(&s);
    }
    free(registers);
    free(s.waves);
    return (int)l->failure;
}

/* ---- coverage report, printed at exit ---- */

static struct { uint64_t launches, executed; } totals;

API void isa_count(const isa_launch *l) {
    totals.launches++;
    totals.executed += l->executed;
}

__attribute__((destructor)) static void tell_totals(void) {
    const char *path = getenv("ROPEWALK_ISA_STATS");
    FILE *file = path ? fopen(path, "a") : NULL;
    if (!file)
        return;
    fprintf(file, "%llu %llu\n", (unsigned long long)totals.launches,
            (unsigned long long)totals.executed);
    fclose(file);
}
