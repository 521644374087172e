/* Argument structs from bytes: tensors over memory of their own, which the library may reach only
 * as far as they say. Absent bytes are 0, and a 0 leaves an argument as the operation expects it.
 *
 * What the library cannot check is not made: a pointer is NULL, or to as much memory as the shape
 * and the strides reach (to less only where they are invalid by themselves); a bool is 0 or 1. */
#ifndef FUZZ_TENSORS_H
#define FUZZ_TENSORS_H

#include "fuzz.h"

#define FUZZ_MAX_BUFFERS 32
#define FUZZ_MAX_OUTPUTS 8

/* Memory of tensors, and what it must hold after the call. */
typedef struct fuzz_buffer {
    uint8_t *bytes;
    uint8_t *expected;
    size_t size;
} fuzz_buffer;

/* The lengths of a call, by the letters in fuzz_tensor(). */
typedef struct fuzz_lengths {
    int64_t of_letter[26];
} fuzz_lengths;

typedef struct fuzz_call {
    const uint8_t *next;
    const uint8_t *end;
    uint64_t random; /* contents of tensors */
    rw_context *context;
    rw_dtype dtype;    /* of the operation's data */
    rw_dtype id_dtype; /* i32 or i64 */
    fuzz_lengths lengths;
    fuzz_buffer buffers[FUZZ_MAX_BUFFERS];
    int num_buffers;
    rw_tensor outputs[FUZZ_MAX_OUTPUTS];
    int num_outputs;
} fuzz_call;

uint8_t fuzz_byte(fuzz_call *call);

/* True for about one byte of sixteen, and not for 0. */
bool fuzz_rarely(fuzz_call *call);

/* A number from 0 to end - 1, or rarely any small one: for enumerations. */
int fuzz_choice(fuzz_call *call, int end);

/* 0, or a small number, or an extreme one. */
int64_t fuzz_number(fuzz_call *call);

/* 0, or ordinary, or a number that f32 does not hold, or not finite. */
double fuzz_factor(fuzz_call *call);

/* A length for a letter of fuzz_tensor(). */
void fuzz_set_length(fuzz_call *call, char letter, int64_t length);
int64_t fuzz_length(const fuzz_call *call, char letter);

/* A tensor with an axis for each letter, of its length; its bytes may change everything about it.
 * Floats are filled with numbers, ids mostly with 0, 1, 2, ... below `ids`. */
rw_tensor fuzz_tensor(fuzz_call *call, rw_dtype dtype, const char *axes);

/* The same, or absent. */
rw_tensor fuzz_optional(fuzz_call *call, rw_dtype dtype, const char *axes);

/* A dtype that a mask may have. */
static inline rw_dtype fuzz_mask_dtype(unsigned choice) {
    return choice % 4 == 3 ? RW_U8 : (rw_dtype)(choice % 4);
}

/* Memory that the library reads or writes entirely; NULL rarely. */
void *fuzz_memory(fuzz_call *call, size_t bytes);

/* Before the operation: it may write the elements of `out` or, if that is absent, of `in_place`. */
void fuzz_output(fuzz_call *call, const rw_tensor *out, const rw_tensor *in_place);

/* After the operation: it failed with a sentence and wrote nothing, or it wrote only outputs. */
void fuzz_check(fuzz_call *call, rw_status status);

/* The same for functions without a context. */
void fuzz_check_message(fuzz_call *call, rw_status status, const rw_message *message);

void fuzz_release(fuzz_call *call);

/* Fills the arguments of one operation, calls it and checks what it did. */
typedef void fuzz_operation(fuzz_call *call);

/* All operations, by file; NULL ends each list. */
extern fuzz_operation *const fuzz_rows[];
extern fuzz_operation *const fuzz_positions[];
extern fuzz_operation *const fuzz_scores[];
extern fuzz_operation *const fuzz_attention[];
extern fuzz_operation *const fuzz_objects[];

/* Tables that all calls use, by the head_dim ('d') or the hidden size ('x') of a call; NULL if there
 * is none of this width, and rarely. */
void fuzz_tables_open(rw_context *context);
const rw_rope *fuzz_rope(fuzz_call *call);
const rw_sinusoid *fuzz_sinusoid(fuzz_call *call);
const rw_t5 *fuzz_t5(fuzz_call *call);

/* A pattern for the lengths b, s and t; NULL unless the bytes say otherwise. */
const rw_pattern *fuzz_pattern(fuzz_call *call, rw_pattern *pattern);
const rw_alibi *fuzz_alibi(fuzz_call *call, rw_alibi *alibi);

#endif
