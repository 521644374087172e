/* Matches threads that wait for each other, when no thread of the block can run: first lanes that
 * are held back, then waves, then barriers and warpgroups. Reports what cannot be matched.
 */
#include <stdio.h>

#include "emulator_threads.h"

static hip_emulator_block_state &block = hip_emulator_block;

/* The maximum number of rounds that lanes of a wave may take while one is held back, or threads
 * that test mbarriers while nobody else can run. */
#define MAX_ROUNDS 10000

/* ---- errors ---- */

static const char *op_name(const hip_emulator_call *call) {
    switch (call->op) {
    case HIP_EMULATOR_HELD:
        return "an atomic operation";
    case HIP_EMULATOR_BARRIER:
        return "__syncthreads";
    case HIP_EMULATOR_ARRIVE:
    case HIP_EMULATOR_MBARRIER:
    case HIP_EMULATOR_TESTED:
        break;
    case HIP_EMULATOR_SHFL:
        return "__shfl";
    case HIP_EMULATOR_SHFL_UP:
        return "__shfl_up";
    case HIP_EMULATOR_SHFL_DOWN:
        return "__shfl_down";
    case HIP_EMULATOR_SHFL_XOR:
        return "__shfl_xor";
    case HIP_EMULATOR_INSTRUCTION:
        return call->instruction->name;
    case HIP_EMULATOR_BALLOT:
        return "__ballot";
    case HIP_EMULATOR_ANY:
        return "__any";
    case HIP_EMULATOR_ALL:
        return "__all";
    case HIP_EMULATOR_ACTIVEMASK:
        return "__activemask";
    }
    return "?";
}

hip_emulator_text hip_emulator_describe(const hip_emulator_call *call) {
    const char *slash = strrchr(call->site.file, '/');
    char name[112];
    snprintf(name, sizeof name, "%s", op_name(call));
    if (call->op == HIP_EMULATOR_ARRIVE || call->op == HIP_EMULATOR_MBARRIER ||
        call->op == HIP_EMULATOR_TESTED || (call->op == HIP_EMULATOR_BARRIER && call->width != 0))
        hip_emulator_describe_barrier(call, name, sizeof name);
    hip_emulator_text text;
    snprintf(text.buffer, sizeof text.buffer, "%s at %.96s:%d in %.96s", name,
             slash ? slash + 1 : call->site.file, call->site.line, call->site.function);
    return text;
}

/* "waits for ...", "has exited" */
static hip_emulator_text describe_state(int index) {
    hip_emulator_text text = {"has exited"};
    if (block.threads[index].state != HIP_EMULATOR_DONE)
        snprintf(text.buffer, sizeof text.buffer, "waits for %.300s",
                 hip_emulator_describe(&block.threads[index].call).buffer);
    return text;
}

void hip_emulator_report(const char *sentence) {
    fprintf(stderr, "hip emulator: kernel %s, block (%u, %u, %u): %s\n", block.launch->kernel,
            blockIdx.x, blockIdx.y, blockIdx.z, sentence);
}

bool hip_emulator_report_divergence(int index, int other, const char *group) {
    char sentence[900];
    snprintf(sentence, sizeof sentence,
             "%s is not reached by every thread of the %s: thread %d is there, thread %d %s",
             hip_emulator_describe(&block.threads[index].call).buffer, group, index, other,
             describe_state(other).buffer);
    hip_emulator_report(sentence);
    return false;
}

bool hip_emulator_report_call(int index, const char *what) {
    char sentence[600];
    snprintf(sentence, sizeof sentence, "%s, thread %d: %s",
             hip_emulator_describe(&block.threads[index].call).buffer, index, what);
    hip_emulator_report(sentence);
    return false;
}

static bool report_spin(int held) {
    char sentence[600];
    snprintf(sentence, sizeof sentence,
             "lanes of a wave wait for thread %d, which lockstep holds back after %s", held,
             hip_emulator_describe(&block.threads[held].call).buffer);
    hip_emulator_report(sentence);
    return false;
}

static bool report_shuffle(int index, const char *what, int number) {
    char sentence[600];
    snprintf(sentence, sizeof sentence, "%s, thread %d: %s %d (wave of %d)",
             hip_emulator_describe(&block.threads[index].call).buffer, index, what, number,
             warpSize);
    hip_emulator_report(sentence);
    return false;
}

static bool in_same_state(int index, int other) {
    const hip_emulator_thread *a = &block.threads[index], *b = &block.threads[other];
    if (a->state == HIP_EMULATOR_DONE || b->state == HIP_EMULATOR_DONE)
        return a->state == b->state;
    return hip_emulator_same_call(&a->call, &b->call) && a->call.lane == b->call.lane &&
           a->call.width == b->call.width &&
           (a->call.op != HIP_EMULATOR_MBARRIER || a->call.brought == b->call.brought);
}

/* "nobody can continue: threads 0 to 95 wait for ...; thread 96 has exited" */
static bool report_deadlock(void) {
    char sentence[1800] = "nobody can continue: ";
    size_t used = strlen(sentence);
    for (int first = 0, end; first < block.num_threads && used < sizeof sentence; first = end) {
        for (end = first + 1; end < block.num_threads && in_same_state(first, end); end++)
            ;
        char threads[64];
        snprintf(threads, sizeof threads, "threads %d to %d", first, end - 1);
        if (end == first + 1)
            snprintf(threads, sizeof threads, "thread %d", first);
        const bool done = block.threads[first].state == HIP_EMULATOR_DONE, one = end == first + 1;
        used += (size_t)snprintf(sentence + used, sizeof sentence - used, "%s%s %s %s",
                                 first > 0 ? "; " : "", threads,
                                 done  ? one ? "has" : "have"
                                 : one ? "waits"
                                       : "wait",
                                 done ? "exited" : "for ");
        if (!done && used < sizeof sentence)
            used += (size_t)snprintf(sentence + used, sizeof sentence - used, "%s",
                                     hip_emulator_describe(&block.threads[first].call).buffer);
    }
    hip_emulator_report(sentence);
    return false;
}

/* ---- matching of waiting threads ---- */

bool hip_emulator_same_call(const hip_emulator_call *a, const hip_emulator_call *b) {
    return a->op == b->op && a->instruction == b->instruction && a->site.line == b->site.line &&
           (a->site.file == b->site.file || strcmp(a->site.file, b->site.file) == 0);
}

/* The source lane of a shuffle, as HIP defines it. */
static int source_lane(const hip_emulator_call *call, int lane) {
    const int first = lane & ~(call->width - 1);
    const int end = first + call->width;
    int64_t source = lane;
    switch (call->op) {
    case HIP_EMULATOR_SHFL:
        return first + (call->lane & (call->width - 1));
    case HIP_EMULATOR_SHFL_UP:
        source -= (unsigned)call->lane;
        return source < first ? lane : (int)source;
    case HIP_EMULATOR_SHFL_DOWN:
        source += (unsigned)call->lane;
        return source >= end ? lane : (int)source;
    case HIP_EMULATOR_SHFL_XOR:
        source ^= call->lane;
        return source < 0 || source >= end ? lane : (int)source;
    case HIP_EMULATOR_HELD:
    case HIP_EMULATOR_MBARRIER:
    case HIP_EMULATOR_TESTED:
    case HIP_EMULATOR_BARRIER:
    case HIP_EMULATOR_ARRIVE:
    case HIP_EMULATOR_INSTRUCTION:
    case HIP_EMULATOR_BALLOT:
    case HIP_EMULATOR_ANY:
    case HIP_EMULATOR_ALL:
    case HIP_EMULATOR_ACTIVEMASK:
        break;
    }
    return lane;
}

static bool complete_shuffle(int first, int end) {
    for (int i = first; i < end; i++) {
        hip_emulator_thread *thread = &block.threads[i];
        if (thread->state == HIP_EMULATOR_DONE)
            continue;
        const int width = thread->call.width;
        if (width < 1 || width > warpSize || (width & (width - 1)) != 0)
            return report_shuffle(i, "the width must be a power of two up to the wave, not", width);
        const int source = first + source_lane(&thread->call, i - first);
        if (source >= end || block.threads[source].state == HIP_EMULATOR_DONE)
            return report_shuffle(i, "reads the absent lane", source - first);
        thread->result = block.threads[source].call.value;
    }
    return true;
}

/* The threads [first, end) of a group of `lanes`; thread `chosen` waits for the instruction. */
static bool complete_instruction(int first, int end, int lanes, int chosen) {
    const hip_emulator_instruction *instruction = block.threads[chosen].call.instruction;
    const char *group = instruction->lanes ? "warpgroup" : "wave";
    char what[128];
    if (!(instruction->archs & block.arch)) {
        snprintf(what, sizeof what, "%s (wave of %d) does not have this instruction",
                 hip_emulator_arch_name(block.arch), warpSize);
        return hip_emulator_report_call(chosen, what);
    }
    if (end - first < lanes) {
        snprintf(what, sizeof what, "the %s has %d of %d lanes", group, end - first, lanes);
        return hip_emulator_report_call(chosen, what);
    }
    void *brought[HIP_EMULATOR_MAX_LANES];
    for (int i = first; i < end; i++) {
        if (block.threads[i].state == HIP_EMULATOR_DONE)
            return hip_emulator_report_divergence(chosen, i, group);
        brought[i - first] = block.threads[i].call.brought;
    }
    const char *wrong = instruction->run(brought);
    return wrong ? hip_emulator_report_call(chosen, wrong) : true;
}

static void complete_vote(int first, int end, const hip_emulator_call *call) {
    uint64_t votes = 0;
    for (int i = first; i < end; i++)
        if (block.threads[i].state == HIP_EMULATOR_WAITING &&
            hip_emulator_same_call(&block.threads[i].call, call))
            votes |= block.threads[i].call.value << (i - first);
    for (int i = first; i < end; i++)
        block.threads[i].result = votes;
}

/* Releases the threads of a wave that wait for `call`. */
static void release(int first, int end, hip_emulator_call call) {
    for (int i = first; i < end; i++)
        if (block.threads[i].state == HIP_EMULATOR_WAITING &&
            hip_emulator_same_call(&block.threads[i].call, &call))
            block.threads[i].state = HIP_EMULATOR_READY;
}

/* The first thread of [first, end) that does not wait for `call`, `end` if none; exited threads
 * count as absent from a wave. */
static int find_divergent(int first, int end, const hip_emulator_call *call) {
    for (int i = first; i < end; i++)
        if (block.threads[i].state == HIP_EMULATOR_WAITING &&
            !hip_emulator_same_call(&block.threads[i].call, call))
            return i;
    return end;
}

/* Releases lanes that are held back, except the one held longest, which is released when it is
 * alone. `released`: whether there were any. False: the other lanes do not finish. */
static bool release_held(int first, int end, bool *released) {
    int longest = end;
    for (int i = first; i < end; i++)
        if (block.threads[i].state == HIP_EMULATOR_WAITING &&
            block.threads[i].call.op == HIP_EMULATOR_HELD &&
            (longest == end || block.threads[i].held_since < block.threads[longest].held_since))
            longest = i;
    bool others = false;
    for (int i = first; i < end; i++) {
        if (i == longest || block.threads[i].state != HIP_EMULATOR_WAITING ||
            block.threads[i].call.op != HIP_EMULATOR_HELD)
            continue;
        block.threads[i].state = HIP_EMULATOR_READY;
        others = true;
    }
    *released = longest != end;
    if (longest != end && !others)
        block.threads[longest].state = HIP_EMULATOR_READY;
    return !others || ++block.threads[longest].held_rounds < MAX_ROUNDS || report_spin(longest);
}

/* Whether lanes of the wave wait for an mbarrier, without the other lanes. Releases those whose
 * wait is over. */
static bool match_mbarriers(int first, int end) {
    bool any = false;
    for (int i = first; i < end; i++) {
        hip_emulator_thread *thread = &block.threads[i];
        if (thread->state != HIP_EMULATOR_WAITING)
            continue;
        any = any || thread->call.op == HIP_EMULATOR_TESTED;
        if (thread->call.op != HIP_EMULATOR_MBARRIER)
            continue;
        any = true;
        if (hip_emulator_mbarrier_completed(&thread->call))
            thread->state = HIP_EMULATOR_READY;
    }
    return any;
}

/* Whether more than a wave must take part in a call. */
static bool beyond_wave(const hip_emulator_call *call) {
    return call->op == HIP_EMULATOR_BARRIER ||
           (call->op == HIP_EMULATOR_INSTRUCTION && call->instruction->lanes > 0);
}

/* Completes the operation `call` of the wave [first, end), which thread `chosen` waits for. */
static bool complete_wave(int first, int end, int chosen, const hip_emulator_call &call) {
    if (call.op >= HIP_EMULATOR_BALLOT)
        complete_vote(first, end, &call);
    else if (call.op == HIP_EMULATOR_INSTRUCTION)
        return complete_instruction(first, end, warpSize, chosen);
    else if (call.op == HIP_EMULATOR_ARRIVE)
        return hip_emulator_arrive_wave(first, end);
    else
        return complete_shuffle(first, end);
    return true;
}

/* Completes the operation that the wave [first, end) waits for, unless it needs more than the wave.
 * False: an error. */
static bool match_wave(int first, int end) {
    bool released;
    if (!release_held(first, end, &released))
        return false;
    if (released || match_mbarriers(first, end))
        return true;
    int chosen = end; /* operations of the wave before barriers, masks before all */
    for (int i = end - 1; i >= first; i--) {
        if (block.threads[i].state != HIP_EMULATOR_WAITING || beyond_wave(&block.threads[i].call))
            continue;
        if (chosen == end || block.threads[chosen].call.op != HIP_EMULATOR_ACTIVEMASK ||
            block.threads[i].call.op == HIP_EMULATOR_ACTIVEMASK)
            chosen = i;
    }
    if (chosen == end)
        return true;
    const hip_emulator_call call = block.threads[chosen].call;
    const int other = find_divergent(first, end, &call);
    if (other != end && call.op != HIP_EMULATOR_ACTIVEMASK)
        return hip_emulator_report_divergence(chosen, other, "wave");
    if (!complete_wave(first, end, chosen, call))
        return false;
    release(first, end, call);
    return true;
}

static int min_int(int a, int b) {
    return a < b ? a : b;
}

/* Completes the instruction that the warpgroup at `first` waits for, if all of it does. False: an
 * error. */
static bool match_warpgroup(int first) {
    const hip_emulator_call call = block.threads[first].call;
    if (block.threads[first].state != HIP_EMULATOR_WAITING || call.op != HIP_EMULATOR_INSTRUCTION ||
        call.instruction->lanes == 0)
        return true;
    const int end = min_int(first + call.instruction->lanes, block.num_threads);
    for (int i = first; i < end; i++)
        if (block.threads[i].state != HIP_EMULATOR_WAITING ||
            !hip_emulator_same_call(&block.threads[i].call, &call))
            return true;
    if (!complete_instruction(first, end, call.instruction->lanes, first))
        return false;
    release(first, end, call);
    return true;
}

static bool any_ready(void) {
    for (int i = 0; i < block.num_threads; i++)
        if (block.threads[i].state == HIP_EMULATOR_READY)
            return true;
    return false;
}

/* Releases threads that tested an mbarrier in vain; false if there are none. */
static bool release_tested(void) {
    bool any = false;
    for (int i = 0; i < block.num_threads; i++) {
        hip_emulator_thread *thread = &block.threads[i];
        if (thread->state != HIP_EMULATOR_WAITING || thread->call.op != HIP_EMULATOR_TESTED)
            continue;
        thread->state = HIP_EMULATOR_READY;
        any = true;
    }
    return any;
}

bool hip_emulator_match_threads(void) {
    static int rounds; /* in which only threads that test an mbarrier could continue */
    for (int first = 0; first < block.num_threads; first += warpSize)
        if (!match_wave(first, min_int(first + warpSize, block.num_threads)))
            return false;
    for (int first = 0; first < block.num_threads; first += HIP_EMULATOR_MAX_LANES)
        if (!match_warpgroup(first))
            return false;
    if (!hip_emulator_match_barriers())
        return false;
    const bool others = any_ready();
    rounds = others ? 0 : rounds + 1;
    if (rounds > MAX_ROUNDS) {
        rounds = 0;
        return report_deadlock();
    }
    return release_tested() || others || report_deadlock();
}
