/* The argument structs of the public functions: the first byte selects the function, the next ones
 * the lengths, the others how its arguments differ from what it expects. */
#include "fuzz_tensors.h"

#define NUM_ISAS 3
#define MAX_OPERATIONS 64

static rw_context *contexts[NUM_ISAS];
static fuzz_operation *operations[MAX_OPERATIONS];
static int num_operations;

static void add(fuzz_operation *const *list) {
    for (; *list; list++) {
        FUZZ_REQUIRE(num_operations < MAX_OPERATIONS);
        operations[num_operations++] = *list;
    }
}

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    (void)argc;
    (void)argv;
    for (int isa = 0; isa < NUM_ISAS; isa++) {
        const rw_context_options options = {.backend = RW_BACKEND_CPU,
                                            .num_threads = 1,
                                            .cpu_isa = (rw_cpu_isa)(RW_CPU_ISA_BASELINE + isa)};
        FUZZ_REQUIRE(rw_context_create(&options, &contexts[isa], NULL) == RW_OK);
    }
    fuzz_tables_open(contexts[0]);
    add(fuzz_rows);
    add(fuzz_positions);
    add(fuzz_scores);
    add(fuzz_attention);
    add(fuzz_objects);
    return 0;
}

/* Lengths that occur, around the widths of vectors, and 0; one of the first `count`. */
static int64_t length(fuzz_call *call, size_t count) {
    static const int64_t lengths[] = {1, 2, 3, 5, 4, 7, 8, 16, 0, 17, 9, 13, 24, 33, 32, 40};
    return lengths[fuzz_byte(call) % count];
}

static void set_lengths(fuzz_call *call) {
    static const int64_t widths[] = {8, 16, 24, 64, 8, 16, 2, 32};
    fuzz_set_length(call, 'b', length(call, 4) % 5);
    fuzz_set_length(call, 's', length(call, 12));
    fuzz_set_length(call, 't', length(call, 16));
    fuzz_set_length(call, 'k', length(call, 3));
    fuzz_set_length(call, 'h', fuzz_length(call, 'k') * length(call, 4));
    fuzz_set_length(call, 'd', widths[fuzz_byte(call) % 8]);
    fuzz_set_length(call, 'v', widths[fuzz_byte(call) % 8]);
    fuzz_set_length(call, 'x',
                    fuzz_byte(call) % 4 ? length(call, 16) : widths[fuzz_byte(call) % 8]);
    fuzz_set_length(call, 'm', length(call, 16));
    fuzz_set_length(call, 'p', length(call, 5));
    fuzz_set_length(call, 'g', fuzz_rarely(call) ? length(call, 16) : 16);
    fuzz_set_length(call, 'n', length(call, 4));
    fuzz_set_length(call, 'c', length(call, 5));
    fuzz_set_length(call, 'r', length(call, 16));
    fuzz_set_length(call, 'u', 8);
    fuzz_set_length(call, 'a', fuzz_byte(call) % 4 == 3 ? 2 : 3);
    fuzz_set_length(call, 'e', 2 * fuzz_length(call, 'x'));
    fuzz_set_length(call, 'y', (fuzz_length(call, 't') + 7) / 8);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    fuzz_call call = {.next = data, .end = data + size};
    fuzz_operation *operation = operations[fuzz_byte(&call) % num_operations];
    const uint8_t kind = fuzz_byte(&call);
    call.context = kind == 255 ? NULL : contexts[kind % NUM_ISAS];
    call.dtype = (rw_dtype)(kind / 4 % 3);
    call.id_dtype = (rw_dtype)(RW_I32 + kind / 16 % 2);
    call.random = kind;
    set_lengths(&call);
    operation(&call);
    fuzz_release(&call);
    return 0;
}
