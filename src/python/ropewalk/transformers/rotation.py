"""Rotary embeddings of transformers on rope_apply() and rope_append().

A model computes cos and sin once, and every attention module gives them, with q and k, to a
function such as apply_rotary_pos_emb(). In a patched model cos and sin are Angles, and the function
makes Turned: q and k whose rotation is pending. A paged cache then rotates them while it appends;
where anything else needs them, they are rotated.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from .._kv import rope_append
from .._rope import Rope, RopeSpec, rope_apply, rope_regime
from .lazy import Lazy, plain

# Ids that tables have at least: 2 MiB for a head of 256.
_POSITIONS = 1 << 20


@dataclass(frozen=True)
class Way:
    """How a function of a model rotates.

    spec      the rotary embedding
    inverse   whether it is the inverse rotation
    axis      that of the heads in q and k of rank 4: 1 or 2
    by_halves interleaved pairs, stored with all first elements before all second ones
    """

    spec: RopeSpec
    inverse: bool
    axis: int
    by_halves: bool = False


class Tables:
    """Rope tables for specs and devices, made when they are needed: the last two for regimes of
    sequence lengths, of which dynamic scaling has one for each length."""

    def __init__(self):
        self._ropes: dict[Any, dict[int, Rope]] = {}

    def find(self, spec: RopeSpec, ids: torch.Tensor) -> Rope:
        regime = 0
        length = 0
        if spec.type in ("dynamic", "longrope"):
            length = int(ids.max()) + 1
            regime = rope_regime(spec, length)
        known = self._ropes.setdefault((spec, str(ids.device)), {})
        found = known.get(regime)
        if found is None:
            positions = max(_POSITIONS, spec.max_position_embeddings)
            options = {"seq_len": length, "max_positions": positions, "device": ids.device}
            found = Rope(spec, **options)
            for old in list(known)[:-1]:
                known.pop(old, None)
            known[regime] = found
        return found


class Original:
    """The angles of the model's own rotary embedding, computed once."""

    def __init__(self, forward, module, x, ids, *options):
        self.ids = ids
        self._call = lambda: forward(module, x, ids, *options)
        self._tensors = None

    def tensors(self):
        if self._tensors is None:
            out = self._call()
            self._tensors = [out] if isinstance(out, torch.Tensor) else out
        return self._tensors


class Angles(Lazy):
    """cos, sin or both for ids [batch, seq] or [axes, batch, seq]: tensor `index` of `original`.

    ways  how functions rotate: {(function, unsqueeze_dim): Way}
    """

    def __init__(self, shape, dtype, device, original, index, ways):
        super().__init__()
        self.ids = original.ids
        self.original = original
        self.index = index
        self.ways = ways

    def compute(self):
        return self.original.tensors()[self.index]


@dataclass
class Turn:
    """The rotation of q and k, [batch, seq, heads, head_dim]; k may be None."""

    rope: Rope
    way: Way
    ids: torch.Tensor
    q: torch.Tensor
    k: torch.Tensor | None
    done: dict[int, torch.Tensor] = field(default_factory=dict)

    @property
    def direction(self) -> str:
        return "inverse" if self.way.inverse else "forward"

    def result(self, index: int) -> torch.Tensor:
        """Rotated q (0) or k (1), with the model's axes."""
        if index not in self.done:
            given = {i: x for i, x in ((0, self.q), (1, self.k)) if x is not None}
            given = {i: x for i, x in given.items() if i not in self.done}
            options = {"positions": self.ids, "direction": self.direction}
            out = rope_apply(self.rope, given.get(0), given.get(1), **options)
            for i, x in zip(given, out if len(given) == 2 else [out]):
                self.done[i] = self._as_model(x)
        return self.done[index]

    def _as_model(self, x: torch.Tensor) -> torch.Tensor:
        if self.way.by_halves:
            x = x.unflatten(-1, (-1, 2)).transpose(-1, -2).flatten(-2)
        return x.transpose(1, 2) if self.way.axis == 1 else x


class Turned(Lazy):
    """Rotated q (index 0) or k (index 1)."""

    def __init__(self, shape, dtype, device, turn: Turn, index: int):
        super().__init__()
        self.turn = turn
        self.index = index

    def compute(self):
        return self.turn.result(self.index)

    def append(self, values: torch.Tensor, layer) -> bool:
        """Rotates q, and k into the cache of a layer, if both are pending."""
        turn = self.turn
        if turn.done or self.index != 1 or turn.way.axis != 1 or turn.way.by_halves:
            return False
        q = rope_append(
            turn.rope,
            turn.q,
            turn.k,
            values,
            layer.storage,
            positions=turn.ids,
            cache_offset=layer.length,
            direction=turn.direction,
        )
        turn.done[0] = turn._as_model(q)
        return True


def turn(tables: Tables, way: Way, ids: torch.Tensor, q, k=None):
    """Turned q, and Turned k if it is given."""
    q, k = plain(q), None if k is None else plain(k)
    batch = q.shape[0]
    if ids.shape[-2] == 1:  # the same for the batch
        ids = ids[0] if ids.dim() == 2 else ids.expand(-1, batch, -1)
    heads_last = [x if x is None or way.axis == 2 else x.transpose(1, 2) for x in (q, k)]
    pending = Turn(tables.find(way.spec, ids), way, ids, *heads_last)
    out = [
        Turned(x.shape, x.dtype, x.device, pending, index)
        for index, x in enumerate((q, k))
        if x is not None
    ]
    return out[0] if k is None else tuple(out)
