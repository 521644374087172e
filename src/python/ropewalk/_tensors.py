"""Describes tensors of numpy, torch and DLPack to the C library (rw_tensor), and makes outputs.

An adapter is what one library's tensors need:

  device(x)                            index of the GPU that holds x; -1: host memory
  pack(x, place, name, target, write)  writes the rw_tensor of x, which must be on target.device;
                                       returns what must be kept alive
  empty(x, shape, dtype)               a new tensor of the same library and device
  stream(device)                       the current stream of a GPU; None: the library has none
"""

from __future__ import annotations

import struct
import sys
import threading
from typing import Any

import numpy as np

from . import _dlpack
from ._errors import InvalidArgument
from ._library import DTYPE, ffi, lib


class _Inside(threading.local):
    operator = False


inside = _Inside()
"""Whether this thread is inside of an operator of ropewalk.torch, which a trace sees."""

Tensor = Any
"""A torch.Tensor, a numpy.ndarray or an object with __dlpack__."""

MAX_RANK = lib.RW_MAX_RANK
TENSOR = ffi.typeof("rw_tensor")


def _packers():
    """For each rank the function that writes data, dtype, rank, shape and stride."""
    fields = dict(TENSOR.fields)
    offsets = [fields[name].offset for name in ("data", "dtype", "rank", "shape", "stride")]
    size = 8 * MAX_RANK
    if offsets != [0, 8, 12, 16, 16 + size] or ffi.sizeof(TENSOR) != 16 + 2 * size:
        raise ImportError("ropewalk: rw_tensor has a layout that this package does not know")
    return [
        struct.Struct(f"=Qii{n}q{size - 8 * n}x{n}q{size - 8 * n}x").pack_into
        for n in range(MAX_RANK + 1)
    ]


PACK = _packers()


def place_name(device: int) -> str:
    return "in host memory" if device < 0 else f"on GPU {device}"


def misplaced(name: str, where: str, device: int) -> InvalidArgument:
    return InvalidArgument(f"{name} is {where}, expected it {place_name(device)}")


def bad_dtype(name: str, dtype) -> InvalidArgument:
    valid = ", ".join(DTYPE)
    return InvalidArgument(f"{name} has dtype {dtype}, expected one of {valid}")


def bad_rank(name: str, rank: int) -> InvalidArgument:
    return InvalidArgument(f"{name} has rank {rank}, expected at most {MAX_RANK}")


class Numpy:
    """numpy.ndarray; bfloat16 and 8-bit floats are those of ml_dtypes, bool is u8."""

    of_ml_dtypes = {
        "bfloat16": "bf16",
        "float8_e4m3fn": "f8_e4m3",
        "float8_e5m2": "f8_e5m2",
    }

    codes = {
        np.dtype(np.float32): DTYPE["f32"],
        np.dtype(np.float16): DTYPE["f16"],
        np.dtype(np.int32): DTYPE["i32"],
        np.dtype(np.int64): DTYPE["i64"],
        np.dtype(np.uint8): DTYPE["u8"],
    }
    dtypes = {code: dtype for dtype, code in codes.items()}
    codes[np.dtype(np.bool_)] = DTYPE["u8"]

    @staticmethod
    def device(x) -> int:
        return -1

    @staticmethod
    def stream(device: int) -> int | None:
        return None

    @classmethod
    def pack(cls, x, place, name, target, write):
        if target.device >= 0:
            raise misplaced(name, "in host memory", target.device)
        dtype = x.dtype
        code = cls.codes.get(dtype)
        if code is None:
            code = cls.code(name, dtype)
        address, read_only = x.__array_interface__["data"]
        if read_only and write:
            raise InvalidArgument(f"{name} is read-only, expected a writable array")
        rank, size, strides = x.ndim, dtype.itemsize, x.strides
        if not 0 < rank <= MAX_RANK:
            raise bad_rank(name, rank) if rank else scalar(name)
        if size > 1:
            for stride in strides:
                if stride % size:
                    raise InvalidArgument(
                        f"{name} has strides {strides} in bytes, expected multiples of {size}"
                    )
            strides = [stride // size for stride in strides]
        PACK[rank](*place, address, code, rank, *x.shape, *strides)

    @classmethod
    def code(cls, name, dtype) -> int:
        name_of = cls.of_ml_dtypes.get(dtype.name)
        if name_of is not None:
            cls.codes[dtype] = DTYPE[name_of]
            return DTYPE[name_of]
        raise bad_dtype(name, dtype)

    @classmethod
    def dtype(cls, code: int):
        if code not in cls.dtypes:
            try:
                import ml_dtypes
            except ImportError:
                raise InvalidArgument(
                    "numpy has no bfloat16 without the package ml_dtypes: give out="
                ) from None
            for name, short in cls.of_ml_dtypes.items():
                cls.dtypes[DTYPE[short]] = np.dtype(getattr(ml_dtypes, name))
        return cls.dtypes[code]

    @classmethod
    def empty(cls, x, shape, dtype):
        if shape is None:
            made = np.empty_like(x, subok=False)
            # Where an axis of x is broadcast, the memory order of a copy is another.
            unit = not made.ndim or made.shape[-1] <= 1 or made.strides[-1] == made.itemsize
            return made if unit else np.empty(x.shape, x.dtype)
        return np.empty(shape, x.dtype if dtype is None else cls.dtype(DTYPE[dtype]))


class DLPack:
    """Any object with __dlpack__ and __dlpack_device__."""

    @staticmethod
    def device(x) -> int:
        return _dlpack.device(x)

    @staticmethod
    def stream(device: int) -> int | None:
        return None

    @staticmethod
    def pack(x, place, name, target, write):
        device = target.device
        found = _dlpack.device(x)
        if found != device:
            where = f"on DLPack device {tuple(x.__dlpack_device__())}"
            raise misplaced(name, where, device)
        try:
            capsule = _dlpack.export(x, target.stream)
        except (BufferError, RuntimeError, ValueError) as error:
            raise InvalidArgument(f"{name} cannot be exported by DLPack: {error}") from error
        tensor, read_only = _dlpack.read(capsule)
        if read_only and write:
            raise InvalidArgument(f"{name} is read-only, expected a writable tensor")
        dtype = _dlpack.DTYPES.get((tensor.dtype.code, tensor.dtype.bits))
        if dtype is None or tensor.dtype.lanes != 1:
            kind = f"DLPack code {tensor.dtype.code} of {tensor.dtype.bits} bits"
            raise bad_dtype(name, kind)
        rank = tensor.ndim
        if not 0 < rank <= MAX_RANK:
            raise bad_rank(name, rank) if rank else scalar(name)
        shape = list(tensor.shape[0:rank])
        if tensor.strides:
            strides = list(tensor.strides[0:rank])
        else:
            strides = [1] * rank
            for axis in range(rank - 2, -1, -1):
                strides[axis] = strides[axis + 1] * shape[axis + 1]
        address = int(_dlpack.ffi.cast("uintptr_t", tensor.data)) + tensor.byte_offset
        PACK[rank](*place, address, DTYPE[dtype], rank, *shape, *strides)
        return capsule

    @staticmethod
    def empty(x, shape, dtype):
        if _dlpack.device(x) != -1:
            kind = type(x).__name__
            raise InvalidArgument(f"no output can be made on the device of a {kind}: give out=")
        tensor, _ = _dlpack.read(capsule := _dlpack.export(x, 0))
        if dtype is None:
            dtype = _dlpack.DTYPES[tensor.dtype.code, tensor.dtype.bits]
        made = Numpy.empty(None, shape or tuple(tensor.shape[0 : tensor.ndim]), dtype)
        del capsule
        return made


def _torch_adapter():
    import torch
    from torch._C import _get_tracing_state as tracing
    from torch._C import _len_torch_dispatch_stack as dispatch_modes
    from torch.autograd import forward_ad
    from torch.fx.experimental.proxy_tensor import get_proxy_mode

    class Torch:
        """torch.Tensor, in host memory or on a CUDA or ROCm device; bool is u8."""

        codes = {
            torch.float32: DTYPE["f32"],
            torch.float16: DTYPE["f16"],
            torch.bfloat16: DTYPE["bf16"],
            torch.int32: DTYPE["i32"],
            torch.int64: DTYPE["i64"],
            torch.uint8: DTYPE["u8"],
            torch.float8_e4m3fn: DTYPE["f8_e4m3"],
            torch.float8_e5m2: DTYPE["f8_e5m2"],
        }
        dtypes = {code: dtype for dtype, code in codes.items()}
        codes[torch.bool] = DTYPE["u8"]

        @staticmethod
        def device(x) -> int:
            return -1 if x.is_cpu else x.get_device() if x.is_cuda else -2

        @staticmethod
        def stream(device: int) -> int:
            return torch.cuda.current_stream(device).cuda_stream

        @classmethod
        def pack(cls, x, place, name, target, write):
            if x.is_cpu:
                found = -1
            else:
                found = x.get_device() if x.is_cuda else -2
            if found != target.device:
                raise misplaced(name, f"on {x.device}", target.device)
            code = cls.codes.get(x.dtype)
            if code is None:
                raise bad_dtype(name, x.dtype)
            if x.requires_grad and torch.is_grad_enabled():
                raise InvalidArgument(
                    f"{name} requires a gradient, and ropewalk records none: call it under "
                    "torch.no_grad() or detach the tensor"
                )
            traced = tracing() is not None or (dispatch_modes() and get_proxy_mode() is not None)
            if traced and not inside.operator:
                raise InvalidArgument(
                    f"{name} is traced, and a trace does not see this function: trace those of "
                    "ropewalk.torch, or use torch.compile or torch.export"
                )
            if x.layout is not torch.strided or x.is_neg():
                raise InvalidArgument(f"{name} is not a plain strided tensor")
            if forward_ad._current_level >= 0 and forward_ad.unpack_dual(x).tangent is not None:
                raise InvalidArgument(f"{name} has a tangent, and ropewalk propagates none")
            shape = x.shape
            rank = len(shape)
            if not 0 < rank <= MAX_RANK:
                raise bad_rank(name, rank) if rank else scalar(name)
            PACK[rank](*place, x.data_ptr(), code, rank, *shape, *x.stride())

        @classmethod
        def empty(cls, x, shape, dtype):
            if shape is None:
                made = torch.empty_like(x, requires_grad=False)
                # Where an axis of x is broadcast, the memory order of a copy is another.
                unit = not made.ndim or made.shape[-1] <= 1 or made.stride(-1) == 1
                return made if unit else torch.empty(x.shape, dtype=x.dtype, device=x.device)
            kind = x.dtype if dtype is None else cls.dtypes[DTYPE[dtype]]
            return torch.empty(shape, dtype=kind, device=x.device)

    return Torch


def scalar(name: str) -> InvalidArgument:
    return InvalidArgument(f"{name} has rank 0, expected at least 1")


class Host:
    """The target of calls without a context."""

    device = -1
    stream = 0


_adapters = {np.ndarray: Numpy}


def adapter(x, name: str = "the tensor"):
    """The adapter for the type of `x`."""
    return _adapters.get(type(x)) or _find_adapter(x, name)


def _find_adapter(x, name):
    kind = type(x)
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(x, torch.Tensor):
        known = next((a for a in _adapters.values() if a.__name__ == "Torch"), None)
        found = known or _torch_adapter()
    elif isinstance(x, np.ndarray) and not isinstance(x, np.ma.MaskedArray):
        found = Numpy
    elif hasattr(kind, "__dlpack__") and not isinstance(x, (np.ndarray, np.generic)):
        found = DLPack
    else:
        raise InvalidArgument(
            f"{name} is of type {kind.__name__}, expected a torch tensor, a numpy array or an "
            "object with __dlpack__"
        )
    _adapters[kind] = found
    return found


def shape_of(x) -> tuple[int, ...]:
    """The shape of a tensor of any library."""
    adapter(x)
    shape = getattr(x, "shape", None)
    if shape is None:
        tensor, _ = _dlpack.read(capsule := _dlpack.export(x, 0))
        shape = tuple(tensor.shape[0 : tensor.ndim])
        del capsule
        return shape
    return tuple(shape)
