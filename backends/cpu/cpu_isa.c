/* The instruction sets of the CPU kernels, chosen by cpuid. */
#define _GNU_SOURCE /* syscall */
#include "cpu_isa.h"

#if RWI_AMX
#include <cpuid.h>
#include <pthread.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

extern const rwi_cpu_kernels rwi_cpu_kernels_baseline;
#if defined(__x86_64__)
extern const rwi_cpu_kernels rwi_cpu_kernels_v3;
extern const rwi_cpu_kernels rwi_cpu_kernels_v4;
#endif
#if RWI_AMX
extern const rwi_cpu_kernels rwi_cpu_kernels_amx;
#endif

/* RWI_AMX: 0: without the kernels that use tiles, 1: with them, 2: with those of tests, where plain
 * C stands for the instructions. */
#if RWI_AMX == 1
static bool amx_permitted;

/* Linux gives the state of tiles to processes that ask for it; threads inherit the permission. */
static void ask_for_amx(void) {
    enum {
        ASK = 0x1023 /* ARCH_REQ_XCOMP_PERM */,
        TILES = 18 /* XFEATURE_XTILEDATA */
    };
    const unsigned bf16 = 1u << 22, tiles = 1u << 24;
    unsigned a, b, c, d;
    amx_permitted = __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d & bf16) && (d & tiles) &&
                    syscall(SYS_arch_prctl, ASK, TILES) == 0;
}

static bool has_amx(void) {
    static pthread_once_t asked = PTHREAD_ONCE_INIT;
    pthread_once(&asked, ask_for_amx);
    return amx_permitted;
}
#elif RWI_AMX == 2
static bool has_amx(void) {
    return true;
}
#else
static bool has_amx(void) {
    return false;
}
#endif

static bool supported(rw_cpu_isa isa) {
#if defined(__x86_64__)
    bool v3 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
              __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2") &&
              __builtin_cpu_supports("f16c");
    bool v4 = v3 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
              __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
              __builtin_cpu_supports("avx512vl");
    if (isa == RW_CPU_ISA_AMX)
        return v4 && has_amx();
    return isa == RW_CPU_ISA_V4 ? v4 : isa == RW_CPU_ISA_V3 ? v3 : true;
#else
    (void)has_amx;
    return isa == RW_CPU_ISA_BASELINE;
#endif
}

/* The best that is chosen without request: not what stands for AMX's instructions in tests. */
#if RWI_AMX == 2
#define AUTOMATIC RW_CPU_ISA_V4
#else
#define AUTOMATIC RW_CPU_ISA_AMX
#endif

rw_cpu_isa rwi_cpu_isa_best(rw_cpu_isa cap) {
    rw_cpu_isa isa = cap == RW_CPU_ISA_DEFAULT ? AUTOMATIC : cap;
    while (isa > RW_CPU_ISA_BASELINE && !supported(isa))
        isa--;
    return isa;
}

const char *rwi_cpu_isa_name(rw_cpu_isa isa) {
    switch (isa) {
    case RW_CPU_ISA_AMX:
        return "amx";
    case RW_CPU_ISA_V4:
        return "v4";
    case RW_CPU_ISA_V3:
        return "v3";
    case RW_CPU_ISA_BASELINE:
    case RW_CPU_ISA_DEFAULT:
        break;
    }
    return "baseline";
}

const rwi_cpu_kernels *rwi_cpu_isa_kernels(rw_cpu_isa isa) {
#if RWI_AMX
    if (isa == RW_CPU_ISA_AMX)
        return &rwi_cpu_kernels_amx;
#endif
#if defined(__x86_64__)
    if (isa == RW_CPU_ISA_V4)
        return &rwi_cpu_kernels_v4;
    if (isa == RW_CPU_ISA_V3)
        return &rwi_cpu_kernels_v3;
#endif
    (void)isa;
    return &rwi_cpu_kernels_baseline;
}
