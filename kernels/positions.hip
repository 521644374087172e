/* Position ids on a GPU; the twin of positions_cpu.c. An item is a token; a thread takes one. */
#include "gpu/faults.h"
#include "gpu/launch.h"
#include "positions_params.h"

/* An operation and how many items it has. */
template <typename Params> struct sized_params {
    Params op;
    int64_t items;
};

template <typename Params, bool (*write_token)(const Params *p, int64_t token, rwi_bad_id *bad)>
static __global__ void __launch_bounds__(RWI_BLOCK)
    positions_kernel(sized_params<Params> p, rwi_fault_sink sink) {
    rwi_begin_kernel();
    const int64_t token = rwi_item();
    rwi_bad_id bad;
    if (token < p.items && !write_token(&p.op, token, &bad))
        rwi_fault_raise(sink, token, bad);
}

template <typename Params, bool (*write_token)(const Params *p, int64_t token, rwi_bad_id *bad)>
static rw_status launch_positions(rwi_device *device, rwi_op op, rwi_work work,
                                  const Params *params) {
    return rwi_launch(device, rwi_launch_items(op, work.items),
                      positions_kernel<Params, write_token>,
                      sized_params<Params>{*params, work.items});
}

extern "C" rw_status rwi_hip_positions_sequential(rwi_device *device,
                                                  const rw_positions_sequential_params *p) {
    return launch_positions<rw_positions_sequential_params, positions_sequential_token>(
        device, RWI_OP_positions_sequential, positions_sequential_work(p), p);
}

extern "C" rw_status rwi_hip_positions_left_padded(rwi_device *device,
                                                   const rw_positions_left_padded_params *p) {
    return launch_positions<rw_positions_left_padded_params, positions_left_padded_token>(
        device, RWI_OP_positions_left_padded, positions_left_padded_work(p), p);
}

extern "C" rw_status rwi_hip_positions_packed(rwi_device *device,
                                              const rw_positions_packed_params *p) {
    return launch_positions<rw_positions_packed_params, positions_packed_token>(
        device, RWI_OP_positions_packed, positions_packed_work(p), p);
}

extern "C" rw_status rwi_hip_positions_mrope(rwi_device *device,
                                             const rw_positions_mrope_params *p) {
    return launch_positions<rw_positions_mrope_params, positions_mrope_token>(
        device, RWI_OP_positions_mrope, positions_mrope_work(p), p);
}

extern "C" rw_status rwi_hip_positions_glm(rwi_device *device, const rw_positions_glm_params *p) {
    return launch_positions<rw_positions_glm_params, positions_glm_token>(
        device, RWI_OP_positions_glm, positions_glm_work(p), p);
}
