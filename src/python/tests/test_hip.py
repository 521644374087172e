"""The HIP backend in the emulator, whose device memory is host memory. CI gives the folder of the
emulated module."""

import numpy as np
import pytest
import references
from conftest import close

import ropewalk

probe = ropewalk.backend_probe("hip")
pytestmark = pytest.mark.skipif(
    probe.platform != "emulated",
    reason="ROPEWALK_BACKEND_PATH is not a folder with an emulated HIP module",
)


@pytest.fixture(scope="module")
def context():
    return ropewalk.Context("hip")


def test_operations(kind, random, context):
    q, k, v = random.standard_normal((3, 1, 5, 2, 16)).astype(np.float32)
    rope = ropewalk.Rope(ropewalk.RopeSpec(16), max_positions=8, context=context)
    inv_freq = ropewalk.rope_frequencies(rope.spec).inv_freq
    got = ropewalk.rope_apply(rope, kind(q), kind(k), context=context)
    expected = [references.rotated(x, np.arange(5)[None], inv_freq) for x in (q, k)]
    for x, reference in zip(got, expected):
        close(kind.read(x), reference)
    pattern = ropewalk.Pattern(causal=True)
    out = ropewalk.attention(*got, kind(v), pattern=pattern, context=context)
    seen = references.visible(5, 5, causal=True)
    close(kind.read(out), references.attention(*expected, v, seen)[0])


def test_objects_of_another_device_are_refused(context):
    x = np.ones((1, 2, 1, 16), np.float32)
    rope = ropewalk.Rope(ropewalk.RopeSpec(16), max_positions=8)
    with pytest.raises(ropewalk.InvalidArgument, match="rope"):
        ropewalk.rope_apply(rope, x, context=context)


def test_faults_are_raised_by_the_call(context):
    x = np.ones((1, 2, 1, 16), np.float32)
    rope = ropewalk.Rope(ropewalk.RopeSpec(16), max_positions=8, context=context)
    with pytest.raises(ropewalk.OutOfRange) as caught:
        ropewalk.rope_apply(rope, x, offset=7, context=context)
    assert caught.value.fault == ("position", "rope", 1, 8)
    assert context.transfers.host_to_device > 0
