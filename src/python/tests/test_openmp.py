"""The OpenMP runtime that torch brings is used, whatever its soname. The package torch is a folder
that contains a copy of the system's runtime."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest


def system_runtime():
    import ropewalk  # noqa: F401, loads it

    for line in Path("/proc/self/maps").read_text().splitlines():
        found = re.search(r"/\S*libgomp\S*", line)
        if found:
            return Path(found[0])
    return None


@pytest.mark.parametrize("folder", ["torch/lib", "torch.libs"])
@pytest.mark.parametrize("soname", [b"libgomp.so.1", b"libgomq.so.1"])
def test_a_bundled_runtime_is_used(tmp_path, folder, soname):
    runtime = system_runtime()
    if runtime is None:
        pytest.skip("ropewalk was built with another OpenMP runtime than libgomp")
    bundled = tmp_path / folder
    bundled.mkdir(parents=True)
    (tmp_path / "torch").mkdir(exist_ok=True)
    (tmp_path / "torch" / "__init__.py").touch()
    file = bundled / "libgomp-a34b3233.so.1"
    shutil.copy(runtime, file)
    content = file.read_bytes()
    assert content.count(b"\0libgomp.so.1\0") == 1
    file.write_bytes(content.replace(b"\0libgomp.so.1\0", b"\0" + soname + b"\0"))
    code = (
        "import numpy as np, ropewalk\n"
        "ropewalk.rms_norm(np.ones((64, 4096), np.float32), eps=1e-5)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(tmp_path), "LD_DEBUG": "bindings"},
        capture_output=True,
        text=True,
    )
    bindings = re.findall(r"libropewalk\S* \[0\] to (\S+) .*symbol `GOMP_parallel'", run.stderr)
    assert run.returncode == 0, run.stderr[-2000:]
    assert set(bindings) == {str(file)}
