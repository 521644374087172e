/* The KV cache on the CPU; the twin of kv.hip. An item is a token. */
#include "cpu/block_cpu.h"
#include "kv_params.h"

/* Divides by the scale and rounds to 8 bits. */
static void quantize(rw_dtype dtype, const void *in, float scale, int64_t count, rw_dtype to,
                     void *out) {
    for (int64_t first = 0; first < count; first += RWI_CPU_BLOCK) {
        float x[RWI_CPU_BLOCK];
        const int64_t part = rwi_min(RWI_CPU_BLOCK, count - first);
        rwi_cpu_load(dtype, rwi_element(dtype, in, first), part, x);
        rwi_cpu_quantize(to, rwi_element(to, out, first), part, scale, x);
    }
}

static void copy_heads(const rw_kv_append_params *p, int side, int64_t b, int64_t s,
                       rwi_kv_place place) {
    const rwi_kv_side *kv = &p->sides[side];
    const void *in = rwi_kv_source(p, side, b, s);
    void *out = rwi_kv_target(p, side, place);
    size_t bytes = (size_t)kv->width * rwi_dtype_size(p->dtype);
    for (int64_t head = 0; head < kv->heads; head++) {
        const void *from = rwi_element(p->dtype, in, head * kv->in_stride[2]);
        void *to = rwi_element(p->cache_dtype, out, head * kv->cache_stride[2]);
        if (p->cache_dtype == p->dtype)
            memcpy(to, from, bytes);
        else
            quantize(p->dtype, from, rwi_kv_scale(kv, head), kv->width, p->cache_dtype, to);
    }
}

void RWI_CPU_KERNEL(kv_append)(const rw_kv_append_params *p, int64_t begin, int64_t end,
                               rwi_fault_sink *sink) {
    for (int64_t token = begin; token < end; token++) {
        int64_t b, s;
        rwi_bad_id bad;
        rwi_kv_place place;
        rwi_split_index(token, p->seq, &b, &s);
        const rwi_kv_token kind = kv_append_find(p, b, s, &place, &bad);
        if (kind == RWI_KV_INVALID)
            rwi_cpu_fault_raise(sink, token, bad);
        for (int side = 0; kind == RWI_KV_WRITTEN && side < 2; side++)
            copy_heads(p, side, b, s, place);
    }
}
