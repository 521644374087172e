/* Device memory. Every allocation is between two guard pages and ends at the second one, except for
 * the alignment of 16 bytes that vector accesses rely on. Addresses are not reused, so that freed
 * memory is guarded, too. The bytes between a guard and the data hold a pattern that is checked
 * after every launch. */
#define _GNU_SOURCE
#include "isa_machine.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define API __attribute__((visibility("default")))

enum {
    PAGE = 4096,
    ALIGNMENT = 16,
    BESIDE = 0xb5,
    FRESH = 0xff
};
#define FIRST_HOST UINT64_C(0x100000000000)
#define MOST_FILLED ((size_t)256 << 20) /* larger ones are not filled: they stay uncommitted */
#define MOST_BYTES ((size_t)8 << 30)

typedef struct isa_allocation {
    uint8_t *pages; /* after the first guard */
    uint8_t *data;
    size_t bytes, page_bytes;
} isa_allocation;

static isa_allocation *allocations;
static size_t num_allocations, capacity;
static uint64_t next_host = FIRST_HOST;

static bool make_room(void) {
    if (num_allocations < capacity)
        return true;
    const size_t more = capacity ? 2 * capacity : 64;
    isa_allocation *larger = realloc(allocations, more * sizeof *larger);
    if (!larger)
        return false;
    allocations = larger;
    capacity = more;
    return true;
}

API void *isa_memory_take(size_t bytes) {
    const size_t rounded = (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    const size_t page_bytes = (rounded + PAGE - 1) / PAGE * PAGE;
    if (bytes > MOST_BYTES || !make_room())
        return NULL;
    uint8_t *guarded =
        mmap((void *)(uintptr_t)next_host, page_bytes + 2 * PAGE, PROT_NONE,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
    if (guarded == MAP_FAILED)
        return NULL;
    isa_allocation a = {.pages = guarded + PAGE, .bytes = bytes, .page_bytes = page_bytes};
    if (mprotect(a.pages, page_bytes, PROT_READ | PROT_WRITE) != 0) {
        munmap(guarded, page_bytes + 2 * PAGE);
        return NULL;
    }
    next_host += page_bytes + 2 * PAGE;
    a.data = a.pages + (page_bytes - rounded);
    memset(a.pages, BESIDE, page_bytes - rounded);
    memset(a.data + bytes, BESIDE, rounded - bytes);
    if (bytes <= MOST_FILLED)
        memset(a.data, FRESH, bytes);
    allocations[num_allocations++] = a;
    return a.data;
}

static isa_allocation *find(const void *data) {
    for (size_t i = 0; i < num_allocations; i++)
        if (allocations[i].data == data)
            return &allocations[i];
    return NULL;
}

API bool isa_memory_give(void *host) {
    isa_allocation *a = find(host);
    if (!a)
        return false;
    munmap(a->pages - PAGE, a->page_bytes + 2 * PAGE);
    *a = allocations[--num_allocations];
    return true;
}

API void isa_memory_describe(uint64_t device, char *text, size_t bytes) {
    const uint8_t *host = isa_to_host(device);
    for (size_t i = 0; i < num_allocations; i++) {
        const isa_allocation *a = &allocations[i];
        if (host < a->pages - PAGE || host >= a->pages + a->page_bytes + PAGE)
            continue;
        if (host < a->data)
            snprintf(text, bytes, "%td bytes before an allocation of %zu bytes", a->data - host,
                     a->bytes);
        else if (host >= a->data + a->bytes)
            snprintf(text, bytes, "%td bytes past the end of an allocation of %zu bytes",
                     host - (a->data + a->bytes), a->bytes);
        else
            snprintf(text, bytes, "byte %td of an allocation of %zu bytes", host - a->data,
                     a->bytes);
        return;
    }
    if ((uintptr_t)host >= FIRST_HOST && (uintptr_t)host < next_host)
        snprintf(text, bytes, "memory that was freed");
    else
        snprintf(text, bytes, "no allocation of the device");
}

API bool isa_memory_holds(const void *host, size_t bytes, char *why, size_t why_bytes) {
    const uint8_t *first = host;
    for (size_t i = 0; i < num_allocations; i++) {
        const isa_allocation *a = &allocations[i];
        if (first >= a->data && bytes <= a->bytes && (size_t)(first - a->data) <= a->bytes - bytes)
            return true;
    }
    char where[96];
    isa_memory_describe(isa_to_device(host), where, sizeof where);
    snprintf(why, why_bytes, "%zu bytes at %#llx: they begin at %s", bytes,
             (unsigned long long)isa_to_device(host), where);
    return false;
}

/* The first byte from `begin` to `end`, at most a page, that differs from the pattern, or `end`. */
static const uint8_t *first_change(const uint8_t *begin, const uint8_t *end) {
    static uint8_t pattern[PAGE];
    if (!pattern[0])
        memset(pattern, BESIDE, sizeof pattern);
    if (!memcmp(begin, pattern, (size_t)(end - begin)))
        return end;
    while (*begin == BESIDE)
        begin++;
    return begin;
}

API bool isa_memory_intact(char *why, size_t why_bytes) {
    for (size_t i = 0; i < num_allocations; i++) {
        const isa_allocation *a = &allocations[i];
        const uint8_t *end = a->pages + a->page_bytes;
        const uint8_t *changed = first_change(a->pages, a->data);
        if (changed == a->data)
            changed = first_change(a->data + a->bytes, end);
        if (changed == end)
            continue;
        char where[96];
        isa_memory_describe(isa_to_device(changed), where, sizeof where);
        snprintf(why, why_bytes, "it wrote to %s", where);
        return false;
    }
    return true;
}

API uint32_t *isa_lds(size_t bytes) {
    static uint8_t *lds;
    static size_t open;
    if (!lds) {
        void *place = mmap((void *)(uintptr_t)ISA_LDS_HOST, ISA_LDS_BYTES + PAGE, PROT_NONE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
        if (place == MAP_FAILED)
            return NULL;
        lds = place;
    }
    const size_t wanted = (bytes + PAGE - 1) / PAGE * PAGE;
    if (wanted != open && (mprotect(lds, ISA_LDS_BYTES, PROT_NONE) != 0 ||
                           mprotect(lds, wanted, PROT_READ | PROT_WRITE) != 0))
        return NULL;
    open = wanted;
    return (uint32_t *)lds;
}
