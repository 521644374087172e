/* ALiBi, checked and as kernels read it. */
#ifndef RWI_BIAS_DESCRIBE_H
#define RWI_BIAS_DESCRIBE_H

#include <ropewalk/bias.h>

#include "call.h"

/* The caller checks for the key_end that RW_ALIGN_KEY_END needs. */
rw_status rwi_describe_alibi(const rwi_call *call, const rw_alibi *alibi, int64_t heads,
                             const rw_pattern_shape *shape, rwi_alibi *described);

#endif
