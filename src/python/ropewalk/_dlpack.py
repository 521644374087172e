"""Reads the tensors of other libraries by DLPack (github.com/dmlc/dlpack, include/dlpack/dlpack.h),
without copying."""

import ctypes

import cffi

ffi = cffi.FFI()
ffi.cdef("""
typedef struct { int32_t device_type; int32_t device_id; } DLDevice;
typedef struct { uint8_t code; uint8_t bits; uint16_t lanes; } DLDataType;
typedef struct {
    void *data;
    DLDevice device;
    int32_t ndim;
    DLDataType dtype;
    int64_t *shape;
    int64_t *strides;
    uint64_t byte_offset;
} DLTensor;
typedef struct { DLTensor dl_tensor; void *manager_ctx; void *deleter; } DLManagedTensor;
typedef struct {
    uint32_t major;
    uint32_t minor;
    void *manager_ctx;
    void *deleter;
    uint64_t flags;
    DLTensor dl_tensor;
} DLManagedTensorVersioned;
""")

READ_ONLY = 1  # DLPACK_FLAG_BITMASK_READ_ONLY
HOST = (1, 3, 11)  # kDLCPU, kDLCUDAHost, kDLROCMHost
GPU = (2, 10, 13)  # kDLCUDA, kDLROCM, kDLCUDAManaged
LEGACY_DEFAULT_STREAM = {2: 1, 10: 0, 13: 1}
DTYPES = {
    (2, 32): "f32",
    (2, 16): "f16",
    (4, 16): "bf16",
    (0, 32): "i32",
    (0, 64): "i64",
    (1, 8): "u8",
    (6, 8): "u8",  # kDLBool
    (10, 8): "f8_e4m3",  # kDLFloat8_e4m3fn
    (12, 8): "f8_e5m2",
}

_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_pointer.restype = ctypes.c_void_p
_pointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
_is_valid = ctypes.pythonapi.PyCapsule_IsValid
_is_valid.restype = ctypes.c_int
_is_valid.argtypes = [ctypes.py_object, ctypes.c_char_p]


def device(x) -> int:
    """The index of the GPU that holds `x`; -1: host memory; -2: another device."""
    kind, index = x.__dlpack_device__()
    return -1 if kind in HOST else int(index) if kind in GPU else -2


def export(x, stream: int):
    """The capsule of `x`, whose data is ready for `stream` (0: the default stream)."""
    kind = x.__dlpack_device__()[0]
    arguments = {}
    if kind in GPU:
        arguments["stream"] = stream or LEGACY_DEFAULT_STREAM[kind]
    try:
        return x.__dlpack__(max_version=(1, 0), **arguments)
    except TypeError:  # a version before 1.0
        return x.__dlpack__(**arguments)


def read(capsule):
    """The DLTensor in a capsule, valid as long as the capsule, and whether it is read-only."""
    if _is_valid(capsule, b"dltensor_versioned"):
        address = _pointer(capsule, b"dltensor_versioned")
        managed = ffi.cast("DLManagedTensorVersioned *", address)
        return managed.dl_tensor, bool(managed.flags & READ_ONLY)
    managed = ffi.cast("DLManagedTensor *", _pointer(capsule, b"dltensor"))
    return managed.dl_tensor, False
