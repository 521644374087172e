/* Matrix instructions of AMD and NVIDIA, with the lane layouts of their manuals.
 *
 * AMD's have the names of clang's builtins. Their vectors may be of any type of the right size: f16
 * and bf16 are bits. Layouts: AMD's matrix instruction calculator
 * (github.com/ROCm/amd_matrix_instruction_calculator) and NVIDIA's PTX ISA, "Matrix Fragments".
 * Products are exact, sums are f32.
 */
#ifndef HIP_EMULATOR_MATRIX_H
#define HIP_EMULATOR_MATRIX_H

#include "hip_runtime.h"

/* The operands of a lane for d = a * b + c, as many as the instruction has; c becomes d. */
struct hip_emulator_product {
    uint16_t a[16];
    uint16_t b[16];
    float c[8];
    int modifiers; /* MFMA's cbsz, abid and blgp, or-ed, which move lanes: not emulated */
};

/* The same of f32. */
struct hip_emulator_product_f32 {
    float a[4];
    float b[2];
    float c[4];
};

struct hip_emulator_rows {
    const void *row;
    uint32_t r[4];
};

/* Of struct hip_emulator_product. */
extern const hip_emulator_instruction hip_emulator_mfma_f16;
extern const hip_emulator_instruction hip_emulator_mfma_bf16;
extern const hip_emulator_instruction hip_emulator_wmma_f16;
extern const hip_emulator_instruction hip_emulator_wmma_bf16;
extern const hip_emulator_instruction hip_emulator_wmma12_f16;
extern const hip_emulator_instruction hip_emulator_wmma12_bf16;
extern const hip_emulator_instruction hip_emulator_mma_f16;
extern const hip_emulator_instruction hip_emulator_mma_bf16;

/* Of struct hip_emulator_product_f32. */
extern const hip_emulator_instruction hip_emulator_mma_tf32;

/* Of struct hip_emulator_rows. */
extern const hip_emulator_instruction hip_emulator_ldmatrix;
extern const hip_emulator_instruction hip_emulator_ldmatrix_trans;

/* Lanes with A 16-bit elements of a and b each, and C floats of c. */
template <size_t A, size_t C, typename Factor, typename Sum>
inline Sum hip_emulator_multiply(const hip_emulator_instruction &instruction, const Factor &a,
                                 const Factor &b, const Sum &c, const hip_emulator_site &site,
                                 int modifiers = 0) {
    static_assert(sizeof(Factor) == A * sizeof(uint16_t), "the builtin takes another vector");
    static_assert(sizeof(Sum) == C * sizeof(float), "the builtin takes another vector");
    hip_emulator_product lane = {};
    memcpy(lane.a, &a, sizeof a);
    memcpy(lane.b, &b, sizeof b);
    memcpy(lane.c, &c, sizeof c);
    lane.modifiers = modifiers;
    hip_emulator_execute(instruction, &lane, site);
    Sum d = c;
    memcpy(&d, lane.c, sizeof d);
    return d;
}

/* ---- gfx90a, gfx942: waves of 64; cbsz, abid and blgp must be 0 ---- */

template <typename Factor, typename Sum>
inline Sum
__builtin_amdgcn_mfma_f32_16x16x16f16(const Factor &a, const Factor &b, const Sum &c, int cbsz,
                                      int abid, int blgp,
                                      hip_emulator_site site = hip_emulator_site::here()) {
    return hip_emulator_multiply<4, 4>(hip_emulator_mfma_f16, a, b, c, site, cbsz | abid | blgp);
}

template <typename Factor, typename Sum>
inline Sum
__builtin_amdgcn_mfma_f32_16x16x16bf16_1k(const Factor &a, const Factor &b, const Sum &c, int cbsz,
                                          int abid, int blgp,
                                          hip_emulator_site site = hip_emulator_site::here()) {
    return hip_emulator_multiply<4, 4>(hip_emulator_mfma_bf16, a, b, c, site, cbsz | abid | blgp);
}

/* ---- gfx11: waves of 32; lanes 16 to 31 must have the a and b of lanes 0 to 15 ---- */

template <typename Factor, typename Sum>
inline Sum
__builtin_amdgcn_wmma_f32_16x16x16_f16_w32(const Factor &a, const Factor &b, const Sum &c,
                                           hip_emulator_site site = hip_emulator_site::here()) {
    return hip_emulator_multiply<16, 8>(hip_emulator_wmma_f16, a, b, c, site);
}

template <typename Factor, typename Sum>
inline Sum
__builtin_amdgcn_wmma_f32_16x16x16_bf16_w32(const Factor &a, const Factor &b, const Sum &c,
                                            hip_emulator_site site = hip_emulator_site::here()) {
    return hip_emulator_multiply<16, 8>(hip_emulator_wmma_bf16, a, b, c, site);
}

/* ---- gfx12: waves of 32 ---- */

template <typename Factor, typename Sum>
inline Sum __builtin_amdgcn_wmma_f32_16x16x16_f16_w32_gfx12(
    const Factor &a, const Factor &b, const Sum &c,
    hip_emulator_site site = hip_emulator_site::here()) {
    return hip_emulator_multiply<8, 8>(hip_emulator_wmma12_f16, a, b, c, site);
}

template <typename Factor, typename Sum>
inline Sum __builtin_amdgcn_wmma_f32_16x16x16_bf16_w32_gfx12(
    const Factor &a, const Factor &b, const Sum &c,
    hip_emulator_site site = hip_emulator_site::here()) {
    return hip_emulator_multiply<8, 8>(hip_emulator_wmma12_bf16, a, b, c, site);
}

/* ---- sm_90, sm_90a: waves of 32 ---- */

inline void hip_emulator_mma_m16n8k16(const hip_emulator_instruction &instruction, float (&d)[4],
                                      const uint32_t (&a)[4], const uint32_t (&b)[2],
                                      const hip_emulator_site &site) {
    hip_emulator_product lane = {};
    memcpy(lane.a, a, sizeof a);
    memcpy(lane.b, b, sizeof b);
    memcpy(lane.c, d, sizeof d);
    hip_emulator_execute(instruction, &lane, site);
    memcpy(d, lane.c, sizeof d);
}

/* mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32: d += a * b. */
inline void hip_emulator_mma_m16n8k16_f16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0,
                                          uint32_t b1,
                                          hip_emulator_site site = hip_emulator_site::here()) {
    hip_emulator_mma_m16n8k16(hip_emulator_mma_f16, d, a, {b0, b1}, site);
}

/* mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32: d += a * b. */
inline void hip_emulator_mma_m16n8k16_bf16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0,
                                           uint32_t b1,
                                           hip_emulator_site site = hip_emulator_site::here()) {
    hip_emulator_mma_m16n8k16(hip_emulator_mma_bf16, d, a, {b0, b1}, site);
}

/* mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32: d += a * b. */
inline void hip_emulator_mma_m16n8k8_tf32(float (&d)[4], const float (&a)[4], const float (&b)[2],
                                          hip_emulator_site site = hip_emulator_site::here()) {
    hip_emulator_product_f32 lane = {};
    memcpy(lane.a, a, sizeof a);
    memcpy(lane.b, b, sizeof b);
    memcpy(lane.c, d, sizeof d);
    hip_emulator_execute(hip_emulator_mma_tf32, &lane, site);
    memcpy(d, lane.c, sizeof d);
}

/* ldmatrix.sync.aligned.m8n8.x4.shared.b16: `row` is a row of 8 elements, on a multiple of 16
 * bytes. */
inline void hip_emulator_ldmatrix_x4(uint32_t (&r)[4], const void *row,
                                     hip_emulator_site site = hip_emulator_site::here()) {
    hip_emulator_rows lane = {row, {}};
    hip_emulator_execute(hip_emulator_ldmatrix, &lane, site);
    memcpy(r, lane.r, sizeof r);
}

/* ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 */
inline void hip_emulator_ldmatrix_x4_trans(uint32_t (&r)[4], const void *row,
                                           hip_emulator_site site = hip_emulator_site::here()) {
    hip_emulator_rows lane = {row, {}};
    hip_emulator_execute(hip_emulator_ldmatrix_trans, &lane, site);
    memcpy(r, lane.r, sizeof r);
}

#endif
