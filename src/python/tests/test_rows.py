"""Norms, gated activations, position embeddings, microscaling formats."""

import math

import numpy as np
import pytest
from conftest import close
from references import layer_normalised, normalised

import ropewalk


@pytest.mark.parametrize("offset", [0, 1])
def test_rms_norm(kind, random, offset):
    x = random.standard_normal((3, 5, 32)).astype(np.float32)
    weight = random.standard_normal(32).astype(np.float16)
    got = ropewalk.rms_norm(kind(x), kind(weight), eps=1e-5, weight_offset=offset)
    close(kind.read(got), normalised(x, weight, 1e-5, offset))
    close(kind.read(ropewalk.rms_norm(kind(x), eps=1e-2)), normalised(x, None, 1e-2))


def test_rms_norm_with_residual_in_place(kind, random):
    x, residual = random.standard_normal((2, 4, 32)).astype(np.float32)
    a, b = kind(x), kind(residual)
    out, total = ropewalk.rms_norm(a, residual=b, eps=1e-5, out=(a, b))
    assert out is a and total is b
    close(kind.read(total), x + residual)
    close(kind.read(out), normalised(x + residual, None, 1e-5))
    out, total = ropewalk.rms_norm(kind(x), residual=kind(residual), eps=1e-5)
    close(kind.read(total), x + residual)
    close(kind.read(out), normalised(x + residual, None, 1e-5))


def test_rms_norm_casts():
    x = np.linspace(-3, 3, 64).astype(np.float16)[None]
    weight = np.linspace(1, 2, 64).astype(np.float32)
    rows = normalised(x, None, 1e-6)
    before = ropewalk.rms_norm(x, weight, eps=1e-6)
    close(before, rows.astype(np.float16).astype(np.float64) * weight, 5e-4)
    after = ropewalk.rms_norm(x, weight, eps=1e-6, cast="after_weight")
    np.testing.assert_array_equal(after, (rows * weight).astype(np.float16))
    assert (before != after).any()


@pytest.mark.parametrize("offset", [0, 1])
def test_layer_norm(kind, random, offset):
    x = random.standard_normal((3, 5, 32)).astype(np.float32) + 100
    weight = random.standard_normal(32).astype(np.float16)
    bias = random.standard_normal(32).astype(np.float32)
    got = ropewalk.layer_norm(kind(x), kind(weight), kind(bias), eps=1e-5, weight_offset=offset)
    close(kind.read(got), layer_normalised(x, weight, bias, 1e-5, offset))
    got = ropewalk.layer_norm(kind(x), bias=kind(bias), eps=1e-2)
    close(kind.read(got), layer_normalised(x, None, bias, 1e-2))


def test_layer_norm_with_residual_in_place(kind, random):
    x, residual = random.standard_normal((2, 4, 32)).astype(np.float32)
    a, b = kind(x), kind(residual)
    out, total = ropewalk.layer_norm(a, residual=b, eps=1e-5, out=(a, b))
    assert out is a and total is b
    close(kind.read(total), x + residual)
    close(kind.read(out), layer_normalised(x + residual, None, None, 1e-5))


@pytest.mark.parametrize(
    "packing", [None, "gate_first", "up_first", "interleaved", "interleaved_up_first"]
)
def test_glu(kind, random, packing):
    gate, up = 4 * random.standard_normal((2, 3, 10)).astype(np.float32)
    limited = np.minimum(gate, 2.0), np.clip(up, -2.0, 2.0)
    expected = limited[0] / (1 + np.exp(-1.702 * np.float64(limited[0]))) * (limited[1] + 1.0)
    options = {"limit": 2.0, "alpha": 1.702, "up_offset": 1.0}
    if packing is None:
        got = ropewalk.glu(kind(gate), kind(up), **options)
    else:
        pair = (up, gate) if "up_first" in packing else (gate, up)
        apart = "interleaved" in packing
        packed = np.stack(pair, -1).reshape(3, 20) if apart else np.concatenate(pair, -1)
        got = ropewalk.glu(packed=kind(packed), packing=packing, **options)
    close(kind.read(got), expected)


@pytest.mark.parametrize("activation", ["silu", "gelu", "gelu_tanh", "relu", "relu2"])
def test_glu_activations(kind, activation):
    gate, up = np.float32([[-3.0, -0.5, 0.0, 0.7, 2.0, -np.inf], [1.0, 2.0, -3.0, 0.5, 0.25, 1.0]])
    got = kind.read(ropewalk.glu(kind(gate), kind(up), activation=activation))
    x = np.float64(gate[:5])
    expected = {
        "silu": x / (1 + np.exp(-x)),
        "gelu": x * [0.5 * (1 + math.erf(y / math.sqrt(2))) for y in x],
        "gelu_tanh": x / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
        "relu": np.maximum(x, 0),
        "relu2": np.maximum(x, 0) ** 2,
    }[activation]
    close(got[:5], expected * up[:5])
    assert np.isnan(got[5]) != ("relu" in activation)
    options = {"activation": activation, "zero_at_minus_infinity": True}
    assert kind.read(ropewalk.glu(kind(gate), kind(up), **options))[5] == 0


def test_embed_learned(kind, random):
    x = random.standard_normal((2, 3, 8)).astype(np.float32)
    table = random.standard_normal((20, 8)).astype(np.float16)
    positions = random.integers(0, 10, (2, 3))
    offsets = np.array([1, 5])
    got = ropewalk.embed_learned(
        kind(x), kind(table), positions=kind(positions), offsets=kind(offsets), offset=2
    )
    close(kind.read(got), x + table[positions + offsets[:, None] + 2])


@pytest.mark.parametrize("layout", ["interleaved", "concatenated"])
def test_embed_sinusoidal(kind, random, layout):
    x = random.standard_normal((6, 8)).astype(np.float32)
    sinusoid = ropewalk.Sinusoid(8, 100, theta=500.0, layout=layout)
    angle = (np.arange(6)[:, None] + 9) * 500.0 ** (-np.arange(4) / 4)
    parts = np.sin(angle), np.cos(angle)
    together = layout == "interleaved"
    table = np.stack(parts, -1).reshape(6, 8) if together else np.concatenate(parts, -1)
    got = ropewalk.embed_sinusoidal(kind(x), sinusoid, offset=9)
    close(kind.read(got), x + table)


FORMATS = {  # bits of exponent and mantissa
    "mxfp4_e2m1": (2, 1),
    "mxfp6_e2m3": (2, 3),
    "mxfp6_e3m2": (3, 2),
    "mxfp8_e4m3": (4, 3),
    "mxfp8_e5m2": (5, 2),
}


def magnitudes(format):
    """The finite values of the codes without sign, in order."""
    exponent_bits, mantissa_bits = FORMATS[format]
    codes = np.arange(2 ** (exponent_bits + mantissa_bits))
    exponent, mantissa = codes >> mantissa_bits, codes % 2**mantissa_bits
    bias = 2 ** (exponent_bits - 1) - 1
    fraction = mantissa / 2.0**mantissa_bits
    values = np.where(
        exponent == 0, fraction * 2.0 ** (1 - bias), (1 + fraction) * 2.0 ** (exponent - bias)
    )
    return values[: {"mxfp8_e4m3": 127, "mxfp8_e5m2": 124}.get(format)]


def quantized(values, format):
    """The specification's section 6.3: codes and scales of blocks [..., 32]."""
    table = magnitudes(format)
    largest = np.abs(values).max(-1, keepdims=True).astype(np.float64)
    exponent = np.floor(np.log2(largest)) - np.floor(np.log2(table[-1]))
    scaled = np.abs(values) / 2.0**exponent
    above = np.searchsorted(table, scaled).clip(1, len(table) - 1)
    middle = (table[above - 1] + table[above]) / 2
    up = (scaled > middle) | ((scaled == middle) & (above % 2 == 0))
    sign = np.signbit(values) << sum(FORMATS[format])
    return np.where(up, above, above - 1) | sign, (exponent[..., 0] + 127).astype(np.uint8)


def packed(codes, format):
    bits = sum(FORMATS[format]) + 1
    spread = (codes[..., None] >> np.arange(bits)) & 1
    return np.packbits(spread.reshape(*codes.shape[:-1], -1), axis=-1, bitorder="little")


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("in_front", [False, True])
def test_mx(kind, random, format, in_front):
    values = (random.standard_normal((3, 2, 32)) * 100).astype(np.float32)
    codes, scales = quantized(values, format)
    blocks = packed(codes, format)
    if in_front:
        blocks = np.concatenate([scales[..., None], blocks], -1)
    assert ropewalk.mx_block_bytes(format, scale_in_front=in_front) == blocks.shape[-1]
    options = {"format": format, "scale_in_front": in_front}
    got = ropewalk.mx_quantize(kind(values), **options)
    pair = (got,) if in_front else got
    for x, expected in zip(pair, (blocks, scales)):
        np.testing.assert_array_equal(kind.read(x), expected)
    sign = np.where(codes >> sum(FORMATS[format]), -1, 1)
    exact = sign * magnitudes(format)[codes % 2 ** sum(FORMATS[format])]
    exact = exact * 2.0 ** (scales[..., None].astype(np.float64) - 127)
    back = ropewalk.mx_dequantize(kind(blocks), None if in_front else kind(scales), **options)
    np.testing.assert_array_equal(kind.read(back), exact)
    half = ropewalk.mx_dequantize(
        kind(blocks), None if in_front else kind(scales), dtype="f16", **options
    )
    np.testing.assert_array_equal(kind.read(half), exact.astype(np.float16))
