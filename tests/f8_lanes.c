/* The conversions of kernels/cpu/small_float_cpu.h, compiled once for each instruction set. */
#include "cpu/small_float_cpu.h"

#define NAME_OF(isa) f8_lanes_##isa
#define NAME(isa) NAME_OF(isa)

void NAME(RWI_ISA)(int dtype, const uint8_t *codes, int64_t count, float *floats, uint16_t *words);

void NAME(RWI_ISA)(int dtype, const uint8_t *codes, int64_t count, float *floats, uint16_t *words) {
    if (dtype == RW_F8_E5M2) {
        rwi_load_f8_many(RW_F8_E5M2, codes, count, floats);
        rwi_f8_to_bf16_many(RW_F8_E5M2, codes, count, words);
    } else {
        rwi_load_f8_many(RW_F8_E4M3, codes, count, floats);
        rwi_f8_to_bf16_many(RW_F8_E4M3, codes, count, words);
    }
}
