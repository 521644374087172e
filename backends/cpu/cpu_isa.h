/* The instruction sets of the CPU kernels. */
#ifndef RWI_CPU_ISA_H
#define RWI_CPU_ISA_H

#include "kernels.h"
#include <ropewalk/context.h>

/* The kernels of one instruction set, one slot per operation: items [begin, end) of the work. */
typedef struct rwi_cpu_kernels {
#define RW_OP(op, dtypes)                                                                          \
    void (*op)(const rw_##op##_params *params, int64_t begin, int64_t end, rwi_fault_sink *sink);
#include "ops.def"
#undef RW_OP
} rwi_cpu_kernels;

/* The best instruction set that this CPU supports, at most `cap` (DEFAULT: no cap). */
rw_cpu_isa rwi_cpu_isa_best(rw_cpu_isa cap);

const char *rwi_cpu_isa_name(rw_cpu_isa isa);

const rwi_cpu_kernels *rwi_cpu_isa_kernels(rw_cpu_isa isa);

#endif
