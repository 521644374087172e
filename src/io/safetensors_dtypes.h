/* The element types of the safetensors format. */
#ifndef RWI_SAFETENSORS_DTYPES_H
#define RWI_SAFETENSORS_DTYPES_H

#include <ropewalk/base.h>

typedef struct rwi_safetensors_dtype {
    const char *name;
    unsigned bits;
    bool supported;
    rw_dtype dtype; /* if supported */
} rwi_safetensors_dtype;

/* NULL if the format has no such name. */
const rwi_safetensors_dtype *rwi_safetensors_dtype_by_name(const char *name);

/* NULL for an unknown dtype. */
const rwi_safetensors_dtype *rwi_safetensors_dtype_of(rw_dtype dtype);

#endif
