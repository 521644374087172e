/* The matrix units of kernels/gpu/mma_*.h, on the emulated architecture that has them, compared
 * with plain products in double. */
#include "emulator_test.h"

#include "gpu/mma_amd.h"

#include <math.h>

#define WAVES 2
#define TILES 3 /* of 16 keys */
#define NUM_KEYS (16 * TILES)

/* A job of one wave, by rows. */
template <int ROWS, int WIDTH> struct unit_job {
    uint16_t q[ROWS][WIDTH], k[NUM_KEYS][WIDTH], v[NUM_KEYS][WIDTH];
    float scores[ROWS][NUM_KEYS];
    float out[ROWS][WIDTH];
    float largest[ROWS], sum[ROWS];
    int writers[ROWS]; /* number of lanes that hold the row, with the same values */
};

/* The initial contents: products are added to them. */
#define SCORE_BEFORE 2.0f
#define OUT_BEFORE -3.0f
#define WEIGHT 0.0625f /* of a score */

template <typename Unit, int ROWS, int WIDTH>
__device__ static void write_rows(unit_job<ROWS, WIDTH> &job,
                                  const typename Unit::product (&s)[TILES],
                                  const typename Unit::product (&out)[WIDTH / 16], int lane) {
    for (int q = 0; q < Unit::QUERIES; q++) {
        const int row = Unit::query(lane, q);
        float largest = -INFINITY, sum = 0.0f;
        for (int e = 0; e < Unit::KEYS; e++) {
            const int key = Unit::key(lane, e);
            for (int n = 0; n < TILES; n++) {
                job.scores[row][n * 16 + key] = s[n].x[q][e];
                largest = fmaxf(largest, s[n].x[q][e]);
                sum += s[n].x[q][e];
            }
            for (int c = 0; c < WIDTH / 16; c++)
                job.out[row][Unit::template column<WIDTH / 16>(lane, c, e)] = out[c].x[q][e];
        }
        largest = Unit::reduce_max(largest);
        sum = Unit::reduce_sum(sum);
        if (job.writers[row] == 0) {
            job.largest[row] = largest;
            job.sum[row] = sum;
        }
        job.writers[row] += largest == job.largest[row] && sum == job.sum[row];
    }
}

template <typename Unit, int M, int WIDTH>
static __global__ void unit_kernel(unit_job<16 * M, WIDTH> *jobs) {
    constexpr int PITCH = WIDTH + 8;
    HIP_DYNAMIC_SHARED(uint16_t, shared)
    const int lane = (int)threadIdx.x % Unit::LANES, wave = (int)threadIdx.x / Unit::LANES;
    unit_job<16 * M, WIDTH> &job = jobs[wave];
    uint16_t *q = shared + wave * (16 * M + 2 * NUM_KEYS) * PITCH;
    uint16_t *k = q + 16 * M * PITCH, *v = k + NUM_KEYS * PITCH;
    for (int at = lane; at < NUM_KEYS * WIDTH; at += Unit::LANES) {
        const int row = at / WIDTH, column = at % WIDTH;
        if (row < 16 * M)
            q[row * PITCH + column] = job.q[row][column];
        k[row * PITCH + column] = job.k[row][column];
        v[row * PITCH + column] = job.v[row][column];
    }
    __syncthreads();
    float *scratch = (float *)(shared + WAVES * (16 * M + 2 * NUM_KEYS) * PITCH) +
                     wave * Unit::SCRATCH * NUM_KEYS;
    typename Unit::product s[TILES], w[TILES], out[WIDTH / 16];
    for (typename Unit::product &tile : s)
        for (auto &row : tile.x)
            for (float &x : row)
                x = SCORE_BEFORE;
    for (typename Unit::product &tile : out)
        for (auto &row : tile.x)
            for (float &x : row)
                x = OUT_BEFORE;
    Unit::template scores<WIDTH>(s, q, k, PITCH);
    for (int n = 0; n < TILES; n++)
        for (int m = 0; m < Unit::QUERIES; m++)
            for (int e = 0; e < Unit::KEYS; e++)
                w[n].x[m][e] = s[n].x[m][e] * WEIGHT;
    Unit::values(out, w, v, PITCH, scratch);
    write_rows<Unit>(job, s, out, lane);
}

/* ---- references ---- */

/* Multiples of 1/8 with few bits: scores are exact in any order of summation. */
static double random_eighths(void) {
    static uint32_t state = 4711;
    state = state * 1664525u + 1013904223u;
    return ((int)(state >> 16) % 65 - 32) / 8.0;
}

static uint16_t bits_of(rw_dtype dtype, double value) {
    const float x = (float)value;
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    if (dtype == RW_BF16)
        return (uint16_t)(bits >> 16);
    if (x == 0.0f)
        return 0;
    return (uint16_t)((bits >> 16 & 0x8000u) | ((bits & 0x7FFFFFFFu) - 0x38000000u) >> 13);
}

/* Rounds to the nearest number with that many bits, ties to even. */
static double round_weight(rw_dtype dtype, double x) {
    int exponent;
    const double mantissa = frexp(x, &exponent);
    const int bits = dtype == RW_BF16 ? 8 : 11;
    return ldexp(nearbyint(ldexp(mantissa, bits)), exponent - bits);
}

template <int ROWS, int WIDTH> struct numbers {
    double q[ROWS][WIDTH], k[NUM_KEYS][WIDTH], v[NUM_KEYS][WIDTH];
};

template <int ROWS, int WIDTH>
static void fill(rw_dtype dtype, numbers<ROWS, WIDTH> &x, unit_job<ROWS, WIDTH> &job) {
    for (int d = 0; d < WIDTH; d++) {
        for (int i = 0; i < ROWS; i++)
            job.q[i][d] = bits_of(dtype, x.q[i][d] = random_eighths());
        for (int j = 0; j < NUM_KEYS; j++) {
            job.k[j][d] = bits_of(dtype, x.k[j][d] = random_eighths());
            job.v[j][d] = bits_of(dtype, x.v[j][d] = random_eighths());
        }
    }
    for (int i = 0; i < ROWS; i++)
        job.writers[i] = 0;
}

template <int ROWS, int WIDTH>
static void check(rw_dtype dtype, const numbers<ROWS, WIDTH> &x, const unit_job<ROWS, WIDTH> &job,
                  int lanes_of_a_row) {
    for (int i = 0; i < ROWS; i++) {
        double scores[NUM_KEYS], largest = -INFINITY, sum = 0.0;
        for (int j = 0; j < NUM_KEYS; j++) {
            scores[j] = SCORE_BEFORE;
            for (int d = 0; d < WIDTH; d++)
                scores[j] += x.q[i][d] * x.k[j][d];
            largest = fmax(largest, scores[j]);
            sum += scores[j];
            assert_true(job.scores[i][j] == scores[j]);
        }
        assert_true(job.largest[i] == largest);
        assert_true(job.sum[i] == sum);
        assert_int_equal(job.writers[i], lanes_of_a_row);
        for (int c = 0; c < WIDTH; c++) {
            double out = OUT_BEFORE, size = fabs(OUT_BEFORE);
            for (int j = 0; j < NUM_KEYS; j++) {
                const double product = round_weight(dtype, scores[j] * WEIGHT) * x.v[j][c];
                out += product;
                size += fabs(product);
            }
            assert_true(fabs(job.out[i][c] - out) <= 1e-6 * size);
        }
    }
}

/* ---- tests ---- */

template <template <rw_dtype, int> class Unit, rw_dtype D, int M, int WIDTH>
static void run_unit(void) {
    typedef Unit<D, M> unit;
    const int lanes_of_a_row = unit::LANES * unit::QUERIES / (16 * M);
    device_array<unit_job<16 * M, WIDTH>> jobs(WAVES);
    static numbers<16 * M, WIDTH> x[WAVES];
    for (int wave = 0; wave < WAVES; wave++)
        fill(D, x[wave], jobs.data[wave]);
    const size_t elements = WAVES * (16 * M + 2 * NUM_KEYS) * (WIDTH + 8);
    hipLaunchKernelGGL((unit_kernel<unit, M, WIDTH>), dim3(1), dim3(WAVES * unit::LANES),
                       elements * sizeof(uint16_t) +
                           WAVES * unit::SCRATCH * NUM_KEYS * sizeof(float),
                       nullptr, jobs.data);
    assert_int_equal(hipGetLastError(), hipSuccess);
    assert_int_equal(hipDeviceSynchronize(), hipSuccess);
    for (int wave = 0; wave < WAVES; wave++)
        check(D, x[wave], jobs.data[wave], lanes_of_a_row);
}

template <template <rw_dtype, int> class Unit, rw_dtype D, int M> static void run_widths(void) {
    run_unit<Unit, D, M, 16>();
    run_unit<Unit, D, M, 64>();
    run_unit<Unit, D, M, 80>();
    run_unit<Unit, D, M, 96>();
}

template <template <rw_dtype, int> class Unit> static void run_dtypes(void) {
    run_widths<Unit, RW_F16, 1>();
    run_widths<Unit, RW_F16, 2>();
    run_widths<Unit, RW_BF16, 1>();
    run_widths<Unit, RW_BF16, 2>();
    run_unit<Unit, RW_F16, 1, 128>();
}

static void test_unit(void **) {
    hipDeviceProp_t properties;
    assert_int_equal(hipGetDeviceProperties(&properties, 0), hipSuccess);
    const char *arch = properties.gcnArchName;
    if (strcmp(arch, "gfx90a") == 0 || strcmp(arch, "gfx942") == 0)
        run_dtypes<rwi_mma_mfma>();
    else if (strcmp(arch, "gfx1100") == 0)
        run_dtypes<rwi_mma_wmma>();
    else if (strcmp(arch, "gfx1201") == 0)
        run_dtypes<rwi_mma_wmma12>();
    else
        fail_msg("%s has no matrix unit", arch);
}

int main(void) {
    const CMUnitTest tests[] = {
        cmocka_unit_test(test_unit),
    };
    return cmocka_run_group_tests(tests, nullptr, nullptr);
}
