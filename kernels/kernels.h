/* The parameters of every operation, one header per family. */
#ifndef RWI_KERNELS_H
#define RWI_KERNELS_H

#include "activation_params.h"
#include "attention/attention_ragged.h"
#include "bias_params.h"
#include "embed_params.h"
#include "kv_params.h"
#include "matmul_params.h"
#include "merge_params.h"
#include "mx_params.h"
#include "norm_params.h"
#include "pattern_params.h"
#include "positions_params.h"
#include "rope_params.h"
#include "softmax_params.h"
#include "statistics_params.h"

#endif
