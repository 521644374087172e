"""Prints tokens per second of a model of transformers by attention implementation, best of ROUNDS
in turn, as the host does other work. Not a test: run it, with the folder of a model (config.json and
weights, or a GGUF file):

    time_generation.py FOLDER [DEVICE [DTYPE]]
"""

import contextlib
import sys
import time
from pathlib import Path

import torch
import transformers
from torch.nn.attention import SDPBackend, sdpa_kernel

import ropewalk.transformers

# Batch, prompt and generated tokens.
SHAPES = (1, 512, 32), (8, 512, 32), (32, 1024, 32)
ROUNDS = 3


def read(folder, device, dtype):
    options = {"dtype": getattr(torch, dtype), "attn_implementation": "eager"}
    for path in Path(folder).glob("*.gguf"):
        options["gguf_file"] = path.name
        options["quantization_config"] = transformers.GgufConfig(dequantize=True)
    return transformers.AutoModelForCausalLM.from_pretrained(folder, **options).to(device)


def implementations(folder, device, dtype):
    """Names, models and what to enter around their calls."""
    for name in ("eager", "sdpa", "ropewalk"):
        model = read(folder, device, dtype)
        model.set_attn_implementation(name)
        yield name, model, contextlib.nullcontext
        if name == "sdpa" and device.startswith("cuda"):
            flash = SDPBackend.FLASH_ATTENTION
            yield "sdpa: FlashAttention-2", model, lambda: sdpa_kernel(flash)
    model = read(folder, device, dtype)
    print(ropewalk.transformers.patch(model))
    yield "ropewalk, patched", model, contextlib.nullcontext


def seconds(model, given, tokens):
    begin = time.perf_counter()
    model.generate(**given, do_sample=False, max_new_tokens=tokens, min_new_tokens=tokens)
    if given["input_ids"].is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - begin


@torch.no_grad()
def measure(entries, shape, device):
    batch, prompt, new = shape
    ids = torch.randint(100, 1000, (batch, prompt), device=device)
    given = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    times = {name: ([], []) for name, *_ in entries}
    for _ in range(1 + ROUNDS):
        for name, model, around in entries:
            with around():
                first = seconds(model, given, 1)
                times[name][0].append(first)
                times[name][1].append(seconds(model, given, new) - first)
    for name, (first, rest) in times.items():
        prefill, decode = batch * prompt / min(first[1:]), batch * (new - 1) / min(rest[1:])
        print(f"{name:22} {batch:8} x {prompt:5} {prefill:12.0f} {decode:12.0f}", flush=True)


def main(folder, device="cuda", dtype="bfloat16"):
    where = torch.cuda.get_device_name() if device.startswith("cuda") else "CPU"
    print(
        f"ropewalk {ropewalk.__version__}, torch {torch.__version__}, transformers "
        f"{transformers.__version__}, {dtype} on {where}"
    )
    entries = list(implementations(folder, device, dtype))
    print("tokens per second         batch x prompt   prefill       decode")
    for shape in SHAPES:
        measure(entries, shape, device)


if __name__ == "__main__":
    main(*sys.argv[1:])
