import numpy as np
import pytest
from conftest import close, torch
from references import normalised, rotated

import ropewalk

SPEC = ropewalk.RopeSpec(16, theta=10000, max_position_embeddings=64)
INV_FREQ = 10000.0 ** (-np.arange(0, 16, 2) / 16)
IDS = np.tile(np.arange(5), (2, 1))


@pytest.fixture
def q(random):
    return random.standard_normal((2, 5, 4, 16)).astype(np.float32)


@pytest.fixture
def k(random):
    return random.standard_normal((2, 5, 2, 16)).astype(np.float32)


def test_frequencies():
    found = ropewalk.rope_frequencies(SPEC)
    close(found.inv_freq, INV_FREQ, 1e-12)
    assert found.attention_factor == 1
    linear = ropewalk.RopeSpec(16, type="linear", factor=4)
    close(ropewalk.rope_frequencies(linear).inv_freq, INV_FREQ / 4, 1e-12)
    yarn = ropewalk.RopeSpec(
        16, type="yarn", factor=4, original_max_position_embeddings=32, max_position_embeddings=128
    )
    assert ropewalk.rope_frequencies(yarn).attention_factor == pytest.approx(1.138629, abs=1e-6)


def test_regimes():
    numbers = [1.0] * 8
    spec = ropewalk.RopeSpec(
        16,
        type="longrope",
        short_factor=numbers,
        long_factor=[2.0] * 8,
        original_max_position_embeddings=32,
        max_position_embeddings=128,
    )
    assert [ropewalk.rope_regime(spec, length) for length in (0, 32, 33)] == [0, 0, 1]
    close(ropewalk.rope_frequencies(spec, 33).inv_freq, INV_FREQ / 2, 1e-12)


@pytest.mark.parametrize("name", ["short_factor", "long_factor", "frequency_factors"])
def test_lengths_of_factors_are_checked(name):
    arrays = {"short_factor": [1.0] * 8, "long_factor": [1.0] * 8, name: [1.0] * 7}
    spec = ropewalk.RopeSpec(
        16,
        type="longrope",
        original_max_position_embeddings=32,
        max_position_embeddings=128,
        **arrays,
    )
    with pytest.raises(ValueError, match=f"{name} has 7 numbers, expected 8"):
        ropewalk.rope_frequencies(spec)


@pytest.mark.parametrize("pairing", ["half", "interleaved"])
def test_apply(kind, q, k, pairing):
    spec = ropewalk.RopeSpec(16, pairing=pairing, rotary_start=2, rotary_dim=8)
    rope = ropewalk.Rope(spec, max_positions=64)
    inv_freq = 10000.0 ** (-np.arange(0, 8, 2) / 8)
    offsets = np.array([3, 40])
    got = ropewalk.rope_apply(rope, kind(q), kind(k), offsets=kind(offsets), offset=2)
    for x, out in zip((q, k), got):
        ids = IDS + offsets[:, None] + 2
        close(kind.read(out), rotated(x, ids, inv_freq, 2, pairing == "interleaved"))


def test_apply_in_place_and_inverse(kind, q):
    rope = ropewalk.Rope(SPEC)
    x = kind(q)
    positions = kind(IDS[:, ::-1].astype(np.int32))
    assert ropewalk.rope_apply(rope, x, positions=positions, out=x) is x
    close(kind.read(x), rotated(q, IDS[:, ::-1], INV_FREQ))
    ropewalk.rope_apply(rope, None, x, positions=positions, direction="inverse", out=x)
    close(kind.read(x), q)


def test_apply_packed_with_axes(random):
    spec = ropewalk.RopeSpec(16, axes="mrope_chunked", sections=(4, 2, 2))
    rope = ropewalk.Rope(spec, max_positions=64)
    x = random.standard_normal((5, 2, 16)).astype(np.float32)
    ids = random.integers(0, 60, (3, 5))
    axis = np.repeat([0, 1, 2], [4, 2, 2])
    angle = ids[axis].T[:, None, :] * INV_FREQ
    x1, x2 = x[..., :8].astype(np.float64), x[..., 8:].astype(np.float64)
    c, s = np.cos(angle), np.sin(angle)
    expected = np.concatenate([x1 * c - x2 * s, x2 * c + x1 * s], -1)
    close(ropewalk.rope_apply(rope, x, positions=ids), expected)


def test_rerotate(kind, q, k):
    target = ropewalk.RopeSpec(16, type="linear", factor=4, max_position_embeddings=64)
    source, target = ropewalk.Rope(SPEC), ropewalk.Rope(target)
    before = ropewalk.rope_apply(source, q, k, offset=7)
    got = ropewalk.rope_rerotate(source, target, *map(kind, before), offset=7)
    for x, out in zip((q, k), got):
        close(kind.read(out), rotated(x, IDS + 7, INV_FREQ / 4))


def test_absent_q_and_k(random):
    rope = ropewalk.Rope(ropewalk.RopeSpec(16), max_positions=8)
    with pytest.raises(ropewalk.InvalidArgument, match="q and k"):
        ropewalk.rope_apply(rope, None, None)
    with pytest.raises(ropewalk.InvalidArgument, match="q and k"):
        ropewalk.rope_rerotate(rope, rope, None, None)
    x = random.standard_normal((1, 2, 2, 16), dtype=np.float32)
    cache = ropewalk.KVCache(np.zeros_like(x), np.zeros_like(x))
    for q, k, name in ((None, x, "q"), (x, None, "k"), (None, None, "q")):
        with pytest.raises(ropewalk.InvalidArgument, match=name):
            ropewalk.rope_append(rope, q, k, x, cache)
    assert not cache.k.any() and not cache.v.any()


def test_a_position_out_of_range(q):
    rope = ropewalk.Rope(SPEC)
    with pytest.raises(ropewalk.OutOfRange, match="position id 64") as caught:
        ropewalk.rope_apply(rope, q, positions=np.array([0, 1, 64, 3, 4]))
    assert caught.value.status == "RW_OUT_OF_RANGE"
    assert caught.value.fault == ("position", "rope", 2, 64)
    with pytest.raises(ropewalk.InvalidArgument) as caught:
        ropewalk.rope_apply(rope, q[..., :8])
    assert caught.value.fault is None
    ropewalk.rope_apply(rope, q)  # reported once


@pytest.mark.parametrize("paged", [False, True])
def test_append(kind, random, q, k, paged):
    rope = ropewalk.Rope(SPEC)
    v = random.standard_normal((2, 5, 2, 8)).astype(np.float32)
    weight = random.standard_normal(16).astype(np.float32)
    offsets = np.array([3, 20], np.int32)
    if paged:
        table = np.array([[3, 0, 1], [5, 2, 4]], np.int64)
        caches = [np.zeros((6, 16, 2, width), np.float32) for width in (16, 8)]
    else:
        table = None
        caches = [np.zeros((2, 40, 2, width), np.float32) for width in (16, 8)]
    cache = ropewalk.KVCache(*map(kind, caches), kind(table))
    got = ropewalk.rope_append(
        rope,
        *map(kind, (q, k, v)),
        cache,
        offset=1,
        cache_offsets=kind(offsets),
        norm=ropewalk.HeadNorm(None, kind(weight), 1e-5, 1.0),
    )
    close(kind.read(got), rotated(q, IDS + 1, INV_FREQ))
    rows = rotated(normalised(k, weight, 1e-5, 1.0), IDS + 1, INV_FREQ), v
    for filled, new in zip(cache[:2], rows):
        filled = kind.read(filled)
        for b in range(2):
            at = offsets[b] + np.arange(5)
            found = filled[table[b, at // 16], at % 16] if paged else filled[b, at]
            close(found, new[b])
        assert np.count_nonzero(filled.any(axis=(-1, -2))) == 10


@pytest.mark.parametrize("name", ["float8_e4m3fn", "float8_e5m2"])
def test_kv_append_into_8_bits(random, name):
    ml_dtypes = pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed")
    dtype = getattr(ml_dtypes, name)
    k, v = 300 * random.standard_normal((2, 1, 40, 3, 16)).astype(np.float32)
    scale = np.array([0.5, 2.0, 64.0], np.float32)
    k_cache, v_cache = np.zeros((2, 1, 40, 3, 16), dtype)
    cache = ropewalk.KVCache(k_cache, v_cache, k_scale=scale)
    ropewalk.kv_append(k, v, cache)
    most = float(ml_dtypes.finfo(dtype).max)
    expected = np.clip(k / scale[:, None], -most, most).astype(dtype), np.clip(v, -most, most)
    np.testing.assert_array_equal(k_cache.view(np.uint8), expected[0].view(np.uint8))
    np.testing.assert_array_equal(v_cache, expected[1].astype(dtype))
    if torch is None:
        return
    caches = [torch.zeros(1, 40, 3, 16, dtype=getattr(torch, name)) for _ in range(2)]
    ropewalk.kv_append(
        torch.from_numpy(k),
        torch.from_numpy(v),
        ropewalk.KVCache(*caches, k_scale=torch.from_numpy(scale)),
    )
    np.testing.assert_array_equal(caches[0].view(torch.uint8).numpy(), k_cache.view(np.uint8))


def test_kv_append(kind, random, k):
    cache = ropewalk.KVCache(*(kind(np.zeros((2, 9, 2, 16), np.float32)) for _ in range(2)))
    offsets = np.array([0, 3])
    ropewalk.kv_append(kind(k), kind(-k), cache, offsets=kind(offsets), offset=1)
    for filled, sign in zip(cache[:2], (1, -1)):
        expected = np.zeros((2, 9, 2, 16))
        for b in range(2):
            expected[b, offsets[b] + 1 : offsets[b] + 6] = sign * k[b]
        np.testing.assert_array_equal(kind.read(filled), expected)
    with pytest.raises(ropewalk.OutOfRange) as caught:
        ropewalk.kv_append(kind(k), kind(k), cache, offset=5)
    assert caught.value.fault.kind == "cache_position"


def test_append_by_slots(kind, k):
    """Padding, k alone, and a page size that is not a power of two."""
    tokens = k.reshape(10, 2, 16)
    slots = np.array([5, -1, 0, 8, 1, -1, -1, 2, 3, 7])
    cache = ropewalk.KVCache(kind(np.zeros((3, 3, 2, 16), np.float32)), None)
    ropewalk.kv_append(kind(tokens), None, cache, slots=kind(slots))
    expected = np.zeros((9, 2, 16))
    expected[slots[slots >= 0]] = tokens[slots >= 0]
    np.testing.assert_array_equal(kind.read(cache.k).reshape(9, 2, 16), expected)
    with pytest.raises(ropewalk.OutOfRange) as caught:
        ropewalk.kv_append(kind(tokens), None, cache, slots=kind(slots + 1))
    assert caught.value.fault.kind == "slot"


def test_append_to_a_ring(kind, k):
    """Packed sequences of 3 and 5 tokens; the two last ones are padding."""
    tokens = k.reshape(10, 2, 16)
    caches = [kind(np.zeros((2, 4, 2, 16), np.float32)) for _ in range(2)]
    cache = ropewalk.KVCache(*caches, ring=4)
    bounds = kind(np.array([0, 3, 8]))
    ropewalk.kv_append(
        kind(tokens), kind(-tokens), cache, cu_seqlens=bounds, offsets=kind(np.array([6, 0]))
    )
    expected = np.zeros((2, 4, 2, 16))
    for b, first, end, offset in (0, 0, 3, 6), (1, 3, 8, 0):
        for n in range(first, end):
            expected[b, (offset + n - first) % 4] = tokens[n]
    np.testing.assert_array_equal(kind.read(cache.k), expected)
    np.testing.assert_array_equal(kind.read(cache.v), -expected)


def test_norms_without_rotation(kind, q, k):
    cache = ropewalk.KVCache(*(kind(np.zeros((2, 5, 2, 16), np.float32)) for _ in range(2)))
    norm = ropewalk.HeadNorm(kind(np.ones(16, np.float32)), None, 1e-5, normalize_v=True)
    got = ropewalk.rope_append(None, kind(q), kind(k), kind(k), cache, norm=norm)
    close(kind.read(got), normalised(q, None, 1e-5))
    close(kind.read(cache.k), k)
    close(kind.read(cache.v), normalised(k, None, 1e-5))
