"""Tiny models of many architectures, with random weights, and what eager attention computes.

python model_zoo.py [NAME...]    prints a table of differences
"""

from __future__ import annotations

import inspect
import sys
from dataclasses import dataclass, field
from typing import Any

import torch
import transformers

import ropewalk

HAS_GPU = torch.cuda.is_available() and ropewalk.backend_probe("hip").automatic

VOCABULARY, PROMPT, STEPS, PADDING = 96, 9, 10, 3

# Names of sizes differ between configs: several of them in three styles.
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
GQA = SIZES | {"num_key_value_heads": 2}
HEADS_OF_16 = GQA | {"head_dim": 16}
GPT2_SIZES = {
    "vocab_size": VOCABULARY,
    "n_embd": 64,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": 128,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
MLA = SIZES | {
    "num_key_value_heads": 4,
    "kv_lora_rank": 24,
    "q_lora_rank": 32,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 8,
    "v_head_dim": 16,
    "n_routed_experts": 4,
    "n_group": 1,
    "topk_group": 1,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "n_shared_experts": 1,
    "first_k_dense_replace": 1,
}
MOE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
LOCAL_MOE = {"num_local_experts": 4, "num_experts_per_tok": 2}
MIXED = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 5}
GEMMA4 = HEADS_OF_16 | {
    "layer_types": ["sliding_attention", "full_attention"],
    "sliding_window": 5,
    "global_head_dim": 512,
    "hidden_size_per_layer_input": 16,
    "vocab_size_per_layer_input": VOCABULARY,
}


@dataclass
class Case:
    """A model, by the names of its classes in transformers."""

    name: str
    sizes: dict[str, Any] = field(default_factory=lambda: GQA)
    model: str = ""
    config: str = ""
    kind: str = "decoder"
    label: str = ""
    patched: tuple[str, ...] = ()
    """What patch() must replace: "attention", "rotary", "norm", "gate", "cache"."""

    @property
    def short(self) -> str:
        return self.name.lower()

    def make(self):
        """The model, the same in every call."""
        config = getattr(transformers, self.config or f"{self.name}Config")(**self.sizes)
        default = f"{self.name}ForCausalLM" if self.kind == "decoder" else f"{self.name}Model"
        config._attn_implementation = "eager"
        torch.manual_seed(3)
        model = getattr(transformers, self.model or default)(config).eval()
        fill(model)
        return model


def fill(model) -> None:
    """Weights with which outputs and scores are of the order of 1."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, x in model.named_parameters():
            noise = torch.randn(x.shape, generator=generator)
            if x.dim() < 2:
                x.add_(noise, alpha=0.1)
            else:
                x.copy_(noise / (x.shape[-1] if "embed" not in name else 1) ** 0.5)


def inputs(case: Case) -> dict[str, torch.Tensor]:
    """A batch of 2, the second sequence left padded."""
    generator = torch.Generator().manual_seed(11)
    ids = torch.randint(3, VOCABULARY, (2, PROMPT), generator=generator)
    mask = torch.ones_like(ids)
    mask[1, :PADDING] = 0
    ids[mask == 0] = 0
    made = {"input_ids": ids, "attention_mask": mask}
    if case.kind == "speech":
        return {"input_features": torch.randn(2, 80, 60, generator=generator)}
    return made


@torch.no_grad()
def run(model, case: Case, cache=None, tokens=None):
    """The logits of the real tokens of a prompt and of 10 steps after it, which read `tokens` or
    the likeliest ones; and the tokens."""
    given = {name: x.to(model.device) for name, x in inputs(case).items()}
    if case.kind == "encoder":
        return model(**given).last_hidden_state[given["attention_mask"] == 1], None
    if case.kind == "decoder":
        return run_decoder(model, given, cache, tokens)
    return run_pair(model, given, tokens)


def run_decoder(model, given, cache, tokens):
    mask = given["attention_mask"]
    ids, found, chosen = given["input_ids"], [], []
    parameters = inspect.signature(model.forward).parameters
    options = {} if cache is None else {"cache": cache}
    for step in range(STEPS + 1):
        positions = (mask.cumsum(-1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        arguments = {"attention_mask": mask, "use_cache": True, **options}
        if "position_ids" in parameters:
            arguments["position_ids"] = positions
        out = model(input_ids=ids, **arguments)
        found.append(out.logits[mask[:, -ids.shape[1] :] == 1])
        options = {"cache": out.cache}
        ids = out.logits[:, -1:].argmax(-1) if tokens is None else tokens[step]
        chosen.append(ids)
        mask = torch.cat([mask, mask.new_ones(2, 1)], 1)
    return torch.cat(found), chosen


def run_pair(model, given, tokens):
    """An encoder and a decoder: the decoder's prompt is 4 tokens."""
    ids = torch.tensor([[1, 5, 7, 9], [1, 8, 6, 4]], device=model.device)
    found, chosen, options = [], [], {}
    for step in range(STEPS + 1):
        out = model(**given, decoder_input_ids=ids, use_cache=True, **options)
        found.append(out.logits.flatten(0, 1))
        options = {"cache": out.cache, "encoder_outputs": (out.encoder_last_hidden_state,)}
        ids = out.logits[:, -1:].argmax(-1) if tokens is None else tokens[step]
        chosen.append(ids)
    return torch.cat(found), chosen


ALL = ("attention", "rotary", "norm", "gate", "cache")
TEXT = {"text_config": GQA}

CASES = [
    Case("Llama", patched=ALL),
    Case("Mistral", HEADS_OF_16 | {"sliding_window": 5}, patched=ALL),
    Case("Mixtral", HEADS_OF_16 | LOCAL_MOE, patched=ALL),
    Case("Qwen2", GQA | MIXED | {"use_sliding_window": True}, patched=ALL),
    Case("Qwen3", HEADS_OF_16, patched=ALL),
    Case("Qwen3Moe", HEADS_OF_16 | MOE, patched=ALL),
    Case("Gemma", HEADS_OF_16, patched=ALL),
    Case("Gemma2", HEADS_OF_16 | MIXED, patched=ALL),
    Case("Gemma3", HEADS_OF_16 | MIXED, config="Gemma3TextConfig", patched=ALL),
    Case("Gemma4", GEMMA4, config="Gemma4TextConfig", patched=ALL),
    Case("GptOss", HEADS_OF_16 | MIXED | LOCAL_MOE, patched=ALL),
    Case("Phi3", GQA, patched=ALL),
    Case("Phi", GQA, patched=("attention", "rotary", "cache")),
    Case("Cohere", GQA, patched=("attention", "rotary", "gate", "cache")),
    Case("Cohere2", GQA | MIXED, patched=("attention", "rotary", "gate", "cache")),
    Case("Glm", HEADS_OF_16, patched=ALL),
    Case("Glm4", HEADS_OF_16, patched=ALL),
    Case("GPTNeoX", SIZES, patched=("attention", "rotary", "cache")),
    Case("GPTJ", GPT2_SIZES | {"rotary_dim": 8}, patched=("attention", "rotary", "cache")),
    Case("CodeGen", GPT2_SIZES | {"rotary_dim": 8}, patched=("attention", "rotary", "cache")),
    Case("DiffLlama", GQA, patched=ALL),
    Case("NanoChat", GQA, patched=("attention", "rotary", "norm", "cache")),
    Case(
        "Moshi",
        HEADS_OF_16 | {"ffn_dim": 96, "sliding_window": 5},
        patched=("attention", "rotary", "norm", "cache"),
    ),
    Case("Falcon", GQA | {"alibi": True, "new_decoder_architecture": False}),
    Case(
        "Falcon",
        GQA | {"new_decoder_architecture": True, "num_kv_heads": 2},
        label="Falcon 40B",
        patched=("rotary",),
    ),
    Case(
        "Bloom",
        {"vocab_size": VOCABULARY, "hidden_size": 64, "n_layer": 2, "n_head": 4},
        patched=("attention", "cache"),
    ),
    Case(
        "Mpt",
        {"vocab_size": VOCABULARY, "d_model": 64, "n_layers": 2, "n_heads": 4},
        patched=("attention", "cache"),
    ),
    Case("GPT2", GPT2_SIZES, model="GPT2LMHeadModel", patched=("attention", "cache")),
    Case(
        "GPTNeo",
        SIZES
        | {
            "num_layers": 2,
            "num_heads": 4,
            "attention_types": [[["global", "local"], 1]],
            "window_size": 5,
        },
    ),
    Case("OPT", SIZES | {"ffn_dim": 96, "word_embed_proj_dim": 64}, patched=("attention", "cache")),
    Case(
        "StableLm",
        GQA | {"partial_rotary_factor": 0.5},
        patched=("attention", "rotary", "gate", "cache"),
    ),
    Case("Starcoder2", GQA, patched=("attention", "rotary", "cache")),
    Case("Olmo2", GQA, patched=ALL),
    Case("Olmo3", GQA | MIXED, patched=ALL),
    Case("SmolLM3", GQA, patched=ALL),
    Case("Granite", GQA, patched=ALL),
    Case("Nemotron", GQA, patched=("attention", "rotary", "cache")),
    Case("Exaone4", GQA | MIXED, patched=ALL),
    Case("HunYuanDenseV1", HEADS_OF_16, patched=ALL),
    Case("Ernie4_5", HEADS_OF_16, patched=ALL),
    Case("DeepseekV2", MLA, patched=ALL),
    Case("DeepseekV3", MLA, patched=ALL),
    Case(
        "DeepseekV3",
        MLA | {"kv_lora_rank": 512, "qk_rope_head_dim": 64},
        label="DeepseekV3 of its own widths",
        patched=ALL,
    ),
    Case(
        "Llama4",
        HEADS_OF_16
        | {
            "intermediate_size_mlp": 96,
            "num_local_experts": 4,
            "attention_chunk_size": 4,
            "interleave_moe_layer_step": 2,
            "no_rope_layers": [1, 0],
        },
        config="Llama4TextConfig",
        patched=ALL,
    ),
    Case(
        "T5",
        {
            "vocab_size": VOCABULARY,
            "d_model": 64,
            "d_kv": 16,
            "d_ff": 96,
            "num_layers": 2,
            "num_heads": 4,
        },
        model="T5ForConditionalGeneration",
        kind="pair",
        patched=("attention", "norm"),
    ),
    Case(
        "Bart",
        {
            "vocab_size": VOCABULARY,
            "d_model": 64,
            "encoder_layers": 2,
            "decoder_layers": 2,
            "encoder_attention_heads": 4,
            "decoder_attention_heads": 4,
            "encoder_ffn_dim": 96,
            "decoder_ffn_dim": 96,
            "max_position_embeddings": 128,
            "pad_token_id": 0,
            "eos_token_id": 2,
            "decoder_start_token_id": 1,
        },
        model="BartForConditionalGeneration",
        kind="pair",
        patched=("attention",),
    ),
    Case(
        "Whisper",
        {
            "vocab_size": VOCABULARY,
            "d_model": 64,
            "encoder_layers": 2,
            "decoder_layers": 2,
            "encoder_attention_heads": 4,
            "decoder_attention_heads": 4,
            "encoder_ffn_dim": 96,
            "decoder_ffn_dim": 96,
            "num_mel_bins": 80,
            "max_source_positions": 30,
            "max_target_positions": 64,
            "pad_token_id": 0,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "decoder_start_token_id": 1,
        },
        model="WhisperForConditionalGeneration",
        kind="speech",
        patched=("attention",),
    ),
    Case("Bert", SIZES, kind="encoder", patched=("attention",)),
    Case("Roberta", SIZES, kind="encoder", patched=("attention",)),
    Case("Electra", SIZES | {"embedding_size": 64}, kind="encoder", patched=("attention",)),
    Case(
        "DistilBert",
        {
            "vocab_size": VOCABULARY,
            "dim": 64,
            "hidden_dim": 96,
            "n_layers": 2,
            "n_heads": 4,
            "max_position_embeddings": 128,
        },
        kind="encoder",
        patched=("attention",),
    ),
    Case(
        "ModernBert",
        SIZES
        | {
            "local_attention": 6,
            "global_attn_every_n_layers": 2,
            "cls_token_id": 1,
            "sep_token_id": 2,
        },
        kind="encoder",
        patched=("attention", "rotary"),
    ),
    Case(
        "Qwen2VL",
        {
            "text_config": GQA
            | {
                "rope_parameters": {
                    "rope_type": "default",
                    "rope_theta": 1e4,
                    "mrope_section": [2, 3, 3],
                }
            },
            "vision_config": {"depth": 1, "embed_dim": 32, "hidden_size": 64, "num_heads": 2},
        },
        model="Qwen2VLForConditionalGeneration",
        patched=ALL,
    ),
    Case(
        "Qwen3VL",
        {
            "text_config": HEADS_OF_16
            | {
                "rope_parameters": {
                    "rope_type": "default",
                    "rope_theta": 1e4,
                    "mrope_section": [4, 2, 2],
                }
            },
            "vision_config": {
                "depth": 1,
                "hidden_size": 32,
                "out_hidden_size": 64,
                "intermediate_size": 32,
                "num_heads": 2,
                "deepstack_visual_indexes": [0],
            },
        },
        model="Qwen3VLForConditionalGeneration",
        patched=ALL,
    ),
]


def difference(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).abs().max())


def replaced(report) -> set[str]:
    """The kinds of a report, as in Case.patched."""
    kinds = {
        "attention": "attention ",
        "rotary": "rotary",
        "norm": "RMS norm",
        "gate": "gate",
        "cache": "KV cache",
    }
    return {kind for kind, word in kinds.items() if any(word in what for what in report.replaced)}


def compare(case: Case, device: str = "cpu") -> tuple[float, float, Any]:
    """Differences to eager of attention alone and of a patched model, and the report."""
    import ropewalk.transformers

    expected, tokens = run(case.make().to(device), case)
    model = case.make().to(device)
    model.set_attn_implementation("ropewalk")
    attention_only, _ = run(model, case, None, tokens)
    model = case.make().to(device)
    report = ropewalk.transformers.patch(model)
    cache = None
    if "cache" in replaced(report) and case.kind == "decoder":
        cache = ropewalk.transformers.Cache(model.config, page_size=16)
    patched, _ = run(model, case, cache, tokens)
    return difference(attention_only, expected), difference(patched, expected), report


def main() -> None:
    wanted = set(sys.argv[1:])
    for case in CASES:
        if wanted and case.name not in wanted:
            continue
        try:
            alone, patched, report = compare(case)
        except Exception as problem:  # a table of all models, whatever happens to one
            print(f"{case.name:16} {type(problem).__name__}: {problem}"[:300], flush=True)
            if wanted:
                raise
            continue
        print(
            f"{case.name:16} {alone:8.1e} {patched:8.1e} {' '.join(sorted(replaced(report)))}",
            flush=True,
        )
        if wanted:
            print(report)


if __name__ == "__main__":
    main()
