/* The conversions of kernels/cpu/small_float_cpu.h, compiled once for each instruction set. */
#include "cpu/small_float_cpu.h"

#define NAME_OF(isa) f8_lanes_##isa
#define NAME(isa) NAME_OF(isa)

void NAME(RWI_ISA)(int dtype, const uint8_t *codes, int64_t count, float *floats, uint16_t *words,
                   uint16_t *found);

/* f32, bf16, and bf16 by a table, where the processor can look bytes up. */
RWI_INLINE void convert(rw_dtype dtype, const uint8_t *codes, int64_t count, float *floats,
                        uint16_t *words, uint16_t *found) {
    const void *row = codes;
    rwi_f8_table table;
    rwi_f8_table_fill(dtype, &table);
    rwi_load_f8_many(dtype, codes, count, floats);
    rwi_f8_to_bf16_rows(dtype, NULL, &row, 1, count, words, count);
    rwi_f8_to_bf16_rows(dtype, rwi_f8_has_table() ? &table : NULL, &row, 1, count, found, count);
}

void NAME(RWI_ISA)(int dtype, const uint8_t *codes, int64_t count, float *floats, uint16_t *words,
                   uint16_t *found) {
    if (dtype == RW_F8_E5M2)
        convert(RW_F8_E5M2, codes, count, floats, words, found);
    else
        convert(RW_F8_E4M3, codes, count, floats, words, found);
}
