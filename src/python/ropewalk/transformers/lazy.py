"""Tensors that are computed only when something reads them.

Models pass masks, rotation angles and cached keys from one module to another. A Lazy stands for
such a tensor: functions of ropewalk look at its type and use what it stands for; for everything
else it is a tensor, which the first operation on it computes.
"""

from __future__ import annotations

import torch
from torch.utils._pytree import tree_map_only


class Lazy(torch.Tensor):
    """A tensor of a known shape that compute() makes when it is needed."""

    @staticmethod
    def __new__(cls, shape, dtype, device, *_):
        return torch.Tensor._make_wrapper_subclass(cls, shape, dtype=dtype, device=device)

    def __init__(self, *_):
        self._value: torch.Tensor | None = None

    __torch_function__ = torch._C._disabled_torch_function_impl

    def compute(self) -> torch.Tensor:
        """The tensor, with any strides."""
        raise NotImplementedError

    def value(self) -> torch.Tensor:
        if self._value is None:
            self._value = self.compute()
        return self._value

    def dense(self) -> torch.Tensor:
        """The value as models expect it: contiguous."""
        self._value = self.value().contiguous()
        return self._value

    @property
    def changed(self) -> bool:
        """Whether an operation has written to this tensor or a view of it: the value is then what
        counts. Nothing is known of that in inference_mode()."""
        return not self.is_inference() and self._version > 0

    def __repr__(self):
        return f"<{type(self).__name__} {tuple(self.shape)}>"

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        args, kwargs = tree_map_only(Lazy, Lazy.dense, (args, kwargs or {}))
        return function(*args, **kwargs)

    def __dlpack__(self, **options):
        return self.dense().__dlpack__(**options)


def stands_for(x, kind: type) -> bool:
    """Whether x is a Lazy of this kind, with the value that it had from the start."""
    return type(x) is kind and not x.changed


def plain(x: torch.Tensor) -> torch.Tensor:
    """An ordinary tensor: x itself or the value of a Lazy."""
    return x.value() if isinstance(x, Lazy) else x
