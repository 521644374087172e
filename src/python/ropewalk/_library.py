"""The C library: its declarations, read from the installed headers, and its enumerations."""

import ctypes
import importlib.util
import os
import re
import sys
from pathlib import Path

import cffi

FOLDER = Path(__file__).resolve().parent


def declarations(folder: Path, header: str, seen=None) -> str:
    """The declarations of a header and of those that it includes, as cffi reads them: without
    comments, C++ and preprocessor lines other than numeric constants."""
    seen = set() if seen is None else seen
    if header in seen:
        return ""
    seen.add(header)
    text = re.sub(r"[ \t]*/\*.*?\*/", "", (folder / header).read_text(), flags=re.DOTALL)
    text = re.sub(r"^#ifdef __cplusplus\n.*?^#endif\n", "", text, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(
        r"^#include <(ropewalk/\w+\.h)>$",
        lambda match: declarations(folder, match[1], seen),
        text,
        flags=re.MULTILINE,
    )
    text = re.sub(r"^#(?!define RW_\w+ \d+$).*$", "", text, flags=re.MULTILINE)
    return text.replace("RW_API ", "")


def share_openmp() -> None:
    """Loads the OpenMP runtime that torch brings before libropewalk, which then uses it too.

    Two runtimes in one process are two pools of threads that spin on the same cores. The loader
    recognizes a second runtime by its soname; where torch's file has another one
    (libgomp-a34b3233.so.1), the symbols of a globally loaded library are found first."""
    module = sys.modules.get("torch")
    try:
        spec = getattr(module, "__spec__", None) or importlib.util.find_spec("torch")
    except (ImportError, ValueError):
        return
    if spec is None or not spec.origin:
        return
    torch = Path(spec.origin).parent
    for folder in (torch / "lib", torch.parent / "torch.libs"):
        for file in sorted(folder.glob("libgomp*.so*")):
            ctypes.CDLL(str(file), mode=os.RTLD_GLOBAL | os.RTLD_NOW)
            return


def open_library(file: Path):
    """Opens libropewalk; ImportError if its binary interface is not that of the headers."""
    share_openmp()
    try:
        library = ffi.dlopen(str(file))
        abi = library.rw_abi_version()
    except (OSError, AttributeError) as error:
        raise ImportError(f"ropewalk: {file} cannot be loaded: {error}") from error
    if abi != library.RW_ABI_VERSION:
        raise ImportError(
            f"ropewalk: {file} has binary interface {abi}, and the headers beside it have "
            f"{library.RW_ABI_VERSION}; install the package again"
        )
    return library


class Enumeration(dict):
    """The values of a C enumeration by lower-case name: RW_NORM_CAST_BEFORE_WEIGHT is
    "before_weight"."""

    def __init__(self, ctype: str):
        names = ffi.typeof(ctype).elements
        prefix = os.path.commonprefix(list(names.values()))
        length = prefix.rfind("_") + 1
        super().__init__({names[value][length:].lower(): value for value in sorted(names)})
        self.ctype = ctype
        self.names = {value: name for name, value in self.items()}

    def __missing__(self, name):
        from ._errors import InvalidArgument

        valid = ", ".join(map(repr, self))
        raise InvalidArgument(f"{name!r} is not a value of {self.ctype}, expected one of {valid}")


ffi = cffi.FFI()
ffi.cdef(declarations(FOLDER / "include", "ropewalk/ropewalk.h"))
lib = open_library(FOLDER / "lib" / "libropewalk.so")

ALIGNMENT = Enumeration("rw_alignment")
BACKEND = Enumeration("rw_backend_kind")
CPU_ISA = Enumeration("rw_cpu_isa")
DIRECTION = Enumeration("rw_rope_direction")
DTYPE = Enumeration("rw_dtype")
F32_PRODUCTS = Enumeration("rw_f32_products")
FAULT = Enumeration("rw_fault_kind")
GLU_ACTIVATION = Enumeration("rw_glu_activation")
GLU_PACKING = Enumeration("rw_glu_packing")
MROPE_ADVANCE = Enumeration("rw_mrope_advance")
MX_FORMAT = Enumeration("rw_mx_format")
MX_NIBBLES = Enumeration("rw_mx_nibbles")
NORM_CAST = Enumeration("rw_norm_cast")
PATTERN_IDS = Enumeration("rw_pattern_ids")
ROPE_AXES = Enumeration("rw_rope_axes")
ROPE_PAIRING = Enumeration("rw_rope_pairing")
ROPE_TYPE = Enumeration("rw_rope_type")
SINUSOID_LAYOUT = Enumeration("rw_sinusoid_layout")
STATUS = Enumeration("rw_status")
TILE = Enumeration("rw_tile")


def text(pointer) -> str:
    """A C string; "" for NULL."""
    return ffi.string(pointer).decode("utf-8", "replace") if pointer else ""
