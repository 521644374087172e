"""Rotary position embedding: specs, tables and their application."""

from __future__ import annotations

import dataclasses
import json
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ._context import Call, Context, begin, context_for, first, pair
from ._errors import InvalidArgument, error
from ._library import DIRECTION, ROPE_AXES, ROPE_PAIRING, ROPE_TYPE, ffi, lib, text
from ._tensors import Tensor

_ENUMERATIONS = {"type": ROPE_TYPE, "pairing": ROPE_PAIRING, "axes": ROPE_AXES}
_ARRAYS = {"short_factor": "double[]", "long_factor": "double[]", "frequency_factors": "float[]"}


@dataclass(frozen=True)
class RopeSpec:
    """A model's rotary embedding: rw_rope_spec, with the same names. Zero is the default; the names
    of parameters are those of Hugging Face's rope_parameters.

    type     "default", "linear", "dynamic", "yarn", "longrope", "llama3" or "proportional"
    pairing  "half" (Llama, Qwen, NeoX) or "interleaved" (GPT-J, GLM, Cohere)
    axes     "one", "mrope_chunked" (Qwen2-VL), "mrope_interleaved" (Qwen3-VL), "vision_2d" or
             "2d_interleaved"
    short_factor, long_factor, frequency_factors  rotary_dim / 2 numbers
    sections  M-RoPE: frequencies of t, h, w
    """

    head_dim: int
    type: str = "default"
    pairing: str = "half"
    rotary_start: int = 0
    rotary_dim: int = 0
    partial_rotary_factor: float = 0.0
    theta: float = 0.0
    max_position_embeddings: int = 0
    original_max_position_embeddings: int = 0
    factor: float = 0.0
    attention_factor: float = 0.0
    beta_fast: float = 0.0
    beta_slow: float = 0.0
    mscale: float = 0.0
    mscale_all_dim: float = 0.0
    no_truncate: bool = False
    low_freq_factor: float = 0.0
    high_freq_factor: float = 0.0
    short_factor: Sequence[float] | None = None
    long_factor: Sequence[float] | None = None
    short_mscale: float = 0.0
    long_mscale: float = 0.0
    frequency_factors: Sequence[float] | None = None
    axes: str = "one"
    sections: tuple[int, int, int] = (0, 0, 0)

    def given(self) -> dict:
        """The arguments that differ from the defaults."""
        given = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        arrays = {n: [float(x) for x in given[n]] for n in _ARRAYS if given[n] is not None}
        return {n: x for n, x in (given | arrays).items() if x != getattr(RopeSpec, n, None)}

    def fill(self, spec) -> list:
        """Writes the C struct; returns the arrays that must live as long as it."""
        kept = []
        for field in dataclasses.fields(self):
            name, value = field.name, getattr(self, field.name)
            if name in _ARRAYS:
                if value is not None:
                    kept.append(ffi.new(_ARRAYS[name], [float(number) for number in value]))
                    setattr(spec, name, kept[-1])
            elif name in _ENUMERATIONS:
                setattr(spec, name, _ENUMERATIONS[name][value])
            else:
                setattr(spec, name, value)
        self._check_arrays()
        return kept

    def _check_arrays(self):
        given = [name for name in _ARRAYS if getattr(self, name) is not None]
        if not given:
            return
        kind = "proportional" if self.type == "proportional" else "default"
        plain = dict.fromkeys(_ARRAYS) | {"type": kind}
        count = len(rope_frequencies(dataclasses.replace(self, **plain)).inv_freq)
        for name in given:
            length = len(getattr(self, name))
            if length != count:
                raise InvalidArgument(f"{name} has {length} numbers, expected {count}")


_by_settings: weakref.WeakValueDictionary[tuple, Rope] = weakref.WeakValueDictionary()
_of_graphs: dict[tuple, Rope] = {}


def rope_of_graph(settings: str, context: Context) -> Rope:
    """The Rope with these settings on the device of a context: one that exists or, for a graph that
    another process has saved, a new one, which is kept."""
    key = context.backend, context.memory, settings
    found = _by_settings.get(key)
    if found is None:
        options = json.loads(settings)
        spec = RopeSpec(**options.pop("spec"))
        found = _of_graphs[key] = Rope(spec, context=context, **options)
    return found


class RopeFrequencies(NamedTuple):
    """The frequencies of a spec."""

    inv_freq: np.ndarray
    """f64 [rotary_dim / 2], radians per position."""
    attention_factor: float
    """The factor of cos and sin."""


def rope_frequencies(spec: RopeSpec, seq_len: int = 0) -> RopeFrequencies:
    """The frequencies and the attention factor of a spec.

    seq_len  length of the whole sequence, which dynamic and longrope depend on; 0: unknown, short
    """
    struct, message = ffi.new("rw_rope_spec *"), ffi.new("rw_message *")
    kept = spec.fill(struct)
    found = ffi.new("rw_rope_frequency_list *")
    inv_freq = np.empty(0)
    for _ in range(2):  # first the number of frequencies
        status = lib.rw_rope_frequencies(struct, seq_len, found, message)
        if status:
            raise error(status, text(message.text))
        if len(inv_freq) == found.count:
            break
        inv_freq = np.empty(found.count)
        found.inv_freq = ffi.from_buffer("double[]", inv_freq)
        found.capacity = found.count
    del kept
    return RopeFrequencies(inv_freq, found.attention_factor)


def rope_regime(spec: RopeSpec, seq_len: int) -> int:
    """The regime of a sequence length: lengths with equal regimes have equal frequencies."""
    struct = ffi.new("rw_rope_spec *")
    kept = spec.fill(struct)
    regime = lib.rw_rope_regime(struct, seq_len)
    del kept
    return regime


class Rope:
    """Tables of cos and sin on a device; every context of that device may use them.

    seq_len        as for rope_frequencies()
    max_positions  ids must be in [0, max_positions); 0: the larger of seq_len and
                   spec.max_position_embeddings
    device         "cpu", "hip:INDEX", "cuda:INDEX" or a torch.device; None: the CPU
    context        instead of a device
    """

    def __init__(
        self,
        spec: RopeSpec,
        *,
        seq_len: int = 0,
        max_positions: int = 0,
        device: Any = None,
        context: Context | None = None,
    ):
        context = context_for(device, context)
        options, pointer = ffi.new("rw_rope_options *"), ffi.new("rw_rope **")
        kept = spec.fill(options.spec)
        options.seq_len = seq_len
        options.max_positions = max_positions
        with context.lock:
            context.check(lib.rw_rope_create(context.handle, options, pointer))
        del kept
        self.spec = spec
        arguments = {"spec": spec.given(), "seq_len": seq_len, "max_positions": max_positions}
        self.settings = json.dumps(arguments, default=lambda number: number.item())
        """The arguments but the device, for graphs."""
        self.handle = context.owned(pointer[0], lib.rw_rope_destroy)
        _by_settings[context.backend, context.memory, self.settings] = self


def _put_ids(call: Call, prefix: str, positions, offsets, offset: int) -> None:
    args = call.args.rope if prefix else call.args
    call.put(prefix + "positions", positions)
    call.put(prefix + "offsets", offsets)
    if offset:
        args.offset = offset


def _put_q_k(call: Call, q, k, out):
    """q, k and their outputs; returns the outputs as they were given: one or a pair."""
    call.put("q", q)
    call.put("k", k)
    if q is None or k is None:
        return call.output("k_out" if q is None else "q_out", out, first(q, k))
    q_out, k_out = pair(out, "q_out, k_out")
    return call.output("q_out", q_out, q), call.output("k_out", k_out, k)


def rope_apply(
    rope: Rope,
    q: Tensor | None,
    k: Tensor | None = None,
    *,
    positions: Tensor | None = None,
    offsets: Tensor | None = None,
    offset: int = 0,
    direction: str = "forward",
    out: Tensor | tuple[Tensor, Tensor] | None = None,
    context: Context | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """Rotates q and k.

    q, k       [batch, seq, heads, head_dim] or packed [tokens, heads, head_dim]; f32, f16 or bf16;
               the numbers of heads may differ; either may be None
    positions  i32 or i64 [seq], [batch, seq] or [axes, batch, seq] (packed: [tokens],
               [axes, tokens]); None: 0, 1, 2, ... in each row
    offsets    i32 or i64 [batch]: added to the ids of its row
    offset     added to every id
    direction  "forward", "inverse" or "backward" (the gradient)
    out        the pair (q_out, k_out), or one tensor if only one is given; (q, k): in place

    Returns the pair (q_out, k_out), or one tensor if only one was given.
    """
    with begin("rope_apply", first(q, k), context) as call:
        out = _put_q_k(call, q, k, out)
        _put_ids(call, "", positions, offsets, offset)
        call.args.direction = DIRECTION[direction]
        call.run(rope.handle)
        return out


def rope_rerotate(
    source: Rope,
    target: Rope,
    q: Tensor | None,
    k: Tensor | None = None,
    *,
    positions: Tensor | None = None,
    offsets: Tensor | None = None,
    offset: int = 0,
    out: Tensor | tuple[Tensor, Tensor] | None = None,
    context: Context | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """Converts tensors that were rotated with `source` to a rotation with `target`; otherwise as
    rope_apply()."""
    with begin("rope_rerotate", first(q, k), context) as call:
        out = _put_q_k(call, q, k, out)
        _put_ids(call, "", positions, offsets, offset)
        change = call.extra("rw_rope_change")
        setattr(change.args, "from", source.handle)
        change.args.to = target.handle
        call.run(change.args)
        return out
