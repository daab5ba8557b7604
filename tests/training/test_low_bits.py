"""Products in few bits, by hand. Llama-3-8B: streams of 4096, keys of 1024, feed-forward parts of 14336."""

import pytest

from willfit.architectures.build import build
from willfit.asking import find_subject
from willfit.checkpoints import catalogue
from willfit.checkpoints.config import Config
from willfit.engines.base import Machine
from willfit.hardware.table import find_device
from willfit.training.estimate import accounts_of, prepared
from willfit.training.modelling import scores
from willfit.training.modelling.block import block
from willfit.training.modelling.builder import Builder, Stored
from willfit.training.modelling.low_bits import low_bits
from willfit.training.modelling.manners import manner_of
from willfit.training.modelling.step import Step
from willfit.training.settings import PrecisionSettings, TrainingSettings
from willfit.training.tape import Weight, replay

LLAMA = "meta-llama/Meta-Llama-3-8B"
TOKENS, HIDDEN, WIDTH = 2048, 4096, 14336
LINEAR = HIDDEN * (HIDDEN + 2 * 1024 + HIDDEN + 3 * WIDTH)
FUSED = frozenset({"rms_norm", "rope", "swiglu"})


@pytest.fixture(autouse=True)
def no_hidden_workspaces(monkeypatch):
    monkeypatch.setattr(scores, "flash_workspace", lambda *given: 0)


def kept(name, framework="megatron", capability="9.0", trained=True):
    architecture = build(Config(dict(catalogue.find(LLAMA).config)))
    low = low_bits(name, framework, capability, False)
    step = Step(1, TOKENS, TOKENS, "bf16", attention="flash_attention_2", kernels=FUSED, low_bits=low)
    builder = Builder(step, lambda t: Stored(Weight(t.elements, "bf16", trained)), manner_of(architecture))
    given = builder.entering(TOKENS * HIDDEN, "bf16")
    return replay(
        builder.tape, given, block(builder, given, architecture.layers[0], architecture.traits)
    ).kept


def test_transformer_engine_keeps_one_quantized_copy_of_each_input():
    # In 16 bits the output projection's input is what flash attention keeps anyway; in 8 it is a copy beside it.
    halves = 2 * TOKENS * (HIDDEN + HIDDEN + WIDTH)
    inputs = TOKENS * (3 * HIDDEN + WIDTH)
    assert kept("te-delayed") == kept(None) - halves + inputs
    assert kept("mxfp8") == kept(None) - halves + inputs * 33 // 32
    assert kept("nvfp4") == kept(None) - halves + inputs * 9 // 16


def test_modules_that_are_not_megatrons_keep_an_input_for_each_product_and_both_copies_of_weights():
    again = TOKENS * 3 * HIDDEN
    assert kept("te-delayed", "accelerate") == kept("te-delayed") + again + 2 * LINEAR
    assert kept("te-delayed", "accelerate", "10.0") == kept("te-delayed") + again + LINEAR


def test_torchao_keeps_inputs_in_16_bits_even_of_frozen_weights():
    assert kept("rowwise", "torchtitan") == kept(None)
    frozen = kept("rowwise", "torchtitan", trained=False) - kept(None, trained=False)
    assert frozen == 2 * TOKENS * (HIDDEN + HIDDEN + WIDTH)


@pytest.mark.parametrize(
    ("gpu", "float8", "alone", "more"),
    [
        ("h100", "te-delayed", None, 2 * LINEAR),
        ("h100", "te-delayed", True, 0),
        ("b200", "te-current", None, LINEAR),
        ("b200", "te-current", True, -LINEAR),
        ("b200", "mxfp8", None, LINEAR * 66 // 32),
    ],
)
def test_megatron_holds_quantized_weights_beside_or_instead_of_the_others(gpu, float8, alone, more):
    subject = find_subject(LLAMA, offline=True)[0]
    machine = Machine((find_device(gpu),))

    def buffers(name):
        precision = PrecisionSettings(float8=name, float8_weights=alone if name else None)
        settings = TrainingSettings("megatron", seq_len=2048, precision=precision)
        run, ranks = prepared(subject, machine, settings)
        return accounts_of(run, subject, machine, ranks)[0].buffers

    assert buffers(float8) - buffers(None) == 32 * more
