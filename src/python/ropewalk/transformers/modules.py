"""Modules of models: their forward functions, and comparisons of what they compute."""

from __future__ import annotations

import inspect
import types

import torch


def is_hooked(module) -> bool:
    """Whether somebody, such as accelerate, has replaced the module's forward."""
    return not isinstance(module.forward, types.MethodType)


def set_forward(module, forward) -> None:
    """As a method, so that a deep copy of a model calls it for its own modules."""
    module.forward = types.MethodType(forward, module)


def name_of(module) -> str:
    return type(module).__name__


def agree(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Equal within some roundings of their dtype: on average, too, if it has 16 bits, of which a
    few may hide another function."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    error, size, eps = (a - b).abs().float(), b.abs().float(), torch.finfo(a.dtype).eps
    if eps < 1e-6:
        return bool(error.amax() <= 32 * eps * size.amax())
    return bool(error.amax() <= 8 * eps * size.amax() and error.mean() <= 2 * eps * size.mean())


def random_numbers(*shape, like: torch.Tensor | None = None) -> torch.Tensor:
    """Normally distributed, the same in every call."""
    generator = torch.Generator().manual_seed(7)
    x = torch.randn(shape, generator=generator)
    return x if like is None else x.to(like.device, like.dtype)


def globals_of(module) -> tuple[str, ...]:
    """Names of globals in the forward of a module."""
    code = getattr(inspect.unwrap(type(module).forward), "__code__", None)
    return code.co_names if code else ()


def keywords_of(module) -> set[str]:
    """Names of arguments in the calls that the forward of a module makes."""
    code = inspect.unwrap(type(module).forward).__code__
    return {x for names in code.co_consts if isinstance(names, tuple) for x in names}
