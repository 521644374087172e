"""Norms and gated activations."""

from __future__ import annotations

from ._context import Context, begin, first, pair
from ._errors import InvalidArgument
from ._library import GLU_ACTIVATION, GLU_PACKING, NORM_CAST
from ._tensors import Tensor, shape_of


def rms_norm(
    x: Tensor,
    weight: Tensor | None = None,
    *,
    eps: float,
    weight_offset: float = 0.0,
    residual: Tensor | None = None,
    cast: str = "before_weight",
    out: Tensor | tuple[Tensor, Tensor] | None = None,
    context: Context | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """s = x + residual; out = s / sqrt(mean(s^2) + eps) * (weight + weight_offset), by row.

    x         [..., hidden], rank 1 to 4: f32, f16 or bf16
    weight    [hidden], f32, f16 or bf16; None: 1
    residual  shape and dtype of x
    cast      "before_weight" (Llama): rounded to the dtype, then multiplied; "after_weight" (Gemma)
    out       shape and dtype of x, may be x; with a residual the pair (out, x + residual)

    Returns out, or the pair with a residual.
    """
    with begin("rms_norm", x, context) as call:
        args = call.args
        args.eps = eps
        if weight_offset:
            args.weight_offset = weight_offset
        args.cast = NORM_CAST[cast]
        call.put("x", x)
        call.put("weight", weight)
        return _normalise(call, x, residual, out)


def layer_norm(
    x: Tensor,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    eps: float,
    weight_offset: float = 0.0,
    residual: Tensor | None = None,
    out: Tensor | tuple[Tensor, Tensor] | None = None,
    context: Context | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """s = x + residual; out = (s - mean(s)) / sqrt(var(s) + eps) * (weight + weight_offset) + bias,
    by row.

    x             [..., hidden], rank 1 to 4: f32, f16 or bf16
    weight, bias  [hidden], f32, f16 or bf16; None: 1 and 0
    residual      shape and dtype of x
    out           shape and dtype of x, may be x; with a residual the pair (out, x + residual)

    Returns out, or the pair with a residual.
    """
    with begin("layer_norm", x, context) as call:
        args = call.args
        args.eps = eps
        if weight_offset:
            args.weight_offset = weight_offset
        call.put("x", x)
        call.put("weight", weight)
        call.put("bias", bias)
        return _normalise(call, x, residual, out)


def _normalise(call, x, residual, out):
    """Runs a norm whose arguments but these are in place."""
    if residual is None:
        out = call.output("out", out, x)
        call.run()
        return out
    call.put("residual", residual)
    out, total = pair(out, "out, x + residual")
    out = call.output("out", out, x)
    total = call.output("residual_out", total, x)
    call.run()
    return out, total


def glu(
    gate: Tensor | None = None,
    up: Tensor | None = None,
    *,
    packed: Tensor | None = None,
    packing: str = "gate_first",
    activation: str = "silu",
    limit: float = 0.0,
    alpha: float = 0.0,
    up_offset: float = 0.0,
    zero_at_minus_infinity: bool = False,
    out: Tensor | None = None,
    context: Context | None = None,
) -> Tensor:
    """out = activation(gate) * (up + up_offset)

    gate, up  [..., hidden] each, or
    packed    [..., 2 * hidden], in the order of `packing`: "gate_first" (Phi-3), "up_first",
              "interleaved" (gpt-oss), "interleaved_up_first"
    activation
              "silu": gate / (1 + exp(-alpha * gate)), "gelu" (erf), "gelu_tanh", "relu", "relu2"
    limit     not 0: gate is clamped to at most limit, up to [-limit, limit]
    alpha     of silu; 0: 1
    zero_at_minus_infinity
              the activation of -Inf is 0, not NaN
    out       [..., hidden], may be gate or up

    Returns out.
    """
    model = first(gate, packed)
    if model is None:
        raise InvalidArgument("gate and packed are absent, expected one of them")
    with begin("glu", model, context) as call:
        args = call.args
        args.packing = GLU_PACKING[packing]
        args.activation = GLU_ACTIVATION[activation]
        args.zero_at_minus_infinity = zero_at_minus_infinity
        args.limit = limit
        args.alpha = alpha
        args.up_offset = up_offset
        call.put("gate", gate)
        call.put("up", up)
        call.put("packed", packed)
        shape = None
        if gate is None and out is None:
            *rows, width = shape_of(packed)
            shape = (*rows, width // 2)
        out = call.output("out", out, model, shape)
        call.run()
        return out
