/* Matrix instructions: products, from the lane layouts of their elements. */
#include "emulator_product.h"
#include "emulator_state.h"

#define ROWS 16  /* of a and d, at most */
#define DEPTH 16 /* columns of a, rows of b */

/* A position in a matrix. */
struct place {
    int row;
    int column;
};

/* ---- layouts: the position of element i of a lane; b is given as its transpose ---- */

struct mfma_layout {
    static constexpr int LANES = 64, A = 4, B = 4, C = 4, COLUMNS = 16;
    static place a(int lane, int i) {
        return {lane % 16, lane / 16 * 4 + i};
    }
    static place b(int lane, int i) {
        return a(lane, i);
    }
    static place c(int lane, int i) {
        return {lane / 16 * 4 + i, lane % 16};
    }
};

struct wmma_layout {
    static constexpr int LANES = 32, A = 16, B = 16, C = 8, COLUMNS = 16;
    static place a(int lane, int i) {
        return {lane % 16, i};
    }
    static place b(int lane, int i) {
        return a(lane, i);
    }
    static place c(int lane, int i) {
        return {2 * i + lane / 16, lane % 16};
    }
};

struct wmma12_layout {
    static constexpr int LANES = 32, A = 8, B = 8, C = 8, COLUMNS = 16;
    static place a(int lane, int i) {
        return {lane % 16, i / 4 * 8 + lane / 16 * 4 + i % 4};
    }
    static place b(int lane, int i) {
        return a(lane, i);
    }
    static place c(int lane, int i) {
        return {lane / 16 * 8 + i, lane % 16};
    }
};

struct mma_layout {
    static constexpr int LANES = 32, A = 8, B = 4, C = 4, COLUMNS = 8;
    static place a(int lane, int i) {
        return {lane / 4 + i / 2 % 2 * 8, lane % 4 * 2 + i % 2 + i / 4 * 8};
    }
    static place b(int lane, int i) {
        return {lane / 4, lane % 4 * 2 + i % 2 + i / 2 * 8};
    }
    static place c(int lane, int i) {
        return {lane / 4 + i / 2 * 8, lane % 4 * 2 + i % 2};
    }
};

/* ---- products ---- */

/* Where lanes share an element of a or b, they must have the same value. */
template <bool SHARED> struct factor_matrix {
    uint16_t bits[ROWS][DEPTH];
    bool filled[SHARED ? ROWS : 1][DEPTH];

    bool put(const place &at, uint16_t value) {
        bool sound = true;
        if constexpr (SHARED) {
            sound = !filled[at.row][at.column] || bits[at.row][at.column] == value;
            filled[at.row][at.column] = true;
        }
        bits[at.row][at.column] = value;
        return sound;
    }
};

template <typename Layout, bool BF16> static const char *multiply(void *const *lanes) {
    constexpr int COLUMNS = Layout::COLUMNS;
    factor_matrix<(Layout::LANES * Layout::A > ROWS * DEPTH)> a = {}, b = {};
    float c[ROWS][COLUMNS];
    for (int lane = 0; lane < Layout::LANES; lane++) {
        const hip_emulator_product *product = (const hip_emulator_product *)lanes[lane];
        bool sound = true;
        if (product->modifiers != 0)
            return "cbsz, abid and blgp must be 0";
        for (int i = 0; i < Layout::A; i++)
            sound = a.put(Layout::a(lane, i), product->a[i]) && sound;
        for (int i = 0; i < Layout::B; i++)
            sound = b.put(Layout::b(lane, i), product->b[i]) && sound;
        if (!sound)
            return "lanes 16 to 31 must have the a and b of lanes 0 to 15";
        for (int i = 0; i < Layout::C; i++) {
            const place at = Layout::c(lane, i);
            c[at.row][at.column] = product->c[i];
        }
    }
    float left[ROWS][DEPTH], transposed[COLUMNS][DEPTH], right[DEPTH][COLUMNS];
    hip_emulator_to_floats(&a.bits[0][0], &left[0][0], ROWS * DEPTH, BF16);
    hip_emulator_to_floats(&b.bits[0][0], &transposed[0][0], COLUMNS * DEPTH, BF16);
    for (int k = 0; k < DEPTH; k++)
        for (int column = 0; column < COLUMNS; column++)
            right[k][column] = transposed[column][k];
    hip_emulator_multiply_add<COLUMNS>(ROWS, &left[0][0], &right[0][0], COLUMNS, &c[0][0], COLUMNS);
    for (int lane = 0; lane < Layout::LANES; lane++)
        for (int i = 0; i < Layout::C; i++) {
            const place at = Layout::c(lane, i);
            ((hip_emulator_product *)lanes[lane])->c[i] = c[at.row][at.column];
        }
    return nullptr;
}

/* The upper 19 bits, which the matrix unit reads. */
static float tf32(float x) {
    return __uint_as_float(__float_as_uint(x) & 0xffffe000u);
}

static const char *multiply_tf32(void *const *lanes) {
    float a[16][8], b[8][8], c[16][8];
    for (int lane = 0; lane < 32; lane++) {
        const hip_emulator_product_f32 *product = (const hip_emulator_product_f32 *)lanes[lane];
        const int row = lane / 4, column = lane % 4;
        for (int i = 0; i < 4; i++) {
            a[row + i % 2 * 8][column + i / 2 * 4] = tf32(product->a[i]);
            c[row + i / 2 * 8][column * 2 + i % 2] = product->c[i];
        }
        for (int i = 0; i < 2; i++)
            b[column + i * 4][row] = tf32(product->b[i]);
    }
    for (int i = 0; i < 16; i++)
        for (int j = 0; j < 8; j++)
            for (int k = 0; k < 8; k++)
                c[i][j] += a[i][k] * b[k][j];
    for (int lane = 0; lane < 32; lane++)
        for (int i = 0; i < 4; i++)
            ((hip_emulator_product_f32 *)lanes[lane])->c[i] =
                c[lane / 4 + i / 2 * 8][lane % 4 * 2 + i % 2];
    return nullptr;
}

#define MFMA_ARCHS (HIP_EMULATOR_GFX90A | HIP_EMULATOR_GFX942)

const hip_emulator_instruction hip_emulator_mfma_f16 = {"__builtin_amdgcn_mfma_f32_16x16x16f16",
                                                        MFMA_ARCHS, multiply<mfma_layout, false>};
const hip_emulator_instruction hip_emulator_mfma_bf16 = {
    "__builtin_amdgcn_mfma_f32_16x16x16bf16_1k", MFMA_ARCHS, multiply<mfma_layout, true>};
const hip_emulator_instruction hip_emulator_wmma_f16 = {
    "__builtin_amdgcn_wmma_f32_16x16x16_f16_w32", HIP_EMULATOR_GFX1100,
    multiply<wmma_layout, false>};
const hip_emulator_instruction hip_emulator_wmma_bf16 = {
    "__builtin_amdgcn_wmma_f32_16x16x16_bf16_w32", HIP_EMULATOR_GFX1100,
    multiply<wmma_layout, true>};
const hip_emulator_instruction hip_emulator_wmma12_f16 = {
    "__builtin_amdgcn_wmma_f32_16x16x16_f16_w32_gfx12", HIP_EMULATOR_GFX1201,
    multiply<wmma12_layout, false>};
const hip_emulator_instruction hip_emulator_wmma12_bf16 = {
    "__builtin_amdgcn_wmma_f32_16x16x16_bf16_w32_gfx12", HIP_EMULATOR_GFX1201,
    multiply<wmma12_layout, true>};
const hip_emulator_instruction hip_emulator_mma_f16 = {
    "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32", HIP_EMULATOR_NVIDIA,
    multiply<mma_layout, false>};
const hip_emulator_instruction hip_emulator_mma_bf16 = {
    "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32", HIP_EMULATOR_NVIDIA,
    multiply<mma_layout, true>};
const hip_emulator_instruction hip_emulator_mma_tf32 = {
    "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32", HIP_EMULATOR_NVIDIA, multiply_tf32};

/* ---- ldmatrix: four matrices of 8 x 8, whose row addresses lanes 0 to 31 provide ---- */

template <bool TRANSPOSED> static const char *load_matrices(void *const *lanes) {
    uint16_t rows[32][8];
    for (int lane = 0; lane < 32; lane++) {
        const void *row = ((const hip_emulator_rows *)lanes[lane])->row;
        if ((uintptr_t)row % 16 != 0)
            return "a row is not aligned to 16 bytes";
        memcpy(rows[lane], row, sizeof rows[lane]);
    }
    for (int lane = 0; lane < 32; lane++)
        for (int i = 0; i < 4; i++) {
            const int row = lane / 4, column = lane % 4 * 2;
            const uint16_t(*matrix)[8] = &rows[i * 8];
            const uint16_t low = TRANSPOSED ? matrix[column][row] : matrix[row][column];
            const uint16_t high = TRANSPOSED ? matrix[column + 1][row] : matrix[row][column + 1];
            ((hip_emulator_rows *)lanes[lane])->r[i] = low | (uint32_t)high << 16;
        }
    return nullptr;
}

const hip_emulator_instruction hip_emulator_ldmatrix = {"ldmatrix.sync.aligned.m8n8.x4.shared.b16",
                                                        HIP_EMULATOR_NVIDIA, load_matrices<false>};
const hip_emulator_instruction hip_emulator_ldmatrix_trans = {
    "ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16", HIP_EMULATOR_NVIDIA, load_matrices<true>};
