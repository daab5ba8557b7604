"""Towers, encoders and heads without a vocabulary: what they keep, by hand, and where they stand in a step."""

from dataclasses import replace

import pytest

from willfit.architectures.build import build
from willfit.checkpoints import catalogue
from willfit.checkpoints.config import Config
from willfit.training.before import encoder_pieces, tower_pieces
from willfit.training.modelling import scores
from willfit.training.modelling.builder import Builder, Stored
from willfit.training.modelling.head import LossPath, head
from willfit.training.modelling.known import roughly_modelled
from willfit.training.modelling.step import Step
from willfit.training.modelling.tower import tiled, tower_layer, tower_step
from willfit.training.settings import CheckpointingSettings
from willfit.training.sharding.base import Unit
from willfit.training.tape import Weight, replay


def architecture_of(name):
    return build(Config(dict(catalogue.find(name).config)))


class Held:
    """A model of which all parameters, or none, are trained."""

    def __init__(self, architecture, trained):
        self.architecture, self._trained = architecture, trained

    def stored(self, tensor):
        return Stored(Weight(tensor.elements, "bf16", self._trained))

    def unit(self, tensors):
        size = 2 * sum(tensor.elements for tensor in tensors)
        trained = size // 2 if self._trained else 0
        return Unit(size, size, trained, 2 * trained)


@pytest.fixture(autouse=True)
def no_hidden_workspaces(monkeypatch):
    monkeypatch.setattr(scores, "flash_workspace", lambda *given: 0)


def test_a_layer_of_siglip_by_hand():
    # transformers SiglipEncoderLayer of Gemma 3 on the meta device, two images of 4096 patches: 292,683,800 bytes.
    tower = architecture_of("google/gemma-3-12b-it").towers[0]
    apart = tiled(tower)
    step = tower_step(Step(2, 4096, 4096, "bf16"), tower)
    builder = Builder(step, lambda tensor: Stored(Weight(tensor.elements, "bf16", True)), apart.manner)
    given = builder.entering(step.tokens * tower.hidden_size, "bf16")
    ran = replay(builder.tape, given, tower_layer(builder, given, apart))
    hidden, width, heads = tower.hidden_size, tower.width, tower.heads
    # Two norms with their inputs and outputs, three projections, attention's output; MLP: input and output of GELU.
    by_token = 2 * (2 + 2 + 3 + 1) * hidden + 2 * 2 * width + 4 * heads + 2 * 8
    assert ran.kept == step.tokens * by_token + 24 == 292_683_800


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("llava-hf/llava-1.5-13b-hf", 47_360_184),
        ("Qwen/Qwen2.5-VL-32B-Instruct", 135_413_784),
        ("Qwen/Qwen3-VL-2B-Instruct", 79_855_640),
        ("Qwen/Qwen2-VL-2B-Instruct", 120_750_104),
    ],
)
def test_layers_of_towers_as_traced(name, kept):
    # The towers' own layers on the meta device: two images of 577 patches, or one of 2048.
    tower = architecture_of(name).towers[0]
    batch, positions = (2, 577) if "llava" in name else (1, 2048)
    apart = tiled(tower)
    step = Step(batch, positions, positions, "bf16", attends_back=False)
    builder = Builder(step, lambda tensor: Stored(Weight(tensor.elements, "bf16", True)), apart.manner)
    given = builder.entering(step.tokens * tower.hidden_size, "bf16")
    assert replay(builder.tape, given, tower_layer(builder, given, apart)).kept == kept


def test_a_frozen_tower_keeps_nothing():
    architecture = architecture_of("google/gemma-3-12b-it")
    step, none = Step(1, 1024, 1024, "bf16"), CheckpointingSettings()
    frozen = tower_pieces(Held(architecture, False), step, none, False)
    trained = tower_pieces(Held(architecture, True), step, none, False)
    assert len(frozen) == len(trained) == architecture.towers[0].layers + 2
    assert sum(piece.kept for piece in frozen) == 0
    assert sum(piece.kept for piece in trained) > 27 * 292_683_800 // 2
    # Frozen or not, it runs.
    assert frozen[5].replay.forward.bytes > 0
    assert sum(p.unit.bytes for p in frozen) == pytest.approx(
        2 * sum(t.elements for t in architecture.towers[0].tensors), rel=0.02
    )


def test_a_tower_takes_no_more_positions_than_the_sequence_has_room_for():
    tower = architecture_of("Qwen/Qwen2.5-VL-32B-Instruct").towers[0]
    assert tower.tokens > 2048
    step = tower_step(Step(1, 2048, 2048, "bf16"), tower)
    assert step.length == 4 * 2048


def test_an_encoder_stands_before_the_decoder_and_leaves_its_output():
    architecture = architecture_of("openai/whisper-base")
    step = Step(2, 128, 128, "bf16")
    pieces = encoder_pieces(Held(architecture, True), step, CheckpointingSettings(), False)
    assert [piece.name for piece in pieces][:2] == ["encoder front", "encoder layer 0"]
    assert len(pieces) == len(architecture.encoder) + 2
    tokens = 2 * 1500
    # The last norm keeps its input, a mean and a deviation; its output is what the decoder looks at.
    assert pieces[-1].kept == tokens * (2 * 512 + 8) + tokens * 2 * 512
    # Two convolutions over 3000 frames: outputs in front of and behind GELU, all but the last, which the layers keep.
    assert pieces[0].kept == 2 * 2 * 512 * (2 * 2 * 1500 + 1500)


@pytest.mark.parametrize("name", ["Qwen/Qwen3-0.6B-Base", "google-bert/bert-base-uncased"])
def test_a_classifier_makes_no_logits(name):
    architecture = architecture_of(name)
    step = Step(4, 512, 512, "bf16")

    def ran(path):
        builder = Builder(step, lambda tensor: Stored(Weight(tensor.elements, "bf16", True)))
        given = builder.entering(step.tokens * architecture.hidden_size, "bf16")
        return replay(builder.tape, given, head(builder, given, architecture, path))

    vocabulary = LossPath("hf", step.tokens, architecture.vocab_size)
    scored, embedded = replace(vocabulary, classes=3), replace(vocabulary, pooled=True)
    assert ran(vocabulary).backward.bytes > 12 * step.tokens * architecture.vocab_size
    assert ran(embedded).backward.bytes <= ran(scored).backward.bytes < ran(vocabulary).backward.bytes // 8


def test_what_is_only_roughly_modelled_is_said():
    assert roughly_modelled(architecture_of("Qwen/Qwen3-Coder-Next")) == ()
    assert "rwkv" in roughly_modelled(architecture_of("RWKV/rwkv-4-14b-pile"))
    assert "attention that several layers share" in roughly_modelled(architecture_of("Zyphra/Zamba-7B-v1"))
