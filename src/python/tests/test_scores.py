"""Scores step by step, attention in one call, and the merge of its parts."""

import math

import numpy as np
import pytest
import references
from conftest import close

import ropewalk


@pytest.fixture
def scores(random):
    return (3 * random.standard_normal((2, 4, 5, 9))).astype(np.float32)


@pytest.fixture
def qkv(random):
    """2 sequences, 4 heads on 2 kv heads, 5 queries, 9 keys, widths 16 and 8."""
    shapes = (2, 5, 4, 16), (2, 9, 2, 16), (2, 9, 2, 8)
    return [random.standard_normal(shape).astype(np.float32) for shape in shapes]


def distances(alignment=4):
    return np.arange(9)[None, :] - (np.arange(5)[:, None] + alignment)


def test_scale(kind, scores):
    close(kind.read(ropewalk.scale(kind(scores), -0.5)), -0.5 * scores)


def test_bool_mask(kind, random, scores):
    mask = random.random((5, 9)) < 0.5
    expected = np.where(mask, scores.astype(np.float64), -np.inf)
    close(kind.read(ropewalk.mask_apply(kind(scores), kind(mask))), expected)
    close(kind.read(ropewalk.mask_apply(kind(scores), kind(mask.astype(np.uint8)))), expected)


def test_mask_apply(kind, random, scores):
    mask = random.standard_normal((2, 1, 5, 9)).astype(np.float32)
    got = ropewalk.mask_apply(kind(scores), kind(mask), pattern=ropewalk.Pattern(causal=True))
    seen = references.visible(5, 9, causal=True)
    close(kind.read(got), np.where(seen, scores.astype(np.float64) + mask, -np.inf))


def test_softmax(kind, random, scores):
    sinks = random.standard_normal(4).astype(np.float32)
    slopes = random.random(4).astype(np.float32)
    mask = random.standard_normal((5, 9)).astype(np.float32)
    pattern = ropewalk.Pattern(causal=True, left=3)
    x = kind(scores)
    got = ropewalk.softmax(
        x,
        scale=0.5,
        softcap=2.0,
        mask=kind(mask),
        pattern=pattern,
        alibi=ropewalk.Alibi(kind(slopes)),
        sinks=kind(sinks),
        out=x,
    )
    assert got is x
    terms = 2 * np.tanh(scores.astype(np.float64) * 0.5 / 2) + mask
    terms = terms - slopes[:, None, None] * np.abs(distances())
    seen = references.visible(5, 9, causal=True, left=3)
    close(kind.read(got), references.softmax(terms, seen, sinks)[0])


def test_products(kind, qkv):
    q, k, v = qkv
    got = ropewalk.qk_matmul(kind(q), kind(k), scale=0.25)
    products = references.products(q, k) * 0.25
    close(kind.read(got), products)
    weights = references.softmax(products)[0].astype(np.float32)
    close(
        kind.read(ropewalk.weighted_matmul(kind(weights), kind(v))), references.weighted(weights, v)
    )
    packed = ropewalk.qk_matmul(kind(q[0]), kind(k[0]))
    close(kind.read(packed), references.products(q[:1], k[:1])[0])


def test_score_statistics(kind, scores):
    scores[0, 1, 2, 3:5] = np.nan
    scores[1, 2, 0, :] = np.inf
    got = ropewalk.score_statistics(kind(scores))
    finite = np.where(np.isfinite(scores), scores, np.nan).reshape(2, 4, -1)
    close(kind.read(got.min), np.nanmin(finite, -1))
    close(kind.read(got.max), np.nanmax(finite, -1))
    close(kind.read(got.mean), np.nanmean(finite, -1))
    np.testing.assert_array_equal(kind.read(got.num_nan), np.isnan(scores).sum((2, 3)))
    np.testing.assert_array_equal(kind.read(got.num_inf), np.isinf(scores).sum((2, 3)))
    only = ropewalk.ScoreStatistics(None, kind(np.zeros((2, 4), np.float32)), None, None, None)
    assert ropewalk.score_statistics(kind(scores), out=only) is only
    close(kind.read(only.max), np.nanmax(finite, -1))


def test_attention(kind, random, qkv):
    sinks = random.standard_normal(4).astype(np.float32)
    slopes = random.random(4).astype(np.float32)
    mask = random.standard_normal((2, 1, 5, 9)).astype(np.float32)
    out, lse = ropewalk.attention(
        *map(kind, qkv),
        scale=0.5,
        softcap=3.0,
        mask=kind(mask),
        alibi=ropewalk.Alibi(kind(slopes), signed=True),
        sinks=kind(sinks),
        pattern=ropewalk.Pattern(causal=True, left=2),
        lse=True,
    )
    seen = references.visible(5, 9, causal=True, left=2)
    bias = mask + slopes[:, None, None] * distances()
    expected = references.attention(*qkv, seen, bias, 0.5, 3.0, sinks)
    close(kind.read(out), expected[0])
    close(kind.read(lse), expected[1])


def test_attention_defaults_and_packed(kind, qkv):
    close(kind.read(ropewalk.attention(*map(kind, qkv))), references.attention(*qkv)[0])
    out = ropewalk.attention(*map(kind, qkv), lse=None, workspace=None)
    close(kind.read(out), references.attention(*qkv)[0])
    lengths = np.array([0, 2, 5], np.int32)
    q, k, v = qkv[0][0], qkv[1][0, :5], qkv[2][0, :5]
    out, lse = ropewalk.attention(
        kind(q), kind(k), kind(v), pattern=ropewalk.Pattern(cu_seqlens=kind(lengths)), lse=True
    )
    for begin, end in ((0, 2), (2, 5)):
        part = references.attention(*(x[None, begin:end] for x in (q, k, v)))
        close(kind.read(out)[begin:end], part[0][0])
        close(kind.read(lse)[:, begin:end], part[1][0])


def test_attention_on_pages(kind, random):
    q = random.standard_normal((2, 1, 4, 16)).astype(np.float32)
    k, v = (random.standard_normal((6, 16, 2, width)).astype(np.float32) for width in (16, 8))
    table = np.array([[4, 1, 5], [0, 2, 3]], np.int32)
    lengths = np.array([37, 16], np.int32)
    pattern = ropewalk.Pattern(key_end=kind(lengths))
    pages = [kind(k), kind(v)]
    got = ropewalk.attention(kind(q), *pages, block_table=kind(table), pattern=pattern)
    for b in range(2):
        rows = [x[table[b]].reshape(1, 48, 2, -1)[:, : lengths[b]] for x in (k, v)]
        close(kind.read(got)[b : b + 1], references.attention(q[b : b + 1], *rows)[0])
    table[1, 0] = 6
    with pytest.raises(ropewalk.OutOfRange) as caught:
        ropewalk.attention(kind(q), *pages, block_table=kind(table), pattern=pattern)
    assert caught.value.fault[0] == "page" and caught.value.fault[3] == 6


def test_f32_products(kind, random):
    q, k, v = (kind(random.standard_normal((1, 40, 2, 16)).astype(np.float32)) for _ in range(3))
    exact = kind.read(ropewalk.attention(q, k, v))
    assert (kind.read(ropewalk.attention(q, k, v, f32_products="exact")) == exact).all()
    close(kind.read(ropewalk.attention(q, k, v, f32_products="split")), exact, 2e-5)
    with pytest.raises(ropewalk.InvalidArgument, match="'exact', 'split'"):
        ropewalk.attention(q, k, v, f32_products="double")


@pytest.mark.parametrize("options", ({}, {"max_seq_q": 3, "batch_invariant": True}))
def test_ragged_attention(kind, random, options):
    q_bounds, k_bounds = np.array([0, 3, 3, 4]), np.array([1, 8, 8, 10], np.int32)
    q = random.standard_normal((6, 4, 16)).astype(np.float32)  # two tokens are padding
    k, v = (random.standard_normal((10, 2, width)).astype(np.float32) for width in (16, 8))
    given = kind(np.full((6, 4, 8), 7, np.float32))
    out, lse = ropewalk.attention(
        *map(kind, (q, k, v)),
        cu_seqlens_q=kind(q_bounds),
        cu_seqlens_k=kind(k_bounds),
        pattern=ropewalk.Pattern(causal=True),
        out=given,
        lse=True,
        **options,
    )
    for b in (0, 2):
        rows, keys = slice(*q_bounds[b : b + 2]), slice(*k_bounds[b : b + 2])
        seen = references.visible(rows.stop - rows.start, keys.stop - keys.start, causal=True)
        part = references.attention(q[None, rows], k[None, keys], v[None, keys], seen)
        close(kind.read(out)[rows], part[0][0])
        close(kind.read(lse)[:, rows], part[1][0])
    assert (kind.read(out)[4:] == 7).all()


def test_ragged_attention_on_pages(kind, random):
    q = random.standard_normal((5, 4, 16)).astype(np.float32)
    k, v = (random.standard_normal((6, 16, 2, width)).astype(np.float32) for width in (16, 8))
    table = np.array([[4, 1, 5], [0, 2, 3]], np.int32)
    bounds, lengths = np.array([0, 4, 5], np.int32), np.array([37, 16], np.int32)
    pattern = ropewalk.Pattern(causal=True, alignment="key_end", key_end=kind(lengths))
    options = {"block_table": kind(table), "pattern": pattern}
    arrays = [kind(x) for x in (q, k, v)]
    got = kind.read(ropewalk.attention(*arrays, cu_seqlens_q=kind(bounds), **options))
    for b in range(2):
        rows = slice(*bounds[b : b + 2])
        keys = [x[table[b]].reshape(1, 48, 2, -1)[:, : lengths[b]] for x in (k, v)]
        seen = references.visible(rows.stop - rows.start, lengths[b], causal=True)
        close(got[rows], references.attention(q[None, rows], *keys, seen)[0][0])
    bounds[1] = 6
    with pytest.raises(ropewalk.OutOfRange) as caught:
        ropewalk.attention(*arrays, cu_seqlens_q=kind(bounds), **options)
    assert caught.value.fault[3] == 6


@pytest.mark.parametrize("name", ["float8_e4m3fn", "float8_e5m2"])
def test_attention_on_8_bits(random, qkv, name):
    ml_dtypes = pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed")
    dtype = getattr(ml_dtypes, name)
    k, v = (x.astype(dtype) for x in qkv[1:])
    k_scale, v_scale = np.array([0.5, 1.5], np.float32), np.array([3.0], np.float32)
    scales = {"k_scale": k_scale, "v_scale": v_scale}
    numbers = k.astype(np.float32) * k_scale[:, None], v.astype(np.float32) * v_scale
    expected = references.attention(qkv[0], *numbers)[0]
    close(ropewalk.attention(qkv[0], k, v, **scales), expected)
    try:
        import torch
    except ImportError:
        return
    from ropewalk import torch as operators

    arrays = [torch.from_numpy(x.view(np.uint8)).view(getattr(torch, name)) for x in (k, v)]
    scales = {key: torch.from_numpy(x) for key, x in scales.items()}
    close(operators.attention(torch.from_numpy(qkv[0]), *arrays, **scales).numpy(), expected)


def test_workspace(kind, random):
    context = ropewalk.Context("cpu", num_threads=2)
    q = random.standard_normal((1, 1, 2, 16)).astype(np.float32)
    k, v = random.standard_normal((2, 1, 4096, 1, 16)).astype(np.float32)
    arguments = [kind(x) for x in (q, k, v)]
    size = ropewalk.attention_workspace(*arguments, context=context)
    assert size > 0
    expected = references.attention(q, k, v)[0]
    given = kind(np.zeros(size + 16, np.uint8))
    # A new array is aligned to 16 bytes.
    for workspace in (True, False, given):
        got = ropewalk.attention(*arguments, workspace=workspace, context=context)
        close(kind.read(got), expected, 1e-5)
    assert kind.read(given).any()
    small = kind(np.zeros(size - 16, np.uint8))
    with pytest.raises(ropewalk.InvalidArgument, match="workspace"):
        ropewalk.attention(*arguments, workspace=small, context=context)


def test_attention_merge(kind, qkv):
    q, k, v = qkv
    parts = [
        ropewalk.attention(kind(q), kind(k[:, keys]), kind(v[:, keys]), lse=True)
        for keys in (slice(0, 3), slice(3, 9))
    ]
    expected = references.attention(q, k, v)
    for out in (None, parts[0]):
        got = ropewalk.attention_merge(*parts, out=out)
        for x, reference in zip(got, expected):
            close(kind.read(x), reference)
    assert got[0] is parts[0][0]


def slope(head, heads):
    power = 2 ** math.floor(math.log2(heads))
    if head < power:
        return 2.0 ** (-8 * (head + 1) / power)
    return 2.0 ** (-4 * (2 * (head - power) + 1) / power)


def test_alibi(kind):
    slopes = np.array([slope(head, 12) for head in range(12)])
    close(ropewalk.alibi_slopes(12), slopes)
    part = ropewalk.alibi_slopes(
        4, first_head=6, total_heads=12, like=kind(np.zeros(1, np.float32))
    )
    close(kind.read(part), slopes[6:10])
    alibi = ropewalk.Alibi(part, alignment="top_left")
    got = ropewalk.alibi_bias(alibi, 5, 9)
    close(kind.read(got), -slopes[6:10, None, None] * np.abs(distances(0)))


def bucket(r, causal, buckets=32, largest=128):
    """transformers:src/transformers/models/t5/modeling_t5.py, _relative_position_bucket."""
    n, half, base = (max(-r, 0), buckets, 0) if causal else (abs(r), buckets // 2, 0)
    if not causal and r > 0:
        base = half
    exact = half // 2
    if n < exact:
        return base + n
    ratio = math.log(n / exact) / math.log(largest / exact)
    return base + min(exact + int(ratio * (half - exact) + 1e-9), half - 1)


@pytest.mark.parametrize("causal", [False, True])
def test_t5(kind, random, causal):
    t5 = ropewalk.T5(causal=causal)
    for r in range(-300, 301):
        assert t5.bucket(r) == bucket(r, causal)
    table = random.standard_normal((32, 4)).astype(np.float16)
    got = kind.read(ropewalk.t5_bias(t5, kind(table), 5, 9))
    buckets = np.vectorize(lambda r: bucket(r, causal))(distances())
    np.testing.assert_array_equal(got, table[buckets].transpose(2, 0, 1))
