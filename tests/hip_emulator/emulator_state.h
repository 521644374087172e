/* The interface between the emulator's runtime and its blocks. */
#ifndef HIP_EMULATOR_STATE_H
#define HIP_EMULATOR_STATE_H

#include "hip/hip_runtime.h"

#define HIP_EMULATOR_MAX_THREADS 1024

#define HIP_EMULATOR_NVIDIA (HIP_EMULATOR_SM_90 | HIP_EMULATOR_SM_90A)

enum hip_emulator_order {
    HIP_EMULATOR_FORWARD,
    HIP_EMULATOR_REVERSE,
    HIP_EMULATOR_SHUFFLE
};

struct hip_emulator_settings {
    hip_emulator_arch arch;
    int wave;            /* of that architecture */
    size_t shared_bytes; /* maximum of a block */
    hip_emulator_order order;
    int multiprocessors;
};

const char *hip_emulator_arch_name(hip_emulator_arch arch);

/* Reads the environment; false, and a line on stderr, if a value is unknown or contradicts another.
 */
bool hip_emulator_read_settings(hip_emulator_settings *settings);

/* Whether a launch has a grid, blocks and shared memory that a device supports. */
bool hip_emulator_shape_is_valid(const hip_emulator_launch &launch);

/* Runs a grid, whose shape must be valid. hipErrorAssert: a line on stderr describes the error. */
hipError_t hip_emulator_run_launch(const hip_emulator_launch &launch);

#endif
