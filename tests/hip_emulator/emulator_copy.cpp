/* cp.async and tensor copies: copies to shared memory that are there after a wait, and NaN before.
 */
#include <stdlib.h>

#include "emulator_threads.h"

#define MAX_COPIES 1024 /* of a thread, on the way */
#define BYTES 16

static hip_emulator_block_state &block = hip_emulator_block;

struct copy {
    void *to;
    int group;
    char bytes[BYTES];
};

/* The copies of a thread, the oldest first. */
struct copies {
    copy *list;
    int count, allocated;
    int groups; /* committed so far */
};

static copies all[HIP_EMULATOR_MAX_THREADS];

static copy *add_copy(copies *own, const hip_emulator_site &site) {
    const char *operation = "cp.async";
    if (own->count == MAX_COPIES)
        hip_emulator_fail(site, operation, "too many copies on the way");
    if (own->count == own->allocated) {
        const int allocated = own->allocated ? 2 * own->allocated : 16;
        copy *list = (copy *)realloc(own->list, (size_t)allocated * sizeof *list);
        if (!list)
            hip_emulator_fail(site, operation, "out of memory");
        own->list = list;
        own->allocated = allocated;
    }
    return &own->list[own->count++];
}

void hip_emulator_cp_async_16(void *to, const void *from, bool inside, hip_emulator_site site) {
    if ((uintptr_t)to % BYTES != 0 || (inside && (uintptr_t)from % BYTES != 0))
        hip_emulator_fail(site, "cp.async", "an address is not aligned to 16 bytes");
    char bytes[BYTES] = {};
    if (inside)
        memcpy(bytes, from, BYTES);
    if (!(block.arch & HIP_EMULATOR_NVIDIA)) {
        memcpy(to, bytes, BYTES);
        return;
    }
    copies *own = &all[block.current];
    copy *copy = add_copy(own, site);
    copy->to = to;
    copy->group = own->groups;
    memcpy(copy->bytes, bytes, BYTES);
    memset(to, 0xFF, BYTES);
}

void hip_emulator_cp_async_commit(void) {
    all[block.current].groups++;
}

/* Completes the copies of groups before `end`. */
static void complete(copies *own, int end) {
    int done = 0;
    while (done < own->count && own->list[done].group < end) {
        memcpy(own->list[done].to, own->list[done].bytes, BYTES);
        done++;
    }
    own->count -= done;
    if (own->count > 0)
        memmove(own->list, own->list + done, (size_t)own->count * sizeof *own->list);
}

void hip_emulator_cp_async_wait(int left) {
    copies *own = &all[block.current];
    complete(own, own->groups - left);
}

void hip_emulator_cp_async_wait_all(void) {
    copies *own = &all[block.current];
    complete(own, own->groups + 1);
}

/* ---- tensor copies: of the block ---- */

#define BOX_COLUMNS 64
#define BOX_ROW_BYTES 128
#define MAX_BOX_ROWS 256
#define MAX_BOXES 256 /* on the way */

struct box {
    char *to;
    uint64_t *barrier;
    int rows;
    uint16_t elements[MAX_BOX_ROWS * BOX_COLUMNS]; /* as they are to lie in shared memory */
};

static box *boxes[MAX_BOXES];
static int num_boxes;

/* An element; 0 outside of the tensor. */
static uint16_t tensor_element(const hip_emulator_tensor_map &map, const int (&at)[4]) {
    int64_t offset = at[0];
    for (int i = 0; i < 4; i++) {
        if (at[i] < 0 || at[i] >= map.size[i])
            return 0;
        if (i > 0)
            offset += at[i] * map.stride[i - 1];
    }
    return ((const uint16_t *)map.data)[offset];
}

void hip_emulator_tensor_copy(void *to, const hip_emulator_tensor_map &map,
                              const hip_emulator_corner &corner, uint64_t *barrier,
                              hip_emulator_site site) {
    const char *operation = "cp.async.bulk.tensor";
    hip_emulator_require_arch(HIP_EMULATOR_NVIDIA, site, operation);
    const int rows = map.box[0] * map.box[1] * map.box[2];
    if (hip_emulator_shared_address(to, site) % 1024 != 0)
        hip_emulator_fail(site, operation, "the tile is not aligned to 1024 bytes");
    if (rows < 1 || rows > MAX_BOX_ROWS)
        hip_emulator_fail(site, operation, "a box has 1 to 256 rows");
    int bytes = rows * BOX_ROW_BYTES;
    for (int i = 0; i < num_boxes; i++)
        bytes += boxes[i]->barrier == barrier ? boxes[i]->rows * BOX_ROW_BYTES : 0;
    if (bytes > hip_emulator_mbarrier_bytes(barrier, site, operation))
        hip_emulator_fail(site, operation, "the barrier's phase does not wait for so many bytes");
    if (num_boxes == MAX_BOXES)
        hip_emulator_fail(site, operation, "too many copies on the way");
    if (!boxes[num_boxes] && !(boxes[num_boxes] = (box *)malloc(sizeof(box))))
        hip_emulator_fail(site, operation, "out of memory");
    box *copy = boxes[num_boxes++];
    copy->to = (char *)to;
    copy->barrier = barrier;
    copy->rows = rows;
    for (int r = 0; r < rows; r++)
        for (int c = 0; c < BOX_COLUMNS; c++) {
            const int place = r * BOX_COLUMNS + ((c / 8) ^ (r % 8)) * 8 + c % 8;
            const int at[4] = {corner.at[0] + c, corner.at[1] + r % map.box[0],
                               corner.at[2] + r / map.box[0] % map.box[1],
                               corner.at[3] + r / map.box[0] / map.box[1]};
            copy->elements[place] = tensor_element(map, at);
        }
    memset(to, 0xFF, (size_t)rows * BOX_ROW_BYTES);
}

int hip_emulator_end_tensor_copies(const void *barrier) {
    int bytes = 0, kept = 0;
    for (int i = 0; i < num_boxes; i++) {
        box *copy = boxes[i];
        if (copy->barrier == barrier) {
            memcpy(copy->to, copy->elements, (size_t)copy->rows * BOX_ROW_BYTES);
            bytes += copy->rows * BOX_ROW_BYTES;
            continue;
        }
        boxes[i] = boxes[kept];
        boxes[kept++] = copy;
    }
    num_boxes = kept;
    return bytes;
}

void hip_emulator_reset_copies(void) {
    for (int i = 0; i < block.num_threads; i++)
        all[i].count = all[i].groups = 0;
    num_boxes = 0;
}

__attribute__((destructor)) static void free_copies(void) {
    for (copies &own : all)
        free(own.list);
    for (box *copy : boxes)
        free(copy);
}
