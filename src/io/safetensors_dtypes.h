/* The element types of the safetensors format. */
#ifndef RWI_SAFETENSORS_DTYPES_H
#define RWI_SAFETENSORS_DTYPES_H

#include <ropewalk/io.h>

/* False if the format has no such name. */
bool rwi_file_dtype_find(const char *name, rw_file_dtype *dtype);

#endif
