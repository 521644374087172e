/* The table of the kernels of one instruction set; compiled once for each. */
#include "cpu_isa.h"

#define RW_OP(op, dtypes)                                                                          \
    void RWI_CPU_KERNEL(op)(const rw_##op##_params *params, int64_t begin, int64_t end,            \
                            rwi_fault_sink *sink);
#include "ops.def"
#undef RW_OP

extern const rwi_cpu_kernels RWI_CONCAT(rwi_cpu_kernels_, RWI_ISA);

const rwi_cpu_kernels RWI_CONCAT(rwi_cpu_kernels_, RWI_ISA) = {
#define RW_OP(op, dtypes) .op = RWI_CPU_KERNEL(op),
#include "ops.def"
#undef RW_OP
};
