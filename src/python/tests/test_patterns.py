"""Patterns and position ids."""

import numpy as np
import pytest
from conftest import close
from references import visible

import ropewalk


def bits_of(seen):
    return np.packbits(seen, axis=-1, bitorder="little")


def test_parts_of_a_pattern(kind, random):
    """Each part alone, by mask and by bits."""
    cases = [
        ({"causal": True}, visible(5, 11, causal=True)),
        ({"left": 2, "right": 1}, visible(5, 11, left=2, right=1)),
        ({"causal": True, "prefix_length": 9}, visible(5, 11, causal=True, prefix=9)),
        ({"key_end": kind(np.array([7]))}, visible(5, 11, key_end=7)),
        ({"key_begin": kind(np.array([7]))}, ~visible(5, 11, key_end=7)),
        ({"prefix": kind(np.array([9])), "causal": True}, visible(5, 11, True, prefix=9)),
    ]
    random_seen = random.random((5, 11)) < 0.5
    mask = np.where(random_seen, 0, -np.inf).astype(np.float32)
    cases.append(({"mask": kind(mask)}, random_seen))
    cases.append(({"mask": kind(random_seen)}, random_seen))
    cases.append(({"bits": kind(bits_of(random_seen))}, random_seen))
    cases.append(
        ({"function": lambda b, i, j: (i + j) % 3 == 0}, np.add.outer(range(5), range(11)) % 3 == 0)
    )
    for arguments, seen in cases:
        pattern = ropewalk.Pattern(**arguments)
        model = kind(np.zeros(1, np.float32))
        filled = ropewalk.pattern_fill(pattern, 5, 11, batch=1, like=model)
        np.testing.assert_array_equal(kind.read(filled)[0] == 0, seen)
        bits = ropewalk.pattern_fill_bits(pattern, 5, 11, batch=1, like=model)
        np.testing.assert_array_equal(kind.read(bits)[0], bits_of(seen))
        np.testing.assert_array_equal(ropewalk.pattern_bake(pattern, 5, 11)[0], bits_of(seen))
        for i, j in ((0, 0), (4, 10), (2, 8)):
            assert ropewalk.pattern_visible(pattern, 5, 11, i, j) == seen[i, j]


def test_globals_and_alignment(kind):
    bits = ropewalk.pattern_globals([0, 4], 6)
    np.testing.assert_array_equal(bits, [0b10001])
    pattern = ropewalk.Pattern(left=0, right=0, globals=kind(bits), alignment="top_left")
    seen = np.eye(3, 6, dtype=bool)
    seen[:, [0, 4]] = True
    seen[0] = True
    model = kind(np.zeros(1, np.float32))
    got = ropewalk.pattern_fill(pattern, 3, 6, dtype="f16", like=model)
    np.testing.assert_array_equal(kind.read(got) == 0, seen)
    with pytest.raises(ropewalk.InvalidArgument):
        ropewalk.pattern_globals([6], 6)


def test_tiles():
    pattern = ropewalk.Pattern(causal=True)
    tiles = [
        ropewalk.pattern_ask_tile(pattern, 8, 8, (4, 6), keys) for keys in ((0, 4), (4, 6), (6, 8))
    ]
    assert tiles == ["all", "some", "none"]


def test_contents_are_read_at_the_call():
    lengths = np.array([3])
    pattern = ropewalk.Pattern(key_end=lengths)
    for length in (3, 5):
        lengths[0] = length
        filled = ropewalk.pattern_fill(pattern, 1, 6, batch=1)
        assert (filled == 0).sum() == length


def test_invalid_patterns():
    with pytest.raises(ropewalk.InvalidArgument, match="bottom_right"):
        ropewalk.Pattern(alignment="left")
    with pytest.raises(ropewalk.InvalidArgument):
        ropewalk.pattern_fill(ropewalk.Pattern(left=-1), 2, 2)
    with pytest.raises(ropewalk.InvalidArgument, match="out="):
        ropewalk.pattern_fill(ropewalk.Pattern(), 2)
    with pytest.raises(ropewalk.OutOfRange, match="bound 9"):
        ropewalk.pattern_fill(ropewalk.Pattern(key_end=np.array([9])), 2, 4, batch=1)
    with pytest.raises(ropewalk.OutOfRange, match="9"):
        ropewalk.pattern_visible(ropewalk.Pattern(key_end=np.array([9])), 2, 4, 0, 0)


def test_functions_that_call_the_context_they_run_on():
    context = ropewalk.Context("cpu", num_threads=1)
    x = np.ones((2, 8), np.float32)

    def norm(*_):
        return ropewalk.rms_norm(x, eps=1e-5, context=context)[0, 0] > 0

    pattern = ropewalk.Pattern(function=norm)
    calls = [
        lambda: ropewalk.pattern_fill(pattern, 3, 4, context=context),
        lambda: ropewalk.pattern_positions(4, "custom", batch=1, function=norm, context=context),
    ]
    for call in calls:
        with pytest.raises(ropewalk.InvalidArgument, match="the context is in use"):
            call()
    assert not ropewalk.pattern_fill(pattern, 3, 4).any()  # runs on another context
    assert norm()


def test_errors_of_functions_are_raised():
    def broken(*arguments):
        raise KeyError("broken")

    pattern = ropewalk.Pattern(function=broken)
    for call in (
        lambda: ropewalk.pattern_fill(pattern, 2, 2),
        lambda: ropewalk.pattern_bake(pattern, 2, 2),
        lambda: ropewalk.pattern_positions(4, "custom", batch=1, function=broken),
    ):
        with pytest.raises(KeyError, match="broken"):
            call()
    assert (ropewalk.pattern_fill(ropewalk.Pattern(), 2, 2) == 0).all()


def test_pattern_positions(kind):
    s = np.arange(10)
    model = kind(np.zeros(1, np.float32))
    local = ropewalk.pattern_positions(10, "local", window=4, like=model)
    np.testing.assert_array_equal(kind.read(local), np.where(s >= 4, s - 4, 0))
    bits = ropewalk.pattern_globals([5], 10)
    got = ropewalk.pattern_positions(10, "global_local", window=3, globals=kind(bits), dtype="i32")
    np.testing.assert_array_equal(kind.read(got), np.where(s == 5, s, s % 3))
    table = kind((s * 7)[None])
    got = ropewalk.pattern_positions(4, "custom", batch=1, table=table, offset=2)
    np.testing.assert_array_equal(kind.read(got), [[14, 21, 28, 35]])
    got = ropewalk.pattern_positions(4, "custom", batch=2, function=lambda b, pos: 10 * b + pos)
    np.testing.assert_array_equal(got, [[0, 1, 2, 3], [10, 11, 12, 13]])


def test_sequential(kind):
    offsets = kind(np.array([3, 10], np.int32))
    got = ropewalk.positions_sequential(2, 4, offsets=offsets, offset=1)
    np.testing.assert_array_equal(kind.read(got), np.arange(4) + [[4], [11]])
    np.testing.assert_array_equal(ropewalk.positions_sequential(1, 3), [[0, 1, 2]])
    out = kind(np.zeros((2, 3), np.int32))
    assert ropewalk.positions_sequential(out=out) is out
    np.testing.assert_array_equal(kind.read(out), [[0, 1, 2]] * 2)


def test_left_padded(kind):
    got = ropewalk.positions_left_padded(kind(np.array([0, 2])), 4, padding_id=-1)
    np.testing.assert_array_equal(kind.read(got), [[0, 1, 2, 3], [-1, -1, 0, 1]])
    with pytest.raises(ropewalk.OutOfRange) as caught:
        ropewalk.positions_left_padded(kind(np.array([0, -2])), 4)
    assert caught.value.fault.id == -2


def test_packed(kind):
    got = ropewalk.positions_packed(kind(np.array([0, 3, 3, 5])), 5)
    np.testing.assert_array_equal(kind.read(got), [0, 1, 2, 0, 1])


def test_mrope(kind):
    """Two tokens of text, a grid of 2 x 2 x 3, then text."""
    segments = kind(np.array([[[2, 0, 0], [2, 2, 3]]]))
    ids, delta = ropewalk.positions_mrope(segments, 16, rope_delta=True)
    grid = np.indices((2, 2, 3)).reshape(3, 12) + 2
    text = np.tile([5, 6], (3, 1))
    expected = np.concatenate([np.tile([0, 1], (3, 1)), grid, text], 1)
    np.testing.assert_array_equal(kind.read(ids)[:, 0], expected)
    assert kind.read(delta) == [5 - 14]
    steps = kind(np.array([[1.0, 2.0]], np.float32))
    ids = ropewalk.positions_mrope(segments, 16, steps=steps, advance="largest")
    np.testing.assert_array_equal(kind.read(ids)[0, 0, 2:14], np.repeat([2, 4], 6))


def test_glm(kind):
    got = ropewalk.positions_glm(kind(np.array([3])), kind(np.array([1])), 6)
    expected = [[[0, 1, 2, 1, 1, 1]], [[0, 0, 0, 1, 2, 3]]]
    np.testing.assert_array_equal(kind.read(got), expected)


def test_bake_of_a_batch():
    lengths = np.array([2, 3])
    got = ropewalk.pattern_bake(ropewalk.Pattern(key_end=lengths), 1, 4, batch=2)
    close(got, [[[3]], [[7]]])
