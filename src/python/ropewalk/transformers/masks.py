"""The masks of transformers as patterns.

transformers describes a mask by a function of indices, put together by the factories of its
masking_utils, and by the attention_mask of padding. collect() takes such a function apart; what it
finds becomes a ropewalk.Pattern. A function that it does not know is evaluated for every pair, and
passed as bits.
"""

from __future__ import annotations

import inspect
import logging
from dataclasses import dataclass, field

import torch
from transformers import masking_utils

from .._pattern import Pattern
from .lazy import Lazy

_log = logging.getLogger("ropewalk.transformers")
_said: set[str] = set()


def say_once(sentence: str) -> None:
    """Warns, unless a graph is being traced: torch 2.11 refuses to trace loggers."""
    if sentence not in _said and not torch.compiler.is_compiling():
        _said.add(sentence)
        _log.warning(sentence)


@dataclass
class Terms:
    """What a mask function requires of a query and a key, all of it."""

    causal: bool = False
    left: int | None = None
    right: int | None = None
    chunk: tuple[int, torch.Tensor] | None = None
    """Length of chunks, and i64 [batch]: padding before the first one."""
    documents: torch.Tensor | None = None
    """i64 [batch, seq]: number of the document of each token."""
    blocks: torch.Tensor | None = None
    """i64 [batch, keys]: number of the block of each token, where causal is ignored; -1: none."""
    padding: list[torch.Tensor] = field(default_factory=list)
    """bool [batch, keys]: visible keys."""

    @property
    def positional(self) -> bool:
        """Whether positions of queries matter."""
        sides = self.left is not None or self.right is not None
        return self.causal or sides or self.chunk is not None


def _narrower(a: int | None, b: int) -> int:
    return b if a is None else min(a, b)


def collect(function, terms: Terms) -> bool:
    """Adds what a mask function requires; False if terms cannot say it."""
    if function is masking_utils.causal_mask_function:
        terms.causal = True
        return True
    if function is masking_utils.bidirectional_mask_function:
        return True
    if getattr(function, "__module__", None) != masking_utils.__name__:
        return False
    factory = function.__qualname__.partition(".")[0]
    made_with = inspect.getclosurevars(function).nonlocals
    if factory == "and_masks":
        return all(collect(part, terms) for part in made_with["mask_functions"])
    if factory == "or_masks":
        return _collect_blocks(made_with["mask_functions"], terms)
    if factory == "sliding_window_overlay":
        terms.left = _narrower(terms.left, made_with["sliding_window"] - 1)
    elif factory == "sliding_window_bidirectional_overlay":
        terms.left = _narrower(terms.left, made_with["sliding_window"])
        terms.right = _narrower(terms.right, made_with["sliding_window"])
    elif factory == "chunked_overlay" and terms.chunk is None:
        terms.chunk = made_with["chunk_size"], made_with["left_padding"]
    elif factory == "packed_sequence_mask_function" and terms.documents is None:
        terms.documents = made_with["packed_sequence_mask"]
    elif factory == "padding_mask_function":
        terms.padding.append(made_with["padding_mask"])
    elif factory == "remap_positions_for_packed_sequence":
        # Ids count the tokens of each document, so that within one they differ as indices do.
        return collect(made_with["mask_function"], terms) and terms.chunk is None
    else:
        return False
    return True


def _collect_blocks(functions, terms: Terms) -> bool:
    """Causal, or both in one block."""
    if len(functions) != 2 or functions[0] is not masking_utils.causal_mask_function:
        return False
    if getattr(functions[1], "__qualname__", "").partition(".")[0] != "blockwise_overlay":
        return False
    terms.causal = True
    terms.blocks = inspect.getclosurevars(functions[1]).nonlocals["block_sequence_ids"]
    return True


def pack_bits(visible: torch.Tensor, seq_k: int, skipped: int) -> torch.Tensor:
    """bool [..., n] to u8 [..., ceil(seq_k / 8)], lowest bit first: 0 for `skipped` keys, then the
    n bits, then 0."""
    width = (seq_k + 7) // 8 * 8
    visible = torch.nn.functional.pad(visible, (skipped, width - skipped - visible.shape[-1]))
    weights = torch.tensor([1, 2, 4, 8, 16, 32, 64, 128], dtype=torch.uint8, device=visible.device)
    return (visible.unflatten(-1, (-1, 8)) * weights).sum(-1, dtype=torch.uint8)


class Mask(Lazy):
    """A mask that is a pattern; as a tensor it is the mask of eager attention.

    arguments  those of transformers' mask functions
    terms      None: no terms say it, and the pattern has bits
    """

    def __init__(self, shape, dtype, device, arguments, terms):
        super().__init__()
        self.arguments = arguments
        self.terms: Terms | None = terms
        self.batch, _, self.seq_q, self.keys = shape
        self.position = arguments["q_offset"] - arguments["kv_offset"]
        """The index among the keys of the first query; a number or a tensor."""
        self._patterns: dict[tuple[int, int], Pattern] = {}
        self._ranges = None

    def compute(self):
        return masking_utils.eager_mask(**self.arguments)

    def pattern(self, seq_k: int, skipped: int = 0) -> Pattern:
        """The pattern for seq_k keys: `skipped` hidden ones, those of the mask, then any number of
        unused ones."""
        if (seq_k, skipped) not in self._patterns:
            self._patterns[seq_k, skipped] = self._make(seq_k, skipped)
        return self._patterns[seq_k, skipped]

    def _make(self, seq_k: int, skipped: int) -> Pattern:
        terms, tensors, alignment = self.terms, {}, "bottom_right"
        last = self.position + self.seq_q + skipped
        if not isinstance(last, torch.Tensor) and last == seq_k:
            pass
        elif terms is not None and terms.positional:
            alignment = "key_end"
            tensors["key_end"] = self._lengths(last)
        elif seq_k != self.keys + skipped:
            tensors["key_end"] = self._lengths(self.keys + skipped)
        if terms is None or not self._add_prefix(tensors, skipped):
            return Pattern(**tensors, bits=pack_bits(self._visible(), seq_k, skipped))
        if skipped:
            tensors["key_begin"] = self._lengths(skipped)
        self._add_padding(tensors, alignment, seq_k, skipped)
        if terms.chunk is not None:
            tensors["cu_seqlens"] = self._chunks(*terms.chunk, seq_k, skipped)
        if terms.documents is not None:
            tensors["cu_seqlens"] = _boundaries(terms.documents, seq_k, skipped)
        window = {"left": terms.left, "right": terms.right}
        return Pattern(causal=terms.causal, alignment=alignment, **window, **tensors)

    def _lengths(self, length) -> torch.Tensor:
        """i64 [batch]"""
        length = torch.as_tensor(length, dtype=torch.int64, device=self.device)
        return length.expand(self.batch).contiguous()

    def _visible(self) -> torch.Tensor:
        """bool [batch, seq_q, keys]"""
        return masking_utils.sdpa_mask(**self.arguments, allow_is_causal_skip=False)[:, 0]

    def _among_keys(self, x: torch.Tensor, rest) -> torch.Tensor:
        """[batch, keys] of a tensor with a column for each token of the sequence so far."""
        x = x[:, self.arguments["kv_offset"] :][:, : self.keys]
        return torch.nn.functional.pad(x, (0, self.keys - x.shape[1]), value=rest)

    def _padding(self) -> tuple[torch.Tensor, torch.Tensor, list[bool]] | None:
        """First visible key and the one after the last, i64 [batch], and whether for each sequence
        all between them are visible, the first is 0, the end is `keys`, and the end is that of the
        queries. None: no padding."""
        if not self.terms.padding or not self.keys:
            return None
        if self._ranges is None:
            visible = self._padding_bits()
            index = torch.arange(self.keys, device=self.device)
            begin = torch.where(visible, index, self.keys).amin(1)
            end = torch.where(visible, index, -1).amax(1) + 1
            begin = torch.minimum(begin, end)
            whole = end - begin == visible.sum(1)
            last = self.position + self.seq_q
            if self.terms.causal:  # later keys are hidden anyway
                end = end.clamp(max=last)
                begin = torch.minimum(begin, end)
            facts = [whole, begin == 0, end == self.keys, end == last]
            self._ranges = begin, end, torch.stack(facts).all(1).tolist()
        return self._ranges

    def _padding_bits(self) -> torch.Tensor:
        """bool [batch, keys]"""
        parts = [self._among_keys(part, False) for part in self.terms.padding]
        return torch.stack(parts).all(0)

    def _add_padding(self, tensors: dict, alignment: str, seq_k: int, skipped: int) -> None:
        padding = self._padding()
        if padding is None:
            return
        begin, end, (whole, at_begin, at_end, at_last) = padding
        if not whole or (alignment == "key_end" and not at_last):
            tensors["bits"] = pack_bits(self._padding_bits()[:, None], seq_k, skipped)
            return
        if not at_begin:
            tensors["key_begin"] = begin + skipped
        if not at_end and alignment != "key_end":
            tensors["key_end"] = end + skipped

    def _add_prefix(self, tensors: dict, skipped: int) -> bool:
        """Blocks as a prefix: one of them, at the beginning of each sequence. False: they are not
        that."""
        if self.terms.blocks is None:
            return True
        block = self._among_keys(self.terms.blocks, -1)
        padding = self._padding()
        index = torch.arange(self.keys, device=self.device)
        begin = index.new_zeros(self.batch) if padding is None else padding[0]
        inside = (block >= 0) & (index >= begin[:, None])
        prefix = torch.where(inside, index + 1, 0).amax(1)
        first = block.gather(1, begin.clamp(max=self.keys - 1)[:, None])
        expected = torch.where((index >= begin[:, None]) & (index < prefix[:, None]), first, -1)
        padded = index < begin[:, None]
        if not bool(((block == expected) | padded).all()):
            say_once("blocks of tokens that are no prefix: a bit for each pair is passed")
            return False
        tensors["prefix"] = prefix + skipped
        return True

    def _chunks(self, length: int, padding: torch.Tensor, seq_k: int, skipped: int) -> torch.Tensor:
        """Chunks as documents, i64 [batch, chunks + 1]: they begin at padding + n * length."""
        first = (padding - self.arguments["kv_offset"] + skipped).to(torch.int64) % length - length
        steps = torch.arange(seq_k // length + 3, device=self.device) * length
        return (first[:, None] + steps).clamp(0, seq_k)

    def hides_nothing(self) -> bool:
        terms = self.terms
        if terms is None or terms.positional or terms.documents is not None:
            return False
        return not terms.padding or bool(self._padding_bits().all())


def _boundaries(documents: torch.Tensor, seq_k: int, skipped: int) -> torch.Tensor:
    """cu_seqlens, i64 [batch, documents + 3], of the number of each token's document; skipped and
    unused keys are documents of their own."""
    numbers = torch.arange(int(documents.max()) + 2, device=documents.device)
    numbers = numbers.expand(documents.shape[0], -1).contiguous()
    begins = torch.searchsorted(documents.contiguous(), numbers) + skipped
    return torch.nn.functional.pad(torch.nn.functional.pad(begins, (1, 0)), (0, 1), value=seq_k)


def mask(
    batch_size: int,
    q_length: int,
    kv_length: int,
    q_offset=0,
    kv_offset: int = 0,
    mask_function=masking_utils.causal_mask_function,
    attention_mask: torch.Tensor | None = None,
    allow_is_bidirectional_skip: bool = False,
    dtype: torch.dtype = torch.float32,
    use_vmap: bool = False,
    device="cpu",
    **_,
) -> torch.Tensor | None:
    """A mask function of transformers: a Mask, or None if nothing is hidden. In a graph that
    torch.compile or torch.export makes it is the mask of eager attention."""
    arguments = {
        "batch_size": batch_size,
        "q_length": q_length,
        "kv_length": kv_length,
        "q_offset": q_offset,
        "kv_offset": kv_offset,
        "mask_function": mask_function,
        "attention_mask": attention_mask,
        "dtype": dtype,
        "use_vmap": use_vmap,
        "device": device,
    }
    if torch.compiler.is_compiling():
        return masking_utils.eager_mask(**arguments)
    terms = Terms()
    if attention_mask is not None:
        terms.padding.append(attention_mask)
    if not collect(mask_function, terms):
        name = getattr(mask_function, "__qualname__", repr(mask_function))
        say_once(f"no pattern expresses the mask function {name}: a bit for each pair is passed")
        terms = None
    made = Mask((batch_size, 1, q_length, kv_length), dtype, device, arguments, terms)
    return None if allow_is_bidirectional_skip and made.hides_nothing() else made
