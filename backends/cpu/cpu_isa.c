/* The instruction sets of the CPU kernels, chosen by cpuid. */
#include "cpu_isa.h"

extern const rwi_cpu_kernels rwi_cpu_kernels_baseline;
#if defined(__x86_64__)
extern const rwi_cpu_kernels rwi_cpu_kernels_v3;
extern const rwi_cpu_kernels rwi_cpu_kernels_v4;
#endif

static bool supported(rw_cpu_isa isa) {
#if defined(__x86_64__)
    bool v3 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
              __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2") &&
              __builtin_cpu_supports("f16c");
    bool v4 = v3 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
              __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
              __builtin_cpu_supports("avx512vl");
    return isa == RW_CPU_ISA_V4 ? v4 : isa == RW_CPU_ISA_V3 ? v3 : true;
#else
    return isa == RW_CPU_ISA_BASELINE;
#endif
}

rw_cpu_isa rwi_cpu_isa_best(rw_cpu_isa cap) {
    rw_cpu_isa isa = cap == RW_CPU_ISA_DEFAULT ? RW_CPU_ISA_V4 : cap;
    while (isa > RW_CPU_ISA_BASELINE && !supported(isa))
        isa--;
    return isa;
}

const char *rwi_cpu_isa_name(rw_cpu_isa isa) {
    switch (isa) {
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
#if defined(__x86_64__)
    if (isa == RW_CPU_ISA_V4)
        return &rwi_cpu_kernels_v4;
    if (isa == RW_CPU_ISA_V3)
        return &rwi_cpu_kernels_v3;
#endif
    (void)isa;
    return &rwi_cpu_kernels_baseline;
}
