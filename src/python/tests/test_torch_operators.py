"""ropewalk.torch: operators for graphs."""

import subprocess
import sys

import numpy as np
import pytest
import references
from conftest import close

import ropewalk

torch = pytest.importorskip("torch", reason="torch is not installed")
operators = pytest.importorskip("ropewalk.torch")


@pytest.fixture
def qkv():
    torch.manual_seed(3)
    shapes = (2, 5, 4, 16), (2, 9, 2, 16), (2, 9, 2, 8)
    return [torch.randn(shape) for shape in shapes]


@pytest.fixture(scope="module")
def rope():
    return ropewalk.Rope(ropewalk.RopeSpec(16), max_positions=64)


def check(name, *arguments):
    torch.library.opcheck(getattr(torch.ops.ropewalk, name).default, arguments)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_opcheck_rms_norm(dtype):
    x = torch.randn(3, 5, 32, dtype=dtype)
    check("rms_norm", x.transpose(0, 1), torch.ones(32, dtype=dtype), 1e-5, 0.0, "after_weight")
    check("rms_norm", x, None, 1e-5, 0.0, "before_weight")
    check("rms_norm_residual", x, torch.randn_like(x), None, 1e-5, 0.0, "before_weight")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_opcheck_layer_norm(dtype):
    x, weight = torch.randn(3, 5, 32, dtype=dtype), torch.ones(32, dtype=dtype)
    check("layer_norm", x.transpose(0, 1), weight, None, 1e-5, 1.0)
    check("layer_norm", x, None, weight, 1e-5, 0.0)
    check("layer_norm_residual", x, torch.randn_like(x), weight, weight, 1e-5, 0.0)


def test_opcheck_rope_apply(rope, qkv):
    ids = torch.arange(5)
    check("rope_apply", rope.settings, [qkv[0]], ids, None, 3, "forward")
    q, k = qkv[0], qkv[0][:, :, :2].transpose(1, 2).contiguous().transpose(1, 2)
    check("rope_apply", rope.settings, [q, k], None, torch.tensor([1, 7]), 0, "inverse")


def test_opcheck_glu():
    gate, up = torch.randn(2, 3, 8)
    check("glu", gate, up, None, "gate_first", "gelu", 0.0, 0.0, 0.0, True)
    check("glu", None, None, torch.randn(3, 16), "interleaved", "silu", 7.0, 1.702, 1.0, False)


def test_opcheck_cache(rope, qkv):
    q = qkv[0]
    k, v = torch.randn(2, 2, 5, 2, 16)
    cache = torch.zeros(2, 9, 2, 16), torch.zeros(2, 9, 2, 16), None
    check("kv_append", k, v, *cache, torch.tensor([1, 3]), 1)
    norm = torch.ones(16), None, 1e-5, 0.0, "before_weight"
    check("rope_append", rope.settings, q, k, v, *cache, None, None, 7, None, 2, *norm)


def test_opcheck_attention(qkv):
    pattern = ropewalk.Pattern(causal=True, left=2).settings
    mask, lengths = torch.randn(5, 9), torch.tensor([4, 9])
    check("attention", *qkv, [], "", None, None, 0.0, 0.0, 0, False, "exact", False)
    named = [mask, lengths], "mask,pattern.key_end"
    check("attention", *qkv, *named, pattern, None, 0.5, 3.0, 0, False, "split", True)


def test_functions_compute_the_same(rope, qkv):
    q, k, v = qkv
    close(operators.rms_norm(q, eps=1e-5).numpy(), references.normalised(q.numpy(), None, 1e-5))
    out, total = operators.rms_norm(q, residual=q, eps=1e-5)
    assert torch.equal(total, 2 * q)
    expected = torch.nn.functional.layer_norm(q, (16,), q[0, 0, 0], q[0, 0, 1])
    close(operators.layer_norm(q, q[0, 0, 0], q[0, 0, 1], eps=1e-5).numpy(), expected.numpy())
    out, total = operators.layer_norm(q, residual=q, eps=4e-5)
    close(out.numpy(), torch.nn.functional.layer_norm(q, (16,)).numpy())
    assert torch.equal(total, 2 * q)
    assert torch.equal(
        operators.rope_apply(rope, q, offset=2), ropewalk.rope_apply(rope, q, offset=2)
    )
    options = {
        "pattern": ropewalk.Pattern(causal=True, key_end=torch.tensor([8, 9])),
        "alibi": ropewalk.Alibi(torch.rand(4), signed=True),
        "mask": torch.randn(5, 9),
        "sinks": torch.randn(4),
        "scale": 0.5,
        "softcap": 3.0,
        "lse": True,
    }
    for got, expected in zip(
        operators.attention(*qkv, **options), ropewalk.attention(*qkv, **options)
    ):
        assert torch.equal(got, expected)
    k, v = torch.randn(2, 2, 5, 2, 16)
    lse, norm = torch.randn(2, 2, 5), ropewalk.HeadNorm(torch.rand(16), None, 1e-5)
    caches = []
    for package in (operators, ropewalk):
        cache = ropewalk.KVCache(torch.zeros(2, 20, 2, 16), torch.zeros(2, 20, 2, 16))
        package.kv_append(k, v, cache)
        out = package.rope_append(rope, qkv[0], k, v, cache, offset=3, cache_offset=7, norm=norm)
        caches.append((out, *cache[:2]))
        caches[-1] += package.attention_merge((k, lse), (v, -lse))
        caches[-1] += (package.glu(k, v, limit=1.0),)
    for got, expected in zip(*caches):
        assert torch.equal(got, expected)
    with pytest.raises(ropewalk.InvalidArgument, match="function"):
        operators.attention(*qkv, pattern=ropewalk.Pattern(function=lambda b, i, j: True))


def test_ragged_attention():
    q, k, v = torch.randn(6, 4, 16), torch.randn(9, 2, 16), torch.randn(9, 2, 16)
    options = {
        "cu_seqlens_q": torch.tensor([0, 2, 6]),
        "cu_seqlens_k": torch.tensor([0, 4, 9]),
        "max_seq_q": 4,
        "batch_invariant": True,
        "pattern": ropewalk.Pattern(causal=True),
    }
    got = operators.attention(q, k, v, **options)
    assert torch.equal(got, ropewalk.attention(q, k, v, **options))
    named = [options["cu_seqlens_q"], options["cu_seqlens_k"]], "cu_seqlens_q,cu_seqlens_k"
    check("attention", q, k, v, *named, None, None, 0.0, 0.0, 4, True, "exact", True)


def test_a_layer_compiles_to_one_graph(rope, qkv):
    pattern = ropewalk.Pattern(causal=True)
    weight = torch.nn.Parameter(torch.rand(16))

    def layer(q, k, v):
        q = operators.rms_norm(q, weight, eps=1e-5)
        q = operators.rope_apply(rope, q, offset=4)
        k = operators.rope_apply(rope, k)
        out, lse = operators.attention(q, k, v, pattern=pattern, lse=True)
        return 2 * out, lse

    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        for arguments in (qkv, [x[:, :4] for x in qkv]):
            for got, expected in zip(compiled(*arguments), layer(*arguments)):
                assert torch.equal(got, expected)


def test_export(rope):
    class Layer(torch.nn.Module):
        def forward(self, q):
            return operators.rope_apply(rope, operators.rms_norm(q, eps=1e-5))

    q = torch.randn(2, 5, 4, 16)
    exported = torch.export.export(Layer(), (q,))
    assert torch.equal(exported.module()(q), Layer()(q))
    names = [str(node.target) for node in exported.graph.nodes if node.op == "call_function"]
    assert names[:2] == ["ropewalk.rms_norm.default", "ropewalk.rope_apply.default"]


def test_gradients_are_refused():
    x = torch.randn(2, 8, requires_grad=True)
    with pytest.raises(RuntimeError, match="autograd"):
        operators.rms_norm(x, eps=1e-5).sum().backward()


ROTATE_TWICE = """
import sys, torch, ropewalk, ropewalk.torch
other = ropewalk.Rope(ropewalk.RopeSpec(16, theta=500.0), max_positions=64)
q = torch.load(sys.argv[1] + "/q.pt")
program = torch.export.load(sys.argv[1] + "/program.pt2").module()
torch.save([program(q), program(q)], sys.argv[1] + "/out.pt")
"""


def test_a_saved_graph(tmp_path):
    """It rotates by its own tables in a process whose first ones are others."""
    factors = [1.0, 2.5, 3.0, 3.25, 1e-3, 7.0, 1.5, 0.1]
    spec = ropewalk.RopeSpec(
        16,
        "longrope",
        long_factor=factors,
        short_factor=factors,
        theta=np.float64(1e3),
        original_max_position_embeddings=32,
        max_position_embeddings=64,
    )
    rope = ropewalk.Rope(spec, seq_len=40)
    pattern, alibi = ropewalk.Pattern(causal=True, left=3), ropewalk.Alibi(torch.rand(4))

    class Layer(torch.nn.Module):
        def forward(self, q):
            q = operators.rope_apply(rope, q)
            return operators.attention(q, q, q, pattern=pattern, alibi=alibi)

    q = torch.randn(2, 5, 4, 16)
    torch.save(q, tmp_path / "q.pt")
    torch.export.save(torch.export.export(Layer(), (q,)), tmp_path / "program.pt2")
    subprocess.run([sys.executable, "-c", ROTATE_TWICE, str(tmp_path)], check=True)
    for got in torch.load(tmp_path / "out.pt"):
        assert torch.equal(got, Layer()(q))


def test_a_rope_that_is_gone(qkv):
    """A graph needs no object of its maker."""
    spec, ids = ropewalk.RopeSpec(16, theta=77.0), (None, None, 0, "forward")
    rope = ropewalk.Rope(spec, max_positions=8)
    settings, expected = rope.settings, ropewalk.rope_apply(rope, qkv[0])
    del rope
    for _ in range(2):
        assert torch.equal(torch.ops.ropewalk.rope_apply(settings, [qkv[0]], *ids)[0], expected)


def test_norms_without_rotation(qkv):
    k, v = torch.randn(2, 2, 5, 2, 16)
    norm = ropewalk.HeadNorm(torch.rand(16), None, 1e-5)
    results = []
    for package in (operators, ropewalk):
        cache = ropewalk.KVCache(torch.zeros(2, 9, 2, 16), torch.zeros(2, 9, 2, 16))
        results.append((package.rope_append(None, qkv[0], k, v, cache, norm=norm), *cache[:2]))
    for got, expected in zip(*results):
        assert torch.equal(got, expected)


def test_absent_tensors_are_refused(rope):
    with pytest.raises(ropewalk.InvalidArgument, match="q and k are absent"):
        operators.rope_apply(rope, None, None)


def test_tangents_are_refused(rope):
    q = torch.randn(1, 2, 4, 16)
    calls = [
        lambda x: ropewalk.rope_apply(rope, x),
        lambda x: ropewalk.rms_norm(x, eps=1e-5),
        lambda x: operators.rope_apply(rope, x),
        lambda x: operators.rms_norm(x, eps=1e-5),
    ]
    for call in calls:
        with torch.autograd.forward_ad.dual_level():
            dual = torch.autograd.forward_ad.make_dual(q, torch.ones_like(q))
            with pytest.raises(ropewalk.InvalidArgument, match="tangent"):
                call(dual)
        with pytest.raises((ropewalk.InvalidArgument, RuntimeError)):
            torch.func.jvp(call, (q,), (torch.ones_like(q),))
        call(q)


def test_vmap(rope):
    """Right, or refused."""
    x = torch.randn(3, 2, 4, 16)
    for call in (lambda x: ropewalk.rope_apply(rope, x), lambda x: operators.rope_apply(rope, x)):
        with pytest.raises(RuntimeError):
            torch.func.vmap(call)(x[None])
    got = torch.func.vmap(lambda x: operators.rms_norm(x, eps=1e-5))(x)
    assert torch.equal(got, ropewalk.rms_norm(x, eps=1e-5))


def test_traces(rope):
    """Traces see operators; of other functions they would keep the result as a constant."""
    from torch.fx.experimental.proxy_tensor import make_fx

    x, y = torch.randn(2, 3, 4, 16)[:, None]

    def layer(x):
        x = operators.rope_apply(rope, operators.rms_norm(x, eps=1e-5))
        return operators.attention(x, x, x, pattern=ropewalk.Pattern(causal=True))

    for traced in (torch.jit.trace(layer, (x,), check_trace=False), make_fx(layer)(x)):
        assert torch.equal(traced(y), layer(y))
    for trace in (lambda f: torch.jit.trace(f, (x,), check_trace=False), lambda f: make_fx(f)(x)):
        with pytest.raises(ropewalk.InvalidArgument, match="x is traced"):
            trace(lambda x: ropewalk.rms_norm(x, eps=1e-5))
