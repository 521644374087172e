"""Every operation is tested with tensors of each kind, against a formula in float64."""

import numpy as np
import pytest

try:
    import torch
except ImportError:
    torch = None


class Exported:
    """A tensor that offers DLPack and nothing else."""

    def __init__(self, array):
        self.array = array

    def __dlpack__(self, **arguments):
        return self.array.__dlpack__(**arguments)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()


class Kind:
    """Makes tensors of one library, and reads them."""

    def __init__(self, name):
        self.name = name

    def __call__(self, array, dtype=None):
        if array is None:
            return None
        array = np.array(array, dtype or array.dtype, order="C")
        if self.name == "torch":
            return torch.from_numpy(array)
        if self.name == "dlpack":
            return Exported(array)
        if self.name == "strided":
            wide = np.zeros((*array.shape[:-1], array.shape[-1] + 3), array.dtype)
            view = wide[..., : array.shape[-1]]
            view[...] = array
            return view
        return array

    def read(self, x):
        """A numpy array of the same dtype."""
        assert isinstance(x, torch.Tensor if self.name == "torch" else (np.ndarray, Exported))
        return x.numpy() if self.name == "torch" else getattr(x, "array", x)


@pytest.fixture(params=["numpy", "strided", "dlpack", "torch"])
def kind(request):
    if request.param == "torch" and torch is None:
        pytest.skip("torch is not installed")
    return Kind(request.param)


@pytest.fixture
def random():
    return np.random.default_rng(7)


def close(got, expected, tolerance=2e-6):
    """|got - expected| <= tolerance * max(1, largest |expected|), with equal infinities."""
    got = np.asarray(got, np.float64)
    expected = np.asarray(expected, np.float64)
    assert got.shape == expected.shape
    finite = np.isfinite(expected)
    np.testing.assert_array_equal(got[~finite], expected[~finite])
    scale = max(1.0, np.abs(expected[finite]).max(initial=0))
    worst = np.abs(got[finite] - expected[finite]).max(initial=0)
    assert worst <= tolerance * scale, f"differs by {worst}, allowed {tolerance * scale}"
