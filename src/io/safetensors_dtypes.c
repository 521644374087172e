#include "safetensors_dtypes.h"

#include <string.h>

static const struct dtype {
    const char *name;
    int32_t bits;
} dtypes[] = {
    [RW_FILE_F32] = {"F32", 32},
    [RW_FILE_F16] = {"F16", 16},
    [RW_FILE_BF16] = {"BF16", 16},
    [RW_FILE_I32] = {"I32", 32},
    [RW_FILE_I64] = {"I64", 64},
    [RW_FILE_U8] = {"U8", 8},
    [RW_FILE_BOOL] = {"BOOL", 8},
    [RW_FILE_I8] = {"I8", 8},
    [RW_FILE_I16] = {"I16", 16},
    [RW_FILE_U16] = {"U16", 16},
    [RW_FILE_U32] = {"U32", 32},
    [RW_FILE_U64] = {"U64", 64},
    [RW_FILE_F64] = {"F64", 64},
    [RW_FILE_C64] = {"C64", 64},
    [RW_FILE_F8_E4M3] = {"F8_E4M3", 8},
    [RW_FILE_F8_E5M2] = {"F8_E5M2", 8},
    [RW_FILE_F8_E8M0] = {"F8_E8M0", 8},
    [RW_FILE_F8_E4M3FNUZ] = {"F8_E4M3FNUZ", 8},
    [RW_FILE_F8_E5M2FNUZ] = {"F8_E5M2FNUZ", 8},
    [RW_FILE_F6_E2M3] = {"F6_E2M3", 6},
    [RW_FILE_F6_E3M2] = {"F6_E3M2", 6},
    [RW_FILE_F4] = {"F4", 4},
};

#define SAME_VALUE(name) ((int)RW_FILE_##name == (int)RW_##name)

_Static_assert(SAME_VALUE(F32) && SAME_VALUE(F16) && SAME_VALUE(BF16) && SAME_VALUE(I32) &&
                   SAME_VALUE(I64) && SAME_VALUE(U8),
               "rw_file_dtype has rw_dtype's values");

static const size_t num_dtypes = sizeof dtypes / sizeof dtypes[0];

const char *rw_file_dtype_name(rw_file_dtype dtype) {
    return (size_t)dtype < num_dtypes ? dtypes[dtype].name : "unknown dtype";
}

int32_t rw_file_dtype_bits(rw_file_dtype dtype) {
    return (size_t)dtype < num_dtypes ? dtypes[dtype].bits : 0;
}

bool rwi_file_dtype_find(const char *name, rw_file_dtype *dtype) {
    for (size_t i = 0; i < num_dtypes; i++) {
        if (strcmp(dtypes[i].name, name) == 0) {
            *dtype = (rw_file_dtype)i;
            return true;
        }
    }
    return false;
}
