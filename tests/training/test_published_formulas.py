"""Formulas that others published, met by what the tape makes of the same layers.

Korthikanti et al. 2022 (arXiv 2205.05198), table 2 and section 4: bytes of activations of a GPT layer in 16 bits, with
dropout, as Megatron-LM runs it where attention is not fused. They leave out the statistics of layer norms, which are
16 bytes a token of each layer here.
"""

from dataclasses import replace

import pytest

from willfit.asking import machine_of
from willfit.checkpoints.config import Config
from willfit.engines.base import Subject
from willfit.engines.subject import subject_from_config
from willfit.training.account import Account
from willfit.training.estimate import accounts_of, prepared
from willfit.training.layout import in_flight
from willfit.training.settings import CheckpointingSettings, LayoutSettings, TrainingSettings

LENGTH, VOCABULARY, RANKS = 2048, 51200, 8
#: Layers, hidden size, heads, pipeline stages and interleaved chunks (table 3 of the paper).
GPT3 = (96, 12288, 96, 8, 3)
MT_NLG = (105, 20480, 128, 35, 3)
MODELS = pytest.mark.parametrize("shape", [GPT3, MT_NLG], ids=["GPT-3 175B", "MT-NLG 530B"])


def model(shape: tuple[int, ...], layers: int | None = None) -> Subject:
    config = {
        "model_type": "gpt2",
        "architectures": ["GPT2LMHeadModel"],
        "n_layer": layers or shape[0],
        "n_embd": shape[1],
        "n_head": shape[2],
        "n_positions": LENGTH,
        "vocab_size": VOCABULARY,
        "activation_function": "gelu_new",
        "attn_pdrop": 0.1,
        "embd_pdrop": 0.1,
        "resid_pdrop": 0.1,
        "torch_dtype": "float16",
    }
    return subject_from_config("gpt", Config(config, "the paper"))


def first_stage(
    subject: Subject, layout: LayoutSettings, kind: str = "none", micro_batches: int = 1
) -> Account:
    settings = TrainingSettings(
        framework="megatron",
        seq_len=LENGTH,
        attention="eager",
        gradient_accumulation=micro_batches,
        checkpointing=CheckpointingSettings(kind),
        layout=layout,
    )
    machine = machine_of(f"{layout.tp * layout.pp}xa100-80g")
    return accounts_of(*_first_and(subject, machine, settings))[0]


def _first_and(subject: Subject, machine: object, settings: TrainingSettings) -> tuple[object, ...]:
    run, ranks = prepared(subject, machine, settings)
    return run, subject, machine, ranks


@MODELS
@pytest.mark.parametrize(
    ("kind", "tp", "sp", "formula"),
    [
        ("none", 1, False, lambda scores, t: 34 + scores),
        ("none", RANKS, False, lambda scores, t: 10 + 24 / t + scores / t),
        ("none", RANKS, True, lambda scores, t: (34 + scores) / t),
        ("selective-core-attn", RANKS, False, lambda scores, t: 10 + 24 / t),
        ("selective-core-attn", RANKS, True, lambda scores, t: 34 / t),
        ("full", RANKS, False, lambda scores, t: 2),
        ("full", RANKS, True, lambda scores, t: 2 / t),
    ],
)
def test_bytes_of_a_layer(shape, kind, tp, sp, formula) -> None:
    """Table 2: sbh times 34 + 5as/h, and what parallelism and recomputation leave of it."""
    _, hidden, heads, *_ = shape
    account = first_stage(model(shape, 4), LayoutSettings(tp=tp, sp=sp), kind)
    kept = next(piece.kept for piece in account.pieces if piece.name == "layer 1")
    scores = 5 * heads * LENGTH / hidden
    statistics = 0 if kind == "full" else 16 * LENGTH // (tp if sp else 1)
    assert kept == formula(scores, tp) * LENGTH * hidden + statistics


@MODELS
def test_what_selective_recomputation_saves(shape) -> None:
    """Section 5: 70 % of GPT-3's activations, 65 % of MT-NLG's."""
    layout = LayoutSettings(tp=RANKS, sp=True)
    whole, less = (
        sum(
            piece.kept for piece in first_stage(model(shape, 8), layout, kind).pieces if "layer" in piece.name
        )
        for kind in ("none", "selective-core-attn")
    )
    assert 100 * (1 - less / whole) == pytest.approx(70 if shape is GPT3 else 65, abs=0.5)


@MODELS
@pytest.mark.parametrize("interleaved", [False, True])
def test_the_first_stage_of_a_pipeline(shape, interleaved) -> None:
    """Section 4.2.3: a micro-batch of all layers whatever p is, times 1 + (p - 1) / (p v) if interleaved."""
    layers, hidden, heads, stages, chunks = shape
    layout = LayoutSettings(tp=RANKS, sp=True, pp=stages)
    if interleaved:
        layout = replace(layout, schedule="interleaved", virtual_stages=chunks)
    account = first_stage(model(shape), layout, micro_batches=4 * stages)
    of_layers = sum(piece.kept for piece in account.pieces if "layer" in piece.name)
    sbhl = LENGTH * hidden * layers
    expected = sbhl / RANKS * (34 + 5 * heads * LENGTH / hidden)
    expected *= 1 + (stages - 1) / (stages * chunks) if interleaved else 1
    assert of_layers * in_flight(layout, 0, 4 * stages) == pytest.approx(expected, rel=1e-4)
    # Beside layers, the embedding's dropout keeps a byte an element: sbh p / t, again as often as layers are kept.
    fullest = max(instant.kept for instant in account.instants)
    assert expected < fullest < 1.03 * expected


@MODELS
def test_output_layer(shape) -> None:
    """Section 4.3: 4 sbh / t (1 + v / h): the norm's input, the projection's, and float32 logits."""
    _, hidden, *_ = shape
    head = first_stage(model(shape, 2), LayoutSettings(tp=RANKS, sp=True)).pieces[-1]
    paper = 4 * LENGTH * hidden / RANKS * (1 + VOCABULARY / hidden)
    # Beside: 8 bytes of the norm's statistics for a rank's rows, a mask and an index of 9 bytes for every row.
    assert head.kept == paper + 8 * LENGTH // RANKS + 9 * LENGTH


def test_unfused_attention_keeps_the_buffer_of_its_scores() -> None:
    """Megatron-LM's first product is given a buffer of all scores, which stays: 2 a s^2 b / t bytes."""
    layout = LayoutSettings(tp=RANKS)
    plain = first_stage(model(GPT3, 2), layout)
    assert plain.buffers == 2 * (GPT3[2] // RANKS) * LENGTH * LENGTH
