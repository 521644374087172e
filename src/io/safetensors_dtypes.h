/* The element types and the limit of the safetensors format. */
#ifndef RWI_SAFETENSORS_DTYPES_H
#define RWI_SAFETENSORS_DTYPES_H

#include <ropewalk/io.h>

/* The limit of the reference implementation, which include/ropewalk/io.h states. */
#define RWI_MAX_HEADER_BYTES 100000000u

/* False if the format has no such name. */
bool rwi_file_dtype_find(const char *name, rw_file_dtype *dtype);

#endif
