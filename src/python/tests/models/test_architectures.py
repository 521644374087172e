"""Tiny models of many architectures: left padded batches, prefill and decode, against eager."""

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("transformers", reason="transformers is not installed")

import model_zoo  # noqa: E402

import ropewalk  # noqa: E402


def test_enough_architectures():
    assert len({case.name for case in model_zoo.CASES}) >= 30


@pytest.mark.parametrize("case", model_zoo.CASES, ids=lambda case: case.label or case.name)
def test_model(case):
    """With attn_implementation="ropewalk" alone, and patched: what patch() replaces is what the
    case expects."""
    alone, patched, report = model_zoo.compare(case)
    assert alone < 5e-5 and patched < 5e-5
    assert model_zoo.replaced(report) == set(case.patched), str(report)


@pytest.mark.parametrize("case", model_zoo.CASES, ids=lambda case: case.label or case.name)
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU")
@pytest.mark.skipif(not ropewalk.backend_probe("hip").automatic, reason="ropewalk finds no GPU")
def test_model_on_a_gpu(case):
    """As test_model(); torch's products there have larger errors."""
    alone, patched, report = model_zoo.compare(case, "cuda")
    assert alone < 5e-4 and patched < 5e-4
    assert model_zoo.replaced(report) == set(case.patched), str(report)
