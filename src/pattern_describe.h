/* Patterns: their checks and their description for kernels. */
#ifndef RWI_PATTERN_DESCRIBE_H
#define RWI_PATTERN_DESCRIBE_H

#include <ropewalk/pattern.h>

#include "tensor.h"

/* Lengths from 0 to 2^31 - 1; the batch has no upper limit. */
rw_status rwi_check_pattern_shape(const rwi_call *call, const rw_pattern_shape *shape);

/* `shift`: a query's position less its index; for RW_ALIGN_KEY_END, less the key_end too. */
rw_status rwi_check_alignment(const rwi_call *call, rw_alignment alignment,
                              const rw_pattern_shape *shape, int64_t *shift);

/* "RW_ALIGN_TOP_LEFT", ... of a checked alignment. */
const char *rwi_alignment_name(rw_alignment alignment);

/* With RW_ALIGN_KEY_END, the pattern (NULL: none) has a key_end. */
rw_status rwi_check_key_end(const rwi_call *call, rw_alignment alignment,
                            const rw_pattern *pattern);

/* Describes a pattern (NULL: every query sees every key) for a checked shape. */
rw_status rwi_describe_pattern(const rwi_call *call, const rw_pattern *pattern,
                               const rw_pattern_shape *shape, rwi_pattern *described);

/* `output` overlaps none of the tensors of the pattern (NULL: none). */
rw_status rwi_check_apart_from_pattern(const rwi_call *call, rwi_argument output,
                                       const rw_pattern *pattern);

/* cu_seqlens [documents + 1] or [batch, documents + 1], or absent. */
rw_status rwi_describe_documents(const rwi_call *call, const rw_tensor *cu_seqlens, int64_t batch,
                                 rwi_documents *documents);

/* Fails if a caller's function is given and the backend is not the CPU. */
rw_status rwi_check_function(const rwi_call *call, bool given, const char *advice);

#endif
