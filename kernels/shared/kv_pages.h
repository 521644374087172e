/* The pages of a KV cache, for kernels that write it and that read it. */
#ifndef RWI_KV_PAGES_H
#define RWI_KV_PAGES_H

#include "shared/ids.h"

/* The pages that hold a sequence's positions; a contiguous cache has one page per sequence. */
typedef struct rwi_kv_pages {
    rwi_ids table;     /* [1, batch, max_pages]; absent: page b */
    int64_t num_pages; /* number of existing pages */
    int64_t length;    /* positions of a sequence */
    int32_t shift;     /* log2 of the positions in a page; 62 without a table */
} rwi_kv_pages;

typedef struct rwi_kv_place {
    int64_t page;
    int64_t row;
} rwi_kv_place;

/* False where the position or its page is out of range; *bad receives it. */
RWI_INLINE bool rwi_kv_find(const rwi_kv_pages *pages, int64_t b, int64_t position,
                            rwi_kv_place *place, rwi_bad_id *bad) {
    *bad = rwi_bad(RW_FAULT_CACHE_POSITION, position);
    if (position < 0 || position >= pages->length)
        return false;
    place->page = b;
    place->row = position & (((int64_t)1 << pages->shift) - 1);
    if (!pages->table.data)
        return true;
    place->page = rwi_ids_load(&pages->table, 0, b, position >> pages->shift);
    *bad = rwi_bad(RW_FAULT_PAGE, place->page);
    return place->page >= 0 && place->page < pages->num_pages;
}

#endif
