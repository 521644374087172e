"""ropewalk.distributed: several processes on the CPU (gloo), and on GPUs (NCCL, RCCL) where there
are two. distributed_cases.py has the cases."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import ropewalk

torch = pytest.importorskip("torch", reason="torch is not installed")
if not torch.distributed.is_available():
    pytest.skip("torch was built without torch.distributed", allow_module_level=True)

from ropewalk.distributed import Heads, Layout, Ranks, attention, merge  # noqa: E402

TOLERANCES = {"torch.float16": 2e-3, "torch.bfloat16": 2e-2}


def run_processes(folder, backend, size):
    """Starts the processes; the differences of every case, of each rank."""
    script = Path(__file__).with_name("distributed_cases.py")
    results = [folder / f"results{rank}.json" for rank in range(size)]
    settings = {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1", **os.environ}
    processes = [
        subprocess.Popen(
            [sys.executable, script, backend, str(rank), str(size), folder / "meeting", result],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=settings,
        )
        for rank, result in enumerate(results)
    ]
    try:
        outputs = [process.communicate(timeout=300)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    failed = [output for process, output in zip(processes, outputs) if process.returncode]
    assert not failed, "\n".join(output[-3000:] for output in failed)
    return [json.loads(result.read_text()) for result in results]


def check(differences):
    """Every case on every rank."""
    assert all(len(found) > 80 for found in differences)
    for rank, found in enumerate(differences):
        for name, worst in found.items():
            tolerance = next((x for key, x in TOLERANCES.items() if key in name), 1e-5)
            assert worst <= tolerance, f"rank {rank}, {name}: differs by {worst}"


@pytest.mark.parametrize("size", [2, 3, 4])
def test_processes(tmp_path, size):
    check(run_processes(tmp_path, "gloo", size))


def test_gpus(tmp_path):
    count = torch.cuda.device_count()
    if count < 2:
        pytest.skip(f"torch finds {count} GPUs, two are needed")
    probe = ropewalk.backend_probe("hip")
    if not probe.automatic or probe.device_count < 2:
        pytest.skip(f"ropewalk finds {probe.device_count} GPUs, two are needed: {probe.why}")
    check(run_processes(tmp_path, "nccl", min(count, 4)))


@pytest.fixture
def alone(tmp_path):
    """A process group of one."""
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path / 'meeting'}", rank=0, world_size=1
    )
    yield Ranks()
    torch.distributed.destroy_process_group()


def test_one_process(alone):
    q = torch.randn(9, 2, 16)
    layout = Layout.contiguous(9, 1)
    expected = ropewalk.attention(q, q, q, pattern=ropewalk.Pattern(causal=True))
    for queries in (None, layout):
        for method in ("all_gather", "ring"):
            got = attention(
                alone, q, q, q, keys=layout, queries=queries, method=method, causal=True
            )
            assert got.shape == q.shape and torch.allclose(got, expected, atol=1e-6)
    part = ropewalk.attention(q, q, q, pattern=ropewalk.Pattern(causal=True), lse=True)
    got = merge(alone, *part, dtype=torch.float16)
    assert torch.equal(got[0], part[0].half()) and torch.equal(got[1], part[1])
    assert alone.sent_bytes == 0


def test_errors(alone):
    q = torch.randn(1, 9, 2, 16)
    layout = Layout.contiguous(9, 1)
    absolute = ropewalk.Alibi(torch.ones(2))
    aligned = ropewalk.Alibi(torch.ones(2), alignment="top_left")
    for options, sentence in (
        ({"method": "tree"}, "method is 'tree', expected one of all_gather, ring"),
        ({"keys": Layout.contiguous(9, 2)}, "layout of k is for 2 ranks, expected 1"),
        ({"keys": Layout.contiguous(8, 1)}, "k has 9 tokens, expected the 8 of rank 0"),
        ({"v": q[:, :8]}, "v has 8 tokens, expected the 9 of rank 0"),
        ({"v": q[0, 0]}, "v has rank 2, expected 3 or 4"),
        ({"queries": Layout.contiguous(4, 1)}, "q has 9 tokens, expected the 4 of rank 0"),
        ({"left": -1}, "left is -1, expected it not to be negative"),
        ({"alibi": absolute}, "alibi is absolute, expected a signed one or a causal pattern"),
        ({"alibi": aligned}, "alibi has the alignment top_left, expected bottom_right"),
    ):
        with pytest.raises(ropewalk.InvalidArgument, match=sentence):
            attention(alone, **{"q": q, "k": q, "v": q, "keys": layout, **options})


def test_layouts():
    balanced = Layout.balanced(10, 2)
    assert balanced.runs == (((0, 2), (7, 10)), ((2, 5), (5, 7)))
    assert balanced.counts == [5, 5] and balanced.end == 10
    x = torch.arange(10)[None]
    parts = [balanced.take(x, rank) for rank in range(2)]
    assert parts[0].tolist() == [[0, 1, 7, 8, 9]]
    assert torch.equal(balanced.join(parts), x)
    assert Layout.of_lengths([3, 0, 2]).runs == (((0, 3),), ((3, 3),), ((3, 5),))
    for runs in ([(0, 3)], [(4, 5)]), ([(0, 3), (5, 6)], [(2, 5)]):
        with pytest.raises(ropewalk.InvalidArgument, match="a run ends at 3, and the next one"):
            Layout(tuple(map(tuple, runs)))


@pytest.mark.parametrize("heads", [(8, 8), (12, 4), (71, 1), (64, 8), (10, 5)])
@pytest.mark.parametrize("ranks", [1, 2, 4, 8])
def test_heads(heads, ranks):
    """Shares are disjoint, complete, and have the kv head of each query head."""
    num_heads, num_kv_heads = heads
    if num_kv_heads < ranks and ranks % num_kv_heads:
        with pytest.raises(ropewalk.InvalidArgument, match="cannot be divided by"):
            Heads.of(0, ranks, *heads)
        return
    group, taken = num_heads // num_kv_heads, []
    for rank in range(ranks):
        share = Heads.of(rank, ranks, *heads)
        assert share.count % share.count_kv == 0
        for n in range(share.count):
            whole, part = (share.first + n) // group, n // (share.count // share.count_kv)
            assert whole == share.first_kv + part
            taken.append(share.first + n)
    assert taken == list(range(num_heads))
