"""The package: declarations, tensors it refuses, errors, threads, speed of calls."""

import inspect
import re
import subprocess
import sys
import threading
import typing
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from conftest import Exported, close
from references import normalised

import ropewalk
from ropewalk import _library, _tensors
from ropewalk._library import ffi, lib

HEADERS = Path(ropewalk.__file__).parent / "include"


def declared_functions():
    text = _library.declarations(HEADERS, "ropewalk/ropewalk.h")
    return set(re.findall(r"^\w[^;({]*?\b(rw_\w+)\(", text, flags=re.MULTILINE))


def test_every_function_is_bound():
    """Each C function is a function of the package, or part of one of its classes."""
    within = {
        "rw_version": "__version__",
        "rw_version_number": "__version__",
        "rw_abi_version": "compared at import",
        "rw_status_name": "Error",
        "rw_dtype_name": "names of dtypes",
        "rw_dtype_size": "names of dtypes",
        "rw_tensor_contiguous": "tensors have strides",
        "rw_tensor_transpose": "tensors have strides",
        "rw_context_create": "Context",
        "rw_context_destroy": "Context",
        "rw_context_get_info": "Context",
        "rw_context_set_stream": "Context",
        "rw_context_transfers": "Context",
        "rw_last_error": "Error",
        "rw_last_fault": "Error",
        "rw_synchronize": "Context",
        "rw_supports": "Context",
        "rw_operation_name": "operations",
        "rw_alloc": "memory belongs to numpy and torch",
        "rw_free": "memory belongs to numpy and torch",
        "rw_copy": "memory belongs to numpy and torch",
        "rw_rope_create": "Rope",
        "rw_rope_destroy": "Rope",
        "rw_sinusoid_create": "Sinusoid",
        "rw_sinusoid_destroy": "Sinusoid",
        "rw_t5_create": "T5",
        "rw_t5_destroy": "T5",
        "rw_t5_bucket": "T5",
    }
    declared = declared_functions()
    assert len(declared) > 50
    for name in declared:
        assert hasattr(lib, name)
        assert name in within or hasattr(ropewalk, name[3:]), f"{name} is not bound"
    assert set(within) <= declared


def test_functions_have_types_and_shapes():
    for name in ropewalk.__all__:
        item = getattr(ropewalk, name)
        assert item.__doc__, name
        if inspect.isfunction(item):
            hints = typing.get_type_hints(item)
            assert set(hints) == {*inspect.signature(item).parameters, "return"}, name
    public = {name for name in vars(ropewalk) if not name.startswith("_")}
    assert {name for name in public if not inspect.ismodule(getattr(ropewalk, name))} == set(
        ropewalk.__all__
    )
    assert (Path(ropewalk.__file__).parent / "py.typed").exists()


def test_specs_have_the_fields_of_the_struct():
    names = {name for name, _ in ffi.typeof("rw_rope_spec").fields}
    assert {field.name for field in fields(ropewalk.RopeSpec)} == names


def test_enumerations_are_named_in_docstrings():
    for enumeration, item in (
        (_library.ROPE_TYPE, ropewalk.RopeSpec),
        (_library.ROPE_PAIRING, ropewalk.RopeSpec),
        (_library.ROPE_AXES, ropewalk.RopeSpec),
        (_library.ALIGNMENT, ropewalk.Pattern),
        (_library.DIRECTION, ropewalk.rope_apply),
        (_library.NORM_CAST, ropewalk.rms_norm),
        (_library.GLU_PACKING, ropewalk.glu),
        (_library.GLU_ACTIVATION, ropewalk.glu),
        (_library.PATTERN_IDS, ropewalk.pattern_positions),
        (_library.MROPE_ADVANCE, ropewalk.positions_mrope),
        (_library.MX_FORMAT, ropewalk.mx_dequantize),
        (_library.MX_NIBBLES, ropewalk.mx_dequantize),
        (_library.SINUSOID_LAYOUT, ropewalk.Sinusoid),
        (_library.TILE, ropewalk.pattern_ask_tile),
        (_library.BACKEND, ropewalk.Context),
        (_library.CPU_ISA, ropewalk.Context),
        (_library.FAULT, ropewalk.Fault),
    ):
        for name in enumeration:
            if enumeration is not _library.FAULT or name != "none":
                assert f'"{name}"' in item.__doc__, f"{item}: {name}"


def test_another_abi_is_an_import_error(tmp_path):
    """A library whose rw_abi_version() is another, and a file that is no library."""
    source = tmp_path / "other.c"
    source.write_text("int rw_abi_version(void) { return 999; }")
    file = tmp_path / "other.so"
    if subprocess.run(["cc", "-shared", "-fPIC", "-o", file, source]).returncode:
        pytest.skip("no C compiler")
    with pytest.raises(ImportError, match="binary interface 999"):
        _library.open_library(file)
    with pytest.raises(ImportError, match="cannot be loaded"):
        _library.open_library(source)


def test_refused_tensors():
    x = np.ones((2, 8), np.float32)
    cases = [
        ([1.0], "of type list"),
        (x.astype(np.float64), "dtype float64"),
        (x.astype(">f4"), "dtype >f4"),
        (np.float32(1), "of type float32"),
        (np.ones((), np.float32), "rank 0"),
        (np.ones((1, 1, 1, 1, 8), np.float32), "rank 5"),
        (np.ma.masked_array(x), "of type MaskedArray"),
        (np.zeros((2, 8), "f4,u1")["f0"], "strides"),
        (Exported(x.astype(np.float64)), "DLPack code 2 of 64 bits"),
        (np.asfortranarray(x), "stride"),
    ]
    for value, sentence in cases:
        with pytest.raises(ropewalk.InvalidArgument, match=sentence):
            ropewalk.rms_norm(value, eps=1e-5, out=x)
    with pytest.raises(ropewalk.InvalidArgument, match="weight is of type int"):
        ropewalk.rms_norm(x, 1, eps=1e-5)
    assert (x == 1).all()


def test_read_only_outputs_are_refused():
    x = np.ones((2, 8), np.float32)
    fixed = x.copy()
    fixed.flags.writeable = False
    close(ropewalk.rms_norm(fixed, eps=0.0), x)
    for out in (fixed, Exported(fixed)):
        # An old numpy refuses to export it at all.
        with pytest.raises(ropewalk.InvalidArgument, match="read-only|readonly"):
            ropewalk.rms_norm(x, eps=0.0, out=out)


def test_outputs_are_made_like_inputs(kind, random):
    x = random.standard_normal((4, 2, 8)).astype(np.float32)
    swapped = np.ascontiguousarray(x.transpose(1, 0, 2)).transpose(1, 0, 2)
    got = ropewalk.rms_norm(swapped, eps=1e-5)
    assert got.strides == swapped.strides
    wide = np.broadcast_to(x[:, :1], (4, 3, 8))
    close(ropewalk.rms_norm(wide, eps=1e-5), normalised(wide, None, 1e-5))
    half = kind(x.astype(np.float16))
    assert kind.read(ropewalk.rms_norm(half, eps=1e-5)).dtype == np.float16


def test_errors():
    x = np.ones((2, 8), np.float32)
    with pytest.raises(ropewalk.InvalidArgument, match="rw_rms_norm: .*weight") as caught:
        ropewalk.rms_norm(x, np.ones(7, np.float32), eps=1e-5)
    assert caught.value.status == "RW_INVALID_ARGUMENT" and isinstance(caught.value, ValueError)
    assert caught.value.fault is None
    with pytest.raises(ropewalk.InvalidArgument, match="'sideways'.*expected one of 'forward'"):
        ropewalk.rope_apply(
            ropewalk.Rope(ropewalk.RopeSpec(8), max_positions=4), x, direction="sideways"
        )
    with pytest.raises(ropewalk.InvalidArgument, match="pair"):
        ropewalk.rms_norm(x, residual=x, eps=1e-5, out=x)
    with pytest.raises(ropewalk.InvalidArgument, match="theta"):
        ropewalk.Rope(ropewalk.RopeSpec(8, theta=-1), max_positions=4)
    with pytest.raises(ropewalk.Error):
        ropewalk.Context("cpu", num_threads=5000)
    with pytest.raises(ropewalk.InvalidArgument, match="device is mars"):
        ropewalk.Rope(ropewalk.RopeSpec(8), device="mars")
    for status in ("OUT_OF_MEMORY", "UNSUPPORTED", "BACKEND_UNAVAILABLE", "DEVICE_ERROR"):
        from ropewalk._errors import error

        made = error(_library.STATUS[status.lower()], "why")
        assert made.status == "RW_" + status and str(made) == "why"
    # The context still works.
    close(ropewalk.rms_norm(x, eps=0.0), x)


def test_contexts():
    context = ropewalk.Context("cpu", num_threads=3)
    assert (context.backend, context.num_threads) == ("cpu", 3)
    assert "rms_norm" in ropewalk.operations()
    assert context.supports("attention", "bf16") and not context.supports("attention", "i32")
    with pytest.raises(ropewalk.InvalidArgument):
        context.supports("juggling", "f32")
    assert ropewalk.backend_probe("cpu").usable
    assert not ropewalk.backend_probe("hip").found or ropewalk.backend_probe("hip").platform
    assert context.transfers == (0, 0)
    context.synchronize()


def test_objects_keep_their_context():
    rope = ropewalk.Rope(ropewalk.RopeSpec(8), max_positions=4, context=ropewalk.Context("cpu"))
    x = np.ones((1, 2, 1, 8), np.float32)
    close(ropewalk.rope_apply(rope, x)[0, 0], x[0, 0])


def test_code_of_the_caller_that_a_call_runs():
    """It cannot wait for the end of the call."""
    x = np.ones((2, 8), np.float32)

    class Calling:
        def __dlpack__(self, **arguments):
            ropewalk.rms_norm(x, eps=1e-5)
            return x.__dlpack__(**arguments)

        def __dlpack_device__(self):
            return x.__dlpack_device__()

    with pytest.raises(ropewalk.InvalidArgument, match="the context is in use"):
        ropewalk.rms_norm(Calling(), eps=1e-5)
    assert ropewalk.rms_norm(x, eps=1e-5).all()


def test_what_is_no_tensor():
    x = np.ones((1, 2, 2, 16), np.float32)
    for call in (
        lambda: ropewalk.attention(None, x, x),
        lambda: ropewalk.attention(x, x, "v"),
        lambda: ropewalk.alibi_slopes(out="slopes"),
        lambda: ropewalk.glu(packed=7),
    ):
        with pytest.raises(ropewalk.InvalidArgument, match="is of type"):
            call()


def test_threads(random):
    """Each thread has a context of its own; a shared one runs calls one after another."""
    shared = ropewalk.Context("cpu", num_threads=1)
    x = random.standard_normal((8, 64)).astype(np.float32)
    found, contexts = [], set()

    def work(number):
        contexts.add(id(ropewalk.default_context()))
        barrier.wait()
        mine, expected = x * (number + 1), normalised(x * (number + 1), None, 1e-5)
        for _ in range(200):
            for context in (None, shared):
                got = ropewalk.rms_norm(mine, eps=1e-5, context=context)
                found.append(np.abs(got - expected).max() < 1e-5)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # threads are switched within calls
    barrier = threading.Barrier(4)
    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sys.setswitchinterval(interval)
    assert len(contexts) == 4 and len(found) == 4 * 400 and all(found)


def test_bfloat16_of_ml_dtypes(random):
    bfloat16 = pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed").bfloat16
    x = random.standard_normal((3, 32)).astype(bfloat16)
    got = ropewalk.rms_norm(x, eps=1e-5)
    assert got.dtype == bfloat16
    close(got.astype(np.float32), normalised(x.astype(np.float32), None, 1e-5), 2**-8)


def test_the_argument_struct_is_cleared():
    """An argument of one call does not remain for the next one."""
    x = np.full((2, 8), 2, np.float32)
    weight = np.full(8, 3, np.float32)
    close(ropewalk.rms_norm(x, weight, eps=0.0, weight_offset=1.0), 2 * x)
    close(ropewalk.rms_norm(x, eps=0.0), x / 2)


def test_layout_of_tensors():
    names = [name for name, _ in _tensors.TENSOR.fields]
    assert names == ["data", "dtype", "rank", "shape", "stride"]


def test_import_needs_neither_torch_nor_ml_dtypes():
    code = (
        "import sys; sys.modules['torch'] = sys.modules['ml_dtypes'] = None;"
        "import numpy as np, ropewalk; ropewalk.rms_norm(np.ones((1, 8), np.float32), eps=1e-5)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
