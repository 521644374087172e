"""What is particular to torch: dtypes, autograd, devices, the OpenMP runtime."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import Exported, close
from references import normalised

import ropewalk

torch = pytest.importorskip("torch", reason="torch is not installed")


def test_bfloat16():
    x = torch.randn(3, 32, dtype=torch.bfloat16)
    got = ropewalk.rms_norm(x, eps=1e-5)
    assert got.dtype == torch.bfloat16
    close(got.float().numpy(), normalised(x.float().numpy(), None, 1e-5), 2**-8)


def test_bfloat16_by_dlpack():
    x = torch.randn(3, 32, dtype=torch.bfloat16)
    out = torch.empty_like(x)
    ropewalk.rms_norm(Exported(x), eps=1e-5, out=Exported(out))
    assert torch.equal(out, ropewalk.rms_norm(x, eps=1e-5))
    pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed")
    made = ropewalk.rms_norm(Exported(x), eps=1e-5)
    assert (made.view(np.int16) == out.view(torch.int16).numpy()).all()


def test_views_and_subclasses():
    x = torch.randn(2, 4, 5, 16).transpose(1, 2)
    got = ropewalk.rms_norm(x, eps=1e-5)
    assert got.stride() == x.stride()
    close(got.numpy(), normalised(x.numpy(), None, 1e-5))
    weight = torch.nn.Parameter(torch.ones(16))
    with torch.no_grad():
        close(ropewalk.rms_norm(x, weight, eps=1e-5).numpy(), got.numpy())
    wide = torch.randn(4, 1, 8).expand(4, 3, 8)
    close(ropewalk.rms_norm(wide, eps=1e-5).numpy(), normalised(wide.numpy(), None, 1e-5))


def test_refused():
    x = torch.ones(2, 8)
    weight = torch.nn.Parameter(torch.ones(8))
    with pytest.raises(ropewalk.InvalidArgument, match="weight requires a gradient"):
        ropewalk.rms_norm(x, weight, eps=1e-5)
    with pytest.raises(ropewalk.InvalidArgument, match="dtype torch.float64"):
        ropewalk.rms_norm(x.double(), eps=1e-5)
    with pytest.raises(ropewalk.InvalidArgument, match="weight is on meta"):
        ropewalk.rms_norm(x, torch.ones(8, device="meta"), eps=1e-5)
    with pytest.raises(ropewalk.InvalidArgument, match="neither in host memory nor"):
        ropewalk.rms_norm(x.to("meta"), eps=1e-5)
    with pytest.raises(ropewalk.InvalidArgument, match="strided"):
        ropewalk.rms_norm(x.to_sparse(), eps=1e-5)


def test_mixed_libraries():
    x = torch.randn(3, 32)
    out = np.empty((3, 32), np.float32)
    assert ropewalk.rms_norm(x, eps=1e-5, out=out) is out
    close(out, normalised(x.numpy(), None, 1e-5))


@pytest.mark.parametrize("order", ["torch, ropewalk", "ropewalk, torch"])
def test_one_openmp_runtime(order):
    """After both worked, one OpenMP runtime is mapped."""
    code = (
        f"import {order}\n"
        "import re\n"
        "x = torch.randn(512, 512)\n"
        "ropewalk.rms_norm(x @ x, eps=1e-5)\n"
        "maps = open('/proc/self/maps').read()\n"
        "print(*sorted(set(re.findall(r'/\\S*lib(?:gomp|omp|iomp)[^/\\s]*', maps))))\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert len(run.stdout.split()) == 1, run.stdout
    bundled = list(Path(torch.__file__).parent.glob("lib/libgomp*.so*"))
    if bundled:
        assert run.stdout.split() == [str(bundled[0].resolve())]
