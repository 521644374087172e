/* The KV cache as an argument of operations. */
#ifndef RWI_KV_CACHE_H
#define RWI_KV_CACHE_H

#include <ropewalk/kv.h>

#include "tensor.h"

/* Checks the block table of a cache whose pages are k's first axis, and describes its pages. */
rw_status rwi_check_block_table(const rwi_call *call, rwi_argument table, rwi_argument k,
                                int64_t batch, rwi_kv_pages *pages);

#endif
