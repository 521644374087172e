/* The matrix products before and after the softmax: parameters, for matmul_cpu.c and matmul.hip. */
#ifndef RWI_MATMUL_PARAMS_H
#define RWI_MATMUL_PARAMS_H

#include "shared/dtype.h"

/* c[b, h, m, n] = scale * sum over k of a[b, h, m, k] * B, where B is b[b, h / group, n, k] for
 * qk_matmul and b[b, h / group, k, n] for weighted_matmul. Last axes have stride 1. */
typedef struct rwi_matmul {
    const void *a;
    const void *b;
    void *c;
    rw_dtype a_dtype; /* b_dtype, or f32 */
    rw_dtype b_dtype;
    rw_dtype c_dtype;
    int64_t batch;
    int64_t heads;
    int64_t group; /* heads of a that share one head of b */
    int64_t m;
    int64_t n;
    int64_t k;
    int64_t a_stride[3]; /* batch, head, row, whatever the order of axes of the tensor */
    int64_t b_stride[3];
    int64_t c_stride[3];
    float scale;
} rwi_matmul;

typedef rwi_matmul rw_qk_matmul_params;
typedef rwi_matmul rw_weighted_matmul_params;

/* Rows and columns of c that are computed together. */
#define RWI_MATMUL_TILE 64

/* An item is a row of tiles of one head. */
RWI_INLINE rwi_work rwi_matmul_work(const rwi_matmul *p) {
    int64_t rows = rwi_min(p->m, RWI_MATMUL_TILE);
    rwi_work work = {p->batch * p->heads * rwi_ceil_div(p->m, RWI_MATMUL_TILE),
                     rows * (p->n + p->k + p->n * p->k / 16) * 4};
    return work;
}

RWI_INLINE rwi_work qk_matmul_work(const rw_qk_matmul_params *p) {
    return rwi_matmul_work(p);
}

RWI_INLINE rwi_work weighted_matmul_work(const rw_weighted_matmul_params *p) {
    return rwi_matmul_work(p);
}

/* The matrices of one head. */
typedef struct rwi_matmul_head {
    const void *a;
    const void *b;
    void *c;
} rwi_matmul_head;

RWI_INLINE rwi_matmul_head rwi_matmul_find(const rwi_matmul *p, int64_t b, int64_t h) {
    rwi_matmul_head head = {
        rwi_element(p->a_dtype, p->a, b * p->a_stride[0] + h * p->a_stride[1]),
        rwi_element(p->b_dtype, p->b, b * p->b_stride[0] + h / p->group * p->b_stride[1]),
        rwi_element(p->c_dtype, p->c, b * p->c_stride[0] + h * p->c_stride[1])};
    return head;
}

#endif
