/* cp.async: copies to shared memory that are there after a wait, and NaN before. */
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

void hip_emulator_reset_copies(void) {
    for (int i = 0; i < block.num_threads; i++)
        all[i].count = all[i].groups = 0;
}

__attribute__((destructor)) static void free_copies(void) {
    for (copies &own : all)
        free(own.list);
}
