/* Modules that libropewalk must refuse, one for each macro. */
#include "backend.h"

#if defined(OTHER_ABI)
/* Of another version: it has the entry, but another table. */
static const rwi_backend backend = {.abi = RWI_BACKEND_ABI + 1, .name = "hip"};

const rwi_backend *rw_backend_entry(uint32_t abi) {
    (void)abi;
    return &backend;
}
#elif defined(REFUSING)
/* Of another version, which recognizes that the library is. */
const rwi_backend *rw_backend_entry(uint32_t abi) {
    (void)abi;
    return NULL;
}
#elif defined(INCOMPLETE)
/* Of a runtime that is not there. */
extern int rwt_function_of_no_library(void);

const rwi_backend *rw_backend_entry(uint32_t abi) {
    static const rwi_backend backend = {.abi = RWI_BACKEND_ABI, .name = "hip"};
    return (int)abi == rwt_function_of_no_library() ? NULL : &backend;
}
#else /* NO_ENTRY */
int rwt_nothing(void);

int rwt_nothing(void) {
    return 0;
}
#endif
