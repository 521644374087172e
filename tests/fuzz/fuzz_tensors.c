#include "fuzz_tensors.h"

#include <math.h>

#define MAX_BYTES 65536
#define MAX_ELEMENTS 8192
#define MAX_AXES 6

/* ---- bytes ---- */

uint8_t fuzz_byte(fuzz_call *call) {
    return call->next < call->end ? *call->next++ : 0;
}

bool fuzz_rarely(fuzz_call *call) {
    return fuzz_byte(call) % 16 == 15;
}

int fuzz_choice(fuzz_call *call, int end) {
    const uint8_t byte = fuzz_byte(call);
    return byte >= 240 ? (int8_t)(byte - 244) : byte % end;
}

int64_t fuzz_number(fuzz_call *call) {
    static const int64_t extreme[] = {INT64_MAX, INT64_MIN,         INT32_MAX, INT32_MIN,
                                      1ll << 32, (1ll << 31) + 1,   1ll << 62, -(1ll << 40),
                                      1ll << 20, INT64_MAX / 2 + 1, -1,        1 << 24};
    const uint8_t byte = fuzz_byte(call);
    if (byte >= 244)
        return extreme[byte - 244];
    return byte < 128 ? byte : byte < 192 ? -(int64_t)(byte - 128) : (int64_t)(byte - 192) * 31;
}

double fuzz_factor(fuzz_call *call) {
    static const double numbers[] = {0,     1,         0.5,     2,        -1,        8,
                                     1e-3,  100,       NAN,     INFINITY, -INFINITY, 1e39,
                                     1e-46, 1e-40,     1e300,   -1e-310,  10000,     500000,
                                     -2,    0.0883883, 1.0 / 3, 7,        1.702,     32};
    return numbers[fuzz_byte(call) % (sizeof numbers / sizeof *numbers)];
}

static uint64_t random_bits(fuzz_call *call) {
    call->random = call->random * 6364136223846793005u + 1442695040888963407u;
    return call->random >> 24;
}

void fuzz_set_length(fuzz_call *call, char letter, int64_t length) {
    call->lengths.of_letter[letter - 'a'] = length;
}

int64_t fuzz_length(const fuzz_call *call, char letter) {
    return letter >= '0' && letter <= '9' ? letter - '0' : call->lengths.of_letter[letter - 'a'];
}

/* ---- shapes ---- */

/* Strides with room for so many elements between neighbours on every axis but the last. */
static void spread(rw_tensor *tensor, uint64_t gap) {
    uint64_t stride = 1; /* unsigned: an extreme length wraps */
    for (int axis = (tensor->rank < RW_MAX_RANK ? tensor->rank : RW_MAX_RANK) - 1; axis >= 0;
         axis--) {
        tensor->stride[axis] = (int64_t)stride;
        stride *= (uint64_t)tensor->shape[axis] + gap;
    }
}

static rw_tensor contiguous(fuzz_call *call, rw_dtype dtype, const char *axes) {
    rw_tensor tensor = {.dtype = dtype, .rank = (int32_t)strlen(axes)};
    for (int axis = 0; axis < tensor.rank; axis++)
        tensor.shape[axis] = fuzz_length(call, axes[axis]);
    spread(&tensor, 0);
    return tensor;
}

static void exchange(rw_tensor *tensor, int a, int b) {
    const int64_t stride = tensor->stride[a];
    tensor->stride[a] = tensor->stride[b];
    tensor->stride[b] = stride;
}

/* Two axes in the other order in memory. */
static void permute(rw_tensor *tensor, int a, int b) {
    rw_tensor other = rw_tensor_transpose(*tensor, a, b);
    spread(&other, 0);
    exchange(&other, a, b);
    memcpy(tensor->stride, other.stride, sizeof other.stride);
}

typedef enum change {
    KEPT = 0,
    ABSENT,
    PACKED,
    GAPS,
    PERMUTED,
    NEGATIVE,
    STRIDE,
    LENGTH,
    EXTREME_LENGTH,
    EXTREME_STRIDE,
    DTYPE,
    RANK,
    NO_DATA,
    MISALIGNED,
    SHARED,
    IDS,
    NUM_CHANGES
} change;

/* Changes of shape, strides and dtype. */
static void reshape(fuzz_call *call, rw_tensor *tensor, change what) {
    const int axes = tensor->rank > 0 && tensor->rank <= RW_MAX_RANK ? tensor->rank : 1;
    const uint8_t byte = what == KEPT ? 0 : fuzz_byte(call);
    const int axis = byte % axes, other = byte / 16 % axes;
    if (what == PACKED && tensor->rank > 1)
        *tensor = (rw_tensor){.dtype = tensor->dtype,
                              .rank = tensor->rank - 1,
                              .shape = {tensor->shape[1], tensor->shape[2], tensor->shape[3]},
                              .stride = {tensor->stride[1], tensor->stride[2], tensor->stride[3]}};
    else if (what == GAPS)
        spread(tensor, byte % 9u);
    else if (what == PERMUTED)
        permute(tensor, axis, other);
    else if (what == NEGATIVE)
        tensor->stride[axis] = (int64_t)(0 - (uint64_t)tensor->stride[axis]);
    else if (what == STRIDE)
        tensor->stride[axis] = byte / 16;
    else if (what == LENGTH)
        tensor->shape[axis] = byte / 16;
    else if (what == EXTREME_LENGTH)
        tensor->shape[axis] = fuzz_number(call);
    else if (what == EXTREME_STRIDE)
        tensor->stride[axis] = fuzz_number(call);
    else if (what == DTYPE)
        tensor->dtype = (rw_dtype)(byte < 250 ? byte % 9 : byte - 256);
    else if (what == RANK)
        tensor->rank = byte < 250 ? byte % (MAX_AXES + 1) : byte < 253 ? byte - 256 : INT32_MAX;
}

/* ---- memory ---- */

/* What a tensor reaches. */
typedef struct reach {
    bool refused; /* by itself, whatever the memory is */
    bool empty;
    bool large;   /* to allocate, or to compute with */
    int64_t low;  /* bytes from `data` */
    int64_t high; /* the end */
} reach;

static reach reach_of(const rw_tensor *tensor) {
    const int64_t size = (int64_t)rw_dtype_size(tensor->dtype);
    reach found = {.refused = size == 0 || tensor->rank < 1 || tensor->rank > RW_MAX_RANK};
    __int128 first = 0, last = 0, elements = 1;
    for (int axis = 0; axis < tensor->rank && !found.refused; axis++) {
        found.refused |= tensor->shape[axis] < 0;
        found.empty |= tensor->shape[axis] == 0;
    }
    if (found.refused || found.empty)
        return found;
    for (int axis = 0; axis < tensor->rank; axis++) {
        const __int128 distance = (__int128)(tensor->shape[axis] - 1) * tensor->stride[axis];
        found.refused |= distance != (int64_t)distance;
        *(distance < 0 ? &first : &last) += distance;
        elements = elements > MAX_ELEMENTS ? elements : elements * tensor->shape[axis];
    }
    found.refused |= (last + 1) * size > INT64_MAX || first * size < INT64_MIN;
    found.large = elements > MAX_ELEMENTS || (last + 1 - first) * size > MAX_BYTES;
    if (!found.refused && !found.large) {
        found.low = (int64_t)(first * size);
        found.high = (int64_t)((last + 1) * size);
    }
    return found;
}

static fuzz_buffer *add_buffer(fuzz_call *call, size_t size) {
    FUZZ_REQUIRE(call->num_buffers < FUZZ_MAX_BUFFERS);
    fuzz_buffer *buffer = &call->buffers[call->num_buffers++];
    *buffer = (fuzz_buffer){malloc(size), malloc(size), size};
    FUZZ_REQUIRE(buffer->bytes && buffer->expected);
    return buffer;
}

/* An earlier tensor's memory, if the tensor fits into it. */
static void *share(fuzz_call *call, const reach *r) {
    const size_t bytes = (size_t)(r->high - r->low);
    const uint8_t which = fuzz_byte(call), offset = fuzz_byte(call);
    if (call->num_buffers == 0)
        return NULL;
    const fuzz_buffer *buffer = &call->buffers[which % call->num_buffers];
    if (buffer->size < bytes)
        return NULL;
    return buffer->bytes + (size_t)offset * 8 % (buffer->size - bytes + 1) - r->low;
}

static int64_t make_id(fuzz_call *call, uint8_t way, int64_t n) {
    static const int64_t extreme[] = {INT64_MAX, INT64_MIN, INT32_MAX, INT32_MIN, -1, 1ll << 40};
    switch (way % 8) {
    case 0: /* ascending, which suits positions, pages, bounds and lengths */
        return n;
    case 1:
        return 0;
    case 2:
        return way / 8;
    case 3:
        return (int64_t)(random_bits(call) % 8);
    case 4:
        return (int64_t)(random_bits(call) % 64) - 8;
    case 5:
        return extreme[random_bits(call) % 6];
    case 6:
        return n * (way / 8);
    default:
        return random_bits(call) % 4 ? n : extreme[random_bits(call) % 6];
    }
}

static void fill(fuzz_call *call, fuzz_buffer *buffer, rw_dtype dtype, uint8_t way) {
    const int64_t size = (int64_t)rw_dtype_size(dtype);
    const bool ids = dtype == RW_I32 || dtype == RW_I64;
    for (int64_t n = 0; n < (int64_t)buffer->size / size; n++) {
        /* floats of all kinds: mostly ordinary, f32 near 1 and f16 as they come */
        uint64_t bits = random_bits(call);
        if (ids)
            bits = (uint64_t)make_id(call, way, n);
        else if (dtype == RW_F32 && way % 4 < 3)
            bits = 0x3f000000 + (bits & 0xffffff) + (bits >> 30 << 31);
        memcpy(buffer->bytes + n * size, &bits, (size_t)size);
    }
}

/* Memory for a tensor. */
static void place(fuzz_call *call, rw_tensor *tensor, change what) {
    const reach r = reach_of(tensor);
    const size_t bytes = (size_t)(r.high - r.low), misaligned = what == MISALIGNED ? 1 : 0;
    if (what == NO_DATA || (r.large && !r.refused && !r.empty))
        return; /* with elements it must be refused */
    if (what == SHARED && !r.refused && !r.empty)
        tensor->data = share(call, &r);
    if (tensor->data)
        return;
    fuzz_buffer *buffer = add_buffer(call, bytes + misaligned);
    const uint8_t way = what == IDS ? fuzz_byte(call) : 0;
    if (bytes > 0)
        fill(call, buffer, tensor->dtype, way);
    memset(buffer->bytes + bytes, 0, misaligned);
    memcpy(buffer->expected, buffer->bytes, buffer->size);
    tensor->data = buffer->bytes + misaligned - r.low;
}

static rw_tensor make(fuzz_call *call, rw_dtype dtype, const char *axes, change what) {
    rw_tensor tensor = contiguous(call, dtype, axes);
    if (what == ABSENT)
        return (rw_tensor){.rank = 0};
    const change more = what == KEPT ? KEPT : (change)(fuzz_byte(call) % NUM_CHANGES);
    reshape(call, &tensor, what);
    reshape(call, &tensor, more);
    place(call, &tensor, what >= NO_DATA ? what : more);
    return tensor;
}

rw_tensor fuzz_tensor(fuzz_call *call, rw_dtype dtype, const char *axes) {
    return make(call, dtype, axes, (change)(fuzz_byte(call) % NUM_CHANGES));
}

rw_tensor fuzz_optional(fuzz_call *call, rw_dtype dtype, const char *axes) {
    const uint8_t byte = fuzz_byte(call);
    return make(call, dtype, axes, byte == 0 ? ABSENT : (change)((byte - 1) % NUM_CHANGES));
}

void *fuzz_memory(fuzz_call *call, size_t bytes) {
    if (fuzz_rarely(call))
        return NULL;
    fuzz_buffer *buffer = add_buffer(call, bytes);
    memset(buffer->bytes, 0, bytes);
    memset(buffer->expected, 0, bytes);
    return buffer->bytes;
}

/* ---- what was written ---- */

static fuzz_buffer *find_buffer(fuzz_call *call, const uint8_t *first) {
    for (int n = 0; n < call->num_buffers; n++) {
        fuzz_buffer *buffer = &call->buffers[n];
        if (first >= buffer->bytes && first < buffer->bytes + buffer->size)
            return buffer;
    }
    return NULL;
}

void fuzz_output(fuzz_call *call, const rw_tensor *out, const rw_tensor *in_place) {
    FUZZ_REQUIRE(call->num_outputs < FUZZ_MAX_OUTPUTS);
    call->outputs[call->num_outputs++] = out->rank == 0 && in_place ? *in_place : *out;
}

/* What the tensor's elements hold now is expected. */
static void accept(fuzz_call *call, const rw_tensor *tensor) {
    const reach r = reach_of(tensor);
    if (r.refused || r.empty || r.large || !tensor->data)
        return;
    const size_t size = rw_dtype_size(tensor->dtype);
    fuzz_buffer *buffer = find_buffer(call, (uint8_t *)tensor->data + r.low);
    FUZZ_REQUIRE(buffer);
    int64_t shape[RW_MAX_RANK] = {1, 1, 1, 1}, stride[RW_MAX_RANK] = {0};
    memcpy(shape, tensor->shape, (size_t)tensor->rank * sizeof *shape);
    memcpy(stride, tensor->stride, (size_t)tensor->rank * sizeof *stride);
    const uint8_t *data = tensor->data;
    for (int64_t a = 0; a < shape[0]; a++)
        for (int64_t b = 0; b < shape[1]; b++)
            for (int64_t c = 0; c < shape[2]; c++)
                for (int64_t d = 0; d < shape[3]; d++) {
                    const int64_t at =
                        a * stride[0] + b * stride[1] + c * stride[2] + d * stride[3];
                    const uint8_t *element = data + at * (int64_t)size;
                    memcpy(buffer->expected + (element - buffer->bytes), element, size);
                }
}

/* Only elements of outputs were written, and these only by a call that succeeded. */
static void require_expected(fuzz_call *call, rw_status status) {
    for (int n = 0; n < call->num_outputs && status == RW_OK; n++)
        accept(call, &call->outputs[n]);
    for (int n = 0; n < call->num_buffers; n++) {
        const fuzz_buffer *buffer = &call->buffers[n];
        FUZZ_REQUIRE(memcmp(buffer->bytes, buffer->expected, buffer->size) == 0);
    }
}

void fuzz_check(fuzz_call *call, rw_status status) {
    FUZZ_REQUIRE(status >= RW_OK && status <= RW_DEVICE_ERROR && status != RW_OUT_OF_RANGE);
    FUZZ_REQUIRE(status != RW_DEVICE_ERROR && status != RW_BACKEND_UNAVAILABLE);
    if (status != RW_OK)
        fuzz_require_sentence(rw_last_error(call->context));
    require_expected(call, status);
    if (!call->context)
        return;
    const rw_status later = rw_synchronize(call->context);
    FUZZ_REQUIRE(later == RW_OK || (later == RW_OUT_OF_RANGE && status == RW_OK));
    FUZZ_REQUIRE((later == RW_OK) == (rw_last_fault(call->context).kind == RW_FAULT_NONE));
    if (later != RW_OK)
        fuzz_require_sentence(rw_last_error(call->context));
}

void fuzz_check_message(fuzz_call *call, rw_status status, const rw_message *message) {
    FUZZ_REQUIRE(status == RW_OK || status == RW_INVALID_ARGUMENT || status == RW_UNSUPPORTED ||
                 status == RW_OUT_OF_RANGE || status == RW_OUT_OF_MEMORY);
    if (status != RW_OK)
        fuzz_require_sentence(message->text);
    require_expected(call, status);
}

void fuzz_release(fuzz_call *call) {
    for (int n = 0; n < call->num_buffers; n++) {
        free(call->buffers[n].bytes);
        free(call->buffers[n].expected);
    }
}
