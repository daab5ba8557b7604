"""Rules of a step, in bytes by hand: what autocast holds, when checkpoints run again, what adapters make anew."""

from __future__ import annotations

from willfit.asking import find_subject
from willfit.training.adapters import adapt
from willfit.training.modelling.adapted import remade
from willfit.training.settings import AdapterSettings
from willfit.training.sharding.base import Unit, alone
from willfit.training.tape import Tape, Weight, replay
from willfit.training.timeline import Piece, instants

UNIT = Unit(0, 0, 0, 0)


def autocast_layer() -> Tape:
    """A product of 4 float32 numbers with a copy of 16 numbers in bfloat16, cast to float32."""
    tape = Tape()
    given = tape.new(4, "fp32", True)
    copy = tape.run("cast weight", (), 16, "bf16", weights=(Weight(16, "fp32", True),), cached=True)
    product = tape.run("mm", (given, copy), 4, "bf16", saves=(given, copy))
    tape.cast(product, "fp32")
    return tape


def test_copies_of_weights_are_held_until_the_forward_pass_is_over() -> None:
    tape = autocast_layer()
    first, last = tape.operations[1].inputs[0], tape.operations[-1].outputs[0]
    ran = replay(tape, first, last)
    assert (ran.kept, ran.cached, ran.cached_only) == (16 + 32, 32, 0)

    top = Tape()
    logits = top.new(4, "fp32", True)
    loss = top.run("loss", (logits,), 1, "fp32", saves=(logits,))
    head = Piece("head", replay(top, logits, loss), UNIT, head=True)

    def at_the_loss(checkpointed: bool, inside: bool) -> int:
        pieces = [Piece("layer", ran, UNIT, checkpointed), head]
        found = instants(pieces, alone([UNIT, UNIT]), loss_inside=inside)
        return next(one.bytes for one in found if one.name.startswith("forward of head"))

    # What the layer keeps; what the head is given, and the loss.
    assert at_the_loss(checkpointed=False, inside=True) == 48 + 16 + 4
    assert at_the_loss(checkpointed=True, inside=True) == 16 + 32 + 16 + 4
    assert at_the_loss(checkpointed=True, inside=False) == 16 + 16 + 4


def test_a_checkpoint_that_does_not_reenter_runs_again_at_the_first_thing_that_is_kept() -> None:
    tape = autocast_layer()
    ran = replay(tape, tape.operations[1].inputs[0], tape.operations[-1].outputs[0])
    # The last cast is differentiated first: 16 bytes became 8. What the product is given is kept before it runs.
    assert (ran.output_bytes, ran.waiting) == (16, 8)
    assert ran.rerun.bytes == 16 + 32
    assert ran.forward.bytes == 16 + 32 + 8 + 16


def test_weights_of_experts_are_made_anew_by_an_adapter() -> None:
    architecture = find_subject("mistralai/Mixtral-8x7B-v0.1", None, None, True)[0].architecture
    asked = AdapterSettings("lora", rank=16, targets=("all-linear",))
    for peft, held in (((0, 21, 2), 0), ((0, 20, 0), 1)):
        found = adapt(architecture, asked, peft=peft, transformers=(5, 23), model_dtype="bfloat16")
        forward = found.forwards["model.layers.{layer}.mlp.experts.down_proj"]
        tape = Tape()
        weight = remade(tape, forward, "bf16")
        assert weight.bytes == 2 * 8 * 4096 * 14336
        assert weight.grad
        # Before 0.21 the product and its scaled copy were there in float32 as well.
        wide = [one for one in tape.operations if one.outputs[0].bytes == 2 * weight.bytes]
        assert len(wide) == 2 * held


def test_the_pattern_of_experts_is_not_that_of_its_own_model() -> None:
    architecture = find_subject("Qwen/Qwen1.5-MoE-A2.7B", None, None, True)[0].architecture
    asked = AdapterSettings("lora", rank=16, targets=("all-linear",))
    for transformers, kinds in (((5, 5), {"linear", "experts", "weight"}), ((5, 6), {"linear"})):
        found = adapt(architecture, asked, transformers=transformers, forwards=False)
        assert {module.kind for module in found.modules} == kinds
