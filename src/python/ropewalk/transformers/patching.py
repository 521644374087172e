"""patch(): puts the modules of a model on ropewalk.

A module is replaced only if it computes the same as ropewalk on random inputs. Names of classes and
attributes select the modules to try; what differs, or has a form that is not in the tables below,
is left alone, and the report says so. Modules are changed one by one (module.forward): other models
in the process stay as they are.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import itertools
import types
from collections import Counter

import torch
import transformers

from .. import torch as operators
from .._errors import Error
from .._norm import rms_norm, swiglu
from .._rope import RopeSpec, rope_frequencies
from . import own_attention
from .attend import UNSUPPORTED
from .cache import Cache
from .lazy import plain
from .rotation import Angles, Original, Tables, Way, turn


class Report:
    """What patch() replaced, and what it left alone with the reason."""

    def __init__(self):
        self.replaced: Counter[str] = Counter()
        self.left: Counter[tuple[str, str]] = Counter()

    def __str__(self):
        lines = ["replaced by ropewalk:"]
        lines += [f"  {count:4} {what}" for what, count in sorted(self.replaced.items())]
        lines += ["left alone:"] if self.left else []
        lines += [f"  {n:4} {what}: {why}" for (what, why), n in sorted(self.left.items())]
        return "\n".join(lines)


def patch(model: torch.nn.Module) -> Report:
    """Replaces what ropewalk computes in a model: attention, rotary embeddings, RMS norms, gated
    feed-forward activations and, in generate(), the KV cache. Changes the model; returns a report.
    """
    report = Report()
    with torch.no_grad():
        attention = _patch_attention(model, report)
        _patch_rotary(model, report)
        for module in model.modules():
            name = type(module).__name__
            if _is_hooked(module):
                report.left[name, "its forward is that of another package"] += 1
            elif "RMSNorm" in name or name.endswith("T5LayerNorm"):
                _patch_norm(module, report)
            elif _gate_names(module) is not None:
                _patch_gate(module, report)
            elif hasattr(module, "_apply_gate"):
                _patch_experts(module, report)
    if attention:
        _patch_cache(model, report)
    else:
        report.left["KV cache", "only attention on ropewalk reads its pages"] += 1
    return report


def _is_hooked(module) -> bool:
    """Whether somebody, such as accelerate, has replaced the module's forward."""
    return not isinstance(module.forward, types.MethodType)


def _set_forward(module, forward) -> None:
    """As a method, so that a deep copy of a model calls it for its own modules."""
    module.forward = types.MethodType(forward, module)


def _name(module) -> str:
    return type(module).__name__


def _agree(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Equal within some roundings of their dtype: on average, too, if it has 16 bits, of which a
    few may hide another function."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    error, size, eps = (a - b).abs().float(), b.abs().float(), torch.finfo(a.dtype).eps
    if eps < 1e-6:
        return bool(error.amax() <= 32 * eps * size.amax())
    return bool(error.amax() <= 8 * eps * size.amax() and error.mean() <= 2 * eps * size.mean())


def _random(*shape, like: torch.Tensor | None = None) -> torch.Tensor:
    """The same numbers in every call, of several magnitudes."""
    generator = torch.Generator().manual_seed(7)
    x = torch.randn(shape, generator=generator)
    return x if like is None else x.to(like.device, like.dtype)


# ---- attention -----------------------------------------------------------------------------------


def _patch_attention(model, report: Report) -> bool:
    """Puts attention on attend(); False if it, or a part of it, stays as it was."""
    parts = [x for x in model.modules() if isinstance(x, transformers.PreTrainedModel)]
    modules = [x for x in model.modules() if "ALL_ATTENTION_FUNCTIONS" in _globals_of(x)]
    sparse = {_name(x): names for x in modules if (names := _keywords_of(x) & set(UNSUPPORTED))}
    for name, keywords in sparse.items():
        why = f"it passes {', '.join(sorted(keywords))}, which attention on ropewalk has not"
        report.left[f"attention {name}", why] += 1
    others = [part for part in parts if not part._can_set_attn_implementation()]
    if others:
        return _patch_own_attention(model, others, report)
    if sparse or not modules or not parts:
        return False
    model.set_attn_implementation("ropewalk")
    report.replaced.update(f"attention {_name(module)}" for module in modules)
    return True


def _patch_own_attention(model, parts, report: Report) -> bool:
    """Attention modules that do not use the AttentionInterface."""
    modules = [module for module in model.modules() if type(module) in own_attention.FORWARDS]
    if not modules or not all(_own_attention_agrees(module) for module in modules):
        for name in sorted({_name(part) for part in parts}):
            why = "its attention does not use transformers' AttentionInterface"
            report.left[f"attention of {name}", why] += 1
        return False
    for module in modules:
        _set_forward(module, own_attention.FORWARDS[type(module)][0])
        report.replaced[f"attention {_name(module)}"] += 1
    for part in parts:
        part.config._attn_implementation = "ropewalk"
    return True


def _own_attention_agrees(module) -> bool:
    forward, arguments = own_attention.FORWARDS[type(module)]
    x = _random(2, 6, module.hidden_size, like=next(module.parameters()))
    given = arguments(module, x)
    try:
        return _agree(forward(module, x, **given)[0], module(x, **given)[0])
    except (RuntimeError, TypeError, Error):
        return False


def _globals_of(module) -> tuple[str, ...]:
    """Names of globals in the forward of a module."""
    code = getattr(inspect.unwrap(type(module).forward), "__code__", None)
    return code.co_names if code else ()


def _keywords_of(module) -> set[str]:
    """Names of arguments in the calls that the forward of a module makes."""
    code = inspect.unwrap(type(module).forward).__code__
    return {x for names in code.co_consts if isinstance(names, tuple) for x in names}


# ---- norms ---------------------------------------------------------------------------------------


def _patch_norm(module, report: Report) -> None:
    what = f"RMS norm {_name(module)}"
    options = _norm_options(module)
    if options is None:
        report.left[what, "it is not the RMS norm of its weight that ropewalk has"] += 1
        return

    def forward(self, x):
        function = operators.rms_norm if torch.compiler.is_compiling() else rms_norm
        x = plain(x)
        x = x if x.stride(-1) == 1 else x.contiguous()
        return function(x, getattr(self, "weight", None), **options)

    _set_forward(module, forward)
    report.replaced[what] += 1


def _norm_options(module) -> dict | None:
    """The arguments of rms_norm() that give what the module gives."""
    eps = next(
        (getattr(module, n) for n in ("variance_epsilon", "eps") if hasattr(module, n)), None
    )
    weight = getattr(module, "weight", None)
    if not isinstance(eps, float) or len(inspect.signature(module.forward).parameters) != 1:
        return None
    width = getattr(module, "normalized_shape", (64,))[-1] if weight is None else len(weight)
    for offset in (0.0, 1.0):
        for cast in ("before_weight", "after_weight"):
            options = {"eps": eps, "weight_offset": offset, "cast": cast}
            if weight is None:
                options.pop("weight_offset")
            if all(_norm_agrees(module, width, dtype, options) for dtype in _NORM_DTYPES):
                return options
    return None


_NORM_DTYPES = (torch.float32, torch.bfloat16)


def _norm_agrees(module, width: int, dtype: torch.dtype, options: dict) -> bool:
    """On rows of several magnitudes: of bf16 every element, as a rounding in another place differs
    in some."""
    x = (_random(64, width) * torch.logspace(-3, 1, 64)[:, None]).to(dtype)
    weight = _random(1, width)[0].to(dtype)
    has_weight = getattr(module, "weight", None) is not None
    try:
        given = {"weight": weight} if has_weight else {}
        expected = torch.func.functional_call(module, given, (x,))
        got = rms_norm(x, weight if has_weight else None, **options)
    except (RuntimeError, TypeError, Error):
        return False
    if dtype is torch.float32:
        return _agree(got, expected)
    return bool((got == expected).float().mean() > 0.999)


# ---- gated feed-forward layers -------------------------------------------------------------------

# Names of the projections to gate, to up (None: gate and up are one) and back.
_GATES = (
    ("gate_proj", "up_proj", "down_proj"),
    ("w1", "w3", "w2"),
    ("linear", "linear_v", "linear_1"),
    ("gate_up_proj", None, "down_proj"),
    ("input_linear", None, "output_linear"),
)


def _gate_names(module) -> tuple | None:
    children = dict(module.named_children())
    for names in _GATES:
        if all(name in children for name in names if name is not None):
            return names
    return None


def _patch_gate(module, report: Report) -> None:
    what = f"gated feed-forward {_name(module)}"
    gate_name, up_name, down_name = _gate_names(module)

    def forward(self, x):
        function = operators.swiglu if torch.compiler.is_compiling() else swiglu
        gate, x = getattr(self, gate_name)(plain(x)), plain(x)
        if up_name is None:
            product = function(packed=gate)
        else:
            product = function(gate, getattr(self, up_name)(x))
        return getattr(self, down_name)(product)

    parameter = next(module.parameters(), None)
    width = getattr(getattr(module, gate_name), "in_features", None)
    if width is None or parameter is None or not parameter.is_floating_point():
        report.left[what, "its projections are not linear layers of floating-point numbers"] += 1
        return
    for scale in (1.0, 30.0):
        x = _random(1, 3, width, like=parameter) * scale
        try:
            same = _agree(forward(module, x), module(x))
        except (RuntimeError, TypeError, Error):
            same = False
        if not same:
            report.left[what, "its activation is not SwiGLU"] += 1
            return
    _set_forward(module, forward)
    report.replaced[what] += 1


def _patch_experts(module, report: Report) -> None:
    what = f"gate of experts {_name(module)}"
    original = module._apply_gate
    numbers = {n: getattr(module, n, 0.0) for n in ("limit", "alpha")}
    numbers = {n: x if isinstance(x, float) else 0.0 for n, x in numbers.items()}
    x = _random(5, 32) * torch.tensor([[1.0], [1.0], [3.0], [10.0], [10.0]])
    try:
        expected = original(x)
    except (RuntimeError, TypeError, AttributeError):
        expected = x
    for packing in ("gate_first", "interleaved"):
        for options in ({}, {**numbers, "up_offset": 1.0}):
            options = {"packing": packing, **options}
            if _agree(swiglu(packed=x, **options), expected):
                module._apply_gate = functools.partial(_apply_gate, options)
                report.replaced[what] += 1
                return
    report.left[what, "it is not SwiGLU"] += 1


def _apply_gate(options: dict, x: torch.Tensor) -> torch.Tensor:
    function = operators.swiglu if torch.compiler.is_compiling() else swiglu
    return function(packed=plain(x), **options)


# ---- rotary embeddings ---------------------------------------------------------------------------


def _patch_rotary(model, report: Report) -> None:
    tables = Tables()
    for path, module in model.named_modules():
        if "RotaryEmbedding" not in _name(module) or _is_hooked(module):
            continue
        owner = model.get_submodule(path.rpartition(".")[0])
        ways = _ways(module, owner, tables)
        what = f"rotary embedding {_name(module)}"
        if isinstance(ways, str):
            report.left[what, ways] += 1
            continue
        _replace_angles(module, ways)
        report.replaced[what] += 1
        for attention in owner.modules():
            functions = _rotating_functions(attention)
            if {f for _, f, _ in ways} & set(functions.values()) and not _is_hooked(attention):
                _replace_functions(attention, functions, tables)
                report.replaced[f"rotation in {_name(attention)}"] += 1


def _rotating_functions(module) -> dict:
    """The functions that rotate q and k in the forward of a module, by name."""
    forward = inspect.unwrap(type(module).forward)
    names = [name for name in _globals_of(module) if name.startswith("apply_rotary")]
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
    q, k = _random(2, batch, *lengths, way.spec.head_dim).to(device)
    try:
        angles = module(q, ids) if kind is None else module(q, ids, kind)
        expected = _call(function, q, k, angles, way.axis)
        got = turn(tables, way, ids, q, k)
        return expected is not None and all(_agree(plain(a), b) for a, b in zip(got, expected))
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

    _set_forward(module, forward)


def _forms(module, kind) -> list[tuple[int, torch.dtype | None]]:
    """Last length and dtype (None: that of x) of each tensor that a rotary embedding gives."""
    buffer = next(module.buffers(), None)
    device = "cpu" if buffer is None else buffer.device
    x = torch.zeros(1, 1, 8, dtype=torch.bfloat16, device=device)
    ids = torch.zeros(1, 1, dtype=torch.int64, device=device)
    out = module(x, ids) if kind is None else module(x, ids, kind)
    out = [out] if isinstance(out, torch.Tensor) else out
    return [(part.shape[-1], None if part.dtype is x.dtype else part.dtype) for part in out]


def _replace_functions(attention, functions: dict, tables: Tables) -> None:
    """The module's forward calls rotating functions that know Angles."""
    forward = inspect.unwrap(type(attention).forward)
    names = dict(forward.__globals__)
    names.update({name: _rotate(f, tables) for name, f in functions.items()})
    copy = types.FunctionType(
        forward.__code__, names, forward.__name__, forward.__defaults__, forward.__closure__
    )
    copy.__kwdefaults__ = forward.__kwdefaults__
    _set_forward(attention, copy)


def _rotate(original, tables: Tables):
    """The rotating function with Angles in place of cos and sin, or freqs_cis."""
    parameters = inspect.signature(original).parameters
    count = 1 if next(iter(parameters)) in ("x", "tensor") else 2
    standard = parameters["unsqueeze_dim"].default if "unsqueeze_dim" in parameters else None

    @functools.wraps(original)
    def rotate(*arguments, **options):
        tensors, angles = arguments[:count], arguments[count]
        others = set(options) - {"unsqueeze_dim"}
        if isinstance(angles, Angles) and not others:
            way = angles.ways.get((original, options.get("unsqueeze_dim", standard)))
            if way is not None and tensors[0].shape[-1] == way.spec.head_dim:
                return turn(tables, way, angles.ids, *tensors)
        return original(*arguments, **options)

    return rotate


# ---- the KV cache --------------------------------------------------------------------------------


def _patch_cache(model, report: Report) -> None:
    prepare = getattr(model, "_prepare_cache_for_generation", None)
    if prepare is None:
        report.left["KV cache", "the model has no generate()"] += 1
        return
    prepare = prepare.__func__
    try:
        Cache(model.config)
    except (Error, AttributeError) as problem:
        report.left["KV cache", str(problem)] += 1
        return

    def prepare_cache(self, generation_config, model_kwargs, *rest, **options):
        plain_cache = generation_config.cache_implementation in (None, "dynamic")
        if plain_cache and generation_config.use_cache and model_kwargs.get("cache") is None:
            model_kwargs["cache"] = Cache(self.config)
        else:
            prepare(self, generation_config, model_kwargs, *rest, **options)

    model._prepare_cache_for_generation = types.MethodType(prepare_cache, model)
    report.replaced["KV cache of generate()"] += 1
