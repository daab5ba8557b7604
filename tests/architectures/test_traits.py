"""Traits against what classes of transformers do: norms, dropout, places of norms, activations, factors, routers."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from math import isclose
from typing import Any

import pytest
import test_dense_decoders as dense
import test_encoders_and_towers as encoders
import test_experts_and_latent as sparse
import test_hybrids as hybrids
from hypothesis import given
from hypothesis import strategies as st

from willfit.architectures.build import FAMILIES, build
from willfit.architectures.styles import STYLES
from willfit.architectures.traits import Router, Traits
from willfit.checkpoints.catalogue import catalogue_ids, find
from willfit.checkpoints.config import Config
from willfit.errors import BadInput

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

#: So that a forward pass of the small models works: groups that can be chosen from, a clamp.
_RUNS = {
    "axk1": {"n_group": 2, "topk_group": 1}, "deepseek_v3": {"n_group": 2, "topk_group": 1},
    "deepseek_v32": {"n_group": 2, "topk_group": 1}, "bailing_hybrid": {"n_group": 1, "topk_group": 1},
    "dbrx": {"attn_config": {"kv_n_heads": 2, "rope_theta": 10000.0, "clip_qkv": 8.0}, "head_dim": 16},
}  # fmt: skip
SMALL: list[dict[str, Any]] = [
    fields | _RUNS.get(fields["model_type"], {})
    for fields in (
        *(fields for fields in dense.SMALL if "architectures" not in fields),
        *(sparse._fields(name) for name in sparse.TYPES),
        *(fields for fields in hybrids.SMALL if "architectures" not in fields),
        *({"architectures": [name], **fields} for name, fields in encoders.ENCODERS.items()),
    )
]
IDS = [f"{index}-{fields['model_type']}" for index, fields in enumerate(SMALL)]
SIZES = {"batch": 2, "tokens": 11}


def traits(fields: dict[str, Any]) -> Traits:
    return build(Config(deepcopy(fields))).traits


def real(fields: dict[str, Any], **changes: Any) -> Any:
    """transformers' class with these fields, in training mode."""
    config = transformers.AutoConfig.for_model(**deepcopy({"pad_token_id": 0} | fields))
    for name, value in changes.items():
        holder, _, last = name.rpartition(".")
        setattr(getattr(config, holder) if holder else config, last, value)
    config._experts_implementation = "eager"
    torch.manual_seed(0)
    if "architectures" in fields:
        kind = getattr(transformers, fields["architectures"][0])
        model = kind._from_config(config, attn_implementation="eager")
    else:
        model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    return model.train()


def run(model: Any) -> Any:
    """A forward pass; whatever the model takes."""
    batch, tokens = SIZES.values()
    torch.manual_seed(1)
    ids = torch.randint(3, 100, (batch, tokens))
    ids[:, -1] = 2  # BART's classifier reads the state of the last end-of-sequence token
    if model.config.model_type == "whisper":
        features = torch.randn(batch, model.config.num_mel_bins, 2 * model.config.max_source_positions)
        return model(input_features=features.to(model.dtype), decoder_input_ids=ids)
    decodes = model.config.is_encoder_decoder and "Conditional" in type(model).__name__
    return model(input_ids=ids, decoder_input_ids=ids) if decodes else model(input_ids=ids)


# Norms


def _root(x: Any) -> Any:
    return torch.rsqrt(x.float().pow(2).mean(-1, keepdim=True) + 1e-6)


def _composed(x: Any, w: Any) -> Any:
    wide = x.float()
    mean = wide.mean(-1, keepdim=True)
    variance = (wide - mean).pow(2).mean(-1, keepdim=True)
    return (w.float() * ((wide - mean) * torch.rsqrt(variance + 1e-6))).to(x.dtype)


def _cast_first(x: Any, w: Any) -> Any:
    wide = x.float()
    return w * (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + 1e-6)).to(x.dtype)


def _cast_last(x: Any, w: Any) -> Any:
    wide = x.float()
    return (w * (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + 1e-6))).to(x.dtype)


#: What each name means, as `Traits` says it.
NORMS: dict[str, Callable[[Any, Any], Any]] = {
    "rms": _cast_first,
    "rms_float32": _cast_last,
    "rms_offset": lambda x, w: _cast_last(x, 1 + w.float()),
    "rms_mixed": lambda x, w: w * (x * _root(x)).to(x.dtype),
    "rms_mixed_float32": lambda x, w: (w * (x * _root(x))).to(x.dtype),
    "rms_plain": lambda x, w: _cast_last(x, 1.0),
    "layer_norm": lambda x, w: torch.nn.functional.layer_norm(x, w.shape, w),
    "layer_norm_offset": lambda x, w: torch.nn.functional.layer_norm(x, w.shape, w + 1),
    "layer_norm_plain": lambda x, w: torch.nn.functional.layer_norm(x.float(), w.shape).to(x.dtype),
    "layer_norm_composed": _composed,
}


def kept(function: Callable[[Any], Any], shape: tuple[int, ...]) -> list[str]:
    """Dtypes of the distinct tensors of the input's size that autograd keeps of a function, the input cast as well."""
    x = torch.randn(shape, dtype=torch.bfloat16, requires_grad=True)
    saved: dict[int, str] = {}

    def pack(tensor: Any) -> Any:
        if tensor.numel() == x.numel():
            saved[tensor.data_ptr()] = str(tensor.dtype)
        return tensor

    stays_alive = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: (stays_alive.append(t), pack(t))[1], lambda t: t):
        function(x)
    return sorted(saved.values())


def is_norm(module: Any) -> bool:
    plain = not list(module.children())
    return (
        plain
        and re.search(r"Norm", type(module).__name__) is not None
        and "Gated" not in type(module).__name__
    )


def norms_of(model: Any) -> Iterator[tuple[str, Any]]:
    for name, module in model.named_modules():
        if is_norm(module):
            yield name, module


_QUERY = re.compile(r"\.(q_norm|q_layernorm|query_layernorm|qk_norm)(\.norms\.\d+)?$")
#: Not of a layer's stream: inside mixers (latent attention, state spaces), heads for tasks, per-layer inputs.
_OTHER = re.compile(
    r"(_a_layernorm|kv_norm|q_a_norm|_layernorm_[abc]|indexer|compressor|dt_layernorm|mamba|mixer\.norm|linear_attn"
    r"|linear_attention|hc|hyper|ple|v_norm|k_norm|key_layernorm|k_layernorm|rotary|unweighted|head\.|predictions"
    r"|router|[bct]_layernorm$|ffn_sub_norm|attn_sub_norm|ngram|self_attn|self_attention|\.attn\.|attention\.norm)"
)


@pytest.mark.parametrize("fields", SMALL, ids=IDS)
def test_norms_keep_what_their_names_say(fields: dict[str, Any]) -> None:
    theirs, model = traits(fields), real(fields).to(torch.bfloat16)
    found = {"stream": 0, "queries": 0}
    for name, module in norms_of(model):
        queries = _QUERY.search(name) is not None
        if not queries and (_OTHER.search(name) or name.endswith("conv.norm")):
            continue
        kind = theirs.qk_norm_kind if queries else theirs.norm
        weight = getattr(module, "weight", None)
        width = model.config.get_text_config().hidden_size if weight is None else weight.shape[-1]
        shape = (2, 4, weight.shape[0], width) if weight is not None and weight.dim() == 2 else (2, 3, width)
        ours = torch.ones(width, dtype=torch.bfloat16, requires_grad=True)
        assert (name, kept(module, shape)) == (name, kept(lambda x, k=kind, w=ours: NORMS[k](x, w), shape))
        if weight is not None:
            torch.nn.init.zeros_(weight)
            output = module(torch.randn(shape, dtype=torch.bfloat16))
            offset = kind.endswith("_offset")
            assert bool(output.abs().sum() > 0) == offset
        found["queries" if queries else "stream"] += 1
    assert found["stream"] > 0 or theirs.block == "hyper"
    # Latent attention of DeepSeek-V4 calls the norm of its compressed queries q_norm as well.
    if "q_lora_rank" not in fields:
        assert (found["queries"] > 0) == (theirs.qk_norm != "none")


# Dropout, caps, factors and activations, as one forward pass calls them


@contextmanager
def watched(name: str, place: Any, note: Callable[..., None]) -> Iterator[None]:
    original = getattr(place, name)

    def call(*args: Any, **kwargs: Any) -> Any:
        note(*args, **kwargs)
        return original(*args, **kwargs)

    setattr(place, name, call)
    try:
        yield
    finally:
        setattr(place, name, original)


_DROPOUT = re.compile(
    r"^(?!.*(classif|summary|pooler|qa_|seq_))((\w*_)?dropout|\w+_pdrop|dropout_rate|\w+_dropout_prob)$"
)


def dropout_fields(fields: dict[str, Any]) -> dict[str, float]:
    """Every field of the class that could be a rate, with a value of its own: 0.11, 0.12, ..."""
    config = real(fields).config
    holders = {"": config} | ({"attn_config.": config.attn_config} if hasattr(config, "attn_config") else {})
    names = [
        prefix + name for prefix, holder in holders.items() for name in vars(holder) if _DROPOUT.match(name)
    ]
    # MPT's class takes whole numbers alone.
    return {name: 1 if "." in name else (11 + index) / 100 for index, name in enumerate(names)}


def task_dropout(fields: dict[str, Any]) -> dict[str, float]:
    """What heads for tasks drop, switched off: it is not in a layer."""
    names = vars(real(fields).config)
    return {name: 0.0 for name in names if "drop" in name and re.search("classif|pooler|summary|qa_", name)}


def nested(fields: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    merged = deepcopy(fields)
    for name, value in values.items():
        holder, _, last = name.rpartition(".")
        (merged.setdefault(holder, {}) if holder else merged)[last] = value
    return merged


@pytest.mark.parametrize("fields", SMALL, ids=IDS)
def test_dropout_is_where_the_class_has_it(fields: dict[str, Any]) -> None:
    rates = dropout_fields(fields)
    model = real(nested(fields, rates), **task_dropout(fields))
    seen: dict[str, set[float]] = {"attention": set(), "stream": set(), "inner": set()}
    hidden, tokens = model.config.get_text_config().hidden_size, SIZES["tokens"]

    def note(x: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> None:
        if p and training:
            if x.dim() == 4 or (x.dim() == 3 and x.shape[0] not in (SIZES["batch"], 1)):
                seen["attention"].add(p)
            else:
                seen["stream" if x.shape[-1] == hidden else "inner"].add(p)

    with watched("dropout", torch.nn.functional, note):
        run(model)
    if fields["model_type"] == "falcon" and fields.get("alibi"):
        return  # with ALiBi alone, Falcon drops attention, and its branch at attention's rate; no published model does
    theirs = traits(nested(fields, rates))
    ours = {
        "attention": {theirs.attention_dropout} - {0.0},
        "stream": {theirs.hidden_dropout, theirs.embedding_dropout} - {0.0},
        "inner": {theirs.activation_dropout} - {0.0},
    }
    assert tokens != hidden
    assert seen == ours


@pytest.mark.parametrize("fields", SMALL, ids=IDS)
def test_dropout_left_open_is_the_class_default(fields: dict[str, Any]) -> None:
    seen: set[float] = set()

    def note(x: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> None:
        seen.update({p} if p and training else ())

    with watched("dropout", torch.nn.functional, note):
        run(real(fields, **task_dropout(fields)))
    theirs = traits(fields)
    rates = {
        theirs.attention_dropout,
        theirs.hidden_dropout,
        theirs.embedding_dropout,
        theirs.activation_dropout,
    }
    assert seen == rates - {0.0}


@pytest.mark.parametrize("fields", SMALL, ids=IDS)
def test_scores_and_logits_are_capped_where_traits_say(fields: dict[str, Any]) -> None:
    model = real(fields)
    vocabulary, width = model.config.get_text_config().vocab_size, fields.get("intermediate_size")
    capped: set[str] = set()

    def note(x: Any, *rest: Any, **more: Any) -> None:
        if x.shape[-1] == vocabulary:
            capped.add("final")
        elif x.dim() == 4 and x.shape[-1] != width:
            capped.add("attention")

    with watched("tanh", torch, note), watched("tanh", torch.nn.functional, note):
        run(model)
    theirs = traits(fields)
    assert capped == {
        name
        for name, cap in (("final", theirs.final_softcap), ("attention", theirs.attention_softcap))
        if cap
    }


def acts_of(model: Any) -> set[type]:
    known = {type(transformers.activations.ACT2FN[name]) for name in transformers.activations.ACT2CLS}
    return {
        type(module) for name, module in model.named_modules()
        if (type(module) in {*known, torch.nn.GELU} or type(module).__name__ == "BloomGelu")
        and not re.search(r"pooler|classif|\btransform\b|head\.|score_fn", name)
    }  # fmt: skip


@pytest.mark.parametrize("fields", SMALL, ids=IDS)
def test_activations_are_those_of_the_classes(fields: dict[str, Any]) -> None:
    theirs, found = traits(fields), acts_of(real(fields))
    if theirs.activation == "gelu_bloom":
        assert {kind.__name__ for kind in found} == {"BloomGelu"}
    elif fields["model_type"] == "mpt":
        assert (found, theirs.activation) == ({torch.nn.GELU}, "gelu")
    elif found:
        # State spaces have SiLU in their convolution, whatever the MLP has.
        ours = type(transformers.activations.ACT2FN[theirs.activation])
        assert found - {torch.nn.SiLU, transformers.activations.SiLUActivation} <= {ours}
        assert ours in found or theirs.activation == "silu"
    else:
        assert theirs.activation in ("silu", "swiglu_clamped", "relu2")


@pytest.mark.parametrize("fields", SMALL, ids=IDS)
def test_factors_of_embeddings_and_logits(fields: dict[str, Any]) -> None:
    theirs, model = traits(fields), real(fields).eval()
    if not hasattr(model, "lm_head") or model.config.is_encoder_decoder:
        return
    seen: dict[str, Any] = {}
    model.lm_head.register_forward_hook(lambda module, args, output: seen.setdefault("logits", output))
    logits = run(model).logits
    if not theirs.final_softcap:
        assert torch.allclose(
            logits.float(), seen["logits"].float() * (theirs.logits_multiplier or 1.0), rtol=1e-4
        )
    places = [
        m
        for n, m in model.named_modules()
        if isinstance(m, torch.nn.Embedding) and n.endswith("embed_tokens")
    ]
    if places and theirs.norm.startswith("rms") and theirs.block not in ("hyper", "altup", "normed_residual"):
        inner: dict[str, Any] = {}
        layers = next(
            m for n, m in model.named_modules() if n.endswith("layers") and isinstance(m, torch.nn.ModuleList)
        )
        layers[0].register_forward_pre_hook(
            lambda module, args, kwargs: inner.update(x=args[0] if args else kwargs["hidden_states"]),
            with_kwargs=True,
        )
        ids = torch.randint(3, 100, (1, 7))
        model(input_ids=ids)
        raw = torch.nn.functional.embedding(ids, places[0].weight)
        assert torch.allclose(inner["x"], raw * (theirs.embedding_multiplier or 1.0), rtol=1e-3, atol=1e-6)


# Where norms stand


_ATTENTION = re.compile(
    r"(Attention|MambaMixer|Mixer|RecurrentBlock|Mamba2?Layer|DeltaNet|DeltaAttention|ShortConv)$"
)
_MLP = re.compile(r"(MLP|Mlp|FeedForward|FeedForwardBlock|MoE|MoeBlock|MoEBlock|SparseMoeBlock|Moe)$|^Mlp")
#: Sum and norm are inside the modules of these, or their layers are not made of one attention and one MLP.
_UNSEEN = {
    "bloom", "mpt", "bert", "roberta", "xlm-roberta", "distilbert", "deberta-v2", "t5", "mt5", "umt5", "bart", "mbart",
    "whisper", "opt", "dbrx", "rwkv", "zamba", "zamba2", "gemma4_text", "modernbert",
}  # fmt: skip


@pytest.mark.parametrize(
    "fields", [f for f in SMALL if f["model_type"] not in _UNSEEN], ids=lambda f: f["model_type"]
)
def test_norms_stand_where_the_class_has_them(fields: dict[str, Any]) -> None:
    theirs, model = traits(fields), real(fields)
    for _, norm in norms_of(model):
        for parameter in norm.parameters():
            torch.nn.init.uniform_(parameter)  # two norms of one input then differ
    if theirs.block in ("hyper", "altup", "shortcut", "normed_residual"):
        pytest.skip("streams that are mixed have no one input")
    layers = next(
        m
        for n, m in model.named_modules()
        if re.search(r"(^|\.)(layers|h)$", n) and isinstance(m, torch.nn.ModuleList)
    )
    found = {placement(model, layer) for layer in layers}
    found = {kind for kind in found if kind}
    if fields["model_type"] == "olmo_hybrid":
        assert found == {"post_branch", "sequential"}
    elif theirs.block == "single" or fields["model_type"] == "nemotron_h":
        assert found == {"single"}
    else:
        assert found == {theirs.block}


def placement(model: Any, layer: Any) -> str:
    """The name of a layer's layout, from which tensor goes where in a forward pass."""
    calls: list[tuple[str, Any, Any]] = []
    start: list[Any] = []
    hooks = [
        layer.register_forward_pre_hook(
            lambda m, args, kwargs: start.append(args[0] if args else kwargs["hidden_states"]),
            with_kwargs=True,
        )
    ]

    def kind_of(name: str, module: Any) -> str:
        if is_norm(module):
            return "norm"
        if _ATTENTION.search(type(module).__name__):
            return "attention"
        return "mlp" if _MLP.search(type(module).__name__) else ""

    for name, module in layer.named_children():
        kind = kind_of(name, module)
        if kind:
            hooks.append(
                module.register_forward_hook(
                    lambda m, args, kwargs, output, kind=kind: calls.append(
                        (
                            kind,
                            args[0] if args else kwargs.get("hidden_states", kwargs.get("x")),
                            output[0] if isinstance(output, tuple) else output,
                        )
                    ),
                    with_kwargs=True,
                )
            )
    with torch.no_grad():
        run(model)
    for hook in hooks:
        hook.remove()
    return name_of(start[0], calls)


def name_of(start: Any, calls: list[tuple[str, Any, Any]]) -> str:
    def same(a: Any, b: Any) -> bool:
        return a.numel() == b.numel() and torch.equal(a.flatten(), b.flatten())

    norms = [(x, y) for kind, x, y in calls if kind == "norm"]
    attention = next(((x, y) for kind, x, y in calls if kind == "attention"), None)
    mlp = next(((x, y) for kind, x, y in calls if kind == "mlp"), None)
    if attention is None or mlp is None:
        return "single"
    before = [pair for pair in norms if same(pair[1], attention[0])]
    after = [pair for pair in norms if same(pair[0], attention[1])]
    before_mlp = [pair for pair in norms if same(pair[1], mlp[0])]
    if before and before_mlp and before[0] is before_mlp[0]:
        return "parallel_shared_norm"
    if before and before_mlp and same(before_mlp[0][0], start):
        return "parallel"
    if before and after:
        return "sandwich"
    if after:
        return "post_branch"
    return "sequential" if before and before_mlp else "post"


# Routers


ROUTED = [
    fields for fields in SMALL if traits(fields).router and fields["model_type"] not in ("dbrx", "phimoe")
]


def reference(router: Router, logits: Any, chosen: Any) -> Any:
    """Weights of the chosen experts as the record describes them."""
    score = {
        "softmax": lambda x: torch.softmax(x, -1), "sigmoid": torch.sigmoid,
        "sqrtsoftplus": lambda x: torch.sqrt(torch.nn.functional.softplus(x)),
    }[router.score]  # fmt: skip
    logits = logits.float()
    weights = score(logits).gather(-1, chosen) if router.before_top_k else score(logits.gather(-1, chosen))
    return weights / weights.sum(-1, keepdim=True) if router.normalised else weights


@pytest.mark.parametrize("fields", ROUTED, ids=lambda fields: fields["model_type"])
def test_routers_score_as_the_class_does(fields: dict[str, Any]) -> None:
    theirs = traits(fields).router
    assert theirs is not None
    model = real(fields)
    seen: list[tuple[Any, ...]] = []
    products: list[Any] = []
    routers = [
        (name, module) for name, module in model.named_modules()
        if re.search(r"(Router|MoEV1Gate)$", type(module).__name__) and "Hash" not in type(module).__name__
    ]  # fmt: skip
    for _, module in routers:
        module.register_forward_hook(lambda module, args, output: seen.append(output))
    run(model)
    assert seen
    for output in seen:
        if len(output) == 2:  # Llama 4: every expert's score, zero where it is not chosen
            scores, logits = output
            chosen = logits.topk(fields["num_experts_per_tok"], dim=-1).indices
            weights = scores.gather(-1, chosen)
        else:
            logits, weights, chosen = output
        if fields["model_type"] == "gemma4_text":
            continue  # returns probabilities, and weights times a parameter
        ours = reference(theirs, logits, chosen)
        factors = weights.float() / ours
        assert torch.allclose(factors, factors.flatten()[0].expand_as(factors), rtol=1e-4)
        if theirs.normalised:
            assert torch.allclose(ours.sum(-1), torch.ones_like(ours[..., 0]))
    stored = {name for name, _ in [*model.named_parameters(), *model.named_buffers()]}
    corrects = any(re.search(r"correction_bias|expert_bias|moe_statics", name) for name in stored)
    assert corrects == theirs.corrected
    model = model.to(torch.bfloat16)
    for _, module in routers:
        weight = next(p for n, p in module.named_parameters() if p.dim() == 2)
        rows = weight.shape[0]

    def note(x: Any, weight: Any, *rest: Any, **more: Any) -> None:
        if weight.shape[0] == rows and weight.dim() == 2 and x.shape[-1] == fields.get("hidden_size"):
            products.append(weight.dtype)

    with watched("linear", torch.nn.functional, note), torch.no_grad():
        run(model)
    assert (torch.float32 in products) == theirs.float32


# What no small model shows


def test_every_style_is_of_a_known_type() -> None:
    assert [name for name in STYLES if name not in FAMILIES and name not in FAMILIES.values()] == []


_STORED_QUERY = re.compile(r"\.(q_norm|q_layernorm|query_layernorm|q_ln)\b")


@pytest.mark.parametrize("name", catalogue_ids())
def test_query_norms_are_where_checkpoints_store_them(name: str) -> None:
    entry = find(name)
    assert entry is not None
    architecture = build(Config(entry.config, name))
    query = [
        tensor.shape for layer, _ in architecture.blocks for tensor in layer.tensors
        if _STORED_QUERY.search(tensor.name) and "cross_attn" not in tensor.name
    ]  # fmt: skip
    latent = architecture.traits.block == "hyper" and architecture.model_type.startswith("deepseek")
    if architecture.traits.qk_norm_kind == "rms_plain" or latent:
        return
    assert bool(query) == (architecture.traits.qk_norm != "none")


def test_a_nested_language_model_has_its_own_traits() -> None:
    for name, norm, block in (
        ("google/gemma-3-4b-it", "rms_offset", "sandwich"),
        ("meta-models/Muse-Glimmer-30B", "rms_offset", "sandwich"),
        ("stepfun-ai/Step-3.7-Flash", "rms_offset", "sequential"),
        ("zai-org/GLM-4.1V-9B-Base", "rms", "sandwich"),
        ("deepseek-ai/DeepSeek-V4.1-Flash", "rms_float32", "hyper"),
    ):
        entry = find(name)
        assert entry is not None
        found = build(Config(entry.config, name)).traits
        assert (name, found.norm, found.block) == (name, norm, block)


def test_factors_of_branches() -> None:
    wide = {**dense.NARROW, "num_hidden_layers": 4}
    assert traits({**wide, "model_type": "granite", "residual_multiplier": 0.22}).residual_multiplier == 0.22
    depth = traits({**wide, "model_type": "minicpm", "scale_depth": 1.4}).residual_multiplier
    assert depth is not None
    assert isclose(depth, 0.7)  # 1.4 over the root of four layers
    assert traits({**wide, "model_type": "llama"}).residual_multiplier is None


def test_falcon_40b_under_its_first_name_has_two_norms() -> None:
    old = {**dense.FALCON, "model_type": "RefinedWeb", "n_head_kv": 2}
    assert traits(old).block == "parallel"
    assert traits({**dense.FALCON, "model_type": "RefinedWebModel"}).block == "parallel_shared_norm"


def test_baichuan_2_normalises_its_head() -> None:
    fields = {**dense.ONE_KV, "model_type": "baichuan", "hidden_size": 5120, "num_attention_heads": 40}
    assert traits({**fields, "vocab_size": 125696}).normed_head
    first = traits({**fields, "vocab_size": 64000})
    assert (first.normed_head, first.position_bias) == (False, "alibi")


@given(st.data())
def test_a_broken_field_ends_in_bad_input(data: st.DataObject) -> None:
    fields = dict(data.draw(st.sampled_from(dense.SMALL)))
    names = [
        "attention_dropout",
        "hidden_act",
        "final_logit_softcapping",
        "logits_scaling",
        "activation_function",
        "n_group",
    ]
    fields[data.draw(st.sampled_from(names))] = data.draw(dense.JUNK)
    try:
        found = traits(fields)
    except BadInput:
        return
    assert isinstance(found.activation, str)
    assert found.attention_dropout >= 0 or fields["attention_dropout"] == -1
