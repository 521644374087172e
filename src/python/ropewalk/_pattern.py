"""Attention patterns: data that defines which keys a query sees."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable

import numpy as np

from . import _tensors
from ._context import Arguments, Call, Callback, Context, begin, first
from ._errors import InvalidArgument, error
from ._library import ALIGNMENT, PATTERN_IDS, TILE, ffi, lib, text
from ._tensors import Tensor

_TENSORS = ("prefix", "globals", "cu_seqlens", "key_begin", "key_end", "bits", "mask")


class Pattern:
    """Which keys a query sees; without arguments every query sees every key. Query i has the
    position p:

        "bottom_right"  p = i + seq_k - seq_q       last query aligned with the last key
        "top_left"      p = i                       first query aligned with the first key
        "key_end"       p = i + key_end[b] - seq_q  last query aligned with its sequence's last key

    and sees key j where all that is given is true:

    causal         j <= p
    left, right    window: p - left <= j <= p + right; None: unbounded
    prefix_length  j < prefix_length is visible despite causal and window; prefix: the same, i32 or
                   i64 [batch]
    globals        u8 [ceil(seq_k / 8)]: bits of positions that see and are seen despite the window;
                   pattern_globals() makes them from a list
    cu_seqlens     i32 or i64 [documents + 1] or [batch, documents + 1]: p and j in one document
    key_begin, key_end  i32 or i64 [batch]: key_begin <= j < key_end (padding, length of a cache)
    bits           u8 [seq_q, ceil(seq_k / 8)] or [batch, seq_q, ceil(seq_k / 8)], lowest bit first
    mask           f32, f16, bf16 or bool (u8) [seq_q, seq_k] or [batch, seq_q, seq_k]: hidden where
                   -inf or False (0)
    function       function(b, i, j) -> bool, called from several threads; CPU only; it cannot use
                   a context that is in use

    Tensors are read when an operation runs: change their contents in place between calls, e.g.
    key_end in decode.
    """

    def __init__(
        self,
        *,
        causal: bool = False,
        alignment: str = "bottom_right",
        left: int | None = None,
        right: int | None = None,
        prefix_length: int = 0,
        prefix: Tensor | None = None,
        globals: Tensor | None = None,
        cu_seqlens: Tensor | None = None,
        key_begin: Tensor | None = None,
        key_end: Tensor | None = None,
        bits: Tensor | None = None,
        mask: Tensor | None = None,
        function: Callable[[int, int, int], bool] | None = None,
    ):
        given = (prefix, globals, cu_seqlens, key_begin, key_end, bits, mask)
        settings = {
            "causal": causal,
            "alignment": alignment,
            "left": left,
            "right": right,
            "prefix_length": prefix_length,
        }
        self.settings = json.dumps(settings)
        """The arguments but tensors and function, for graphs."""
        self.tensors = {name: x for name, x in zip(_TENSORS, given) if x is not None}
        self.function = function
        self.alignment = alignment
        self._struct = Arguments("rw_pattern")
        args = self._struct.args
        args.causal = causal
        args.alignment = ALIGNMENT[alignment]
        for side, keys in ((args.left, left), (args.right, right)):
            if keys is not None:
                side.given = True
                side.keys = keys
        args.prefix_length = prefix_length
        self._callback: Callback | None = None
        if function is not None:
            self._callback = Callback(
                "bool(void *, const rw_pattern_pair *)",
                lambda _, pair: bool(function(pair.b, pair.i, pair.j)),
            )
            args.function = self._callback.pointer

    def fill(self, call: Call):
        """The C struct, with tensors on the device of the call."""
        for name, x in self.tensors.items():
            call.put(name, x, where=self._struct)
        if self._callback is not None:
            call.callbacks.append(self._callback)
        return self._struct.args

    def on_host(self, function, *arguments) -> None:
        """Calls a function without a context, on tensors in host memory."""
        kept = []
        for name, x in self.tensors.items():
            place = self._struct.places[name]
            kept.append(_tensors.adapter(x, name).pack(x, place, name, _tensors.Host, False))
        try:
            _check(function, self._struct.args, *arguments)
        finally:
            del kept
            if self._callback is not None:
                self._callback.reraise()


def pattern_fill(
    pattern: Pattern,
    seq_q: int | None = None,
    seq_k: int | None = None,
    *,
    batch: int | None = None,
    dtype: str = "f32",
    like: Tensor | None = None,
    out: Tensor | None = None,
    context: Context | None = None,
) -> Tensor:
    """out[b, i, j] = 0 where query i of sequence b sees key j, else -inf.

    seq_q, seq_k, batch  the shape of the output; not needed with out
    dtype                "f32", "f16" or "bf16", of a new output
    like                 a tensor whose library and device a new output has; None: those of the
                         pattern's tensors, else numpy
    out                  f32, f16 or bf16 [seq_q, seq_k] or [batch, seq_q, seq_k]

    Returns out.
    """
    model = first(out, like, *pattern.tensors.values())
    with begin("pattern_fill", model, context) as call:
        shape = None if out is not None else _shape(batch, seq_q, seq_k)
        out = call.output("out", out, model, shape, dtype)
        call.run(pattern.fill(call))
        return out


def pattern_fill_bits(
    pattern: Pattern,
    seq_q: int | None,
    seq_k: int,
    *,
    batch: int | None = None,
    like: Tensor | None = None,
    out: Tensor | None = None,
    context: Context | None = None,
) -> Tensor:
    """Bit j % 8 of out[b, i, j / 8] = 1 where query i of sequence b sees key j, else 0.

    out  u8 [seq_q, ceil(seq_k / 8)] or [batch, seq_q, ceil(seq_k / 8)]

    Returns out; otherwise as pattern_fill().
    """
    model = first(out, like, *pattern.tensors.values())
    with begin("pattern_fill_bits", model, context) as call:
        shape = None if out is not None else _shape(batch, seq_q, (seq_k + 7) // 8)
        out = call.output("out", out, model, shape, "u8")
        call.run(pattern.fill(call), seq_k)
        return out


def _shape(batch, *rest):
    if None in rest:
        raise InvalidArgument("the lengths of the output are required without out=")
    return rest if batch is None else (batch, *rest)


def pattern_positions(
    seq: int | None = None,
    ids: str = "sequential",
    *,
    batch: int | None = None,
    window: int = 0,
    offset: int = 0,
    globals: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
    table: Tensor | None = None,
    function: Callable[[int, int], int] | None = None,
    dtype: str = "i64",
    like: Tensor | None = None,
    out: Tensor | None = None,
    context: Context | None = None,
) -> Tensor:
    """The ids of a pattern, for pos = s + offset or, with cu_seqlens, the position in its document:

        "sequential"    pos
        "local"         pos - window where pos >= window, else 0
        "global_local"  pos where it is in globals, else pos mod window
        "custom"        table[b, pos], or function(b, pos) (CPU only)

    globals     u8, a bit for each position
    cu_seqlens  i32 or i64 [documents + 1] or [batch, documents + 1]
    table       i32 or i64 [positions] or [batch, positions]
    out         i32 or i64 [seq] or [batch, seq]; a new one has `dtype`

    Returns out.
    """
    model = first(out, like, globals, cu_seqlens, table)
    with begin("pattern_positions", model, context) as call:
        args = call.args
        args.ids = PATTERN_IDS[ids]
        args.window = window
        args.offset = offset
        call.put("globals", globals)
        call.put("cu_seqlens", cu_seqlens)
        call.put("table", table)
        if function is not None:
            callback = Callback(
                "int64_t(void *, int64_t, int64_t)",
                lambda _, b, position: int(function(b, position)),
            )
            args.function = callback.pointer
            call.callbacks.append(callback)
        shape = None if out is not None else _shape(batch, seq)
        out = call.output("out", out, model, shape, dtype)
        call.run()
        return out


def _lengths(struct, batch: int, seq_q: int, seq_k: int) -> None:
    struct.batch, struct.seq_q, struct.seq_k = batch, seq_q, seq_k


def pattern_visible(
    pattern: Pattern, seq_q: int, seq_k: int, i: int, j: int, *, b: int = 0, batch: int = 1
) -> bool:
    """Whether query i of sequence b sees key j; the pattern's tensors are in host memory."""
    question, visible = ffi.new("rw_pattern_question *"), ffi.new("bool *")
    _lengths(question.shape, batch, seq_q, seq_k)
    question.pair.b, question.pair.i, question.pair.j = b, i, j
    pattern.on_host(lib.rw_pattern_visible, question, visible)
    return visible[0]


def pattern_ask_tile(
    pattern: Pattern,
    seq_q: int,
    seq_k: int,
    queries: tuple[int, int],
    keys: tuple[int, int],
    *,
    b: int = 0,
    batch: int = 1,
) -> str:
    """Whether "all", "some" or "none" of the pairs of queries [begin, end) and keys [begin, end) of
    sequence b are visible; the pattern's tensors are in host memory."""
    rectangle, tile = ffi.new("rw_pattern_rectangle *"), ffi.new("rw_tile *")
    _lengths(rectangle.shape, batch, seq_q, seq_k)
    rectangle.b = b
    rectangle.i_begin, rectangle.i_end = queries
    rectangle.j_begin, rectangle.j_end = keys
    pattern.on_host(lib.rw_pattern_ask_tile, rectangle, tile)
    return TILE.names[int(ffi.cast("int", tile[0]))]


def pattern_bake(pattern: Pattern, seq_q: int, seq_k: int, *, batch: int = 1) -> np.ndarray:
    """The bits of a pattern, its function included, in host memory: u8
    [batch, seq_q, ceil(seq_k / 8)]."""
    shape = ffi.new("rw_pattern_shape *")
    _lengths(shape, batch, seq_q, seq_k)
    if min(batch, seq_q, seq_k) < 0:
        raise InvalidArgument(f"the lengths are {(batch, seq_q, seq_k)}, expected none below 0")
    bits = np.empty((batch, seq_q, (seq_k + 7) // 8), np.uint8)
    data = ffi.from_buffer("uint8_t[]", bits.reshape(-1)) if bits.size else ffi.NULL
    pattern.on_host(lib.rw_pattern_bake, shape, data)
    return bits


def pattern_globals(positions: Iterable[int], seq_k: int) -> np.ndarray:
    """The bits of global positions for Pattern(globals=), in host memory: u8 [ceil(seq_k / 8)]."""
    if seq_k < 0:
        raise InvalidArgument(f"seq_k is {seq_k}, expected it not to be negative")
    values = np.array(list(positions), np.int64)
    bits = np.zeros((seq_k + 7) // 8, np.uint8)
    request = ffi.new("rw_pattern_globals_list *")
    data = ffi.from_buffer("int64_t[]", values) if values.size else ffi.NULL
    request.positions, request.count, request.seq_k = data, values.size, seq_k
    target = ffi.from_buffer("uint8_t[]", bits) if bits.size else ffi.new("uint8_t[1]")
    _check(lib.rw_pattern_globals, request, target)
    return bits


def _check(function, *arguments) -> None:
    """Calls a function without a context, whose sentence is in a message."""
    message = ffi.new("rw_message *")
    status = function(*arguments, message)
    if status:
        raise error(status, text(message.text))
