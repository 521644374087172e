"""ropewalk.transformers: masks as patterns, caches, what patch() replaces and refuses."""

import copy
import sys

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
transformers = pytest.importorskip("transformers", reason="transformers is not installed")

from transformers import masking_utils  # noqa: E402

import ropewalk  # noqa: E402
import ropewalk.transformers  # noqa: E402
from ropewalk.transformers import rotation  # noqa: E402
from ropewalk.transformers.cache import Cached, PagedLayer  # noqa: E402
from ropewalk.transformers.masks import Mask  # noqa: E402

SIZES = {
    "vocab_size": 96,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
}
QUERIES = 6


def llama(**others):
    torch.manual_seed(3)
    config = transformers.LlamaConfig(**SIZES, **others)
    return transformers.LlamaForCausalLM(config).eval()


def config_for(implementation):
    config = transformers.LlamaConfig(**SIZES, sliding_window=4, attention_chunk_size=3)
    config._attn_implementation = implementation
    return config


def filled_cache(kind, past):
    """A cache that has seen `past` tokens."""
    config = transformers.LlamaConfig(**SIZES)
    if kind == "none":
        return None
    if kind == "dynamic":
        cache = transformers.DynamicCache(config=config)
    elif kind == "static":
        cache = transformers.StaticCache(config=config, max_cache_len=19)
    elif kind.endswith("sliding"):
        windows = {"sliding_window": 4, "layer_types": ["sliding_attention"] * 2}
        config = transformers.LlamaConfig(**SIZES, **windows)
        paged = kind.startswith("paged")
        cache = (ropewalk.transformers.Cache if paged else transformers.DynamicCache)(config=config)
    elif kind == "paged":
        cache = ropewalk.transformers.Cache(config, page_size=16)
    x = torch.zeros(2, 2, past, 16)
    for layer in range(2 if past else 0):
        cache.update(x, x, layer)
    return cache


def padding(kind, length):
    """attention_mask of `length` tokens."""
    mask = torch.ones(2, length, dtype=torch.int64)
    if kind == "left":
        mask[1, :3] = 0
    elif kind == "right":
        mask[1, -2:] = 0
    elif kind == "holes":
        mask[1, 1:3] = 0
    return None if kind == "none" else mask


def check_mask(create, attention_mask, cache, **options):
    """The pattern of a mask equals eager's mask, in the rows of real tokens."""
    x = torch.zeros(2, QUERIES, 64)
    arguments = {"inputs_embeds": x, "attention_mask": attention_mask, "cache": cache, **options}
    expected = create(config=config_for("eager"), **arguments)[:, 0] == 0
    made = create(config=config_for("ropewalk"), **arguments)
    assert type(made) is Mask and made.shape == (2, 1, *expected.shape[1:])
    real = torch.ones(2, QUERIES, dtype=torch.bool)
    if attention_mask is not None:
        past = attention_mask.shape[1] - QUERIES
        real = attention_mask[:, past:] == 1
    expected = expected.expand(2, -1, -1)
    keys = expected.shape[2]
    for skipped, unused in ((0, 0), (0, 5), (3, 5)):
        seq_k = skipped + keys + unused
        pattern = made.pattern(seq_k, skipped)
        filled = ropewalk.pattern_fill(pattern, QUERIES, seq_k, batch=2, like=torch.zeros(1))
        seen = torch.nn.functional.pad(expected, (skipped, unused))
        assert torch.equal((filled == 0)[real], seen[real])
    return made


MASKS = {
    "causal": masking_utils.create_causal_mask,
    "window": masking_utils.create_sliding_window_causal_mask,
    "chunks": masking_utils.create_chunked_causal_mask,
    "both": masking_utils.create_bidirectional_mask,
    "both in a window": masking_utils.create_bidirectional_sliding_window_mask,
}
SLIDING = ("sliding", 5), ("paged sliding", 5), ("paged sliding", 3)
DECODER_MASKS = "causal", "window", "chunks"
PADDINGS = "none", "left", "right", "holes"
CACHES = ("none", 0), ("dynamic", 0), ("dynamic", 5), ("static", 0), ("static", 5), ("paged", 5)


CACHED_MASKS = [(name, *cache) for name in DECODER_MASKS for cache in (*CACHES, *SLIDING)]
ENCODER_MASKS = [(name, "none", 0) for name in MASKS if name not in DECODER_MASKS]


@pytest.mark.parametrize("name, kind, past", CACHED_MASKS + ENCODER_MASKS)
def test_masks_are_patterns(name, kind, past):
    for padded in PADDINGS:
        if name == "both" and padded == "none":
            continue
        cache = filled_cache(kind, past)
        options = {"position_ids": None} if not name.startswith("both") else {}
        made = check_mask(MASKS[name], padding(padded, past + QUERIES), cache, **options)
        assert made.terms is not None
        tensors = made.pattern(made.keys).tensors
        assert ("bits" in tensors) <= (padded in ("right", "holes"))
        assert "mask" not in tensors


def test_nothing_is_hidden():
    x = torch.zeros(2, QUERIES, 64)
    create = masking_utils.create_bidirectional_mask
    for mask in (None, padding("full", QUERIES)):
        assert create(config=config_for("ropewalk"), inputs_embeds=x, attention_mask=mask) is None


@pytest.mark.parametrize("name", ["causal", "window"])
def test_packed_documents(name):
    ids = torch.tensor([[0, 1, 2, 0, 1, 2], [0, 1, 0, 1, 0, 1]])
    made = check_mask(MASKS[name], None, None, position_ids=ids)
    assert "cu_seqlens" in made.pattern(QUERIES).tensors


def test_a_prefix():
    blocks = torch.tensor([[0, 0, 0, -1, -1, -1], [-1, -1, -1, 0, 0, -1]])
    mask = padding("left", QUERIES)
    made = check_mask(MASKS["causal"], mask, None, block_sequence_ids=blocks)
    assert made.pattern(QUERIES).tensors["prefix"].tolist() == [3, 5]


def test_blocks_that_are_no_prefix(caplog):
    blocks = torch.tensor([[0, 0, -1, 1, 1, -1], [-1, 0, 0, 0, -1, -1]])
    made = check_mask(MASKS["causal"], None, None, block_sequence_ids=blocks)
    assert set(made.pattern(QUERIES).tensors) == {"bits"}
    assert "no prefix" in caplog.text


def test_an_unknown_mask_function_is_stated(caplog):
    def every_other(batch, head, query, key):
        return (query + key) % 2 == 0

    made = check_mask(MASKS["causal"], padding("left", 6), None, and_mask_function=every_other)
    assert made.terms is None and set(made.pattern(QUERIES).tensors) == {"bits"}
    assert "no pattern expresses" in caplog.text


def test_masks_of_the_caller():
    """4D masks of bool and of numbers."""
    model = llama()
    ids = torch.randint(1, 96, (2, QUERIES))
    seen = torch.rand(2, 1, QUERIES, QUERIES) < 0.5
    seen |= torch.eye(QUERIES, dtype=torch.bool)
    added = torch.randn(2, 1, QUERIES, QUERIES)
    for mask in (torch.zeros(seen.shape).masked_fill(~seen, -1e9), seen, added):
        eager_mask = torch.zeros(seen.shape).masked_fill(~seen, -1e9) if mask is seen else mask
        results = []
        for name, given in (("eager", eager_mask), ("ropewalk", mask)):
            model.set_attn_implementation(name)
            with torch.no_grad():
                results.append(model(input_ids=ids, attention_mask=given).logits)
        assert (results[0] - results[1]).abs().max() < 5e-6


def test_a_model_stays_on_patterns(monkeypatch):
    """In a patched model no mask is computed, no page copied, and nothing rotated but by
    rope_append()."""

    def refuse(_):
        raise AssertionError("computed")

    def refuse_rotation(*_, **__):
        raise AssertionError("rope_apply")

    model = llama()
    ropewalk.transformers.patch(model)
    monkeypatch.setattr(Mask, "compute", refuse)
    monkeypatch.setattr(Cached, "compute", refuse)
    monkeypatch.setattr(rotation, "rope_apply", refuse_rotation)
    ids, mask = torch.randint(1, 96, (2, QUERIES)), padding("left", QUERIES)
    with torch.no_grad():
        model.generate(ids, attention_mask=mask, max_new_tokens=4, do_sample=False)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_beams": 3},
        {"num_return_sequences": 2, "num_beams": 2},
        {"cache_implementation": "static"},
        {"prefill_chunk_size": 2},
        {"prompt_lookup_num_tokens": 2},
        {"use_cache": False},
    ],
    ids=str,
)
def test_generate(options):
    """Modes of generate(), with attention alone and with a patched model: eager's tokens."""
    model = llama()
    batch = 1 if "prompt_lookup_num_tokens" in options else 2
    ids = torch.randint(3, 96, (2, 9))[:batch]
    mask = padding("left", 9)[:batch]
    model.set_attn_implementation("eager")
    found = []
    for step in ("eager", "ropewalk", "patched"):
        model.set_attn_implementation("eager" if step == "eager" else "ropewalk")
        if step == "patched":
            ropewalk.transformers.patch(model)
        with torch.no_grad():
            out = model.generate(
                ids, attention_mask=mask, max_new_tokens=12, do_sample=False, **options
            )
        found.append(out)
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


@pytest.mark.parametrize("window", [None, 4])
def test_the_paged_cache(window):
    """Against the cache of transformers: appended, cropped, selected and repeated."""
    options = {"sliding_window": window, "layer_types": ["sliding_attention"] * 2} if window else {}
    config = transformers.LlamaConfig(**SIZES, **options)
    caches = transformers.DynamicCache(config=config), ropewalk.transformers.Cache(config, 16)

    def append(seq):
        batch = caches[1].batch_size if caches[1].get_seq_length() else 2
        k, v = torch.randn(2, batch, 2, seq, 16)
        for layer in range(2):
            sizes = [cache.get_mask_sizes(seq, layer) for cache in caches]
            expected, got = (cache.update(k, v, layer) for cache in caches)
            assert sizes[0] == sizes[1] and sizes[0][0] == expected[0].shape[2]
            for a, b in zip(expected, got):
                assert a.shape == b.shape and torch.equal(a, b.clone())
        assert caches[0].get_seq_length() == caches[1].get_seq_length()

    assert type(caches[1].layers[0]) is PagedLayer
    for seq in (3, 1, 30, 1, 40):
        append(seq)
    for step in (
        lambda cache: cache.crop(-5),
        lambda cache: cache.reorder_cache(torch.tensor([1, 1])),
        lambda cache: cache.batch_repeat_interleave(2),
        lambda cache: cache.batch_select_indices(torch.tensor([3, 0, 2])),
    ):
        if window is None:  # crop() of a window needs what transformers has dropped
            for cache in caches:
                step(cache)
            append(2)
    caches[1].reset()
    assert caches[1].get_seq_length() == 0
    with pytest.raises(ropewalk.Unsupported, match="offloaded"):
        caches[1].layers[0].offload()


@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize("by_halves", [False, True])
def test_rotation_into_the_cache(inverse, by_halves):
    """Keys that a paged layer receives are rotated, as their queries are, in either order."""
    pairing = "interleaved" if by_halves else "half"
    spec = ropewalk.RopeSpec(16, pairing=pairing)
    way = rotation.Way(spec, inverse, 1, by_halves)
    q, k, v = torch.randn(3, 2, 4, 5, 16)
    ids = torch.randint(0, 50, (2, 5))
    rope = ropewalk.Rope(spec, max_positions=64)
    direction = "inverse" if inverse else "forward"
    expected = [
        ropewalk.rope_apply(rope, x.transpose(1, 2), positions=ids, direction=direction)
        for x in (q, k)
    ]
    if by_halves:
        expected = [torch.cat([x[..., ::2], x[..., 1::2]], -1) for x in expected]
    for first in (0, 1):
        layer = PagedLayer(16)
        turned = rotation.turn(rotation.Tables(), way, ids, q, k)
        if first == 0:
            turned[0].clone()
        keys, _ = layer.update(turned[1], v)
        got = turned[0].clone(), keys.clone()
        for x, reference in zip(got, expected):
            assert (x.transpose(1, 2) - reference).abs().max() < 1e-6


def test_refused():
    model = llama()
    model.set_attn_implementation("ropewalk")
    ids = torch.ones(1, 4, dtype=torch.int64)
    with pytest.raises(ropewalk.InvalidArgument, match="requires a gradient"):
        model(input_ids=ids)
    dropout = llama(attention_dropout=0.5)
    dropout.set_attn_implementation("ropewalk")
    with pytest.raises(ropewalk.Unsupported, match="dropout of 0.5"), torch.no_grad():
        dropout.train()(input_ids=ids)
    with pytest.raises(ropewalk.Unsupported, match="indices"), torch.no_grad():
        ropewalk.transformers.attend(model, ids, ids, ids, None, indices=ids)
    config = transformers.MambaConfig(hidden_size=32, num_hidden_layers=1)
    with pytest.raises(ropewalk.Unsupported, match="cache layers"):
        ropewalk.transformers.Cache(config)


def test_what_is_left_alone():
    """A norm that adds a bias, a gate of quick_gelu, unknown rotary angles: said, unchanged."""

    class BiasedRMSNorm(torch.nn.Module):
        def __init__(self, original):
            super().__init__()
            self.weight, self.eps = original.weight, original.variance_epsilon

        def forward(self, x):
            x = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps)
            return x * self.weight + 0.01

    rope = {"rope_type": "default", "rope_theta": 5e3}
    model = llama(hidden_act="quick_gelu", rope_parameters=rope)
    model.model.norm = BiasedRMSNorm(model.model.norm)
    model.model.rotary_emb.inv_freq.mul_(1.01)
    ids = torch.randint(1, 96, (2, QUERIES))
    with torch.no_grad():
        expected = model(input_ids=ids).logits
        report = str(ropewalk.transformers.patch(model))
        assert (model(input_ids=ids).logits - expected).abs().max() < 5e-6
    replaced, left = report.split("left alone:")
    assert "RMS norm LlamaRMSNorm" in replaced
    assert "RMS norm BiasedRMSNorm: it is not" in left
    assert "gated feed-forward LlamaMLP: its activation" in left
    assert "rotary embedding LlamaRotaryEmbedding: no rotary" in left


def test_without_libropewalk_io(monkeypatch):
    monkeypatch.setitem(sys.modules, "ropewalk.io", None)
    monkeypatch.delattr(ropewalk, "io", raising=False)
    report = ropewalk.transformers.patch(llama())
    assert "ropewalk.io" in str(report) and "rotary" not in "".join(report.replaced)


def test_sparse_attention_is_left_alone():
    sizes = {"num_hidden_layers": 1, "num_local_experts": 2, "vocab_size": 96, "hidden_size": 64}
    model = transformers.DeepseekV32ForCausalLM(
        transformers.DeepseekV32Config(**sizes, n_routed_experts=4, n_group=1, topk_group=1)
    )
    model.set_attn_implementation("eager")
    report = ropewalk.transformers.patch(model)
    assert model.config._attn_implementation == "eager"
    assert "it passes indices" in str(report) and "attention" not in "".join(report.replaced)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_another_gate_of_16_bits(dtype):
    config = transformers.LlamaConfig(**SIZES, hidden_act="quick_gelu")
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=dtype).eval()
    assert "its activation is not one of glu()" in str(ropewalk.transformers.patch(model))


@pytest.mark.parametrize("activation", ["gelu", "gelu_pytorch_tanh", "relu", "relu2"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gates(activation, dtype):
    config = transformers.LlamaConfig(**SIZES, hidden_act=activation)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=dtype).eval()
    assert any("gated" in what for what in ropewalk.transformers.patch(model).replaced)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_16_bits(dtype):
    """Norms round where the model's do."""
    config = transformers.LlamaConfig(**SIZES)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=dtype).eval()
    ids = torch.randint(1, 96, (2, QUERIES))
    with torch.no_grad():
        expected = model(input_ids=ids).logits
        report = ropewalk.transformers.patch(model)
        got = model(input_ids=ids).logits
    assert report.replaced["RMS norm LlamaRMSNorm"] == 5 and not report.left
    assert (got - expected).abs().max() <= 4 * torch.finfo(dtype).eps * expected.abs().max()


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_type": "linear", "factor": 2.0},
        {"rope_type": "dynamic", "factor": 2.0},
        {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16},
        {
            "rope_type": "longrope",
            "short_factor": [1.0 + i / 8 for i in range(8)],
            "long_factor": [2.0 + i for i in range(8)],
            "original_max_position_embeddings": 16,
        },
        {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 16,
        },
    ],
    ids=lambda rope: rope["rope_type"],
)
def test_scaled_rotary_embeddings(rope):
    """Below and beyond the length at which dynamic and longrope change their frequencies."""
    model = llama(rope_parameters={"rope_theta": 1e4, **rope}, max_position_embeddings=20)
    results = []
    for patched in (False, True):
        if patched:
            report = ropewalk.transformers.patch(model)
            assert "rotary embedding LlamaRotaryEmbedding" in report.replaced, str(report)
        with torch.no_grad():
            for length in (12, 40, 12):
                ids = torch.arange(3, 3 + length)[None] % 96
                results.append(model(input_ids=ids).logits)
    for a, b in zip(results[:3], results[3:]):
        assert (a - b).abs().max() < 5e-6


@pytest.mark.parametrize("patched", [False, True])
def test_compiled(patched):
    """One graph, with attention, norms and gates as operators; rotary embeddings are torch's."""
    model, mask = llama(), padding("left", QUERIES)
    given = {"input_ids": torch.randint(1, 96, (2, QUERIES)), "attention_mask": mask}
    with torch.no_grad():
        expected = model(**given, use_cache=False).logits
        model.set_attn_implementation("ropewalk")
        if patched:
            ropewalk.transformers.patch(model)
        seen = []
        compiled = torch.compile(model, backend=listing(seen), fullgraph=True)
        got = compiled(**given, use_cache=False).logits
    assert (got - expected)[mask == 1].abs().max() < 5e-6
    names = {"attention", "rms_norm", "glu"} if patched else {"attention"}
    assert {name.split(".")[1] for name in seen if name.startswith("ropewalk.")} == names


def listing(seen):
    """A backend of torch.compile that lists the operators of a graph."""

    def backend(graph, _):
        seen.extend(str(node.target) for node in graph.graph.nodes if node.op == "call_function")
        return graph.forward

    return backend


def test_a_deep_copy():
    """Copies have modules of their own."""
    model = llama()
    ropewalk.transformers.patch(model)
    copied = copy.deepcopy(model)
    ids = torch.randint(1, 96, (2, QUERIES))
    with torch.no_grad():
        expected = model(input_ids=ids).logits
        for x in model.parameters():
            x.zero_()
        assert torch.equal(copied(input_ids=ids).logits, expected)
        assert not model(input_ids=ids).logits.any()


def test_a_saved_model(tmp_path):
    """It is loaded as one that is not patched, but for attention."""
    model = llama()
    ids = torch.randint(1, 96, (2, QUERIES))
    with torch.no_grad():
        expected = model(input_ids=ids).logits
        replaced = ropewalk.transformers.patch(model).replaced
        torch.save(model, tmp_path / "model.pt")
        loaded = torch.load(tmp_path / "model.pt", weights_only=False)
        for _ in range(3):
            assert (loaded(input_ids=ids).logits - expected).abs().max() < 5e-6
            tokens = [x.generate(ids, max_new_tokens=5, do_sample=False) for x in (model, loaded)]
            assert torch.equal(*tokens)
            assert ropewalk.transformers.patch(loaded).replaced["gated feed-forward LlamaMLP"] == 2
        assert ropewalk.transformers.patch(llama()).replaced == replaced


@pytest.mark.parametrize("weight", ["gate_proj", "up_proj", "down_proj"])
def test_weights_that_hide_a_gate(weight):
    """What a module computes is found with random weights: those of the model may come later."""
    config = transformers.LlamaConfig(**SIZES, hidden_act="gelu")
    model = transformers.LlamaForCausalLM(config).eval()
    ids = torch.randint(1, 96, (2, QUERIES))
    with torch.no_grad():
        expected = model(input_ids=ids).logits
        state = {name: x.clone() for name, x in model.state_dict().items()}
        for layer in model.model.layers:
            getattr(layer.mlp, weight).weight.zero_()
        assert ropewalk.transformers.patch(model).replaced["gated feed-forward LlamaMLP"] == 2
        model.load_state_dict(state)
        assert (model(input_ids=ids).logits - expected).abs().max() < 5e-6


def test_nothing_agrees_with_zeros():
    from ropewalk.transformers.modules import agree

    assert agree(torch.ones(3), torch.ones(3)) and not agree(torch.zeros(3), torch.zeros(3))


def test_a_norm_of_two_dtypes():
    model = llama()
    norm, x = model.model.norm, torch.randn(2, 3, 64, dtype=torch.bfloat16)
    expected = norm(x)
    ropewalk.transformers.patch(model)
    got = norm(x)
    assert got.dtype is expected.dtype is torch.float32 and torch.equal(got, expected)


def test_tables_of_dynamic_scaling():
    """Each length has its own; two are kept."""
    spec = ropewalk.RopeSpec(16, "dynamic", factor=2.0, max_position_embeddings=8)
    tables = rotation.Tables()
    q = torch.randn(1, 1, 1, 16)
    for length in (4, 9, 10, 11, 5, 11, 12):
        ids = torch.tensor([[length - 1]])
        expected = ropewalk.Rope(spec, seq_len=length, max_positions=1 << 20)
        got = ropewalk.rope_apply(tables.find(spec, ids), q, positions=ids)
        assert torch.equal(got, ropewalk.rope_apply(expected, q, positions=ids))
        assert sum(len(ropes) for ropes in tables._ropes.values()) <= 2


def test_ids_beyond_two_to_the_20():
    """Tables are as long as the model's positions; others are refused."""
    model = llama(max_position_embeddings=1 << 22)
    ids = torch.randint(1, 96, (1, QUERIES))
    ropewalk.transformers.patch(model)
    with torch.no_grad():
        near = model(input_ids=ids).logits
        far = model(input_ids=ids, position_ids=torch.arange(QUERIES)[None] + (1 << 22) - QUERIES)
        assert (far.logits - near).abs().max() < 1e-3
        for start in ((1 << 22) - 1, -1):
            with pytest.raises(ropewalk.OutOfRange, match="position"):
                model(input_ids=ids, position_ids=torch.arange(QUERIES)[None] + start)


def test_encoders_without_is_causal():
    """A mask of None then hides nothing."""
    sizes = {name: SIZES[name] for name in SIZES if name != "num_key_value_heads"}
    torch.manual_seed(3)
    model = transformers.SplinterModel(transformers.SplinterConfig(**sizes)).eval()
    model.set_attn_implementation("eager")
    ids = torch.randint(1, 96, (2, QUERIES))
    with torch.no_grad():
        for given in ({}, {"attention_mask": torch.ones(2, QUERIES)}):
            model.set_attn_implementation("eager")
            expected = model(ids, **given).last_hidden_state
            model.set_attn_implementation("ropewalk")
            assert (model(ids, **given).last_hidden_state - expected).abs().max() < 5e-6


def test_traces_are_refused():
    model = llama().requires_grad_(False)
    model.set_attn_implementation("ropewalk")
    ids = torch.randint(1, 96, (2, QUERIES))
    with torch.no_grad(), pytest.raises(ropewalk.InvalidArgument, match="is traced"):
        torch.jit.trace(lambda x: model(x, use_cache=False).logits, (ids,), check_trace=False)


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_generate_compiled(backend):
    model, ids = llama(), torch.randint(1, 96, (2, QUERIES))
    options = {"max_new_tokens": 4, "do_sample": False}
    with torch.no_grad():
        expected = model.generate(ids, **options)
        ropewalk.transformers.patch(model)
        model.compile(backend=backend)
        assert torch.equal(model.generate(ids, **options), expected)


def test_what_others_change():
    """Angles and masks that a hook has changed count as they are then."""

    def change_sin(module, args, out):
        return out[0], -out[1]

    def change_both(module, args, out):
        return out[0].mul_(0.5), out[1].mul_(0.5)

    def change_mask(module, args, named):
        named["attention_mask"][..., 0] = torch.finfo(torch.float32).min
        return args, named

    ids = torch.randint(1, 96, (2, QUERIES))
    for kind in ("sin", "both", "mask"):
        model = llama()
        model.set_attn_implementation("eager")
        results = []
        for patched in (False, True):
            if patched:
                ropewalk.transformers.patch(model)
            rotary, layer = model.model.rotary_emb, model.model.layers[0].self_attn
            if kind == "mask":
                hook = layer.register_forward_pre_hook(change_mask, with_kwargs=True)
            else:
                hook = rotary.register_forward_hook(change_sin if kind == "sin" else change_both)
            with torch.no_grad():
                results.append(model(ids).logits)
            hook.remove()
        seen = slice(1, None) if kind == "mask" else slice(None)  # the first query sees no key
        assert (results[0] - results[1])[:, seen].abs().max() < 5e-6, kind


def test_heads_that_are_too_wide():
    torch.manual_seed(3)
    config = transformers.LlamaConfig(**SIZES, head_dim=578)
    model = transformers.LlamaForCausalLM(config).eval()
    ids = torch.randint(1, 96, (2, QUERIES))
    with torch.no_grad():
        expected = model(ids).logits
        report = ropewalk.transformers.patch(model)
        assert (model(ids).logits - expected).abs().max() < 5e-6
    assert "its heads have a width of 578" in str(report)


LATENT = {"kv_lora_rank": 24, "qk_nope_head_dim": 16, "qk_rope_head_dim": 8, "v_head_dim": 16}


def deepseek(**others):
    torch.manual_seed(3)
    sizes = SIZES | LATENT | {"num_key_value_heads": 4, "q_lora_rank": 32, "n_routed_experts": 4}
    sizes |= {"n_group": 1, "topk_group": 1, "first_k_dense_replace": 2, **others}
    return transformers.DeepseekV3ForCausalLM(transformers.DeepseekV3Config(**sizes)).eval()


@pytest.mark.parametrize("options", [{}, {"q_lora_rank": None}, {"rope_interleave": False}])
def test_a_latent_cache(options):
    """One row a token for all heads, in a paged and in a plain cache; some tokens after others."""
    model, ids = deepseek(**options), torch.randint(1, 96, (2, 9))
    with torch.no_grad():
        expected = model(ids).logits
        report = ropewalk.transformers.patch(model)
        assert report.replaced["latent cache of DeepseekV3Attention"] == 2
        caches = ropewalk.transformers.Cache(model.config), transformers.DynamicCache()
        for cache in caches:
            parts = [model(ids[:, i:j], cache=cache).logits for i, j in ((0, 5), (5, 8), (8, 9))]
            assert (torch.cat(parts, 1) - expected).abs().max() < 5e-6
    assert [x.shape[2:] for x in caches[0].layers[0].storage[:2]] == [(1, 32), (1, 0)]
    assert caches[1].layers[0].keys.shape == (2, 1, 9, 32)


def test_another_latent_attention_is_left_alone(monkeypatch):
    attention = transformers.models.deepseek_v3.modeling_deepseek_v3.DeepseekV3Attention
    original = attention.expand_kv

    def expand_kv(self, latent, rotated):
        key, value = original(self, latent, rotated)
        return key, 2 * value

    monkeypatch.setattr(attention, "expand_kv", expand_kv)
    report = ropewalk.transformers.patch(deepseek())
    assert "it is not the attention of DeepSeek V3" in str(report)


def test_latent_rows_that_are_too_wide():
    report = ropewalk.transformers.patch(deepseek(kv_lora_rank=580))
    assert "its rows have 588 columns" in str(report)
    assert report.replaced["attention DeepseekV3Attention"] == 2

def test_autocast():
    model, ids = llama(), torch.randint(1, 96, (2, QUERIES))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        expected = model(ids).logits
        model.set_attn_implementation("ropewalk")
        for _ in range(2):
            got = model(ids).logits
            assert got.dtype is expected.dtype
            assert (got - expected).float().abs().max() < 0.02 * expected.float().abs().max()
            assert model.generate(ids, max_new_tokens=4).shape == (2, QUERIES + 4)
            ropewalk.transformers.patch(model)


def test_a_norm_called_by_name():
    norm, x = llama().model.norm, torch.randn(1, 2, 1, 2, 3, 64)
    expected = norm(hidden_states=x)
    model = llama()
    ropewalk.transformers.patch(model)
    with torch.no_grad():
        assert (model.model.norm(hidden_states=x) - expected).abs().max() < 5e-6
