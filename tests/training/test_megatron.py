"""What Megatron-LM does otherwise, by hand."""

import pytest

from willfit.architectures.build import build
from willfit.checkpoints import catalogue
from willfit.checkpoints.config import Config
from willfit.training.layout import in_flight
from willfit.training.modelling import scores
from willfit.training.modelling.block import block
from willfit.training.modelling.builder import Builder, Stored
from willfit.training.modelling.low_bits import low_bits
from willfit.training.modelling.manners import manner_of
from willfit.training.modelling.step import Step
from willfit.training.settings import LayoutSettings
from willfit.training.sharding.base import Unit, alone
from willfit.training.tape import Moment, Replay, Weight, replay
from willfit.training.timeline import Piece, instants

NOTHING = Unit(0, 0, 0, 0)


def peak(pieces):
    return max(one.bytes for one in instants(pieces, alone([NOTHING] * len(pieces))))


def layer(together):
    ran = Replay(10, 10, 100, 100, {}, Moment(kept=100, passing=30), Moment(kept=100, passing=50), 0)
    return Piece("layer", ran, NOTHING, checkpointed=True, follows=together)


def test_layers_of_one_checkpoint_run_again_together():
    alone_, follows = layer(False), layer(True)
    # Of 8 layers each keeps its input, and one at a time all of it.
    assert peak([alone_] * 8) == 8 * 10 + 100 + 50
    # In fours: two inputs, and four layers' all at once.
    assert peak([alone_, follows, follows, follows] * 2) == 2 * 10 + 4 * 100 + 50
    assert peak([alone_, follows, follows]) == 10 + 3 * 100 + 50


def kept(name, **how):
    fields = catalogue.find("meta-llama/Meta-Llama-3-8B").config
    architecture = build(Config(dict(fields)))
    step = Step(
        1, 2048, 2048, "bf16", attention="flash_attention_2", kernels=frozenset({"rms_norm", "rope", "swiglu"}),
        tensor_ranks=4, sequence_parallel=True, low_bits=low_bits(name, "megatron", "9.0", False), **how,
    )  # fmt: skip
    builder = Builder(step, lambda t: Stored(Weight(t.elements // 4, "bf16", True)), manner_of(architecture))
    given = builder.entering(step.stream_tokens * architecture.hidden_size, "bf16")
    return replay(
        builder.tape, given, block(builder, given, architecture.layers[0], architecture.traits)
    ).kept


def test_sequence_parallel_ranks_keep_their_share_of_what_is_gathered(monkeypatch):
    monkeypatch.setattr(scores, "flash_workspace", lambda *given: 0)
    normed = 2048 * 4096 * 2
    assert kept(None, regathers=True) == kept(None) - 2 * (normed - normed // 4)
    # In 8 bits: half of two normed inputs and of what enters the down projection, and a copy of attention's output.
    tokens = 2048 // 4
    less = tokens * (2 * 4096 + 14336) - tokens * 4096
    assert kept("te-delayed", regathers=True) == kept(None, regathers=True) - less


@pytest.mark.parametrize("stage", range(4))
def test_micro_batches_in_flight(stage):
    def alive(**layout):
        return in_flight(LayoutSettings(pp=4, **layout), stage, 16)

    assert alive() == alive(schedule="zb-h1") == 4 - stage
    assert alive(schedule="zb-v") == 4
    assert alive(schedule="gpipe") == 16
    # Chunks warm up: 2 (p - stage - 1) + (v - 1) p, and one runs.
    assert alive(virtual_stages=2) == (2 * (3 - stage) + 4 + 1) / 2
