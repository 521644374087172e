"""Attention scores step by step: products, scale, mask, softmax, statistics."""

from __future__ import annotations

from typing import NamedTuple

from ._bias import Alibi
from ._context import Call, Context, begin
from ._errors import InvalidArgument
from ._pattern import Pattern
from ._tensors import Tensor, shape_of


def put_score_terms(call: Call, softcap, mask, pattern, alibi, sinks) -> None:
    """The arguments that softmax and attention share."""
    args = call.args
    if softcap:
        args.softcap = softcap
    call.put("mask", mask)
    call.put("sinks", sinks)
    if pattern is not None:
        args.pattern = pattern.fill(call)
    if alibi is not None:
        args.alibi = alibi.fill(call)


def scale(
    x: Tensor,
    scale: float,
    *,
    out: Tensor | None = None,
    context: Context | None = None,
) -> Tensor:
    """out = x * scale

    x    rank 1 to 4; f32, f16 or bf16
    out  shape and dtype of x, may be x

    Returns out.
    """
    with begin("scale", x, context) as call:
        call.args.scale = scale
        call.put("x", x)
        out = call.output("out", out, x)
        call.run()
        return out


def mask_apply(
    x: Tensor,
    mask: Tensor | None = None,
    *,
    pattern: Pattern | None = None,
    out: Tensor | None = None,
    context: Context | None = None,
) -> Tensor:
    """out = x + mask, and -inf where the pattern hides.

    x     [seq_q, seq_k], [heads, seq_q, seq_k] or [batch, heads, seq_q, seq_k]; f32, f16 or bf16
    mask  f32, f16, bf16 or bool (u8), which hides where it is False (0); the trailing axes of x; an
          axis of 1, except the last, is broadcast
    out   shape and dtype of x, may be x

    Returns out.
    """
    with begin("mask_apply", x, context) as call:
        call.put("x", x)
        call.put("mask", mask)
        if pattern is not None:
            call.args.pattern = pattern.fill(call)
        out = call.output("out", out, x)
        call.run()
        return out


def softmax(
    x: Tensor,
    *,
    scale: float = 0.0,
    softcap: float = 0.0,
    mask: Tensor | None = None,
    pattern: Pattern | None = None,
    alibi: Alibi | None = None,
    sinks: Tensor | None = None,
    out: Tensor | None = None,
    context: Context | None = None,
) -> Tensor:
    """Softmax over the last axis of softcap * tanh(x * scale / softcap) + alibi + mask, over the
    keys that the pattern shows; hidden keys are not read and get 0.

    x        [seq_k], [seq_q, seq_k], [heads, seq_q, seq_k] or [batch, heads, seq_q, seq_k];
             f32, f16 or bf16
    scale    0: 1
    softcap  0: none
    mask     as in mask_apply()
    sinks    f32, f16 or bf16 [heads]: a logit of each head that enters the sum
    out      shape and dtype of x, may be x

    Returns out.
    """
    with begin("softmax", x, context) as call:
        call.args.scale = scale
        call.put("x", x)
        put_score_terms(call, softcap, mask, pattern, alibi, sinks)
        out = call.output("out", out, x)
        call.run()
        return out


def checked_shape(x: Tensor, name: str) -> tuple[int, ...]:
    """The shape of a tensor, whose last three lengths the caller needs."""
    shape = shape_of(x)
    if len(shape) < 3:
        raise InvalidArgument(f"{name} has rank {len(shape)}, expected 3 or 4")
    return shape


def qk_matmul(
    q: Tensor,
    k: Tensor,
    *,
    scale: float = 0.0,
    out: Tensor | None = None,
    context: Context | None = None,
) -> Tensor:
    """out[b, h, i, j] = scale * sum over c of q[b, i, h, c] * k[b, j, h / (heads / kv_heads), c]

    q      [batch, seq_q, heads, head_dim] or packed [seq_q, heads, head_dim]; f32, f16 or bf16
    k      [batch, seq_k, kv_heads, head_dim] or packed; q's dtype
    scale  0: 1
    out    f32, f16 or bf16 [batch, heads, seq_q, seq_k] or [heads, seq_q, seq_k]

    Returns out.
    """
    with begin("qk_matmul", q, context) as call:
        call.args.scale = scale
        call.put("q", q)
        call.put("k", k)
        shape = None
        if out is None:
            *batch, seq_q, heads, _ = checked_shape(q, "q")
            shape = (*batch, heads, seq_q, checked_shape(k, "k")[-3])
        out = call.output("out", out, q, shape)
        call.run()
        return out


def weighted_matmul(
    weights: Tensor,
    v: Tensor,
    *,
    out: Tensor | None = None,
    context: Context | None = None,
) -> Tensor:
    """out[b, i, h, c] = sum over j of weights[b, h, i, j] * v[b, j, h / (heads / kv_heads), c]

    weights  f32 or v's dtype [batch, heads, seq_q, seq_k] or [heads, seq_q, seq_k]
    v        f32, f16 or bf16 [batch, seq_k, kv_heads, head_dim] or packed
    out      f32, f16 or bf16 [batch, seq_q, heads, head_dim] or packed

    Returns out.
    """
    with begin("weighted_matmul", weights, context) as call:
        call.put("weights", weights)
        call.put("v", v)
        shape = None
        if out is None:
            *batch, heads, seq_q, _ = checked_shape(weights, "weights")
            shape = (*batch, seq_q, heads, checked_shape(v, "v")[-1])
        out = call.output("out", out, v, shape)
        call.run()
        return out


class ScoreStatistics(NamedTuple):
    """Statistics of the scores of every head, each [batch, heads]."""

    min: Tensor | None
    max: Tensor | None
    mean: Tensor | None
    num_nan: Tensor | None
    num_inf: Tensor | None


def score_statistics(
    scores: Tensor,
    *,
    out: ScoreStatistics | None = None,
    context: Context | None = None,
) -> ScoreStatistics:
    """Least, largest and mean of the finite scores of every head, and the numbers of NaN and Inf.

    scores  f32, f16 or bf16 [batch, heads, seq_q, seq_k]
    out     f32 min, max, mean and i32 or i64 num_nan, num_inf, each [batch, heads]; those that are
            None are not computed

    Returns out.
    """
    with begin("score_statistics", scores, context) as call:
        call.put("scores", scores)
        names = ScoreStatistics._fields
        if out is None:
            shape = shape_of(scores)[:2]
            kinds = ("f32", "f32", "f32", "i64", "i64")
            made = [
                call.output(name, None, scores, shape, kind) for name, kind in zip(names, kinds)
            ]
            out = ScoreStatistics(*made)
        else:
            for name, x in zip(names, out):
                call.put(name, x, True)
        call.run()
        return out
