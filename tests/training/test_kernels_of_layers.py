"""What layers keep where fused kernels, or another era's code, run them: by hand from the kernels' own lists."""

import pytest

from willfit.architectures.build import build
from willfit.architectures.mixers import Recurrent
from willfit.checkpoints import catalogue
from willfit.checkpoints.config import Config
from willfit.training.modelling import scores
from willfit.training.modelling.block import block
from willfit.training.modelling.builder import Builder, Stored
from willfit.training.modelling.manners import manner_of
from willfit.training.modelling.step import Step
from willfit.training.tape import Weight, replay

BATCH, LENGTH = 2, 1024
TOKENS = BATCH * LENGTH


def ran(fields, index=0, **how):
    architecture = build(Config(dict(fields)))
    layer = architecture.layers[index]
    step = Step(BATCH, LENGTH, LENGTH, "bf16", **how)
    builder = Builder(step, lambda t: Stored(Weight(t.elements, "bf16", True)), manner_of(architecture))
    given = builder.entering(step.tokens * architecture.hidden_size, "bf16")
    return layer, replay(builder.tape, given, block(builder, given, layer, architecture.traits))


def config(name):
    return catalogue.find(name).config


@pytest.fixture(autouse=True)
def no_hidden_workspaces(monkeypatch):
    monkeypatch.setattr(scores, "flash_workspace", lambda *given: 0)


def test_the_fused_scan_of_mamba2_keeps_its_input_and_output():
    fields = config("mistralai/Mamba-Codestral-7B-v0.1")
    layer, fused = ran(fields, kernels=frozenset({"mamba_ssm", "causal_conv1d"}))
    _, written = ran(fields)
    mixer = layer.mixers[0]
    assert isinstance(mixer, Recurrent)
    hidden, inner, heads = 4096, mixer.output_width, mixer.heads
    norm = 4 * hidden + 4 + 2 * hidden + 2 * hidden
    # The projected input, the scan's output, and a float32 statistic for each of 8 groups.
    kernel = 2 * (inner + mixer.conv_channels + heads) + 2 * inner + 4 * 8
    assert fused.kept == TOKENS * (norm + kernel)
    assert written.kept > 8 * fused.kept


def test_the_kernels_of_fla_keep_inputs_and_the_inverse():
    fields = config("Qwen/Qwen3-Coder-Next")
    _, fused = ran(fields, kernels=frozenset({"fla", "causal_conv1d"}))
    _, written = ran(fields)
    # qwen3-next: 16 key heads and 32 value heads of 128, a chunk of 64 tokens.
    keys, values, heads = 16 * 128, 32 * 128, 32
    convolved = 2 * (2 * keys + values)
    kernel = 2 * (2 * keys) + 2 * 4 * 16 + 2 * (2 * keys + values) + 2 * heads + 4 * heads + 2 * heads * 64
    norm_and_gate = 2 * values + 2 * values + 4 * heads
    decay, given = 2 * 4 * heads, 2 * 2048
    # Keys and queries are kept normed beside the convolution's output, of which values are a view.
    mixer = given + convolved + kernel + norm_and_gate + decay + 2 * values
    saved = fused.kept_by_module["attention"] // TOKENS
    assert saved == mixer
    assert written.kept_by_module["attention"] > 4 * fused.kept_by_module["attention"]


def test_flash_pads_the_values_of_latent_attention():
    fields = config("deepseek-ai/DeepSeek-V3")
    _, flash = ran(fields, attention="flash_attention_2")
    _, sdpa = ran(fields, attention="sdpa")
    # Heads of 192 for queries and keys, of 128 for values: the padded values and output are kept in their place, the
    # output once more in its own width; the projection that keys and values came from is given back.
    heads = 128
    more = 2 * heads * (192 - 256) + 2 * heads * 192
    assert flash.kept - sdpa.kept == TOKENS * more + 24 - 16


def test_experts_one_after_the_other_keep_what_a_loop_keeps():
    # MixtralDecoderLayer with `experts_implementation="eager"` on a CPU, bf16, 2 x 256 tokens: 5,163,008 bytes.
    fields = {
        "model_type": "mixtral", "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 1,
        "num_attention_heads": 4, "num_key_value_heads": 4, "vocab_size": 100, "num_local_experts": 6,
        "num_experts_per_tok": 2,
    }  # fmt: skip
    architecture = build(Config(fields))
    step = Step(2, 256, 256, "bf16", attention="eager", grouped_experts=False)
    builder = Builder(step, lambda t: Stored(Weight(t.elements, "bf16", True)), manner_of(architecture))
    given = builder.entering(step.tokens * 64, "bf16")
    ran = replay(builder.tape, given, block(builder, given, architecture.layers[0], architecture.traits))
    assert ran.kept == pytest.approx(5_163_008, rel=1e-3)
