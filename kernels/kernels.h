/* The parameters of every operation, a header a family. */
#ifndef RWI_KERNELS_H
#define RWI_KERNELS_H

#include "activation_kernel.h"
#include "attention_kernel.h"
#include "bias_kernel.h"
#include "embed_kernel.h"
#include "kv_kernel.h"
#include "matmul_kernel.h"
#include "merge_kernel.h"
#include "mx_kernel.h"
#include "norm_kernel.h"
#include "pattern_kernel.h"
#include "positions_kernel.h"
#include "rope_kernel.h"
#include "softmax_kernel.h"
#include "statistics_kernel.h"

#endif
