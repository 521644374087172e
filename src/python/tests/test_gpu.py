"""torch's GPU tensors: streams, devices, errors. Skipped without a GPU that both libraries use."""

import numpy as np
import pytest
import references
from conftest import Exported, close

import ropewalk

torch = pytest.importorskip("torch", reason="torch is not installed")
probe = ropewalk.backend_probe("hip")
pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU"),
    pytest.mark.skipif(not probe.automatic, reason=f"ropewalk finds no GPU: {probe.why}"),
]


def test_operations():
    q, k, v = torch.randn(3, 2, 70, 4, 64).unbind()
    rope = ropewalk.Rope(ropewalk.RopeSpec(64), max_positions=128, device="cuda")
    inv_freq = ropewalk.rope_frequencies(rope.spec).inv_freq
    got = ropewalk.rope_apply(rope, q.cuda(), k.cuda())
    ids = np.tile(np.arange(70), (2, 1))
    expected = [references.rotated(x.numpy(), ids, inv_freq) for x in (q, k)]
    for x, reference in zip(got, expected):
        assert x.is_cuda
        close(x.cpu().numpy(), reference)
    out, lse = ropewalk.attention(*got, v.cuda(), pattern=ropewalk.Pattern(causal=True), lse=True)
    seen = references.visible(70, 70, causal=True)
    for x, reference in zip((out, lse), references.attention(*expected, v.numpy(), seen)):
        close(x.cpu().numpy(), reference, 1e-5)


@pytest.mark.skipif(torch.version.hip is not None, reason="AMD's units have no such products")
def test_f32_products():
    q, k, v = torch.randn(3, 1, 256, 4, 64, device="cuda").unbind()
    exact, split = (ropewalk.attention(q, k, v, f32_products=x) for x in ("exact", "split"))
    assert not torch.equal(exact, split)
    close(split.cpu().numpy(), exact.cpu().numpy(), 2e-5)


def test_the_current_stream_is_used():
    """Work that is queued before on torch's stream is awaited, and work on others is not."""
    x = torch.zeros(64, 4096, device="cuda")
    ropewalk.rms_norm(x, eps=1.0)
    for stream in (torch.cuda.Stream(), torch.cuda.default_stream()):
        with torch.cuda.stream(stream):
            a = torch.zeros(64, 4096, device="cuda")
            torch.cuda._sleep(100_000_000)
            a += 3
            out = ropewalk.rms_norm(a, eps=0.0)
            assert torch.equal(out, torch.ones_like(out))
            assert ropewalk.default_context(0).stream == stream.cuda_stream


def test_a_graph_is_captured():
    x = torch.randn(8, 128, device="cuda")
    out = ropewalk.rms_norm(x, eps=1e-5)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        ropewalk.rms_norm(x, eps=1e-5, out=out)
    x.copy_(torch.randn(8, 128))
    graph.replay()
    close(out.cpu().numpy(), references.normalised(x.cpu().numpy(), None, 1e-5))


def test_misplaced_tensors():
    x = torch.ones(2, 8, device="cuda")
    with pytest.raises(ropewalk.InvalidArgument, match="weight is on cpu, expected it on GPU 0"):
        ropewalk.rms_norm(x, torch.ones(8), eps=1e-5)
    with pytest.raises(ropewalk.InvalidArgument, match="weight is on cuda:0, expected it in host"):
        ropewalk.rms_norm(x.cpu(), x[0], eps=1e-5)
    with pytest.raises(ropewalk.InvalidArgument, match="out is in host memory"):
        ropewalk.rms_norm(x, eps=1e-5, out=np.ones((2, 8), np.float32))
    with pytest.raises(ropewalk.InvalidArgument, match="rope"):
        rope = ropewalk.Rope(ropewalk.RopeSpec(8), max_positions=4)
        ropewalk.rope_apply(rope, x[None, None])


def test_dlpack():
    x = torch.randn(4, 64, device="cuda")
    out = torch.empty_like(x)
    ropewalk.rms_norm(Exported(x), eps=1e-5, out=Exported(out))
    torch.cuda.synchronize()
    close(out.cpu().numpy(), references.normalised(x.cpu().numpy(), None, 1e-5))
    with pytest.raises(ropewalk.InvalidArgument, match="give out="):
        ropewalk.rms_norm(Exported(x), eps=1e-5)


def test_faults_are_raised_by_synchronize():
    rope = ropewalk.Rope(ropewalk.RopeSpec(8), max_positions=4, device="cuda:0")
    x = torch.ones(1, 2, 1, 8, device="cuda")
    ropewalk.rope_apply(rope, x, offset=3)
    with pytest.raises(ropewalk.OutOfRange) as caught:
        ropewalk.default_context(0).synchronize()
    assert caught.value.fault == ("position", "rope", 1, 4)
