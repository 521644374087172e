"""One process of test_distributed.py: runs every case, and writes how far its results are from the
formula in float64 and whether all ranks got the same.

    distributed_cases.py BACKEND RANK RANKS FILE_TO_MEET RESULTS
"""

import json
import sys

import numpy as np
import references
import torch
import torch.distributed as dist

import ropewalk
from ropewalk.distributed import Heads, Layout, Ranks, attention, merge


class Case:
    """Whole tensors, the same on every rank, and the expected result."""

    def __init__(self, device, shape, dtype=torch.float32, **terms):
        """shape  batch, seq_q, seq_k, heads, kv_heads, head_dim, v_dim
        terms  causal, left, right, scale, softcap; alibi: signed or not; sinks: True"""
        torch.manual_seed(5)
        batch, seq_q, seq_k, heads, kv_heads, head_dim, v_dim = shape
        shapes = (batch, seq_q, heads, head_dim), (batch, seq_k, kv_heads, head_dim)
        shapes += ((batch, seq_k, kv_heads, v_dim),)
        self.q, self.k, self.v = (torch.randn(x).to(device, dtype) for x in shapes)
        sinks = torch.randn(heads) if terms.pop("sinks", False) else None
        signed = terms.pop("alibi", None)
        bias = 0.0
        if signed is not None:
            slopes = torch.from_numpy(ropewalk.alibi_slopes(heads))
            distance = np.arange(seq_q)[:, None] + seq_k - seq_q - np.arange(seq_k)
            distance = -distance if signed else -np.abs(distance)
            bias = slopes.numpy()[:, None, None] * distance
            self.alibi = ropewalk.Alibi(slopes.to(device), signed=signed)
        window = {name: terms.get(name) for name in ("causal", "left", "right")}
        self.expected = references.attention(
            *(x.double().cpu().numpy() for x in (self.q, self.k, self.v)),
            references.visible(seq_q, seq_k, **window),
            bias,
            terms.get("scale"),
            terms.get("softcap", 0.0),
            None if sinks is None else sinks.numpy(),
        )
        self.terms = terms
        self.sinks = None if sinks is None else sinks.to(device)
        if signed is not None:
            self.terms["alibi"] = self.alibi
        if sinks is not None:
            self.terms["sinks"] = self.sinks


def difference(got, expected):
    """The largest difference between pairs of out and LSE."""
    worst = 0.0
    assert got[0].is_contiguous()
    for x, y in zip(got, expected):
        x = x.double().cpu().numpy()
        assert x.shape == y.shape, f"{x.shape} is not {y.shape}"
        finite = np.isfinite(y)
        assert (x[~finite] == y[~finite]).all(), "infinities differ"
        worst = max(worst, np.abs(x - y)[finite].max(initial=0.0))
    return worst


def whole(ranks, case, layout, **options):
    """Every rank has all queries; the results of all ranks are one, bit for bit."""
    k, v = (layout.take(x, ranks.rank) for x in (case.k, case.v))
    got = attention(ranks, case.q, k, v, keys=layout, lse=True, **options, **case.terms)
    for x in got:
        everyone = ranks.all_gather(x.contiguous())
        assert all(torch.equal(everyone[0], other) for other in everyone), "ranks differ"
    return difference(got, case.expected)


def shards(ranks, case, layout, queries=None, **options):
    """Every rank has its own queries, of the last positions."""
    queries = queries or layout
    begin = layout.end - case.q.shape[1]
    own = [(a - begin, b - begin) for a, b in queries.runs[ranks.rank]]
    k, v = (layout.take(x, ranks.rank) for x in (case.k, case.v))
    q = torch.cat([case.q[:, a:b] for a, b in own], 1)
    options.update(case.terms)
    got = attention(ranks, q, k, v, keys=layout, queries=queries, lse=True, **options)
    out, lse = case.expected
    expected = [
        np.concatenate([out[:, a:b] for a, b in own], 1),
        np.concatenate([lse[:, :, a:b] for a, b in own], 2),
    ]
    return difference(got, expected)


def suffix(layout, length):
    """A layout of the last positions, whose first rank has none."""
    count = len(layout.runs)
    begin = layout.end - length
    cuts = [begin] + [begin + length * n // max(1, count - 1) for n in range(count)]
    cuts[-1] = layout.end
    return Layout(tuple((run,) for run in zip(cuts, cuts[1:])))


def of_heads(ranks, case):
    """Heads are sharded: results of the shards together are those of all heads."""
    heads = Heads.of(ranks.rank, ranks.size, case.q.shape[2], case.k.shape[2])
    q, k, v = heads.take(case.q), heads.take_kv(case.k), heads.take_kv(case.v)
    out = ropewalk.attention(
        q,
        k,
        v,
        pattern=ropewalk.Pattern(causal=True),
        alibi=heads.alibi(q),
        sinks=heads.sinks(case.sinks),
    )
    return difference([heads.gather(ranks, out)], case.expected[:1])


def of_both(group, device):
    """Half of the ranks for each half of the heads, the keys sharded among them."""
    count = group.size // 2
    pairs = [list(range(n * count, (n + 1) * count)) for n in range(2)]
    half = group.rank // count
    ranks = Ranks([dist.new_group(pair) for pair in pairs][half])
    case = Case(device, (1, 3, 61, 6, 2, 16, 16), causal=True, sinks=True, alibi=True)
    heads = Heads.of(half, 2, 6, 2)
    layout = Layout.contiguous(61, ranks.size)
    q, k, v = heads.take(case.q), heads.take_kv(case.k), heads.take_kv(case.v)
    k, v = layout.take(k, ranks.rank), layout.take(v, ranks.rank)
    terms = {"alibi": heads.alibi(q, signed=True), "sinks": heads.sinks(case.sinks)}
    got = attention(ranks, q, k, v, keys=layout, causal=True, method="ring", **terms)
    return difference([got], [case.expected[0][:, :, heads.first : heads.first + heads.count]])


def paged(ranks, device, method):
    """The keys of each rank are in pages, with as many keys in use as each sequence has there."""
    case = Case(device, (2, 1, 140, 4, 2, 16, 16), sinks=True)
    begin, end = Layout.contiguous(140, ranks.size).runs[ranks.rank][0]
    used = [max(0, min(end, length) - begin) for length in (140, 9)]
    pages = -(-(end - begin) // 16)
    table = torch.arange(2 * pages, dtype=torch.int32).flip(0).view(2, pages)
    caches = [x.new_zeros(2 * pages, 16, 2, 16) for x in (case.k, case.v)]
    for b in range(2):
        for cache, x in zip(caches, (case.k, case.v)):
            for n in range(used[b]):
                cache[table[b, n // 16], n % 16] = x[b, begin + n]
    pattern = ropewalk.Pattern(key_end=torch.tensor(used, dtype=torch.int32, device=device))
    part = ropewalk.attention(
        case.q, *caches, block_table=table.to(device), pattern=pattern, lse=True
    )
    got = merge(ranks, *part, method=method, sinks=case.sinks)
    seen = np.arange(140) < np.array([140, 9])[:, None, None, None]
    arrays = [x.cpu().numpy() for x in (case.q, case.k, case.v)]
    return difference(got, references.attention(*arrays, seen, sinks=case.sinks.cpu().numpy()))


def cases(ranks, device):
    """(name, function) of every case."""
    n, f32 = ranks.size, torch.float32
    prefill = (2, 61, 61, 4, 2, 16, 24)
    decode = (2, 3, 61, 4, 2, 16, 24)
    terms = {
        "plain": {},
        "causal": {"causal": True},
        "window": {"causal": True, "left": 9, "softcap": 5.0},
        "sides": {"left": 4, "right": 17, "scale": 0.3},
        "alibi": {"causal": True, "alibi": False},
        "signed": {"left": 30, "alibi": True},
        "sinks": {"causal": True, "sinks": True},
    }
    layouts = {
        "contiguous": Layout.contiguous(61, n),
        "balanced": Layout.balanced(61, n),
        "lengths": Layout.of_lengths([61 - 2 * (n - 2)] + [0] + [2] * (n - 2)),
    }
    for method in ("all_gather", "ring"):
        for kind, layout in layouts.items():
            for name, term in terms.items():
                for seq_q, shape in ((61, prefill), (3, decode)):
                    case = Case(device, shape, f32, **term)
                    title = f"{method} {kind} {name} of {seq_q}"
                    yield title, lambda c=case, x=layout, m=method: whole(ranks, c, x, method=m)
                case = Case(device, prefill, f32, **term)
                title = f"{method} {kind} {name} shards"
                yield title, lambda c=case, x=layout, m=method: shards(ranks, c, x, method=m)
                case = Case(device, (1, 11, 61, 4, 2, 16, 24), f32, **term)
                title = f"{method} {kind} {name} suffix"
                end = suffix(layout, 11)
                yield (
                    title,
                    lambda c=case, x=layout, y=end, m=method: shards(ranks, c, x, y, method=m),
                )
        for dtype in (torch.float16, torch.bfloat16):
            case = Case(device, prefill, dtype, causal=True, sinks=True)
            layout = layouts["balanced"]
            yield (
                f"{method} {dtype}",
                lambda c=case, x=layout, m=method: shards(ranks, c, x, method=m),
            )
        yield f"{method} paged", lambda m=method: paged(ranks, device, m)
    for heads, kv_heads in ((8, 8), (12, 4), (8, 1), (5, 5)):
        shape = (2, 5, 9, heads, kv_heads, 16, 16)
        if kv_heads >= n or n % kv_heads == 0:
            case = Case(device, shape, f32, causal=True, sinks=True, alibi=False)
            yield f"heads {heads}+{kv_heads}", lambda c=case: of_heads(ranks, c)
    if n % 2 == 0:
        yield "keys and heads", lambda: of_both(ranks, device)


def check_bytes(ranks, device):
    """What Ranks counts."""
    case = Case(device, (1, 1, 64, 4, 2, 16, 16))
    layout = Layout.contiguous(64, ranks.size)
    size = 4 * 4 * (16 + 1)
    for method, expected in (
        ("all_gather", (ranks.size - 1) * size),
        ("ring", 2 * (ranks.size - 1) * size // ranks.size),
    ):
        ranks.sent_bytes = 0
        k, v = layout.take(case.k, ranks.rank), layout.take(case.v, ranks.rank)
        attention(ranks, case.q, k, v, keys=layout, method=method)
        if 4 % ranks.size == 0:
            assert ranks.sent_bytes == expected, (method, ranks.sent_bytes, expected)


def join(backend, rank, size, meeting):
    """Makes this process one of a group that meets by a file: its device and its Ranks."""
    device = torch.device("cuda", rank) if backend == "nccl" else torch.device("cpu")
    if backend == "nccl":
        torch.cuda.set_device(device)
    else:
        torch.set_num_threads(1)
    dist.init_process_group(backend, init_method=f"file://{meeting}", rank=rank, world_size=size)
    return device, Ranks()


def main(backend, rank, size, meeting, results):
    device, ranks = join(backend, rank, size, meeting)
    differences = {name: run() for name, run in cases(ranks, device)}
    check_bytes(ranks, device)
    dist.barrier()
    dist.destroy_process_group()
    with open(results, "w") as file:
        json.dump(differences, file)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:])
