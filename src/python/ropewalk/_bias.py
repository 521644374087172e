"""ALiBi and T5: biases that depend on the distance between query and key."""

from __future__ import annotations

import json
from typing import Any

from ._context import Arguments, Call, Context, begin, context_for, first
from ._errors import InvalidArgument
from ._library import ALIGNMENT, ffi, lib
from ._tensors import Tensor, shape_of


def alibi_slopes(
    heads: int | None = None,
    *,
    first_head: int = 0,
    total_heads: int | None = None,
    like: Tensor | None = None,
    out: Tensor | None = None,
    context: Context | None = None,
) -> Tensor:
    """ALiBi's slopes of `heads` heads.

    first_head, total_heads  a shard of a model's heads; total_heads is `heads` by default
    like                     a tensor whose library and device a new output has; None: numpy
    out                      f32 [heads]

    Returns out.
    """
    model = first(out, like)
    if heads is None:
        if out is None:
            raise InvalidArgument("heads is required without out=")
        heads = shape_of(out)[0]
    with begin("alibi_slopes", model, context) as call:
        call.args.first_head = first_head
        call.args.total_heads = heads + first_head if total_heads is None else total_heads
        out = call.output("out", out, model, (heads,), "f32")
        call.run()
        return out


class Alibi:
    """ALiBi's bias of scores: -slope * |p - j|, or slope * (j - p) if signed, where p is the
    position of the query as in Pattern.

    slopes     f32 [heads]
    signed     BLOOM's
    alignment  that of the pattern: "bottom_right", "top_left" or "key_end"
    """

    def __init__(self, slopes: Tensor, *, signed: bool = False, alignment: str = "bottom_right"):
        self.slopes = slopes
        self.settings = json.dumps({"signed": signed, "alignment": alignment})
        """The arguments but tensors, for graphs."""
        self._struct = Arguments("rw_alibi")
        self._struct.args.is_signed = signed
        self._struct.args.alignment = ALIGNMENT[alignment]

    def fill(self, call: Call):
        """The C struct, with tensors on the device of the call."""
        call.put("slopes", self.slopes, where=self._struct)
        return self._struct.args


def alibi_bias(
    alibi: Alibi,
    seq_q: int | None = None,
    seq_k: int | None = None,
    *,
    dtype: str = "f32",
    out: Tensor | None = None,
    context: Context | None = None,
) -> Tensor:
    """out[h, i, j] = the bias of query i and key j in head h.

    dtype  "f32", "f16" or "bf16", of a new output
    out    f32, f16 or bf16 [heads, seq_q, seq_k]

    Returns out.
    """
    if out is None and (seq_q is None or seq_k is None):
        raise InvalidArgument("seq_q and seq_k are required without out=")
    with begin("alibi_bias", alibi.slopes, context) as call:
        shape = (*shape_of(alibi.slopes)[:1], seq_q, seq_k)
        out = call.output("out", out, alibi.slopes, shape, dtype)
        call.run(alibi.fill(call))
        return out


class T5:
    """T5's buckets of relative positions, on a device.

    num_buckets   0: 32
    max_distance  0: 128
    causal        a decoder's; else bidirectional (an encoder's)
    device        "cpu", "hip:INDEX", "cuda:INDEX" or a torch.device; None: the CPU
    context       instead of a device
    """

    def __init__(
        self,
        *,
        num_buckets: int = 0,
        max_distance: int = 0,
        causal: bool = False,
        device: Any = None,
        context: Context | None = None,
    ):
        context = context_for(device, context)
        options, pointer = ffi.new("rw_t5_options *"), ffi.new("rw_t5 **")
        options.num_buckets = num_buckets
        options.max_distance = max_distance
        options.causal = causal
        with context.lock:
            context.check(lib.rw_t5_create(context.handle, options, pointer))
        self.handle = context.owned(pointer[0], lib.rw_t5_destroy)

    def bucket(self, relative_position: int) -> int:
        """The bucket of key - query."""
        return lib.rw_t5_bucket(self.handle, relative_position)


def t5_bias(
    t5: T5,
    table: Tensor,
    seq_q: int | None = None,
    seq_k: int | None = None,
    *,
    alignment: str = "bottom_right",
    out: Tensor | None = None,
    context: Context | None = None,
) -> Tensor:
    """out[h, i, j] = table[bucket(j - p), h], where p is the position of query i as in Pattern.

    table      f32, f16 or bf16 [num_buckets, heads]
    alignment  "bottom_right" or "top_left"
    out        f32, f16 or bf16 [heads, seq_q, seq_k]; a new one has the dtype of the table

    Returns out.
    """
    if out is None and (seq_q is None or seq_k is None):
        raise InvalidArgument("seq_q and seq_k are required without out=")
    with begin("t5_bias", table, context) as call:
        call.put("table", table)
        call.args.alignment = ALIGNMENT[alignment]
        out = call.output("out", out, table, (*shape_of(table)[1:], seq_q, seq_k))
        call.run(t5.handle)
        return out
