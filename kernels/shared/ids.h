/* Tensors of ids: i32 or i64, up to three axes. */
#ifndef RWI_IDS_H
#define RWI_IDS_H

#include "shared/kernel.h"

typedef struct rwi_ids {
    void *data; /* NULL: absent */
    bool is_i64;
    int64_t stride[3]; /* 0 along an axis that is broadcast */
} rwi_ids;

RWI_INLINE int64_t rwi_ids_index(const rwi_ids *ids, int64_t i, int64_t j, int64_t k) {
    return i * ids->stride[0] + j * ids->stride[1] + k * ids->stride[2];
}

RWI_INLINE int64_t rwi_ids_load(const rwi_ids *ids, int64_t i, int64_t j, int64_t k) {
    int64_t at = rwi_ids_index(ids, i, j, k);
    const void *data = rwi_global(ids->data);
    return ids->is_i64 ? ((const int64_t *)data)[at] : ((const int32_t *)data)[at];
}

/* Makes element n along an axis the first one, unless the ids are absent. */
RWI_INLINE void rwi_ids_begin_at(rwi_ids *ids, int axis, int64_t n) {
    if (ids->data)
        ids->data = (char *)ids->data + n * ids->stride[axis] * (ids->is_i64 ? 8 : 4);
}

RWI_INLINE bool rwi_ids_fit(const rwi_ids *ids, int64_t id) {
    return ids->is_i64 || (id >= INT32_MIN && id <= INT32_MAX);
}

/* Returns false and writes nothing where the id does not fit the dtype. */
RWI_INLINE bool rwi_ids_store(const rwi_ids *ids, int64_t i, int64_t j, int64_t k, int64_t id) {
    int64_t at = rwi_ids_index(ids, i, j, k);
    void *data = rwi_global(ids->data);
    if (ids->is_i64) {
        ((int64_t *)data)[at] = id;
        return true;
    }
    if (!rwi_ids_fit(ids, id))
        return false;
    ((int32_t *)data)[at] = (int32_t)id;
    return true;
}

/* The ids of tokens. */
typedef struct rwi_token_ids {
    rwi_ids positions; /* [axes, batch, seq]; absent: s */
    rwi_ids offsets;   /* [batch] along axis 0; absent: 0 */
    int64_t offset;
} rwi_token_ids;

/* The id of token (b, s) along an axis. Sums wrap without a trap; a wrapped id is out of range of
 * every table, or correct modulo 2^64. */
RWI_INLINE int64_t rwi_token_id(const rwi_token_ids *ids, int64_t axis, int64_t b, int64_t s) {
    uint64_t id = (uint64_t)ids->offset;
    id += ids->positions.data ? (uint64_t)rwi_ids_load(&ids->positions, axis, b, s) : (uint64_t)s;
    if (ids->offsets.data)
        id += (uint64_t)rwi_ids_load(&ids->offsets, b, 0, 0);
    return (int64_t)id;
}

#endif
