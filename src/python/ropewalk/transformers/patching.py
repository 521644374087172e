"""patch(): puts the modules of a model on ropewalk.

A module is replaced only if it computes the same as ropewalk on random inputs. Names of classes and
attributes select the modules to try; what differs, or has a form that is not in the tables below,
is left alone, and the report says so. Modules are changed one by one (module.forward): other models
in the process stay as they are.
"""

from __future__ import annotations

import functools
import inspect
from collections import Counter

import torch
import transformers

from .. import torch as operators
from .._errors import Error
from .._library import GLU_ACTIVATION
from .._norm import glu, rms_norm
from . import own_attention
from .attend import MAX_WIDTH, UNSUPPORTED
from .cache import Cache
from .latent_attention import patch_latent_attention
from .lazy import plain
from .modules import (
    agree,
    globals_of,
    is_hooked,
    keywords_of,
    name_of,
    random_numbers,
    set_forward,
    set_method,
    with_random_projections,
)
from .rotary_patching import patch_rotary


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
    Weights may change later; settings of modules (frequencies, eps, activation) are those of now.
    """
    report = Report()
    with torch.no_grad():
        attention = _patch_attention(model, report)
        patch_rotary(model, report)
        if attention:
            patch_latent_attention(model, report)
        for module in model.modules():
            name = type(module).__name__
            if is_hooked(module):
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


# Attributes of attention modules.
_WIDTHS = ("head_dim", "head_size", "attention_head_size", "qk_head_dim", "v_head_dim")

# ---- attention -----------------------------------------------------------------------------------


def _patch_attention(model, report: Report) -> bool:
    """Puts attention on attend(); False if it, or a part of it, stays as it was."""
    parts = [x for x in model.modules() if isinstance(x, transformers.PreTrainedModel)]
    modules = [x for x in model.modules() if "ALL_ATTENTION_FUNCTIONS" in globals_of(x)]
    unfit = {name_of(x): why for x in modules if (why := _why_unfit(x))}
    for name, why in unfit.items():
        report.left[f"attention {name}", why] += 1
    others = [part for part in parts if not part._can_set_attn_implementation()]
    if others:
        return _patch_own_attention(model, others, report)
    if unfit or not modules or not parts:
        return False
    model.set_attn_implementation("ropewalk")
    report.replaced.update(f"attention {name_of(module)}" for module in modules)
    return True


def _why_unfit(module) -> str | None:
    """Why attend() cannot compute what an attention module needs."""
    keywords = keywords_of(module) & set(UNSUPPORTED)
    if keywords:
        return f"it passes {', '.join(sorted(keywords))}, which attention on ropewalk has not"
    widths = [getattr(module, name, 0) for name in _WIDTHS]
    width = max(x for x in widths if isinstance(x, int))
    if width > MAX_WIDTH:
        return f"its heads have a width of {width}, and attention on ropewalk at most {MAX_WIDTH}"
    return None


def _patch_own_attention(model, parts, report: Report) -> bool:
    """Attention modules that do not use the AttentionInterface."""
    modules = [module for module in model.modules() if type(module) in own_attention.FORWARDS]
    if not modules or not all(_own_attention_agrees(module) for module in modules):
        for name in sorted({name_of(part) for part in parts}):
            why = "its attention does not use transformers' AttentionInterface"
            report.left[f"attention of {name}", why] += 1
        return False
    for module in modules:
        set_forward(module, own_attention.FORWARDS[type(module)][0])
        report.replaced[f"attention {name_of(module)}"] += 1
    for part in parts:
        part.config._attn_implementation = "ropewalk"
    return True


def _own_attention_agrees(module) -> bool:
    forward, arguments = own_attention.FORWARDS[type(module)]
    x = random_numbers(2, 6, module.hidden_size, like=next(module.parameters()))
    try:
        module = with_random_projections(module, x.dtype, x.device)
        given = arguments(module, x)
        return agree(forward(module, x, **given)[0], module(x, **given)[0])
    except (RuntimeError, TypeError, Error):
        return False


# ---- norms ---------------------------------------------------------------------------------------


def _patch_norm(module, report: Report) -> None:
    what = f"RMS norm {name_of(module)}"
    options = _norm_options(module)
    if options is None:
        report.left[what, "it is not the RMS norm of its weight that ropewalk has"] += 1
        return

    original = module.forward.__func__

    def forward(self, x=None, **named):
        if x is None:
            (x,) = named.values()
        x, weight = plain(x), getattr(self, "weight", None)
        if x.dim() > 4:
            return forward(self, x.flatten(0, -2)).view(x.shape)
        if weight is not None and weight.dtype != x.dtype:  # models differ in what they return
            return original(self, x)
        function = operators.rms_norm if torch.compiler.is_compiling() else rms_norm
        x = x if x.stride(-1) == 1 else x.contiguous()
        return function(x, weight, **options)

    set_forward(module, forward)
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
    x = (random_numbers(64, width) * torch.logspace(-3, 1, 64)[:, None]).to(dtype)
    weight = random_numbers(1, width)[0].to(dtype)
    has_weight = getattr(module, "weight", None) is not None
    try:
        given = {"weight": weight} if has_weight else {}
        expected = torch.func.functional_call(module, given, (x,))
        got = rms_norm(x, weight if has_weight else None, **options)
    except (RuntimeError, TypeError, Error):
        return False
    if dtype is torch.float32:
        return agree(got, expected)
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


def _gate_forward(gate_name, up_name, down_name, activation):
    def forward(self, x):
        function = operators.glu if torch.compiler.is_compiling() else glu
        gate, x = getattr(self, gate_name)(plain(x)), plain(x)
        if up_name is None:
            product = function(packed=gate, activation=activation)
        else:
            product = function(gate, getattr(self, up_name)(x), activation=activation)
        return getattr(self, down_name)(product)

    return forward


def _patch_gate(module, report: Report) -> None:
    what = f"gated feed-forward {name_of(module)}"
    names = _gate_names(module)
    parameter = next(module.parameters(), None)
    width = getattr(getattr(module, names[0]), "in_features", None)
    if width is None or parameter is None or not parameter.is_floating_point():
        report.left[what, "its projections are not linear layers of floating-point numbers"] += 1
        return
    rows = [random_numbers(1, 3, width, like=parameter) * scale for scale in (1.0, 30.0)]
    try:
        # In 16 bits the sums of the projection hide the difference of gelu and quick_gelu.
        dtypes = torch.float32, parameter.dtype
        trials = [with_random_projections(module, dtype, parameter.device) for dtype in dtypes]
        cases = [(trial, x.to(dtype)) for trial, dtype in zip(trials, dtypes) for x in rows]
        cases = [(trial, x, trial(x)) for trial, x in cases]
        for activation in GLU_ACTIVATION:
            found = _gate_forward(*names, activation)
            if all(agree(found(each, x), y) for each, x, y in cases):
                set_forward(module, found)
                report.replaced[what] += 1
                return
    except (RuntimeError, TypeError, Error):
        pass
    report.left[what, "its activation is not one of glu()"] += 1


def _patch_experts(module, report: Report) -> None:
    what = f"gate of experts {name_of(module)}"
    original = module._apply_gate
    numbers = {n: getattr(module, n, 0.0) for n in ("limit", "alpha")}
    numbers = {n: x if isinstance(x, float) else 0.0 for n, x in numbers.items()}
    x = random_numbers(5, 32) * torch.tensor([[1.0], [1.0], [3.0], [10.0], [10.0]])
    try:
        expected = original(x)
    except (RuntimeError, TypeError, AttributeError):
        expected = x
    ways = [{"activation": activation} for activation in GLU_ACTIVATION]
    for packing in ("gate_first", "interleaved"):
        for options in (*ways, {**numbers, "up_offset": 1.0}):
            options = {"packing": packing, **options}
            if agree(glu(packed=x, **options), expected):
                module._apply_gate = functools.partial(_apply_gate, options)
                report.replaced[what] += 1
                return
    report.left[what, "it is not one of glu()"] += 1


def _apply_gate(options: dict, x: torch.Tensor) -> torch.Tensor:
    function = operators.glu if torch.compiler.is_compiling() else glu
    return function(packed=plain(x), **options)


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

    set_method(model, "_prepare_cache_for_generation", prepare_cache)
    report.replaced["KV cache of generate()"] += 1
