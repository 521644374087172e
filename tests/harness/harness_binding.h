/* Internal to the harness: guards around the buffers of a binding. */
#ifndef RWT_HARNESS_BINDING_H
#define RWT_HARNESS_BINDING_H

#include "harness/harness.h"

#define RWT_GUARD_BYTES 256

/* Bytes before the first element, of the elements, and in total. */
int64_t rwt_buffer_front(const rwt_buffer *buffer);
int64_t rwt_buffer_size(const rwt_buffer *buffer);
int64_t rwt_buffer_allocation(const rwt_buffer *buffer);

bool rwt_binding_download(const rwt_binding *binding, rwt_images *images, rw_message *message);

/* The position of a write to a guard, in bytes from the first element; 0: none. */
int64_t rwt_guard_violation(const rwt_buffer *buffer, const void *image);

/* Under AddressSanitizer, makes the guards of set 0 inaccessible (also for reads) or accessible
 * again, if device memory is host memory. */
void rwt_binding_fence(const rwt_binding *binding, bool closed);

#endif
