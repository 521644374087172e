/* The frequencies of a rotary embedding, and the checks on its description. */
#ifndef RWI_ROPE_FREQUENCIES_H
#define RWI_ROPE_FREQUENCIES_H

#include <ropewalk/rope.h>

/* Checks the spec and fills in its defaults. */
rw_status rwi_rope_resolve(const rw_rope_spec *spec, rw_rope_spec *resolved, rw_message *message);

/* The number of position ids a token has. */
int rwi_rope_num_axes(const rw_rope_spec *spec);

/* The axis of the position ids that frequency i reads, for a resolved spec. */
int rwi_rope_axis(const rw_rope_spec *resolved, int64_t i);

#endif
