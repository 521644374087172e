"""Microscaling formats: 32 elements of 4, 6 or 8 bits share one scale."""

from __future__ import annotations

from ._context import Context, begin, pair
from ._library import MX_FORMAT, MX_NIBBLES, ffi, lib
from ._tensors import Tensor, shape_of


def _layout(layout, format: str, nibbles: str, scale_in_front: bool) -> None:
    layout.format = MX_FORMAT[format]
    layout.nibbles = MX_NIBBLES[nibbles]
    layout.scale_in_front = scale_in_front


def mx_block_bytes(format: str, *, scale_in_front: bool = False) -> int:
    """The size of a block of 32 elements in bytes, with its scale if it is in front."""
    layout = ffi.new("rw_mx_layout *")
    _layout(layout, format, "low_first", scale_in_front)
    return lib.rw_mx_block_bytes(layout)


def mx_dequantize(
    blocks: Tensor,
    scales: Tensor | None = None,
    *,
    format: str,
    nibbles: str = "low_first",
    scale_in_front: bool = False,
    dtype: str = "f32",
    out: Tensor | None = None,
    context: Context | None = None,
) -> Tensor:
    """values = element * 2^(scale - 127)

    blocks          u8 [..., blocks, bytes], rank 2 to 4, with bytes = mx_block_bytes()
    scales          u8 [..., blocks]; None if they are in front of the codes (ggml)
    format          "mxfp4_e2m1", "mxfp6_e2m3", "mxfp6_e3m2", "mxfp8_e4m3" or "mxfp8_e5m2"
    nibbles         MXFP4: "low_first" (gpt-oss), "high_first" or "split" (ggml)
    dtype           "f32", "f16" or "bf16", of a new output
    out             f32, f16 or bf16 [..., blocks, 32]

    Returns out.
    """
    with begin("mx_dequantize", blocks, context) as call:
        _layout(call.args.layout, format, nibbles, scale_in_front)
        call.put("blocks", blocks)
        call.put("scales", scales)
        shape = (*shape_of(blocks)[:-1], lib.RW_MX_BLOCK)
        out = call.output("values", out, blocks, shape, dtype)
        call.run()
        return out


def mx_quantize(
    values: Tensor,
    *,
    format: str,
    nibbles: str = "low_first",
    scale_in_front: bool = False,
    out: Tensor | tuple[Tensor, Tensor] | None = None,
    context: Context | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """Rounds blocks of 32 values to a format, as in the specification's section 6.3.

    values  f32, f16 or bf16 [..., blocks, 32], rank 2 to 4
    out     the pair (blocks, scales), u8 [..., blocks, bytes] and [..., blocks]; if the scale is in
            front, blocks alone

    Returns out; otherwise as mx_dequantize().
    """
    with begin("mx_quantize", values, context) as call:
        _layout(call.args.layout, format, nibbles, scale_in_front)
        call.put("values", values)
        rows = shape_of(values)[:-1]
        shape = (*rows, lib.rw_mx_block_bytes(ffi.addressof(call.args.layout)))
        if scale_in_front:
            out = call.output("blocks", out, values, shape, "u8")
            call.run()
            return out
        blocks, scales = pair(out, "blocks, scales")
        blocks = call.output("blocks", blocks, values, shape, "u8")
        scales = call.output("scales", scales, values, rows, "u8")
        call.run()
        return blocks, scales
