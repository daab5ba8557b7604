"""What compiled layers keep, against torch's own partitioner on transformers' layers."""

import pytest

from willfit.architectures.build import build
from willfit.asking import find_subject, machine_of
from willfit.checkpoints.config import Config
from willfit.training.estimate import estimate
from willfit.training.fused import compiled_bytes, read_of
from willfit.training.modelling.block import block
from willfit.training.modelling.builder import Builder, Stored
from willfit.training.modelling.manners import manner_of
from willfit.training.modelling.step import Step
from willfit.training.selective import every_second_product
from willfit.training.settings import (
    CheckpointingSettings,
    LayoutSettings,
    LossSettings,
    TrainingSettings,
)
from willfit.training.tape import Tape, Weight

TOKENS, HIDDEN = 64, 256
SMALL = {
    "hidden_size": HIDDEN, "intermediate_size": 640, "num_hidden_layers": 1, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 64, "vocab_size": 128, "max_position_embeddings": 256,
}  # fmt: skip
VIEWS = ("permute", "view", "alias", "transpose", "unsqueeze", "expand", "getitem", "split", "slice")
#: Llama; heads with norms; biases; one matrix for three and for two; LayerNorms, plain activation, parallel block.
MODELS = ("llama", "qwen3", "qwen2", "phi3", "gpt_neox")


def small(kind: str) -> dict[str, int]:
    return {name: size for name, size in SMALL.items() if kind != "gpt_neox" or "key_value" not in name}


def kept_by_torch(kind: str) -> int:
    """Bytes that the partitioner saves of a decoder layer, beside parameters and what all layers share."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from functorch.compile import aot_function, min_cut_rematerialization_partition
    from torch._inductor.decomposition import select_decomp_table

    config = transformers.AutoConfig.for_model(
        kind, **small(kind), attn_implementation="sdpa", pad_token_id=0
    )
    model = transformers.AutoModel.from_config(config).to(torch.bfloat16)
    layer = model.layers[0].train()
    named = dict(layer.named_parameters())
    value = torch.randn(1, TOKENS, HIDDEN, dtype=torch.bfloat16, requires_grad=True)
    places = torch.arange(TOKENS)[None]
    angles = [one.detach() for one in model.rotary_emb(value, places)]
    saved = []

    def run(value, cosine, sine, *parameters):
        given = {"position_embeddings": (cosine, sine), "attention_mask": None}
        found = torch.func.functional_call(layer, dict(zip(named, parameters, strict=True)), (value,), given)
        return found[0] if isinstance(found, tuple) else found

    def forward(graph, _):
        outputs = next(node for node in graph.graph.nodes if node.op == "output").args[0]
        saved.extend(outputs[1:])
        return graph

    compiled = aot_function(
        run, forward, lambda graph, _: graph, partition_fn=min_cut_rematerialization_partition,
        decompositions=select_decomp_table(),
    )  # fmt: skip
    compiled(value, *angles, *named.values())

    attention = next(found for node in saved if "attention" in str((found := source(node)).target))
    queries = str(attention.args[0].target)
    sizes = {}
    for node in saved:
        found = source(node)
        value = found.meta["val"] if isinstance(found.meta.get("val"), torch.Tensor) else node.meta["val"]
        if found.op == "call_function" or tuple(value.shape) == (1, TOKENS, HIDDEN):
            sizes[found.name] = value.numel() * value.element_size()
    # CUDA's kernel gives the layout of the queries: head by head, that is copied for the product that reads it.
    copies = "clone" in queries or "cat" in queries
    return sum(sizes.values()) + copies * sizes[attention.name]


def source(node):
    """What a view is a view of, or a copy of attention's first output; the others lie elsewhere."""
    while node.op == "call_function":
        name, above = str(node.target), node.args[0]
        if "getitem" in name and "attention" in str(above.target):
            return above if node.args[1] == 0 else node
        if "clone" in name:
            below = source(above)
            return below if "attention" in str(below.target) else node
        if not any(word in name for word in VIEWS):
            break
        node = above
    return node


def kept_by_rule(kind: str) -> int:
    fields = small(kind) | {"model_type": kind}
    architecture = build(Config(fields))
    builder = Builder(
        Step(1, TOKENS, TOKENS, "bf16", attention="sdpa"),
        lambda tensor: Stored(Weight(tensor.elements, "bf16", tensor.kind != "buffer")),
        manner_of(architecture),
    )
    given = builder.entering(TOKENS * HIDDEN, "bf16")
    block(builder, given, architecture.layers[0], architecture.traits)
    return compiled_bytes(builder.tape, given)


@pytest.mark.parametrize("kind", MODELS)
def test_a_compiled_layer_keeps_what_torchs_partitioner_does(kind: str) -> None:
    assert kept_by_rule(kind) == pytest.approx(kept_by_torch(kind), rel=0.01)


def test_chains_are_made_again_from_products() -> None:
    tape = Tape()
    given = tape.new(10, "bf16", True)
    weight = Weight(100, "bf16", True)
    made = tape.run("mm", (given,), 20, "bf16", saves=(given,), weights=(weight,))
    wide = tape.cast(made, "fp32")
    bent = tape.run("tanh", (wide,), 20, "fp32", saves_output=True)
    narrow = tape.cast(bent, "bf16")
    tape.run("mm", (narrow,), 10, "bf16", saves=(narrow,), weights=(weight,))
    # The input, the first product's result, and what the second one reads; neither float32 copy.
    assert compiled_bytes(tape, given) == 20 + 40 + 40


def test_a_compiled_layer_drops_what_checkpointing_would_keep_unread() -> None:
    """The last product of an MLP: torch's partitioner saves wq, wv, attention and w1 of torchtitan's layer, not w2."""
    builder = Builder(
        Step(1, TOKENS, TOKENS, "bf16"), lambda tensor: Stored(Weight(tensor.elements, "bf16", True))
    )
    architecture = build(Config(SMALL | {"model_type": "llama"}))
    given = builder.entering(TOKENS * HIDDEN, "bf16")
    block(builder, given, architecture.layers[0], architecture.traits)
    eager = every_second_product(builder.tape.operations)
    kept = read_of(builder.tape, every_second_product, builder.tape.operations)
    assert [one.name for one in eager] == ["mm", "mm", "flash", "mm", "mm"]
    assert kept == eager[:-1]


#: torchtune's README (flags table @1814feb17): Llama 3.2 3B, 2 sequences of 4096, one A100; peak active GiB.
PLAIN, CHUNKED = LossSettings("hf"), LossSettings("chunked", chunks=8)


@pytest.mark.parametrize(
    ("compiled", "loss", "checkpoints", "measured"),
    [
        (False, PLAIN, "none", 60.0),
        (True, PLAIN, "none", 51.0),
        (True, CHUNKED, "none", 42.9),
        (True, CHUNKED, "full", 24.9),
    ],
)
def test_torchtunes_flags(compiled: bool, loss: LossSettings, checkpoints: str, measured: float) -> None:
    settings = TrainingSettings(
        framework="torchtune", version="2024-11-18", micro_batch=2, seq_len=4096, packed=True, compile=compiled,
        loss=loss, checkpointing=CheckpointingSettings(checkpoints),
    )  # fmt: skip
    assert peak("meta-llama/Llama-3.2-3B-Instruct", "a100-80g", settings) == pytest.approx(
        measured, rel=0.015
    )


@pytest.mark.parametrize(("kind", "measured"), [("full", 22.733), ("selective-op", 49.544)])
def test_torchtitans_first_runs_with_fsdp2(kind: str, measured: float) -> None:
    """Published (torchtitan #165: Llama 2 7B, 8 sequences of 2048, eight H100): peak active; logits were still held."""
    settings = TrainingSettings(
        framework="torchtitan", version="2024-03-28", micro_batch=8, seq_len=2048,
        checkpointing=CheckpointingSettings(kind), layout=LayoutSettings(data="fsdp2"),
    )  # fmt: skip
    assert peak("meta-llama/Llama-2-7b-hf", "8xh100", settings) == pytest.approx(measured, rel=0.005)


def peak(model: str, gpus: str, settings: TrainingSettings) -> float:
    answer = estimate(find_subject(model, offline=True)[0], machine_of(gpus), settings)
    return max(one["bytes"] for one in answer.details["training"]["instants"]) / 2**30
