"""Prints what a call costs beyond its C function, in microseconds: the least of several medians, as
other programs may use the CPU. Not a test: run it."""

import statistics
import timeit

import numpy as np

import ropewalk
from ropewalk._library import lib

try:
    import torch
except ImportError:
    torch = None


def cost(function) -> float:
    """Microseconds."""
    function()
    runs = [
        statistics.median(timeit.repeat(function, number=100, repeat=15)) / 100 for _ in range(9)
    ]
    return 1e6 * min(runs)


def report(operation, tensors, call):
    """`call(*tensors)` runs the operation; its argument struct then serves for the C call."""
    call(*tensors)
    prepared = context.call(operation)
    function, handle, args = prepared.function, context.handle, prepared.args
    bare = cost(lambda: function(handle, args))
    for library in ("numpy", "torch"):
        if library == "torch" and torch is None:
            continue
        own = [torch.from_numpy(x) for x in tensors] if library == "torch" else tensors
        whole = cost(lambda: call(*own))
        print(f"{operation:12} {library:6} C {bare:5.1f}  beyond it {whole - bare:5.1f}")


context = ropewalk.Context("cpu", num_threads=1)
print(f"ropewalk {ropewalk.__version__}, ABI {lib.rw_abi_version()}; us a call")
x, weight = np.ones((1, 64), np.float32), np.ones(64, np.float32)
report(
    "rms_norm",
    [x, weight, np.empty_like(x)],
    lambda x, weight, out: ropewalk.rms_norm(x, weight, eps=1e-6, out=out, context=context),
)
q = np.ones((1, 1, 1, 8), np.float32)
pattern = ropewalk.Pattern(causal=True)
report(
    "attention",
    [q, np.empty_like(q)],
    lambda q, out: ropewalk.attention(q, q, q, pattern=pattern, out=out, context=context),
)
