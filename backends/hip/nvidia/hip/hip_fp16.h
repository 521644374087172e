/* HIP's half conversions on HIP's NVIDIA platform: CUDA defines them under the same names. */
#ifndef RWI_NVIDIA_HIP_FP16_H
#define RWI_NVIDIA_HIP_FP16_H

#include <cuda_fp16.h>

#endif
