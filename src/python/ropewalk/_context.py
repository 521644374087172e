"""Contexts, and the calls of operations on them."""

from __future__ import annotations

import sys
import threading
from typing import Any, NamedTuple

from . import _tensors
from ._errors import Fault, InvalidArgument, error
from ._library import BACKEND, CPU_ISA, DTYPE, FAULT, STATUS, ffi, lib, text

_local = threading.local()


class Transfers(NamedTuple):
    """Bytes that a context has moved between host and device."""

    host_to_device: int
    device_to_host: int


class BackendProbe(NamedTuple):
    """The availability of a backend: rw_backend_probe_result."""

    found: bool
    usable: bool
    automatic: bool
    device_count: int
    platform: str
    why: str


def backend_probe(kind: str) -> BackendProbe:
    """Whether the backend "cpu" or "hip" is usable on this host."""
    result = lib.rw_backend_probe(BACKEND[kind])
    return BackendProbe(
        result.found,
        result.usable,
        result.automatic,
        result.device_count,
        text(result.platform),
        text(result.why.text),
    )


def operations() -> tuple[str, ...]:
    """The names of all operations, for Context.supports()."""
    names: list[str] = []
    while name := text(lib.rw_operation_name(len(names))):
        names.append(name)
    return tuple(names)


class Lock:
    """Lets calls on a context run one after another."""

    def __init__(self):
        self._lock = threading.Lock()
        self._owner = 0

    def acquire(self) -> None:
        if not self._lock.acquire(False):
            # What a call runs of its caller's (a function of a pattern, __dlpack__(), __del__())
            # would wait for the end of the call.
            if self._owner == threading.get_ident() or getattr(_local, "callbacks", 0):
                raise InvalidArgument("the context is in use by the call that called this function")
            self._lock.acquire()
        self._owner = threading.get_ident()

    def release(self) -> None:
        self._owner = 0
        self._lock.release()

    def __enter__(self):
        self.acquire()

    def __exit__(self, *_):
        self.release()


class Context:
    """One device of one backend.

    backend      "default" (the environment variable ROPEWALK_BACKEND, else "auto"), "auto", "cpu"
                 or "hip"
    device       index of the GPU
    num_threads  CPU threads; 0: ROPEWALK_NUM_THREADS, else every core that the process may use
    cpu_isa      "default", "baseline", "v3", "v4" or "amx"

    Functions without context= use one context for each thread and device. A context may be passed
    between threads: calls on it run one after another.
    """

    def __init__(
        self,
        backend: str = "default",
        device: int = 0,
        num_threads: int = 0,
        cpu_isa: str = "default",
    ):
        options = ffi.new("rw_context_options *")
        options.backend = BACKEND[backend]
        options.device = device
        options.num_threads = num_threads
        options.cpu_isa = CPU_ISA[cpu_isa]
        pointer, message = ffi.new("rw_context **"), ffi.new("rw_message *")
        status = lib.rw_context_create(options, pointer, message)
        if status:
            raise error(status, text(message.text))
        self.handle = ffi.gc(pointer[0], lib.rw_context_destroy)
        info = lib.rw_context_get_info(self.handle)
        self.backend = text(info.backend)
        """"cpu" or "hip"."""
        self.platform = text(info.platform)
        """cpu: the instruction set in use; hip: "amd", "nvidia" or "emulated"."""
        self.device_name = text(info.device)
        self.device_index = info.device_index
        self.num_threads = info.num_threads
        # Where tensors must be: -1 is host memory, which an emulated GPU uses too.
        on_host = self.backend == "cpu" or self.platform == "emulated"
        self.memory = -1 if on_host else self.device_index
        self.lock = Lock()
        self._calls: dict = {}
        self.stream = 0

    def __repr__(self):
        return f"<ropewalk.Context {self.backend}:{self.device_index} {self.device_name}>"

    def call(self, operation: str) -> Call:
        """The call of an operation on this context, with its argument struct."""
        return self._calls.get(operation) or self._calls.setdefault(
            operation, Call(self, operation)
        )

    def owned(self, pointer, destroy):
        """An object of this context, destroyed before the context is."""
        context = self.handle

        def release(pointer, context=context):
            destroy(pointer)

        return ffi.gc(pointer, release)

    def use_stream(self, stream: int) -> None:
        if stream != self.stream:
            self.check(lib.rw_context_set_stream(self.handle, ffi.cast("void *", stream)))
            self.stream = stream

    def set_stream(self, stream: int) -> None:
        """Runs later operations on a stream, given as an integer (hipStream_t, cudaStream_t); 0 is
        the device's default stream. Calls whose first tensor is one of torch select its current
        stream."""
        with self.lock:
            self.use_stream(stream)

    def check(self, status: int) -> None:
        """Raises the exception of a status other than RW_OK."""
        if status:
            fault = self._fault() if status == STATUS["out_of_range"] else None
            raise error(status, text(lib.rw_last_error(self.handle)), fault)

    def _fault(self) -> Fault:
        fault = lib.rw_last_fault(self.handle)
        return Fault(FAULT.names[fault.kind], text(fault.operation), fault.token, fault.id)

    def synchronize(self) -> None:
        """Waits for all operations. Raises OutOfRange, once, if one of them read a value that is
        out of range (a position id, a page number); on the CPU the operation itself raises it."""
        with self.lock:
            self.check(lib.rw_synchronize(self.handle))

    def supports(self, operation: str, dtype: str) -> bool:
        """Whether this context supports an operation, e.g. "attention", for a dtype, e.g.
        "bf16"."""
        with self.lock:
            status = lib.rw_supports(self.handle, operation.encode(), DTYPE[dtype])
            if status and text(lib.rw_status_name(status)) != "RW_UNSUPPORTED":
                self.check(status)
            return not status

    @property
    def transfers(self) -> Transfers:
        """Bytes moved between host and device; operations move none."""
        moved = lib.rw_context_transfers(self.handle)
        return Transfers(moved.host_to_device_bytes, moved.device_to_host_bytes)


class Arguments:
    """A C struct and the places of the tensors in it, prepared once and refilled. A struct that is
    itself a tensor has one place, `name`."""

    def __init__(self, ctype, name: str = "out"):
        ctype = ffi.typeof(ctype) if isinstance(ctype, str) else ctype
        self.args = ffi.new(ffi.getctype(ctype, "*"))
        self.buffer = ffi.buffer(self.args)
        self.zeros = bytes(len(self.buffer))
        prefix = name if ctype is _tensors.TENSOR else ""
        self.places = {
            name: (self.buffer, offset) for name, offset in _tensor_offsets(ctype, prefix, 0)
        }


def _tensor_offsets(ctype, prefix, base):
    if ctype is _tensors.TENSOR:
        yield prefix, base
    elif ctype.kind == "struct":
        for name, field in ctype.fields:
            path = f"{prefix}.{name}" if prefix else name
            yield from _tensor_offsets(field.type, path, base + field.offset)


class Callback:
    """A function of the caller as a C function. What it raises is kept, and raised after the C call
    by reraise(); until then the C function gets 0."""

    def __init__(self, ctype: str, function):
        self.errors: list = []

        def call(*arguments):
            _local.callbacks = getattr(_local, "callbacks", 0) + 1
            try:
                return function(*arguments)
            finally:
                _local.callbacks -= 1

        def keep(_, error, traceback):
            self.errors.append(error.with_traceback(traceback))

        self.pointer = ffi.callback(ctype, call, onerror=keep)

    def reraise(self) -> None:
        if self.errors:
            errors, self.errors = self.errors, []
            raise errors[0]


class Call(Arguments):
    """An operation on a context. `with begin(name, x, context) as call` locks the context and
    clears the struct, put() and output() fill in tensors, run() calls the C function."""

    def __init__(self, context: Context, operation: str):
        self.function = getattr(lib, "rw_" + operation)
        super().__init__(ffi.typeof(self.function).args[-1].item)
        self.context = context
        self.operation = operation
        self.device = context.memory
        self.kept: list = []  # what must live until the call ends
        self.callbacks: list[Callback] = []
        self._extra: dict = {}

    @property
    def stream(self) -> int:
        return self.context.stream

    def __enter__(self):
        self.buffer[:] = self.zeros
        return self

    def __exit__(self, *_):
        self.kept.clear()
        self.callbacks.clear()
        self.context.lock.release()

    def extra(self, ctype: str, name: str = "out") -> Arguments:
        """A further struct that the function takes, cleared."""
        found = self._extra.get(ctype) or self._extra.setdefault(ctype, Arguments(ctype, name))
        found.buffer[:] = found.zeros
        return found

    def put(self, name: str, x, write: bool = False, where: Arguments | None = None) -> None:
        """Describes a tensor in the struct; None stays absent."""
        if x is None:
            return
        place = (where or self).places[name]
        found = _tensors._adapters.get(type(x)) or _tensors.adapter(x, name)
        kept = found.pack(x, place, name, self, write)
        if kept is not None:
            self.kept.append(kept)

    def output(self, name: str, out, like, shape=None, dtype: str | None = None):
        """Describes an output: `out` or, if that is None, a new tensor like `like`, of its shape
        and dtype unless others are given. Of an absent input none is made: the C function says
        that the input is absent."""
        if out is None:
            if like is None and shape is None:
                return None
            out = make(self.context, like, shape, dtype)
        self.put(name, out, True)
        return out

    def run(self, *leading) -> None:
        context = self.context
        status = self.function(context.handle, *leading, self.args)
        for callback in self.callbacks:
            callback.reraise()
        if status or (self.device < 0 and (status := lib.rw_synchronize(context.handle))):
            context.check(status)


def make(context: Context, like, shape, dtype: str | None):
    """A new tensor of the library and on the device of `like`; None: a numpy array."""
    if like is not None:
        return _tensors.adapter(like).empty(like, shape, dtype)
    if context.memory >= 0:
        raise InvalidArgument("the output on a GPU needs a model: give like= or out=")
    return _tensors.Numpy.empty(None, shape, dtype)


def default_context(device: int = -1) -> Context:
    """This thread's context for a GPU, or for the CPU (-1)."""
    try:
        return _local.contexts[device]
    except AttributeError:
        _local.contexts = {}
    except KeyError:
        pass
    if device < -1:
        raise InvalidArgument("the tensor is neither in host memory nor on a CUDA or ROCm device")
    context = Context("cpu") if device < 0 else Context("hip", device=device)
    _local.contexts[device] = context
    return context


def begin(operation: str, x, context: Context | None = None) -> Call:
    """The call of an operation on the device of tensor `x` (None: the CPU), with the context
    locked until the end of the `with` statement."""
    stream = None
    if x is not None:
        found = _tensors._adapters.get(type(x)) or _tensors.adapter(x)
        if context is None:
            context = default_context(found.device(x))
        if context.memory >= 0:
            stream = found.stream(context.memory)
    elif context is None:
        context = default_context()
    call = context.call(operation)
    context.lock.acquire()
    if stream is not None:
        try:
            context.use_stream(stream)
        except BaseException:
            context.lock.release()
            raise
    return call


def first(*tensors):
    """The first tensor that is given, else None."""
    return next((x for x in tensors if x is not None), None)


def pair(out, names: str) -> tuple[Any, Any]:
    """out= of a function with two outputs; None: both are to be made."""
    if out is None:
        return None, None
    if isinstance(out, (tuple, list)) and len(out) == 2:
        return out[0], out[1]
    raise InvalidArgument(f"out is a {type(out).__name__}, expected the pair ({names})")


def _current_gpu() -> int:
    """The GPU that "cuda" without an index is: torch's current one."""
    torch = sys.modules.get("torch")
    return torch.cuda.current_device() if torch is not None and torch.cuda.is_available() else 0


def context_for(device: Any, context: Context | None) -> Context:
    """The context of an object with tables: the given one, or this thread's for "cpu", "hip:1",
    "cuda:1", a torch.device or the device of a tensor."""
    if context is not None:
        return context
    if device is None:
        return default_context()
    kind, _, index = str(device).partition(":")
    if kind == "cpu":
        return default_context()
    if kind in ("hip", "cuda") and (index or "0").isdigit():
        return default_context(int(index) if index else _current_gpu())
    raise InvalidArgument(f"device is {device}, expected cpu, hip:INDEX or cuda:INDEX")
