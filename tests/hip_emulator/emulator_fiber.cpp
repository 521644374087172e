/* Fibers by switching stacks, which needs no system call on x86-64; with ucontext elsewhere. */
#include "emulator_fiber.h"

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>

#if !defined(__x86_64__) && !defined(HIP_EMULATOR_UCONTEXT)
#define HIP_EMULATOR_UCONTEXT 1
#endif

#ifdef HIP_EMULATOR_UCONTEXT
#include <ucontext.h>
#endif

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define HIP_EMULATOR_ASAN 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__)
#define HIP_EMULATOR_ASAN 1
#endif

#ifdef HIP_EMULATOR_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

/* Kernels have small frames; AddressSanitizer's are a few times larger. */
#define STACK_BYTES ((size_t)256 * 1024)
#define GUARD_BYTES ((size_t)64 * 1024)

/* The tops of the stacks, which are in use, differ by this many bytes modulo the page: at equal
 * distances they would share a few sets of the caches. */
#define STAGGER_BYTES ((size_t)17 * 64)
#define STAGGERS 60

struct hip_emulator_fiber {
#ifdef HIP_EMULATOR_UCONTEXT
    ucontext_t context;
#else
    void *stack_pointer;
#endif
    void (*main)(void);
    void *mapping; /* guard, then stack */
    const void *stack;
    size_t stack_bytes;
    void *fake_stack; /* AddressSanitizer's, while the fiber is suspended */
};

/* Kernels run with the launch lock held, so that one host fiber is sufficient. */
static hip_emulator_fiber host;
static hip_emulator_fiber *running;

/* ---- the switch ---- */

#ifdef HIP_EMULATOR_UCONTEXT

static void swap(hip_emulator_fiber *from, hip_emulator_fiber *to) {
    swapcontext(&from->context, &to->context);
}

static void prepare(hip_emulator_fiber *fiber, void (*entry)(void)) {
    getcontext(&fiber->context);
    fiber->context.uc_stack.ss_sp = (void *)fiber->stack;
    fiber->context.uc_stack.ss_size = fiber->stack_bytes;
    fiber->context.uc_link = nullptr;
    makecontext(&fiber->context, entry, 0);
}

#else

extern "C" void hip_emulator_swap(void **save, void *load);

/* Saves the registers that the calling convention preserves; the caller's address is on the stack.
 */
__asm__(".pushsection .text\n"
        ".hidden hip_emulator_swap\n"
        ".globl hip_emulator_swap\n"
        ".type hip_emulator_swap, @function\n"
        "hip_emulator_swap:\n"
        "    pushq %rbp\n"
        "    pushq %rbx\n"
        "    pushq %r12\n"
        "    pushq %r13\n"
        "    pushq %r14\n"
        "    pushq %r15\n"
        "    movq %rsp, (%rdi)\n"
        "    movq %rsi, %rsp\n"
        "    popq %r15\n"
        "    popq %r14\n"
        "    popq %r13\n"
        "    popq %r12\n"
        "    popq %rbx\n"
        "    popq %rbp\n"
        "    ret\n"
        ".size hip_emulator_swap, . - hip_emulator_swap\n"
        ".popsection\n");

static void swap(hip_emulator_fiber *from, hip_emulator_fiber *to) {
    hip_emulator_swap(&from->stack_pointer, to->stack_pointer);
}

/* Prepares the stack as hip_emulator_swap leaves it: six registers, the entry's address, and a null
 * return address, which ends stack traces and gives the entry's frame the alignment of a call. */
static void prepare(hip_emulator_fiber *fiber, void (*entry)(void)) {
    uintptr_t *top = (uintptr_t *)((char *)fiber->stack + fiber->stack_bytes) - 8;
    for (int i = 0; i < 8; i++)
        top[i] = 0;
    top[6] = (uintptr_t)entry;
    fiber->stack_pointer = top;
}

#endif

/* AddressSanitizer must be told which stack is in use. */
static void announce_switch(hip_emulator_fiber *from, const hip_emulator_fiber *to) {
#ifdef HIP_EMULATOR_ASAN
    __sanitizer_start_switch_fiber(&from->fake_stack, to->stack, to->stack_bytes);
#else
    (void)from;
    (void)to;
#endif
}

static void conclude_switch(hip_emulator_fiber *now, hip_emulator_fiber *before) {
#ifdef HIP_EMULATOR_ASAN
    __sanitizer_finish_switch_fiber(now->fake_stack, &before->stack, &before->stack_bytes);
#else
    (void)now;
    (void)before;
#endif
}

static void entry(void) {
    conclude_switch(running, &host);
    running->main();
    abort();
}

void hip_emulator_fiber_enter(hip_emulator_fiber *fiber) {
    running = fiber;
    announce_switch(&host, fiber);
    swap(&host, fiber);
    conclude_switch(&host, fiber);
    running = nullptr;
}

void hip_emulator_fiber_leave(void) {
    hip_emulator_fiber *self = running;
    announce_switch(self, &host);
    swap(self, &host);
    conclude_switch(self, &host);
}

/* ---- stacks ---- */

hip_emulator_fiber *hip_emulator_fiber_new(void (*main)(void)) {
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
    static size_t created; /* under the launch lock */
    fiber->main = main;
    fiber->mapping = mapping;
    fiber->stack = (char *)mapping + GUARD_BYTES;
    fiber->stack_bytes = STACK_BYTES - created++ % STAGGERS * STAGGER_BYTES;
    prepare(fiber, entry);
    return fiber;
}

void hip_emulator_fiber_reset(hip_emulator_fiber *fiber) {
#ifdef HIP_EMULATOR_ASAN
    __asan_unpoison_memory_region(fiber->stack, fiber->stack_bytes);
#endif
    prepare(fiber, entry);
}

void hip_emulator_fiber_delete(hip_emulator_fiber *fiber) {
#ifdef HIP_EMULATOR_ASAN
    __asan_unpoison_memory_region(fiber->stack, fiber->stack_bytes);
#endif
    munmap(fiber->mapping, GUARD_BYTES + STACK_BYTES);
    free(fiber);
}
