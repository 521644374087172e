"""Puts rotary embeddings of a model on ropewalk: those for which a spec that libropewalk-io reads
from the model's config rotates random q and k as the model does."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import itertools
import types

import torch

from .._errors import Error
from .._rope import RopeSpec, rope_frequencies
from .lazy import plain, stands_for
from .modules import agree, globals_of, is_hooked, name_of, random_numbers, set_forward
from .rotation import Angles, Original, Tables, Way, turn


def patch_rotary(model, report) -> None:
    tables, copies = Tables(), {}
    for path, module in model.named_modules():
        if "RotaryEmbedding" not in name_of(module) or is_hooked(module):
            continue
        owner = model.get_submodule(path.rpartition(".")[0])
        ways = _ways(module, owner, tables)
        what = f"rotary embedding {name_of(module)}"
        if isinstance(ways, str):
            report.left[what, ways] += 1
            continue
        _replace_angles(module, ways)
        report.replaced[what] += 1
        for attention in owner.modules():
            functions = _rotating_functions(attention)
            if {f for _, f, _ in ways} & set(functions.values()) and not is_hooked(attention):
                _replace_functions(attention, functions, tables, copies)
                report.replaced[f"rotation in {name_of(attention)}"] += 1


def _rotating_functions(module) -> dict:
    """The functions that rotate q and k in the forward of a module, by name."""
    forward = inspect.unwrap(type(module).forward)
    names = [name for name in globals_of(module) if name.startswith("apply_rotary")]
    found = {name: forward.__globals__.get(name) for name in names}
    return {n: f for n, f in found.items() if inspect.isfunction(f)}


def _layer_types(module) -> list:
    """The layer types that a rotary embedding distinguishes; [None]: none."""
    if "layer_type" not in inspect.signature(module.forward).parameters:
        return [None]
    end = "_inv_freq"
    names = [name.removesuffix(end) for name in vars(module)["_buffers"] if name.endswith(end)]
    return [name for name in names if not name.endswith("_original")] or [None]


def _axes(function) -> list[tuple[int | None, int]]:
    """unsqueeze_dim and the axis of heads in q and k that a rotating function may have."""
    if "unsqueeze_dim" in inspect.signature(function).parameters:
        return [(1, 1), (2, 2)]
    return [(None, 1), (None, 2)]


def _ways(module, owner, tables: Tables) -> dict | str:
    """How functions rotate: {(layer type, function, unsqueeze_dim): Way}. A sentence if ropewalk
    has no rotary embedding that agrees for every layer type."""
    config = getattr(module, "config", getattr(owner, "config", None))
    if config is None or list(inspect.signature(module.forward).parameters)[:2] != [
        "x",
        "position_ids",
    ]:
        return "it does not compute cos and sin of position ids"
    try:
        from .. import io

        ropes = io.read_model(config.to_dict()).ropes
    except (ImportError, Error) as problem:
        return str(problem)
    kinds = _layer_types(module)
    functions = {f for part in owner.modules() for f in _rotating_functions(part).values()}
    ways = {}
    for kind, function in itertools.product(kinds, functions):
        for unsqueeze_dim, axis in _axes(function):
            way = _find_way(module, kind, function, axis, ropes, tables)
            if way is not None:
                ways[kind, function, unsqueeze_dim] = way
    if not functions:
        return "no function apply_rotary... uses it"
    if {kind for kind, _, _ in ways} != set(kinds):
        return "no rotary embedding that the model's config describes agrees with it"
    return ways


def _find_way(module, kind, function, axis: int, ropes, tables: Tables) -> Way | None:
    for rope in ropes:
        for spec, by_halves in itertools.product(_specs(rope.spec), (False, True)):
            way = Way(spec, rope.inverse, axis, by_halves)
            if not rope.learned_scale and _way_agrees(module, kind, function, way, tables):
                return way
    return None


def _specs(spec: RopeSpec) -> list[RopeSpec]:
    """The spec of a head, and that of its rotated columns alone, if a model splits heads."""
    width = 2 * len(rope_frequencies(spec).inv_freq)
    part = {"head_dim": width, "rotary_start": 0, "rotary_dim": width, "partial_rotary_factor": 0.0}
    return [spec] if width == spec.head_dim else [spec, dataclasses.replace(spec, **part)]


def _way_agrees(module, kind, function, way: Way, tables: Tables) -> bool:
    """For ids from 0 to 40; for several axes, of t, h and w."""
    buffer = next(module.buffers(), None)
    device = "cpu" if buffer is None else buffer.device
    batch, seq, heads = 2, 5, 3
    ids = (torch.arange(batch * seq).view(batch, seq) * 7) % 41
    if way.spec.axes.startswith("mrope"):
        ids = torch.stack([ids, (ids * 3) % 17, (ids * 5) % 13])
    ids = ids.to(device)
    lengths = (heads, seq) if way.axis == 1 else (seq, heads)
    q, k = random_numbers(2, batch, *lengths, way.spec.head_dim).to(device)
    try:
        angles = module(q, ids) if kind is None else module(q, ids, kind)
        expected = _call(function, q, k, angles, way.axis)
        got = turn(tables, way, ids, q, k)
        return expected is not None and all(agree(plain(a), b) for a, b in zip(got, expected))
    except (RuntimeError, TypeError, IndexError, Error):
        return False


def _call(function, q, k, angles, axis: int):
    """The pair that a rotating function gives for q and k; None if its parameters are unknown."""
    names = list(inspect.signature(function).parameters)
    if isinstance(angles, torch.Tensor):
        return function(q, k, angles) if names == ["xq", "xk", "freqs_cis"] else None
    options = {"unsqueeze_dim": axis} if "unsqueeze_dim" in names else {}
    if names[:4] == ["q", "k", "cos", "sin"]:
        return function(q, k, *angles, **options)
    if names[:3] in (["x", "cos", "sin"], ["tensor", "sin", "cos"]):
        return [function(x, *angles, **options) for x in (q, k)]
    return None


def _replace_angles(module, ways: dict) -> None:
    """The module gives Angles, which know how functions rotate."""
    original = module.forward.__func__
    kinds = {kind for kind, _, _ in ways}
    by_type = {k: {(f, n): way for (t, f, n), way in ways.items() if t == k} for k in kinds}
    forms = _forms(module, next(iter(kinds)))

    def forward(self, x, position_ids, layer_type=None):
        options = () if layer_type is None else (layer_type,)
        if torch.compiler.is_compiling():
            return original(self, x, position_ids, *options)
        angles = Original(original, self, x, position_ids, *options)
        mine = by_type[layer_type if layer_type in by_type else None]
        made = [
            Angles((*position_ids.shape[-2:], width), dtype or x.dtype, x.device, angles, i, mine)
            for i, (width, dtype) in enumerate(forms)
        ]
        return made[0] if len(made) == 1 else tuple(made)

    set_forward(module, forward)


def _forms(module, kind) -> list[tuple[int, torch.dtype | None]]:
    """Last length and dtype (None: that of x) of each tensor that a rotary embedding gives."""
    buffer = next(module.buffers(), None)
    device = "cpu" if buffer is None else buffer.device
    x = torch.zeros(1, 1, 8, dtype=torch.bfloat16, device=device)
    ids = torch.zeros(1, 1, dtype=torch.int64, device=device)
    out = module(x, ids) if kind is None else module(x, ids, kind)
    out = [out] if isinstance(out, torch.Tensor) else out
    return [(part.shape[-1], None if part.dtype is x.dtype else part.dtype) for part in out]


def _replace_functions(attention, functions: dict, tables: Tables, copies: dict) -> None:
    """The module's forward calls rotating functions that know Angles. `copies`: what has been made,
    by forward."""
    forward = inspect.unwrap(type(attention).forward)
    if forward not in copies:
        copies[forward] = _copy_forward(forward, functions, tables)
    set_forward(attention, copies[forward])


def _copy_forward(forward, functions: dict, tables: Tables):
    names = dict(forward.__globals__)
    names.update({name: _rotate(f, tables) for name, f in functions.items()})
    # torch.compile looks the names up in the module of this name, where they differ (torch 2.11).
    del names["__name__"]
    # It keeps what it compiled with the code, and looks that up in the globals it was compiled for.
    code = forward.__code__.replace()
    copy = types.FunctionType(
        code, names, forward.__name__, forward.__defaults__, forward.__closure__
    )
    copy.__kwdefaults__ = forward.__kwdefaults__
    copy.__module__ = forward.__module__
    return copy


def _of_one_embedding(arguments) -> bool:
    """Whether the tensors among the arguments are what one rotary embedding has given."""
    given = [x for x in arguments if isinstance(x, torch.Tensor)]
    if not given or not all(stands_for(x, Angles) for x in given):
        return False
    return len({id(x.original) for x in given}) == 1 and len({x.index for x in given}) == len(given)


def _rotate(original, tables: Tables):
    """The rotating function with Angles in place of cos and sin, or freqs_cis."""
    parameters = inspect.signature(original).parameters
    count = 1 if next(iter(parameters)) in ("x", "tensor") else 2
    standard = parameters["unsqueeze_dim"].default if "unsqueeze_dim" in parameters else None

    @functools.wraps(original)
    def rotate(*arguments, **options):
        tensors, angles = arguments[:count], arguments[count]
        others = set(options) - {"unsqueeze_dim"}
        if not others and _of_one_embedding(arguments[count:]):
            way = angles.ways.get((original, options.get("unsqueeze_dim", standard)))
            if way is not None and tensors[0].shape[-1] == way.spec.head_dim:
                return turn(tables, way, angles.ids, *tensors)
        return original(*arguments, **options)

    return rotate
