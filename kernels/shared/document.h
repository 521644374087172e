/* Documents packed in one row, with boundaries cu_seqlens [batch, documents + 1]. */
#ifndef RWI_DOCUMENT_H
#define RWI_DOCUMENT_H

#include "shared/ids.h"

typedef struct rwi_documents {
    rwi_ids cu_seqlens; /* [1, batch, documents + 1] */
    int64_t count;
} rwi_documents;

typedef struct rwi_document {
    int64_t begin;
    int64_t end;
    int64_t index;
} rwi_document;

/* Finds the last document of row b that starts at or before `at`, by binary search. False where no
 * document holds `at`, which can also happen where cu_seqlens decreases; *bad receives the boundary
 * that `at` is outside of. */
RWI_INLINE bool rwi_document_find(const rwi_documents *documents, int64_t b, int64_t at,
                                  rwi_document *found, rwi_bad_id *bad) {
    int64_t low = 0, high = documents->count; /* cu_seqlens[low] <= at < cu_seqlens[high] */
    while (high - low > 1) {
        int64_t middle = low + (high - low) / 2;
        if (rwi_ids_load(&documents->cu_seqlens, 0, b, middle) <= at)
            low = middle;
        else
            high = middle;
    }
    found->index = low;
    found->begin = rwi_ids_load(&documents->cu_seqlens, 0, b, low);
    *bad = rwi_bad(RW_FAULT_LENGTH, found->begin);
    if (documents->count == 0 || found->begin < 0 || found->begin > at)
        return false;
    found->end = rwi_ids_load(&documents->cu_seqlens, 0, b, low + 1);
    *bad = rwi_bad(RW_FAULT_LENGTH, found->end);
    return at < found->end;
}

#endif
