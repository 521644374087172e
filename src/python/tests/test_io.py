"""ropewalk.io: models read from config.json."""

import json
from pathlib import Path

import numpy as np
import pytest

import ropewalk

try:
    from ropewalk import io
except ImportError as problem:
    pytest.skip(str(problem), allow_module_level=True)

MODELS = Path(__file__).parents[3] / "tests" / "models"


def test_llama():
    model = io.read_model(MODELS / "llama-3.1-8b.json")
    assert model.info["model_type"] == "llama" and model.info["positions"] == "rope"
    assert model.info["norm"] == "rms" and model.info["norm_eps"] == 1e-5
    assert len(model.layers) == 32
    layer = model.layers[31]
    assert (layer["num_heads"], layer["num_kv_heads"], layer["head_dim"]) == (32, 8, 128)
    assert layer["rope"] == 0 and layer["causal"] == 1 and layer["qk_norm"] == "none"
    assert abs(layer["softmax_scale"] - 128**-0.5) < 1e-9
    (rope,) = model.ropes
    assert rope.spec == ropewalk.RopeSpec(
        128,
        type="llama3",
        theta=500000,
        factor=8,
        low_freq_factor=1,
        high_freq_factor=4,
        rotary_dim=128,
        max_position_embeddings=131072,
        original_max_position_embeddings=8192,
    )
    assert not rope.inverse and not rope.learned_scale and rope.num_heads == 32


def test_layers_differ():
    model = io.read_model(MODELS / "gpt-oss-20b.json")
    assert [layer["window"] for layer in model.layers[:2]] == [128, 0]
    assert [layer["type"] for layer in model.layers[:2]] == ["sliding_attention", "full_attention"]
    assert model.layers[0]["sinks"] == 1
    model = io.read_model(MODELS / "gemma-3-4b.json")
    thetas = {model.ropes[layer["rope"]].spec.theta for layer in model.layers}
    assert thetas == {1e4, 1e6}


@pytest.mark.parametrize("file", sorted(MODELS.glob("*.json")), ids=lambda file: file.stem)
def test_every_model(file):
    """From a file, and from its contents; specs are accepted, arrays have their lengths."""
    model = io.read_model(file)
    assert io.read_model(json.loads(file.read_text())) == model
    for rope in model.ropes:
        assert np.isfinite(ropewalk.rope_frequencies(rope.spec).inv_freq).all()


def test_refused():
    with pytest.raises(ropewalk.InvalidArgument, match="unheard_of"):
        io.read_model({"model_type": "unheard_of", "rope_theta": 1e4})
    with pytest.raises(ropewalk.InvalidArgument, match="nowhere"):
        io.read_model("nowhere/config.json")
    config = {
        "model_type": "unheard_of",
        "rope_theta": 1e4,
        "hidden_size": 64,
        "num_attention_heads": 4,
    }
    assert io.read_model(config, pairing="interleaved").ropes[0].spec.pairing == "interleaved"
    with pytest.raises(ropewalk.InvalidArgument, match="'sideways'"):
        io.read_model(config, pairing="sideways")
