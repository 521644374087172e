"""Exceptions: one class for each status of the C library, with the library's own sentence."""

from __future__ import annotations

from typing import NamedTuple


class Fault(NamedTuple):
    """What was out of range: rw_fault.

    kind   "position", "cache_position", "page", "slot", "length", "segment" or "overflow"
    token  b * seq + s, or as documented for the operation
    id     the value that is out of range
    """

    kind: str
    operation: str
    token: int
    id: int


class Error(Exception):
    """The base of all errors of ropewalk.

    status  the name of the C status, e.g. "RW_INVALID_ARGUMENT"
    fault   for OutOfRange the token and the value, else None
    """

    status = ""

    def __init__(self, message: str, fault: Fault | None = None):
        super().__init__(message)
        self.fault = fault


class InvalidArgument(Error, ValueError):
    """An argument is invalid; nothing was written."""

    status = "RW_INVALID_ARGUMENT"


class OutOfRange(Error, IndexError):
    """A value in a tensor (a position id, a page number) is out of range; the other tokens were
    written."""

    status = "RW_OUT_OF_RANGE"


class Unsupported(Error, NotImplementedError):
    """The backend does not support this operation or this dtype."""

    status = "RW_UNSUPPORTED"


class OutOfMemory(Error, MemoryError):
    """Host or device memory is exhausted."""

    status = "RW_OUT_OF_MEMORY"


class BackendUnavailable(Error):
    """The requested backend is not usable on this host."""

    status = "RW_BACKEND_UNAVAILABLE"


class DeviceError(Error):
    """The device's runtime reported an error."""

    status = "RW_DEVICE_ERROR"


_CLASSES = {
    kind.status: kind
    for kind in (
        InvalidArgument,
        OutOfRange,
        Unsupported,
        OutOfMemory,
        BackendUnavailable,
        DeviceError,
    )
}


def error(status: int, message: str, fault: Fault | None = None) -> Error:
    """The exception for a status of the C library."""
    from ._library import lib, text

    name = text(lib.rw_status_name(status))
    return _CLASSES.get(name, Error)(message, fault)
