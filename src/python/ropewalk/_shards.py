"""Process groups, and which tokens or heads each of their ranks has."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from ._bias import Alibi, alibi_slopes
from ._errors import InvalidArgument


def split(length: int, parts: int, begin: int = 0) -> list[tuple[int, int]]:
    """Consecutive ranges whose lengths differ by at most 1."""
    cuts = [begin + length * n // parts for n in range(parts + 1)]
    return list(zip(cuts, cuts[1:]))


# ---- process groups --------------------------------------------------------------------------


class Ranks:
    """A process group, and the bytes that this rank has sent in it.

    group  of torch.distributed; None: the default one
    """

    def __init__(self, group: dist.ProcessGroup | None = None):
        self.group = group
        self.rank = dist.get_rank(group)
        self.size = dist.get_world_size(group)
        self.sent_bytes = 0
        """The data of all_gather() counts once for each other rank."""

    def all_gather(self, x: Tensor) -> Tensor:
        """The x of every rank, all of one shape: [ranks, *shape]."""
        # gloo accepts the concatenation only.
        out = x.new_empty(self.size * x.numel())
        if x.numel():
            dist.all_gather_into_tensor(out, x.reshape(-1), group=self.group)
        self.sent_bytes += (self.size - 1) * x.nbytes
        return out.view(self.size, *x.shape)

    def all_gather_parts(self, x: Tensor, lengths: Sequence[int], dim: int) -> list[Tensor]:
        """The x of every rank, of lengths[rank] along an axis."""
        longest = max(lengths)
        if x.shape[dim] < longest:
            shape = list(x.shape)
            shape[dim] = longest - x.shape[dim]
            x = torch.cat([x, x.new_zeros(shape)], dim)
        parts = self.all_gather(x)
        return [part.narrow(dim, 0, length) for part, length in zip(parts, lengths)]

    def pass_on(self, tensors: Sequence[Tensor], shapes: Iterable[Sequence[int]]) -> _Passing:
        """Begins to send contiguous tensors to the next rank, and to receive tensors of other
        shapes from the previous one."""
        received = [x.new_empty(tuple(shape)) for x, shape in zip(tensors, shapes)]
        following = self._global(self.rank + 1)
        previous = self._global(self.rank - 1)
        operations = []
        for x, y in zip(tensors, received):
            if x.numel():
                operations.append(dist.P2POp(dist.isend, x, following, self.group))
                self.sent_bytes += x.nbytes
            if y.numel():
                operations.append(dist.P2POp(dist.irecv, y, previous, self.group))
        works = dist.batch_isend_irecv(operations) if operations else []
        return _Passing(received, works)

    def _global(self, rank: int) -> int:
        rank %= self.size
        return rank if self.group is None else dist.get_global_rank(self.group, rank)


class _Passing(NamedTuple):
    received: list[Tensor]
    works: list

    def wait(self) -> list[Tensor]:
        for work in self.works:
            work.wait()
        return self.received


# ---- shards of a sequence --------------------------------------------------------------------


@dataclass(frozen=True)
class Layout:
    """Which tokens of a sequence each rank has.

    runs  for each rank the ranges [begin, end) of positions, in the order of the rank's tensors;
          together they are one range, which need not begin at 0
    """

    runs: tuple[tuple[tuple[int, int], ...], ...]

    def __post_init__(self):
        for rank, runs in enumerate(self.runs):
            if not runs:
                raise InvalidArgument(f"rank {rank} has no run, expected at least an empty one")
        found = sorted(run for runs in self.runs for run in runs)
        for (_, end), (begin, _) in zip(found, found[1:]):
            if begin != end:
                raise InvalidArgument(f"a run ends at {end}, and the next one begins at {begin}")

    @classmethod
    def contiguous(cls, seq: int, ranks: int) -> Layout:
        """One range for each rank, of lengths that differ by at most 1."""
        return cls(tuple((run,) for run in split(seq, ranks)))

    @classmethod
    def balanced(cls, seq: int, ranks: int) -> Layout:
        """Of 2 * ranks ranges, rank r has r and the one with the same distance to the end (zigzag):
        queries that see only the keys before them then are the same work for every rank."""
        parts = split(seq, 2 * ranks)
        return cls(tuple((parts[r], parts[-1 - r]) for r in range(ranks)))

    @classmethod
    def of_lengths(cls, lengths: Iterable[int]) -> Layout:
        """One range of a given length for each rank, e.g. for shards of a KV cache."""
        runs, begin = [], 0
        for length in lengths:
            runs.append(((begin, begin + length),))
            begin += length
        return cls(tuple(runs))

    def count(self, rank: int) -> int:
        """The number of tokens of a rank."""
        return sum(end - begin for begin, end in self.runs[rank])

    @property
    def counts(self) -> list[int]:
        return [self.count(rank) for rank in range(len(self.runs))]

    @property
    def end(self) -> int:
        """The position after the last token."""
        return max((end for runs in self.runs for _, end in runs), default=0)

    def take(self, x: Tensor, rank: int, dim: int = 1) -> Tensor:
        """The part of a rank of the whole sequence x, contiguous."""
        parts = [x.narrow(dim, begin, end - begin) for begin, end in self.runs[rank]]
        return torch.cat(parts, dim).contiguous()

    def join(self, parts: Sequence[Tensor], dim: int = 1) -> Tensor:
        """The whole sequence of the parts of all ranks, in the order of positions."""
        found = []
        for x, runs in zip(parts, self.runs):
            found += zip(runs, pieces(x, runs, dim))
        found.sort(key=lambda item: item[0])
        return torch.cat([piece for _, piece in found], dim)

    def gather(self, ranks: Ranks, x: Tensor, dim: int = 1) -> Tensor:
        """The whole sequence, on every rank; x is this rank's part."""
        return self.join(ranks.all_gather_parts(x, self.counts, dim), dim)


def pieces(x: Tensor, runs, dim: int = 1) -> list[Tensor]:
    """x, a rank's part, as a tensor for each run."""
    return list(x.split([end - begin for begin, end in runs], dim))


# ---- shards of the heads ---------------------------------------------------------------------


@dataclass(frozen=True)
class Heads:
    """The heads of one rank: whole groups of query heads with their head of k and v or, where there
    are fewer kv heads than ranks, a part of one group.

    first, count        query heads [first, first + count) of num_heads
    first_kv, count_kv  kv heads
    """

    rank: int
    ranks: int
    num_heads: int
    num_kv_heads: int
    first: int
    count: int
    first_kv: int
    count_kv: int

    @classmethod
    def of(cls, rank: int, ranks: int, num_heads: int, num_kv_heads: int) -> Heads:
        """The share of a rank. num_kv_heads divides num_heads, and is at least or divides ranks."""
        if num_kv_heads < 1 or num_heads < 1 or num_heads % num_kv_heads:
            raise InvalidArgument(
                f"there are {num_heads} heads and {num_kv_heads} kv heads, expected a divisor"
            )
        if num_heads < ranks or (num_kv_heads < ranks and ranks % num_kv_heads):
            raise InvalidArgument(
                f"{num_heads} heads with {num_kv_heads} kv heads cannot be divided by {ranks} ranks"
            )
        group = num_heads // num_kv_heads
        if num_kv_heads >= ranks:
            first_kv, end_kv = split(num_kv_heads, ranks)[rank]
            first, end = first_kv * group, end_kv * group
        else:
            share = ranks // num_kv_heads
            first_kv, end_kv = rank // share, rank // share + 1
            first, end = split(group, share, first_kv * group)[rank % share]
        return cls(
            rank, ranks, num_heads, num_kv_heads, first, end - first, first_kv, end_kv - first_kv
        )

    def take(self, q: Tensor) -> Tensor:
        """This rank's heads of the whole q: a view, [..., count, head_dim]."""
        return q.narrow(-2, self.first, self.count)

    def take_kv(self, k: Tensor) -> Tensor:
        """This rank's heads of the whole k or v."""
        return k.narrow(-2, self.first_kv, self.count_kv)

    def alibi(self, like: Tensor, *, signed: bool = False) -> Alibi:
        """ALiBi with the slopes of this rank's heads, on the device of a tensor."""
        slopes = alibi_slopes(
            self.count, first_head=self.first, total_heads=self.num_heads, like=like
        )
        return Alibi(slopes, signed=signed)

    def sinks(self, sinks: Tensor) -> Tensor:
        """This rank's part of the sinks of all heads."""
        return sinks.narrow(0, self.first, self.count)

    def gather(self, ranks: Ranks, out: Tensor) -> Tensor:
        """The results of all heads on every rank; out [..., count, v_dim] is this rank's part."""
        shape = self.ranks, self.num_heads, self.num_kv_heads
        counts = [Heads.of(rank, *shape).count for rank in range(self.ranks)]
        return torch.cat(ranks.all_gather_parts(out, counts, out.dim() - 2), -2)
