"""Position ids, computed on the device: i32 or i64, of the dtype of the first input if they are not
given by out=."""

from __future__ import annotations

from ._context import Context, begin, first
from ._errors import InvalidArgument
from ._library import MROPE_ADVANCE
from ._tensors import Tensor, shape_of


def positions_sequential(
    batch: int | None = None,
    seq: int | None = None,
    *,
    offsets: Tensor | None = None,
    offset: int = 0,
    dtype: str = "i64",
    like: Tensor | None = None,
    out: Tensor | None = None,
    context: Context | None = None,
) -> Tensor:
    """out[b, s] = s + offset + offsets[b]

    offsets  i32 or i64 [batch]
    like     a tensor whose library and device a new output has; None: those of offsets, else numpy
    out      i32 or i64 [batch, seq]; a new one has `dtype`

    Returns out.
    """
    model = first(out, like, offsets)
    if out is None and (batch is None or seq is None):
        raise InvalidArgument("batch and seq are required without out=")
    with begin("positions_sequential", model, context) as call:
        call.put("offsets", offsets)
        call.args.offset = offset
        out = call.output("out", out, model, (batch, seq), dtype)
        call.run()
        return out


def positions_left_padded(
    padding: Tensor,
    seq: int | None = None,
    *,
    padding_id: int = 0,
    out: Tensor | None = None,
    context: Context | None = None,
) -> Tensor:
    """out[b, s] = s - padding[b] where s >= padding[b], else padding_id

    padding  i32 or i64 [batch]
    out      i32 or i64 [batch, seq]

    Returns out.
    """
    with begin("positions_left_padded", padding, context) as call:
        call.put("padding", padding)
        call.args.padding_id = padding_id
        out = call.output("out", out, padding, _after(padding, seq, out))
        call.run()
        return out


def positions_packed(
    cu_seqlens: Tensor,
    tokens: int | None = None,
    *,
    out: Tensor | None = None,
    context: Context | None = None,
) -> Tensor:
    """out[t] = t - cu_seqlens[n] for cu_seqlens[n] <= t < cu_seqlens[n + 1]

    cu_seqlens  i32 or i64 [documents + 1], nondecreasing from 0 to tokens
    out         i32 or i64 [tokens]

    Returns out.
    """
    with begin("positions_packed", cu_seqlens, context) as call:
        call.put("cu_seqlens", cu_seqlens)
        if out is None and tokens is None:
            raise InvalidArgument("tokens is required without out=")
        out = call.output("out", out, cu_seqlens, (tokens,))
        call.run()
        return out


def positions_mrope(
    segments: Tensor,
    seq: int | None = None,
    *,
    steps: Tensor | None = None,
    advance: str = "grid",
    rope_delta: Tensor | bool = False,
    out: Tensor | None = None,
    context: Context | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """M-RoPE ids of text, images and videos (Qwen2-VL, Qwen2.5-VL, Qwen3-VL).

    segments    i32 or i64 [batch, num_segments, 3]: t, h, w after spatial merging; text: t, 0, 0
    steps       f32 [batch, num_segments]: ids between frames; None: 1
    advance     "grid" (transformers 5) or "largest" (transformers 4), the start after a grid
    rope_delta  True or an i32 or i64 [batch]: also writes the largest id + 1 - number of tokens
    out         i32 or i64 [3, batch, seq]

    Returns out, or the pair (out, rope_delta).
    """
    with begin("positions_mrope", segments, context) as call:
        call.put("segments", segments)
        call.put("steps", steps)
        call.args.advance = MROPE_ADVANCE[advance]
        shape = None
        if out is None or rope_delta is True:
            shape = (3, *_after(segments, seq, out, 1))
        out = call.output("out", out, segments, shape)
        if rope_delta is False:
            call.run()
            return out
        given = None if rope_delta is True else rope_delta
        given = call.output("rope_delta", given, segments, shape_of(segments)[:1])
        call.run()
        return out, given


def positions_glm(
    context_length: Tensor,
    mask_position: Tensor,
    seq: int | None = None,
    *,
    out: Tensor | None = None,
    context: Context | None = None,
) -> Tensor:
    """GLM's two ids of a token, for a context of c tokens with the mask at m:
    out[0, b, s] = s for s < c, else m; out[1, b, s] = 0 for s < c, else s - c + 1

    context_length, mask_position  i32 or i64 [batch]: c and m
    out                            i32 or i64 [2, batch, seq]

    Returns out.
    """
    with begin("positions_glm", context_length, context) as call:
        call.put("context_length", context_length)
        call.put("mask_position", mask_position)
        shape = None if out is not None else (2, *_after(context_length, seq, out))
        out = call.output("out", out, context_length, shape)
        call.run()
        return out


def _after(x: Tensor, seq: int | None, out, axes: int = 1) -> tuple[int, ...]:
    """[batch, seq] for an input whose first axis is the batch."""
    if seq is None and out is None:
        raise InvalidArgument("seq is required without out=")
    return (*shape_of(x)[:axes], seq or 0)
