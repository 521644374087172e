/* Fibers: the host schedules; each fiber has its own stack, which the host enters and which returns
 * to it. By switching stacks, which needs no system call on x86-64; with ucontext elsewhere.
 */
#ifndef HIP_EMULATOR_FIBER_H
#define HIP_EMULATOR_FIBER_H

#include <stddef.h>

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

/* Creates a fiber that will run `main`, which must never return; NULL if out of memory. */
hip_emulator_fiber *hip_emulator_fiber_new(void (*main)(void));
void hip_emulator_fiber_delete(hip_emulator_fiber *fiber);

/* Discards the state of the fiber: it will start again. */
void hip_emulator_fiber_reset(hip_emulator_fiber *fiber);

/* Kernels run with the launch lock held, so that one host fiber is sufficient. */
extern hip_emulator_fiber hip_emulator_host_fiber;
extern hip_emulator_fiber *hip_emulator_running_fiber;

#ifdef __AVX512F__
#define HIP_EMULATOR_AVX512_REGISTERS                                                              \
    , "xmm16", "xmm17", "xmm18", "xmm19", "xmm20", "xmm21", "xmm22", "xmm23", "xmm24", "xmm25",    \
        "xmm26", "xmm27", "xmm28", "xmm29", "xmm30", "xmm31", "k1", "k2", "k3", "k4", "k5", "k6",  \
        "k7"
#else
#define HIP_EMULATOR_AVX512_REGISTERS
#endif

/* ---- the switch: inline, since a processor predicts no return on another stack ---- */

inline __attribute__((always_inline)) void hip_emulator_swap(hip_emulator_fiber *from,
                                                             hip_emulator_fiber *to) {
#ifdef HIP_EMULATOR_UCONTEXT
    swapcontext(&from->context, &to->context);
#else
    /* Below the red zone; registers that may not be listed as clobbered are saved here. */
    void **save = &from->stack_pointer, *load = to->stack_pointer;
    __asm__ volatile("leaq -128(%%rsp), %%rsp\n"
                     "pushq %%rbp\n"
                     "pushq %%rbx\n"
                     "leaq 1f(%%rip), %%rcx\n"
                     "pushq %%rcx\n"
                     "movq %%rsp, (%%rdi)\n"
                     "movq %%rsi, %%rsp\n"
                     "popq %%rcx\n"
                     "jmp *%%rcx\n"
                     "1:\n"
                     "popq %%rbx\n"
                     "popq %%rbp\n"
                     "leaq 128(%%rsp), %%rsp\n"
                     : "+D"(save), "+S"(load)
                     :
                     : "rax", "rcx", "rdx", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15",
                       "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8",
                       "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15", "memory",
                       "cc" HIP_EMULATOR_AVX512_REGISTERS);
#endif
}

/* AddressSanitizer must be told which stack is in use. */
inline void hip_emulator_announce_switch(hip_emulator_fiber *from, const hip_emulator_fiber *to) {
#ifdef HIP_EMULATOR_ASAN
    __sanitizer_start_switch_fiber(&from->fake_stack, to->stack, to->stack_bytes);
#else
    (void)from;
    (void)to;
#endif
}

inline void hip_emulator_conclude_switch(hip_emulator_fiber *now, hip_emulator_fiber *before) {
#ifdef HIP_EMULATOR_ASAN
    __sanitizer_finish_switch_fiber(now->fake_stack, &before->stack, &before->stack_bytes);
#else
    (void)now;
    (void)before;
#endif
}

/* Runs the fiber until it calls hip_emulator_fiber_leave(). */
inline __attribute__((always_inline)) void hip_emulator_fiber_enter(hip_emulator_fiber *fiber) {
    hip_emulator_running_fiber = fiber;
    hip_emulator_announce_switch(&hip_emulator_host_fiber, fiber);
    hip_emulator_swap(&hip_emulator_host_fiber, fiber);
    hip_emulator_conclude_switch(&hip_emulator_host_fiber, fiber);
}

/* Returns from the running fiber to the host. */
inline __attribute__((always_inline)) void hip_emulator_fiber_leave(void) {
    hip_emulator_fiber *self = hip_emulator_running_fiber;
    hip_emulator_announce_switch(self, &hip_emulator_host_fiber);
    hip_emulator_swap(self, &hip_emulator_host_fiber);
    hip_emulator_conclude_switch(self, &hip_emulator_host_fiber);
}

#endif
