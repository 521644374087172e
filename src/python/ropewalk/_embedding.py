"""Position embeddings that are added to hidden states."""

from __future__ import annotations

from typing import Any

from ._context import Call, Context, begin, context_for
from ._library import SINUSOID_LAYOUT, ffi, lib
from ._tensors import Tensor


def _describe(call: Call, x, positions, offsets, offset, out):
    call.put("x", x)
    call.put("positions", positions)
    call.put("offsets", offsets)
    call.args.offset = offset
    return call.output("out", out, x)


def embed_learned(
    x: Tensor,
    table: Tensor,
    *,
    positions: Tensor | None = None,
    offsets: Tensor | None = None,
    offset: int = 0,
    out: Tensor | None = None,
    context: Context | None = None,
) -> Tensor:
    """out[b, s, :] = x[b, s, :] + table[p(b, s), :] (GPT-2, BERT, OPT)

    x          [batch, seq, hidden] or packed [tokens, hidden]; f32, f16 or bf16
    table      [max_positions, hidden]; f32, f16 or bf16, independently
    positions  i32 or i64 [seq], [batch, seq] or [tokens]; None: 0, 1, 2, ... in each row
    offsets    i32 or i64 [batch]: added to the ids of its row
    offset     added to every id (OPT's 2)
    out        shape and dtype of x, may be x

    Returns out.
    """
    with begin("embed_learned", x, context) as call:
        out = _describe(call, x, positions, offsets, offset, out)
        whole = call.extra("rw_tensor", "table")
        call.put("table", table, where=whole)
        call.run(whole.args)
        return out


class Sinusoid:
    """Tables of sinusoidal positions on a device.

    hidden         even
    max_positions  ids must be in [0, max_positions)
    theta          0: 10000
    layout         "interleaved" (sin, cos, sin, cos, ...) or "concatenated" (sines, then cosines)
    device         "cpu", "hip:INDEX", "cuda:INDEX" or a torch.device; None: the CPU
    context        instead of a device
    """

    def __init__(
        self,
        hidden: int,
        max_positions: int,
        *,
        theta: float = 0.0,
        layout: str = "interleaved",
        device: Any = None,
        context: Context | None = None,
    ):
        context = context_for(device, context)
        options, pointer = ffi.new("rw_sinusoid_options *"), ffi.new("rw_sinusoid **")
        options.hidden = hidden
        options.max_positions = max_positions
        options.theta = theta
        options.layout = SINUSOID_LAYOUT[layout]
        with context.lock:
            context.check(lib.rw_sinusoid_create(context.handle, options, pointer))
        self.handle = context.owned(pointer[0], lib.rw_sinusoid_destroy)


def embed_sinusoidal(
    x: Tensor,
    sinusoid: Sinusoid,
    *,
    positions: Tensor | None = None,
    offsets: Tensor | None = None,
    offset: int = 0,
    out: Tensor | None = None,
    context: Context | None = None,
) -> Tensor:
    """out[b, s, :] = x[b, s, :] + PE[p(b, s), :]; otherwise as embed_learned()."""
    with begin("embed_sinusoidal", x, context) as call:
        out = _describe(call, x, positions, offsets, offset, out)
        call.run(sinusoid.handle)
        return out
