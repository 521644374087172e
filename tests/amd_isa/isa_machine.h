/* Common declarations of this implementation of libamdhip64; isa_launch.py declares the same
 * layouts. */
#ifndef ISA_MACHINE_H
#define ISA_MACHINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---- launches ---- */

enum {
    ISA_FORM_ARGUMENTS = 6,
    ISA_SGPRS = 260,
    ISA_HW_REGISTERS = 64
};
enum {
    ISA_BARRIER = 1,
    ISA_SKIP = 2
};

/* The decoded form of one word of code: the compiled form of the instruction, the buffers that it
 * takes, in order, and what the run loop does itself. `fn` is absent until the word is executed. */
typedef struct isa_entry {
    void (*fn)(void *, void *, void *, void *, void *, void *);
    uint8_t flags, bytes, buffers[ISA_FORM_ARGUMENTS];
} isa_entry;

typedef enum isa_failure {
    ISA_RAN,
    ISA_NO_FORM,    /* the emulator does not support an instruction */
    ISA_HANG,       /* a wave exceeded the limit between two barriers */
    ISA_LOST,       /* the program counter left the code */
    ISA_ACCESS,     /* an instruction accessed unallocated memory */
    ISA_LDS_OVERRUN /* a block wrote past its LDS */
} isa_failure;

/* One launch of a kernel. Addresses are those of the device. */
typedef struct isa_launch {
    uint64_t base, words; /* of the code object */
    isa_entry *table;     /* one for each word */
    void (*compile)(uint64_t pc, isa_entry *entry);
    uint64_t start;    /* of the kernel */
    uint64_t executed; /* of the kernel */
    uint64_t limit;    /* of instructions of a wave from one barrier to the next */
    uint64_t failed_pc, failed_address, failed_exec;
    uint32_t wave, vgprs, user_count, user[32];
    uint32_t rsrc2, flush, ids_in_ttmp, lds_bytes, scratch_bytes, poison;
    uint32_t block[3], grid[3];
    uint32_t reverse;
    uint32_t failure, failed_block[3], failed_wave;
} isa_launch;

/* Runs every block. Returns launch->failure. */
int isa_run(isa_launch *launch);

/* ---- memory ---- */

/* Device addresses differ from host addresses: accesses of the host through a device pointer, and
 * of a kernel through a host pointer, are errors. */
#define ISA_BIAS UINT64_C(0x100000000000)
static inline uint64_t isa_to_device(const void *host) {
    return (uint64_t)(uintptr_t)host + ISA_BIAS;
}
static inline void *isa_to_host(uint64_t device) {
    return (void *)(uintptr_t)(device - ISA_BIAS);
}

/* Allocates memory between inaccessible pages, filled with a pattern; returns the host address or
 * NULL. */
void *isa_memory_take(size_t bytes);
bool isa_memory_give(void *host);

/* Whether `bytes` at `host` are inside one allocation; else `why` receives the reason. */
bool isa_memory_holds(const void *host, size_t bytes, char *why, size_t why_bytes);

/* Describes the location of `device`, for a report. */
void isa_memory_describe(uint64_t device, char *text, size_t bytes);

/* Whether the memory around every allocation is unchanged; else `why` receives the location. */
bool isa_memory_intact(char *why, size_t why_bytes);

/* LDS at its fixed address, of which a block has `bytes`; the memory after its pages is guarded. */
#define ISA_LDS_HOST UINT64_C(0x0f0000000000)
enum {
    ISA_LDS_BYTES = 65536
};
uint32_t *isa_lds(size_t bytes);

/* ---- Python ---- */

/* Launches with isa_launch.py; false with a message on failure. */
typedef struct isa_call {
    const void *binary;
    const char *kernel;
    uint32_t grid[3], block[3];
    void **arguments;
    size_t shared_bytes;
} isa_call;
bool isa_python_launch(const isa_call *call, char *message, size_t message_bytes);

#endif
