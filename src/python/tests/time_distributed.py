"""Prints time, bytes sent and difference from one process of attention over sharded keys, for
numbers of processes. Not a test: run it.

    time_distributed.py                 1, 2 and 4 processes on the CPU, one thread each
    time_distributed.py nccl 1 2        one GPU a process
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
import torch.distributed as dist
from distributed_cases import join

import ropewalk
from ropewalk.distributed import Layout, attention

HEADS, KV_HEADS, WIDTH = 32, 8, 128
# Name, batch, queries, keys; the queries of a prefill are sharded, too.
SHAPES = ("decode", 4, 1, 16384), ("prefill", 1, 2048, 2048)
RUNS = 15


def synchronize(device):
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measure(ranks, device, shape, method):
    name, batch, seq_q, seq_k = shape
    torch.manual_seed(1)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    q = torch.randn(batch, seq_q, HEADS, WIDTH).to(device, dtype)
    k, v = torch.randn(2, batch, seq_k, KV_HEADS, WIDTH).to(device, dtype)
    expected = ropewalk.attention(q, k, v, pattern=ropewalk.Pattern(causal=True))
    layout = Layout.balanced(seq_k, ranks.size)
    sharded = name == "prefill"
    queries = layout if sharded else None
    if sharded:
        q, expected = layout.take(q, ranks.rank), layout.take(expected, ranks.rank)
    k, v = layout.take(k, ranks.rank), layout.take(v, ranks.rank)
    seconds = []
    for _ in range(RUNS):
        ranks.sent_bytes = 0
        dist.barrier()
        synchronize(device)
        begin = time.perf_counter()
        out = attention(ranks, q, k, v, keys=layout, queries=queries, method=method, causal=True)
        synchronize(device)
        seconds.append(time.perf_counter() - begin)
    # The shortest time, as other programs may use the CPU, of the slowest rank; the largest
    # difference.
    figures = [min(seconds), (out - expected).abs().max().item()]
    worst = torch.tensor(figures, dtype=torch.float64, device=device)
    dist.all_reduce(worst, dist.ReduceOp.MAX)
    if ranks.rank == 0:
        print(
            f"{name:8} {ranks.size:5} {method:10} {1e3 * worst[0]:9.2f} "
            f"{ranks.sent_bytes / 1e6:9.3f} {worst[1]:11.1e}",
            flush=True,
        )


def process(backend, rank, size, meeting):
    device, ranks = join(backend, rank, size, meeting)
    for shape in SHAPES:
        for method in ("all_gather", "ring")[: 1 if size == 1 else 2]:
            measure(ranks, device, shape, method)
    dist.destroy_process_group()


def main(backend="gloo", *sizes):
    print(f"ropewalk {ropewalk.__version__}, torch {torch.__version__}, {backend}")
    print(f"{HEADS}+{KV_HEADS} heads of {WIDTH}; batch, queries and keys:", *SHAPES)
    print("shape    ranks method            ms   MB sent  difference")
    for size in map(int, sizes or (1, 2, 4)):
        with tempfile.TemporaryDirectory() as folder:
            meeting = Path(folder) / "meeting"
            started = [
                subprocess.Popen(
                    ["env", "OMP_NUM_THREADS=1", sys.executable, __file__]
                    + ["process", backend, str(rank), str(size), str(meeting)]
                )
                for rank in range(size)
            ]
            if any([one.wait() for one in started]):
                sys.exit(1)


if __name__ == "__main__":
    if sys.argv[1:2] == ["process"]:
        process(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5])
    else:
        main(*sys.argv[1:])
