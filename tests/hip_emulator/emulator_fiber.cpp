/* Fibers: their stacks, and how one starts. */
#include "emulator_fiber.h"

#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>

/* Kernels have small frames; AddressSanitizer's are a few times larger. */
#define STACK_BYTES ((size_t)256 * 1024)
#define GUARD_BYTES ((size_t)64 * 1024)

/* Stacks start at different distances from their mappings' ends: at the same one, the memory that
 * fibers use most would share few sets of the caches. */
#define DISTANCE_BYTES ((size_t)17 * 64)
#define DISTANCES 64

hip_emulator_fiber hip_emulator_host_fiber;
hip_emulator_fiber *hip_emulator_running_fiber;

/* ---- the start ---- */

static void entry(void) {
    hip_emulator_conclude_switch(hip_emulator_running_fiber, &hip_emulator_host_fiber);
    hip_emulator_running_fiber->main();
    abort();
}

#ifdef HIP_EMULATOR_UCONTEXT

static void prepare(hip_emulator_fiber *fiber) {
    getcontext(&fiber->context);
    fiber->context.uc_stack.ss_sp = (void *)fiber->stack;
    fiber->context.uc_stack.ss_size = fiber->stack_bytes;
    fiber->context.uc_link = nullptr;
    makecontext(&fiber->context, entry, 0);
}

#else

/* Prepares the stack as hip_emulator_swap leaves it: the entry's address, and a null return
 * address, which ends stack traces and gives the entry's frame the alignment of a call. */
static void prepare(hip_emulator_fiber *fiber) {
    uintptr_t *top = (uintptr_t *)((char *)fiber->stack + fiber->stack_bytes) - 2;
    top[0] = (uintptr_t)entry;
    top[1] = 0;
    fiber->stack_pointer = top;
}

#endif

/* ---- stacks ---- */

hip_emulator_fiber *hip_emulator_fiber_new(void (*main)(void)) {
    static size_t created;
    hip_emulator_fiber *fiber = (hip_emulator_fiber *)calloc(1, sizeof *fiber);
    if (!fiber)
        return nullptr;
    const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    void *mapping = mmap(nullptr, GUARD_BYTES + STACK_BYTES, PROT_READ | PROT_WRITE, flags, -1, 0);
    if (mapping == MAP_FAILED) {
        free(fiber);
        return nullptr;
    }
    mprotect(mapping, GUARD_BYTES, PROT_NONE);
    fiber->main = main;
    fiber->mapping = mapping;
    fiber->stack = (char *)mapping + GUARD_BYTES;
    fiber->stack_bytes = STACK_BYTES - created++ % DISTANCES * DISTANCE_BYTES;
    prepare(fiber);
    return fiber;
}

void hip_emulator_fiber_reset(hip_emulator_fiber *fiber) {
#ifdef HIP_EMULATOR_ASAN
    __asan_unpoison_memory_region(fiber->stack, fiber->stack_bytes);
#endif
    prepare(fiber);
}

void hip_emulator_fiber_delete(hip_emulator_fiber *fiber) {
#ifdef HIP_EMULATOR_ASAN
    __asan_unpoison_memory_region(fiber->stack, fiber->stack_bytes);
#endif
    munmap(fiber->mapping, GUARD_BYTES + STACK_BYTES);
    free(fiber);
}
