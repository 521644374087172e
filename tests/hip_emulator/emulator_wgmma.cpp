/* wgmma: products of a warpgroup, from shared memory that matrix descriptors describe.
 *
 * A product is recorded by each lane, computed when the warpgroup commits, and written to the
 * registers by the wait that covers it, which also compares what the product read with what is
 * there then: it must not have changed meanwhile.
 */
#include <stdio.h>
#include <stdlib.h>

#include "emulator_product.h"
#include "emulator_threads.h"

#define ROWS 64
#define DEPTH 16
#define MAX_COLUMNS 256
#define LANES HIP_EMULATOR_MAX_LANES
#define MAX_PRODUCTS 256
#define PIECE 8 /* elements of 16 bytes, which a swizzle moves as one */

static hip_emulator_block_state &block = hip_emulator_block;

/* Registers of the warpgroup that products on the way will write. */
struct pending_registers {
    pending_registers *next;
    int n;
    int products; /* on the way */
    float *d[LANES];
    float sums[ROWS * MAX_COLUMNS]; /* rows of n */
};

/* What a product reads; elements of a and b in the order of the pieces that fetch() visits. */
struct factors {
    uint16_t a[ROWS * DEPTH];
    uint16_t b[MAX_COLUMNS * DEPTH];
};

/* What the lanes of a warpgroup must agree on, and the place of one lane's call. */
struct product_call {
    const hip_emulator_instruction *instruction;
    hip_emulator_site site;
    int n;
    bool a_shared, b_transposed, add;
    uint64_t a, b; /* descriptors */
};

struct product {
    product_call call;
    pending_registers *to;
    int group;                 /* of commits */
    const uint32_t *at[LANES]; /* registers of a */
    uint32_t registers[LANES][4];
    factors read;
};

struct warpgroup {
    product *products[MAX_PRODUCTS]; /* on the way, the oldest first */
    int count, committed;            /* of `products` */
    int groups;                      /* committed so far */
    pending_registers *registers;
    int recorded[LANES]; /* products since the last commit */
    bool fenced[LANES];  /* since the last wait */
};

static warpgroup warpgroups[HIP_EMULATOR_MAX_THREADS / LANES];

/* ---- layouts ---- */

static int row_of(int lane, int i) {
    return lane / 32 * 16 + lane % 32 / 4 + i / 4 % 2 * 8;
}

static int column_of(int lane, int i) {
    return i / 8 * 16 + i % 4 / 2 * 8 + lane % 4 * 2 + i % 2;
}

/* Of element i of a in registers. */
static int a_index(int lane, int i) {
    const int row = lane / 32 * 16 + lane % 32 / 4 + i / 2 % 2 * 8;
    return row * DEPTH + lane % 4 * 2 + i % 2 + i / 4 * 8;
}

/* ---- matrix descriptors ---- */

struct descriptor {
    uint32_t start, leading, stride; /* bytes */
};

#define SWIZZLE_128 1u
#define USED_BITS 0xC0003FFF3FFF3FFFu

static descriptor decode(uint64_t bits) {
    return {(uint32_t)(bits & 0x3FFF) << 4, (uint32_t)(bits >> 16 & 0x3FFF) << 4,
            (uint32_t)(bits >> 32 & 0x3FFF) << 4};
}

static const char *check_descriptor(uint64_t bits) {
    if (bits >> 62 != SWIZZLE_128)
        return "a descriptor has another swizzle than that of 128 bytes";
    if (bits & ~USED_BITS)
        return "a descriptor has bits set that must be 0 (a base offset is not emulated)";
    return nullptr;
}

/* Copies the 16 bytes at an address before the swizzle; false if outside of the memory. */
static bool fetch_piece(uint32_t address, uint16_t *to) {
    address ^= address >> 3 & 0x70;
    if ((size_t)address + 16 > block.launch->shared_bytes)
        return false;
    memcpy(to, block.dynamic_shared + address, 16);
    return true;
}

/* K-major: rows of 16 elements. */
static bool fetch_rows(uint64_t bits, int rows, uint16_t *to) {
    const descriptor from = decode(bits);
    for (int row = 0; row < rows; row++)
        for (int half = 0; half < 2; half++) {
            const uint32_t r = (uint32_t)row, h = (uint32_t)half;
            if (!fetch_piece(from.start + r / 8 * from.stride + r % 8 * 128 + h * 16, to))
                return false;
            to += PIECE;
        }
    return true;
}

/* MN-major: 16 rows of n elements. */
static bool fetch_columns(uint64_t bits, int n, uint16_t *to) {
    const descriptor from = decode(bits);
    for (uint32_t k = 0; k < DEPTH; k++)
        for (uint32_t column = 0; column < (uint32_t)n; column += PIECE) {
            const uint32_t row = from.start + k / 8 * from.stride + k % 8 * 128;
            if (!fetch_piece(row + column / 64 * from.leading + column % 64 * 2, to))
                return false;
            to += PIECE;
        }
    return true;
}

static bool fetch(const product_call &call, factors *read) {
    if (call.a_shared && !fetch_rows(call.a, ROWS, read->a))
        return false;
    return call.b_transposed ? fetch_columns(call.b, call.n, read->b)
                             : fetch_rows(call.b, call.n, read->b);
}

/* ---- products ---- */

static void multiply(product *product) {
    static float a[ROWS * DEPTH], b[DEPTH * MAX_COLUMNS];
    const int n = product->call.n;
    const bool bf16 = product->call.instruction == &hip_emulator_wgmma_bf16;
    if (!product->call.a_shared)
        for (int lane = 0; lane < LANES; lane++)
            for (int i = 0; i < 8; i++)
                product->read.a[a_index(lane, i)] =
                    (uint16_t)(product->registers[lane][i / 2] >> i % 2 * 16);
    hip_emulator_to_floats(product->read.a, a, ROWS * DEPTH, bf16);
    if (product->call.b_transposed) {
        hip_emulator_to_floats(product->read.b, b, DEPTH * n, bf16);
    } else {
        static float rows[MAX_COLUMNS * DEPTH];
        hip_emulator_to_floats(product->read.b, rows, n * DEPTH, bf16);
        for (int column = 0; column < n; column++)
            for (int k = 0; k < DEPTH; k++)
                b[k * n + column] = rows[column * DEPTH + k];
    }
    float *sums = product->to->sums;
    if (!product->call.add)
        memset(sums, 0, sizeof *sums * (size_t)(ROWS * n));
    for (int column = 0; column < n; column += 16)
        hip_emulator_multiply_add<16>(ROWS, a, b + column, n, sums + column, n);
}

/* ---- what the warpgroup carries out together ---- */

struct waiting_lane {
    warpgroup *group;
    int lane; /* in the warpgroup */
    int left; /* of wait_group */
};

static warpgroup *current_warpgroup(void) {
    return &warpgroups[block.current / LANES];
}

static waiting_lane current_lane(int left) {
    return {current_warpgroup(), block.current % LANES, left};
}

static const char *commit_products(void *const *lanes) {
    warpgroup *group = ((const waiting_lane *)lanes[0])->group;
    for (int lane = 0; lane < LANES; lane++)
        if (group->recorded[lane] != group->count - group->committed)
            return "threads of the warpgroup began different numbers of wgmma.mma_async";
    for (int i = group->committed; i < group->count; i++) {
        product *product = group->products[i];
        if (!fetch(product->call, &product->read))
            return "a descriptor of wgmma.mma_async reaches beyond the dynamic shared memory";
        multiply(product);
        product->group = group->groups;
    }
    memset(group->recorded, 0, sizeof group->recorded);
    group->committed = group->count;
    group->groups++;
    return nullptr;
}

/* Compares what the product read with what is there now. */
static const char *find_change(const product &product) {
    static factors now;
    if (!fetch(product.call, &now))
        return "a descriptor of wgmma.mma_async reaches beyond the dynamic shared memory";
    const size_t b_bytes = (size_t)(product.call.n * DEPTH) * sizeof(uint16_t);
    if (memcmp(now.b, product.read.b, b_bytes) != 0 ||
        (product.call.a_shared && memcmp(now.a, product.read.a, sizeof now.a) != 0))
        return "shared memory that a product reads changed before this wait for it";
    for (int lane = 0; lane < LANES && !product.call.a_shared; lane++)
        if (memcmp(product.at[lane], product.registers[lane], sizeof product.registers[lane]) != 0)
            return "registers of a that a product reads changed before this wait for it";
    return nullptr;
}

static void write_registers(const pending_registers &registers) {
    for (int lane = 0; lane < LANES; lane++)
        for (int i = 0; i < registers.n / 2; i++)
            registers.d[lane][i] =
                registers.sums[row_of(lane, i) * registers.n + column_of(lane, i)];
}

/* Writes and forgets the registers that no product is on the way to. */
static void finish_registers(warpgroup *group) {
    for (pending_registers **at = &group->registers; *at;) {
        pending_registers *registers = *at;
        if (registers->products > 0) {
            at = &registers->next;
            continue;
        }
        write_registers(*registers);
        *at = registers->next;
        free(registers);
    }
}

static const char *wait_for_products(void *const *lanes) {
    const int left = ((const waiting_lane *)lanes[0])->left;
    warpgroup *group = ((const waiting_lane *)lanes[0])->group;
    for (int lane = 0; lane < LANES; lane++)
        if (((const waiting_lane *)lanes[lane])->left != left)
            return "threads of the warpgroup leave different numbers of groups";
    int finished = 0;
    while (finished < group->committed && group->products[finished]->group < group->groups - left) {
        product *product = group->products[finished++];
        const char *change = find_change(*product);
        if (change)
            return change;
        product->to->products--;
    }
    for (int i = 0; i < finished; i++)
        free(group->products[i]);
    group->count -= finished;
    group->committed -= finished;
    memmove(group->products, group->products + finished,
            (size_t)group->count * sizeof *group->products);
    finish_registers(group);
    memset(group->fenced, 0, sizeof group->fenced);
    return nullptr;
}

static const hip_emulator_instruction commit_instruction = {
    "wgmma.commit_group", HIP_EMULATOR_SM_90A, commit_products, LANES};
static const hip_emulator_instruction wait_instruction = {"wgmma.wait_group", HIP_EMULATOR_SM_90A,
                                                          wait_for_products, LANES};

/* ---- what a lane records ---- */

/* Products are computed by wgmma.commit_group. */
const hip_emulator_instruction hip_emulator_wgmma_f16 = {
    "wgmma.mma_async.sync.aligned.m64nNk16.f32.f16.f16", HIP_EMULATOR_SM_90A, nullptr, LANES};
const hip_emulator_instruction hip_emulator_wgmma_bf16 = {
    "wgmma.mma_async.sync.aligned.m64nNk16.f32.bf16.bf16", HIP_EMULATOR_SM_90A, nullptr, LANES};

static void *allocate(size_t bytes, const product_call &call) {
    void *memory = calloc(1, bytes);
    if (!memory)
        hip_emulator_fail(call.site, call.instruction->name, "out of memory");
    return memory;
}

static pending_registers *find_registers(const warpgroup &group, int lane, const float *d) {
    for (pending_registers *at = group.registers; at; at = at->next)
        if (at->d[lane] == d)
            return at;
    return nullptr;
}

/* The first lane of the warpgroup to reach a product. */
static product *begin_product(warpgroup *group, int lane, const product_call &call, float *d) {
    if (group->count == MAX_PRODUCTS)
        hip_emulator_fail(call.site, call.instruction->name, "too many products on the way");
    pending_registers *to = find_registers(*group, lane, d);
    if (to && to->n != call.n)
        hip_emulator_fail(call.site, call.instruction->name,
                          "a product of another width is on the way to the same registers");
    if (!to) {
        to = (pending_registers *)allocate(sizeof *to, call);
        to->n = call.n;
        to->next = group->registers;
        group->registers = to;
    }
    product *product = (struct product *)allocate(sizeof *product, call);
    product->call = call;
    product->to = to;
    to->products++;
    group->products[group->count++] = product;
    return product;
}

/* The lane's registers take part: their values are kept, and NaN until the product is there. */
static void take_registers(warpgroup *group, pending_registers *to, int lane,
                           const product_call &call, float *d) {
    if (to->d[lane] || find_registers(*group, lane, d))
        hip_emulator_fail(call.site, call.instruction->name,
                          "another thread of the warpgroup multiplies to other registers");
    if (!group->fenced[lane])
        hip_emulator_fail(call.site, call.instruction->name,
                          "no wgmma.fence since the last wgmma.wait_group");
    to->d[lane] = d;
    for (int i = 0; i < to->n / 2; i++)
        to->sums[row_of(lane, i) * to->n + column_of(lane, i)] = d[i];
    memset(d, 0xFF, (size_t)(to->n / 2) * sizeof *d);
}

static const char *check_call(const product_call &call) {
    if (call.n < 16 || call.n > MAX_COLUMNS || call.n % 16 != 0)
        return "n must be a multiple of 16 up to 256";
    const char *wrong = call.a_shared ? check_descriptor(call.a) : nullptr;
    return wrong ? wrong : check_descriptor(call.b);
}

static bool is_same(const product_call &a, const product_call &b) {
    return a.instruction == b.instruction && a.n == b.n && a.a_shared == b.a_shared &&
           a.b_transposed == b.b_transposed && a.add == b.add && a.a == b.a && a.b == b.b;
}

static void record(const product_call &call, float *d, const uint32_t *a) {
    warpgroup *group = current_warpgroup();
    const int lane = block.current % LANES;
    hip_emulator_require_arch(call.instruction->archs, call.site, call.instruction->name);
    const char *wrong = check_call(call);
    if (wrong)
        hip_emulator_fail(call.site, call.instruction->name, wrong);
    const int index = group->committed + group->recorded[lane]++;
    product *product =
        index < group->count ? group->products[index] : begin_product(group, lane, call, d);
    if (!is_same(product->call, call))
        hip_emulator_fail(call.site, call.instruction->name,
                          "another thread of the warpgroup has another descriptor or shape");
    if (product->to->d[lane] != d)
        take_registers(group, product->to, lane, call, d);
    if (!a)
        return;
    product->at[lane] = a;
    memcpy(product->registers[lane], a, sizeof product->registers[lane]);
}

void hip_emulator_wgmma_shared(const hip_emulator_instruction &instruction, float *d, int n,
                               uint64_t a, uint64_t b, bool b_transposed, bool add,
                               hip_emulator_site site) {
    record({&instruction, site, n, true, b_transposed, add, a, b}, d, nullptr);
}

void hip_emulator_wgmma_registers(const hip_emulator_instruction &instruction, float *d, int n,
                                  const uint32_t (&a)[4], uint64_t b, bool b_transposed,
                                  hip_emulator_site site) {
    record({&instruction, site, n, false, b_transposed, true, 0, b}, d, a);
}

void hip_emulator_wgmma_fence(hip_emulator_site site) {
    hip_emulator_require_arch(HIP_EMULATOR_SM_90A, site, "wgmma.fence");
    current_warpgroup()->fenced[block.current % LANES] = true;
}

void hip_emulator_wgmma_commit(hip_emulator_site site) {
    waiting_lane lane = current_lane(0);
    hip_emulator_execute(commit_instruction, &lane, site);
}

void hip_emulator_wgmma_wait(int left, hip_emulator_site site) {
    waiting_lane lane = current_lane(left);
    hip_emulator_execute(wait_instruction, &lane, site);
}

/* ---- the end ---- */

const hip_emulator_site *hip_emulator_wgmma_pending(void) {
    const warpgroup *group = current_warpgroup();
    for (int i = 0; i < group->count; i++)
        if (group->products[i]->to->d[block.current % LANES])
            return &group->products[i]->call.site;
    return nullptr;
}

void hip_emulator_reset_wgmma(void) {
    for (warpgroup &group : warpgroups) {
        for (int i = 0; i < group.count; i++)
            free(group.products[i]);
        for (pending_registers *at = group.registers; at;) {
            pending_registers *next = at->next;
            free(at);
            at = next;
        }
        memset(&group, 0, sizeof group);
    }
}
