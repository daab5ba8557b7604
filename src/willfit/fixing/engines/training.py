"""Edits of training commands: each program's names for the same few settings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import log2

from willfit.fixing.candidates import OFFLOAD, SHORTEST, Candidate
from willfit.fixing.given import Given
from willfit.launch.editing.changes import Change, SetFlag, SetWord

#: How much is lost, from the least: nothing, a little time, messages between devices, a third more time, exactness of
#: the optimizer's states; the length of sequences, exactness of the base, and what is learnt.
_NOTHING, _BATCH, _SHARED, _RECOMPUTED, _STATES = 0.5, 1.0, 1.8, 2.0, 2.5
_LENGTH, _ROUNDED, _ADAPTER = 4.0, 5.0, OFFLOAD


@dataclass(frozen=True, slots=True)
class Names:
    """What a program calls its settings, with the values that are set; empty where it has no such setting.

    Attributes
    ----------
    batch, accumulation
        Sequences of a device at once, and how many of these make a step; without the latter the program keeps the
        sequences of a step by itself.
    lengths
        Tokens of a sequence: the name that the command has, else the first.
    fused, attention, sharded, checkpointing, optimizer, adapter, quantized
        A setting and its value.
    """

    batch: str = ""
    accumulation: str = ""
    lengths: tuple[str, ...] = ()
    fused: tuple[str, str] | None = None
    attention: tuple[str, str] | None = None
    sharded: tuple[str, str] | None = None
    checkpointing: tuple[str, str] | None = None
    optimizer: tuple[str, str] | None = None
    adapter: tuple[str, str | None] | None = None
    quantized: tuple[str, str | None] | None = None


_TRAINER = Names(
    batch="--per_device_train_batch_size", accumulation="--gradient_accumulation_steps",
    fused=("--use_liger_kernel", "true"), checkpointing=("--gradient_checkpointing", "true"),
    optimizer=("--optim", "adamw_8bit"), sharded=("--fsdp", "full_shard auto_wrap"),
)  # fmt: skip

#: What scripts of one's own call the length; none of them is added.
_LENGTHS = ("--max_length", "--max_seq_length", "--model_max_length", "--block_size", "--cutoff_len")

#: By launcher. Whether a version and a command take them is seen when the command is read again.
NAMES: dict[str, Names] = {
    "hugging_face": _TRAINER,
    "trl": replace(
        _TRAINER, lengths=("--max_length", "--max_seq_length"), attention=("--attn_implementation", "sdpa"),
        adapter=("--use_peft", None), quantized=("--load_in_4bit", None),
    ),
    "axolotl": Names(
        "--micro-batch-size", "--gradient-accumulation-steps", ("--sequence-len",),
        checkpointing=("--gradient-checkpointing", "true"), optimizer=("--optimizer", "adamw_8bit"),
        adapter=("--adapter", "lora"),
    ),
    "llamafactory": Names(
        "per_device_train_batch_size", "gradient_accumulation_steps", ("cutoff_len",), ("enable_liger_kernel", "true"),
        optimizer=("optim", "adamw_8bit"), adapter=("finetuning_type", "lora"), quantized=("quantization_bit", "4"),
    ),
    "swift": replace(
        _TRAINER, lengths=("--max_length",), attention=("--attn_impl", "sdpa"), adapter=("--train_type", "lora"),
        quantized=("--quant_bits", "4"),
    ),
    "torchtune": Names(
        "batch_size", "gradient_accumulation_steps", ("tokenizer.max_seq_len",),
        checkpointing=("enable_activation_checkpointing", "True"),
    ),
    "torchtitan": Names(
        "--training.local_batch_size", "", ("--training.seq_len",),
        checkpointing=("--activation_checkpoint.mode", "full"),
    ),
    "litgpt": Names("--train.micro_batch_size", "", ("--train.max_seq_length",)),
    "megatron": Names("--micro-batch-size", "", ("--seq-length",)),
}  # fmt: skip


def candidates(given: Given, launcher: str, words: Sequence[str]) -> list[Candidate]:
    """What may be edited in a training command.

    Parameters
    ----------
    launcher
        The module that reads it.
    words
        Its own words.
    """
    settings = given.settings
    names = NAMES["trl" if settings.framework == "trl" else launcher]
    filed = any(word.endswith((".yaml", ".yml", ".json")) for word in words)
    joined = launcher == "torchtune" or (launcher == "llamafactory" and filed)

    def put(name: str, value: str | None) -> Change:
        if joined:
            return SetWord(name.lstrip("-"), value or "true")
        return SetFlag(name if name.startswith("--") else f"--{name}", value)

    found = _batch(names, settings.micro_batch, settings.gradient_accumulation, put)
    for pair, missing, loss, cost in (
        (names.fused, settings.loss.kind in (None, "hf"), _NOTHING, "nothing: logits never exist as a whole"),
        (names.attention, settings.attention == "eager", _NOTHING, "nothing: scores are not kept"),
        (
            names.sharded, given.devices > 1 and settings.layout.data in (None, "none", "ddp"), _SHARED,
            "weights and states are shared among the devices, and weights gathered layer by layer",
        ),
        (
            names.checkpointing, settings.checkpointing.kind in (None, "none", "selective-op"), _RECOMPUTED,
            "layers run forward twice: about a third more time",
        ),
        (
            names.optimizer, "8bit" not in (settings.optimizer.name or ""), _STATES,
            "the optimizer's states are rounded to 8 bits",
        ),
        (names.adapter, settings.adapter is None, _ADAPTER, "an adapter is trained instead of all weights"),
        (
            names.quantized, settings.quantization is None, _ROUNDED if settings.adapter else _ADAPTER + 1,
            "the base is rounded to 4 bits" + ("" if settings.adapter else ", and an adapter is trained on it"),
        ),
    ):  # fmt: skip
        if pair is None or not missing:
            continue
        changes = [put(*pair)]
        if pair is names.quantized and settings.adapter is None and names.adapter is not None:
            changes.append(put(*names.adapter))
        found.append(_set(pair[0].lstrip("-"), tuple(changes), loss, cost))
    said = {word.partition("=")[0].replace("-", "_") for word in words}
    known = names.lengths or _LENGTHS
    length = next((name for name in known if name.replace("-", "_") in said), "".join(names.lengths[:1]))
    longest = settings.seq_len or given.subject.architecture.max_positions
    return [*found, *_shorter(length, longest, put)]


def _set(name: str, changes: tuple[Change, ...], loss: float, cost: str) -> Candidate:
    kind = "adapter" if loss >= _ROUNDED else ""
    return Candidate(name, (None,), lambda _: changes, lambda _: loss, lambda _: cost, kind=kind)


def _batch(
    names: Names, batch: int, accumulation: int | None, put: Callable[[str, str | None], Change]
) -> list[Candidate]:
    """Fewer sequences at once, and as many more times as keep those of a step."""
    values = [size for size in range(1, batch) if batch % size == 0]
    if not names.batch or not values:
        return []

    def changes(value: int) -> tuple[Change, ...]:
        first = put(names.batch, str(value))
        if not names.accumulation:
            return (first,)
        return first, put(names.accumulation, str((accumulation or 1) * batch // value))

    return [
        Candidate(
            names.batch.lstrip("-"), values, changes, lambda value: _BATCH + 0.1 * log2(batch / value),
            lambda value: f"{value} instead of {batch} sequences at once, as many in a step: somewhat slower",
        )
    ]  # fmt: skip


def _shorter(name: str, current: int | None, put: Callable[[str, str | None], Change]) -> list[Candidate]:
    """Shorter sequences, in steps of 64 tokens."""
    first = -(-min(SHORTEST // 4, (current or 0) // 2) // 64) * 64
    if not name or not current or not 0 < first < current:
        return []
    return [
        Candidate(
            name.lstrip("-"), range(first, current, 64), lambda value: (put(name, str(value)),),
            lambda value: _LENGTH + 4 * (1 - value / current),
            lambda value: f"sequences are cut at {value:,} tokens instead of {current:,}",
        )
    ]  # fmt: skip
