"""Modules of models: their forward functions, and comparisons of what they compute."""

from __future__ import annotations

import copy
import inspect
import types

import torch


def is_hooked(module) -> bool:
    """Whether somebody, such as accelerate, has replaced the module's forward."""
    return not isinstance(module.forward, types.MethodType)


def set_method(module, name: str, function) -> None:
    """As a method, so that a deep copy of a model calls it for its own modules. Pickle stores a
    method by the name of its function: a model that is loaded has that of the module's class."""
    function.__name__ = name
    setattr(module, name, types.MethodType(function, module))


def set_forward(module, forward) -> None:
    set_method(module, "forward", forward)


def with_random_projections(module, dtype: torch.dtype, device: torch.device):
    """A copy of a module whose linear layers have random weights: those of the module may hide what
    it computes, where they are 0, small or in few bits."""
    found = copy.copy(module)
    if "forward" in vars(module):
        found.forward = types.MethodType(module.forward.__func__, found)
    found._modules = dict(module._modules)
    for name, layer in module._modules.items():
        if hasattr(layer, "in_features"):
            found._modules[name] = _random_linear(layer, dtype, device)
    return found


def _random_linear(layer, dtype: torch.dtype, device: torch.device) -> torch.nn.Linear:
    sizes = layer.in_features, layer.out_features
    has_bias = getattr(layer, "bias", None) is not None
    made = torch.nn.Linear(*sizes, has_bias, device=device, dtype=dtype)
    for parameter in made.parameters():
        parameter.copy_(random_numbers(*parameter.shape) * layer.in_features**-0.5)
    return made


def name_of(module) -> str:
    return type(module).__name__


def agree(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Equal within some roundings of their dtype: on average, too, if it has 16 bits, of which a
    few may hide another function. Nothing agrees with zeros, which any function may give where a
    weight is 0."""
    if a.shape != b.shape or a.dtype != b.dtype or not b.any():
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
