"""What a model's config.json says about its positions and its attention, read by libropewalk-io.

    model = ropewalk.io.read_model("config.json")
    model.info["positions"], model.layers[0]["window"], model.ropes[0].spec

The fields are those of rw_model_info, rw_model_layer and rw_model_rope in ropewalk/io.h, with the
same names. Numbers and flags that neither the file nor the model's class determines are -1.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from os import PathLike
from typing import Any, NamedTuple

from ._errors import error
from ._library import FOLDER, ROPE_AXES, ROPE_PAIRING, ROPE_TYPE, declarations, ffi, text
from ._rope import RopeSpec, rope_frequencies

__all__ = ["Model", "ModelRope", "read_model"]


def _open():
    file = FOLDER / "lib" / "libropewalk-io.so"
    if not file.exists():
        raise ImportError(
            "ropewalk.io: this build of the package is without libropewalk-io, which needs jansson"
        )
    known: set[str] = set()  # headers whose declarations cffi already has
    declarations(FOLDER / "include", "ropewalk/ropewalk.h", known)
    ffi.cdef(declarations(FOLDER / "include", "ropewalk/io.h", known))
    try:
        return ffi.dlopen(str(file))
    except OSError as problem:
        raise ImportError(f"ropewalk.io: {file} cannot be loaded: {problem}") from problem


_lib = _open()


class ModelRope(NamedTuple):
    """A rotary embedding: rw_model_rope. The spec describes the head, or the rotated part of a head
    if that is separate (DeepSeek)."""

    spec: RopeSpec
    inverse: bool
    learned_scale: str
    num_heads: int
    num_kv_heads: int


class Model(NamedTuple):
    """A model that was read: rw_model."""

    info: dict[str, Any]
    layers: tuple[dict[str, Any], ...]
    ropes: tuple[ModelRope, ...]


def read_model(config: str | PathLike | Mapping[str, Any], *, pairing: str | None = None) -> Model:
    """Reads a model.

    config   a config.json, a folder that contains one, or the contents of one
    pairing  "half" or "interleaved", instead of that of the model_type; required if that is unknown
    """
    source, message = ffi.new("rw_model_source *"), ffi.new("rw_message *")
    if isinstance(config, Mapping):
        contents = ffi.new("char[]", json.dumps(config).encode())
        source.text, source.text_bytes = contents, len(contents) - 1
    else:
        contents = ffi.new("char[]", str(config).encode())
        source.path = contents
    if pairing is not None:
        kept = ffi.new("rw_rope_pairing *", ROPE_PAIRING[pairing])
        source.pairing = kept
    pointer = ffi.new("rw_model **")
    status = _lib.rw_model_read(source, pointer, message)
    if status:
        raise error(status, text(message.text))
    try:
        return _model(pointer[0])
    finally:
        _lib.rw_model_free(pointer[0])


def _model(model) -> Model:
    info = _fields(_lib.rw_model_get_info(model))
    count = max(info["num_layers"], 0)
    layers = tuple(_fields(_lib.rw_model_get_layer(model, i)) for i in range(count))
    ropes = tuple(_rope(_lib.rw_model_get_rope(model, i)) for i in range(info["num_ropes"]))
    return Model(info, layers, ropes)


def _fields(struct) -> dict[str, Any]:
    """The fields of a struct by name, with enumerations as the lower-case ends of their names."""
    found = {}
    for name, field in ffi.typeof(struct).item.fields:
        value = getattr(struct, name)
        if field.type.kind == "pointer":
            value = text(value)
        elif field.type.kind == "enum":
            value = _short(field.type.elements[int(value)])
        found[name] = value
    return found


def _short(name: str) -> str:
    """RW_POSITIONS_ROPE is "rope", RW_MODEL_NORM_RMS "rms", RW_QK_NORM_ALL_HEADS "all_heads"."""
    for prefix in ("RW_POSITIONS_", "RW_MODEL_NORM_", "RW_QK_NORM_"):
        name = name.removeprefix(prefix)
    return name.lower()


def _rope(rope) -> ModelRope:
    return ModelRope(
        _spec(rope.spec),
        bool(rope.inverse),
        text(rope.learned_scale),
        rope.num_heads,
        rope.num_kv_heads,
    )


def _spec(spec) -> RopeSpec:
    values: dict[str, Any] = {}
    names = {"type": ROPE_TYPE.names, "pairing": ROPE_PAIRING.names, "axes": ROPE_AXES.names}
    arrays = ("short_factor", "long_factor", "frequency_factors")
    for field in dataclasses.fields(RopeSpec):
        value = getattr(spec, field.name)
        if field.name in names:
            values[field.name] = names[field.name][int(value)]
        elif field.name == "sections":
            values[field.name] = tuple(value)
        elif field.name not in arrays:
            values[field.name] = value
    kind = "proportional" if values["type"] == "proportional" else "default"
    plain = RopeSpec(**{**values, "type": kind})
    for name in arrays:
        pointer = getattr(spec, name)
        if pointer:
            values[name] = tuple(pointer[0 : len(rope_frequencies(plain).inv_freq)])
    return RopeSpec(**values)
