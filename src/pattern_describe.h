/* A pattern, checked and as kernels read it. */
#ifndef RWI_PATTERN_DESCRIBE_H
#define RWI_PATTERN_DESCRIBE_H

#include <ropewalk/pattern.h>

#include "tensor.h"

/* Lengths within [0, 2^31). */
rw_status rwi_check_pattern_shape(const rwi_call *call, const rw_pattern_shape *shape);

/* From a query's number to its position, but for the key_end of RW_ALIGN_KEY_END. */
rw_status rwi_check_alignment(const rwi_call *call, rw_alignment alignment,
                              const rw_pattern_shape *shape, int64_t *shift);

/* "RW_ALIGN_TOP_LEFT", ... of a checked alignment. */
const char *rwi_alignment_name(rw_alignment alignment);

/* The pattern (NULL: none) has the key_end that an alignment needs. */
rw_status rwi_check_key_end(const rwi_call *call, rw_alignment alignment,
                            const rw_pattern *pattern);

/* Describes a pattern (NULL: every query sees every key) that is asked for a valid shape. */
rw_status rwi_describe_pattern(const rwi_call *call, const rw_pattern *pattern,
                               const rw_pattern_shape *shape, rwi_pattern *described);

/* Writing `output` touches none of the pattern's tensors; NULL has none. */
rw_status rwi_check_apart_from_pattern(const rwi_call *call, rwi_argument output,
                                       const rw_pattern *pattern);

/* cu_seqlens [documents + 1] or [batch, documents + 1], there or absent. */
rw_status rwi_describe_documents(const rwi_call *call, const rw_tensor *cu_seqlens, int64_t batch,
                                 rwi_documents *documents);

/* A function of the caller runs on the CPU alone. */
rw_status rwi_check_function(const rwi_call *call, bool given, const char *advice);

#endif
