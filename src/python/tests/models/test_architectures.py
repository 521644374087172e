"""Tiny models of many architectures: left padded batches, prefill and decode, against eager."""

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("transformers", reason="transformers is not installed")

import model_zoo  # noqa: E402

import ropewalk.transformers  # noqa: E402


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
@pytest.mark.skipif(not model_zoo.HAS_GPU, reason="torch and ropewalk find no GPU")
def test_model_on_a_gpu(case):
    """As test_model(); torch's products there have larger errors."""
    alone, patched, report = model_zoo.compare(case, "cuda")
    assert alone < 5e-4 and patched < 5e-4
    assert model_zoo.replaced(report) == set(case.patched), str(report)


@pytest.mark.parametrize("name", ["Qwen2VL", "Qwen3VL"])
def test_an_image(name):
    """Its tokens have ids of t, h and w; the vision tower attends in both directions."""
    case = next(case for case in model_zoo.CASES if case.name == name)
    ids = torch.tensor([[5, 6, 7, 90, 90, 90, 90, 8, 9, 10]])
    results = []
    for step in ("eager", "ropewalk", "patched"):
        model = case.make()
        model.config.image_token_id = 90
        vision = model.config.vision_config
        width = 3 * vision.temporal_patch_size * vision.patch_size**2
        if step == "patched":
            assert "rotary" in model_zoo.replaced(ropewalk.transformers.patch(model))
        else:
            model.set_attn_implementation(step)
        with torch.no_grad():
            out = model(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                pixel_values=torch.randn(16, width, generator=torch.Generator().manual_seed(1)),
                image_grid_thw=torch.tensor([[1, 4, 4]]),
                mm_token_type_ids=(ids == 90).int(),
            )
        results.append(out.logits)
    assert (results[1] - results[0]).abs().max() < 5e-5
    assert (results[2] - results[0]).abs().max() < 5e-5
    assert (results[0][:, :3] - results[0][:, 3:6]).abs().max() > 0.1
