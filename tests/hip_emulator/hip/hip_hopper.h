/* What warp-specialized kernels for NVIDIA's GPUs use: shared addresses, cp.async, named barriers,
 * mbarriers and tensor copies (sm_90, sm_90a), and wgmma (sm_90a). Source: NVIDIA's PTX ISA.
 *
 * Errors, besides those of hip_runtime.h: one line on stderr, and hipErrorAssert:
 *   - a named barrier used with another number of threads while threads are at it;
 *   - an mbarrier that was not initialized, or whose phase completes before a thread that waits for
 *     the phase before could continue, or before any thread saw that one complete;
 *   - wgmma: see below;
 *   - threads that wait for each other: the line lists what each waits for.
 */
#ifndef HIP_EMULATOR_HOPPER_H
#define HIP_EMULATOR_HOPPER_H

#include "hip_runtime.h"

/* __cvta_generic_to_shared: the offset in the block's dynamic shared memory, which starts on a
 * multiple of 1024 bytes. Elsewhere: an error; the end of that memory is valid. */
uint32_t hip_emulator_shared_address(const void *pointer,
                                     hip_emulator_site site = hip_emulator_site::here());

/* ---- cp.async: 16 bytes to shared memory, both addresses on a multiple of 16 ---- */

/* Zeros where `inside` is false; `from` is not read then. On NVIDIA's architectures `to` reads as
 * NaN until the thread waits; on others this is an ordinary copy. A thread may exit without a wait.
 */
void hip_emulator_cp_async_16(void *to, const void *from, bool inside,
                              hip_emulator_site site = hip_emulator_site::here());

/* cp.async.commit_group, cp.async.wait_group for all groups but the last `left`, and
 * cp.async.wait_all, which includes what was not committed. */
void hip_emulator_cp_async_commit(void);
void hip_emulator_cp_async_wait(int left);
void hip_emulator_cp_async_wait_all(void);

/* ---- named barriers: every lane of the wave must call these, with the same arguments ---- */

/* bar.sync: waits until `threads` threads, those of whole waves, are at barrier `id` (0 to 15).
 * __syncthreads() is that of all threads with id 0. */
void hip_emulator_bar_sync(int id, int threads, hip_emulator_site site = hip_emulator_site::here());

/* bar.arrive: is counted at the barrier but does not wait. */
void hip_emulator_bar_arrive(int id, int threads,
                             hip_emulator_site site = hip_emulator_site::here());

/* ---- mbarriers: 8 bytes of shared memory, on a multiple of 8 ---- */

/* mbarrier.init: phase 0, which completes after `count` arrivals, as every later phase. */
void hip_emulator_mbarrier_init(uint64_t *barrier, int count,
                                hip_emulator_site site = hip_emulator_site::here());
void hip_emulator_mbarrier_arrive(uint64_t *barrier,
                                  hip_emulator_site site = hip_emulator_site::here());

/* mbarrier.test_wait.parity: whether the current phase is not of this parity, hence the one before
 * has completed. If not, other threads run before this returns, so that a loop ends. */
bool hip_emulator_mbarrier_test(const uint64_t *barrier, int parity,
                                hip_emulator_site site = hip_emulator_site::here());

/* Waits until hip_emulator_mbarrier_test() is true. */
void hip_emulator_mbarrier_wait(const uint64_t *barrier, int parity,
                                hip_emulator_site site = hip_emulator_site::here());

/* mbarrier.arrive.expect_tx: an arrival; the phase also waits for copies of `bytes` bytes, less than
 * 2^20 in all. */
void hip_emulator_mbarrier_expect(uint64_t *barrier, int bytes,
                                  hip_emulator_site site = hip_emulator_site::here());

/* ---- cp.async.bulk.tensor (TMA): a box of a tensor of 16-bit elements to shared memory ----
 *
 * Axis 0 is the last one, columns, of stride 1. A box is 64 columns of box[] of the other axes: rows of
 * 128 bytes, those of axis 1 first; row r lies at 128 r, its 16-byte pieces swapped by r % 8 (the
 * swizzle of 128 bytes). What is outside of the tensor is 0. `to` is a multiple of 1024 bytes, and
 * reads as NaN until a thread looks at the barrier. Errors: more bytes than the barrier's phase expects.
 */
struct hip_emulator_tensor_map {
    const void *data;
    int64_t size[4];
    int64_t stride[3]; /* of axes 1 to 3, in elements */
    int box[3];        /* of the same */
};

struct hip_emulator_corner {
    int at[4];
};

void hip_emulator_tensor_copy(void *to, const hip_emulator_tensor_map &map,
                              const hip_emulator_corner &corner, uint64_t *barrier,
                              hip_emulator_site site = hip_emulator_site::here());

/* ---- wgmma: four waves, of which wave i (of the warpgroup) has rows 16 i to 16 i + 15 of 64 ----
 *
 * d = a b + d, 64 x n += 64 x 16 * 16 x n, n a multiple of 16 up to 256. Of 16 columns p, element
 * d[8 * p + 4 * i + e] is of row lane / 4 + 8 * i of the wave and of column 16 * p + e / 2 * 8 +
 * lane % 4 * 2 + e % 2; a in registers is as mma.sync's. Sums are f32.
 *
 * A product is computed when the warpgroup commits it, from what shared memory holds then. d is
 * written by the wait that covers the last product to it, and reads as NaN until then: `d` and `a`
 * must be the kernel's own variables, which live until that wait, not copies. Errors:
 *   - shared memory or registers of a that a product reads and that have changed by its wait;
 *   - no fence between a wait and the next product, unless one to the same d is still on the way;
 *   - threads of the warpgroup that do not multiply the same, or exit without that wait;
 *   - a descriptor of another swizzle than that of 128 bytes, or that reaches beyond the dynamic
 *     shared memory.
 * Not modelled: the proxy fence between stores to shared memory and their use by a product.
 */

/* wgmma.mma_async.sync.aligned.m64nNk16.f32.f16.f16 and .bf16.bf16 */
extern const hip_emulator_instruction hip_emulator_wgmma_f16;
extern const hip_emulator_instruction hip_emulator_wgmma_bf16;

/* a and b by matrix descriptors: a K-major; b K-major, or MN-major if transposed. `add` false: d is
 * not read. */
void hip_emulator_wgmma_shared(const hip_emulator_instruction &instruction, float *d, int n,
                               uint64_t a, uint64_t b, bool b_transposed, bool add,
                               hip_emulator_site site = hip_emulator_site::here());
void hip_emulator_wgmma_registers(const hip_emulator_instruction &instruction, float *d, int n,
                                  const uint32_t (&a)[4], uint64_t b, bool b_transposed,
                                  hip_emulator_site site = hip_emulator_site::here());

/* wgmma.fence.sync.aligned */
void hip_emulator_wgmma_fence(hip_emulator_site site = hip_emulator_site::here());

/* wgmma.commit_group.sync.aligned: the products since the last commit become a group. */
void hip_emulator_wgmma_commit(hip_emulator_site site = hip_emulator_site::here());

/* wgmma.wait_group.sync.aligned: for all groups but the last `left`. */
void hip_emulator_wgmma_wait(int left, hip_emulator_site site = hip_emulator_site::here());

#endif
