#include "safetensors_dtypes.h"

#include <string.h>

static const rwi_safetensors_dtype dtypes[] = {
    {"F32", 32, true, RW_F32},    {"F16", 16, true, RW_F16}, {"BF16", 16, true, RW_BF16},
    {"I32", 32, true, RW_I32},    {"I64", 64, true, RW_I64}, {"U8", 8, true, RW_U8},
    {"BOOL", 8, false, 0},        {"I8", 8, false, 0},       {"I16", 16, false, 0},
    {"U16", 16, false, 0},        {"U32", 32, false, 0},     {"U64", 64, false, 0},
    {"F64", 64, false, 0},        {"C64", 64, false, 0},     {"F8_E4M3", 8, false, 0},
    {"F8_E5M2", 8, false, 0},     {"F8_E8M0", 8, false, 0},  {"F8_E4M3FNUZ", 8, false, 0},
    {"F8_E5M2FNUZ", 8, false, 0}, {"F6_E2M3", 6, false, 0},  {"F6_E3M2", 6, false, 0},
    {"F4", 4, false, 0},
};

const rwi_safetensors_dtype *rwi_safetensors_dtype_by_name(const char *name) {
    for (size_t i = 0; i < sizeof dtypes / sizeof dtypes[0]; i++)
        if (strcmp(dtypes[i].name, name) == 0)
            return &dtypes[i];
    return NULL;
}

const rwi_safetensors_dtype *rwi_safetensors_dtype_of(rw_dtype dtype) {
    for (size_t i = 0; i < sizeof dtypes / sizeof dtypes[0]; i++)
        if (dtypes[i].supported && dtypes[i].dtype == dtype)
            return &dtypes[i];
    return NULL;
}
