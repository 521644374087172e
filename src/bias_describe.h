/* ALiBi: its checks and its description for kernels. */
#ifndef RWI_BIAS_DESCRIBE_H
#define RWI_BIAS_DESCRIBE_H

#include <ropewalk/bias.h>

#include "call.h"

/* The caller checks that RW_ALIGN_KEY_END has a key_end: rwi_check_key_end(). */
rw_status rwi_describe_alibi(const rwi_call *call, const rw_alibi *alibi, int64_t heads,
                             const rw_pattern_shape *shape, rwi_alibi *described);

#endif
