"""Reading Megatron-LM's commands: `torchrun pretrain_gpt.py --num-layers 32 --tensor-model-parallel-size 4 ...`.

Flags as Megatron-LM has them (`megatron/training/arguments.py`; `data/megatron_flags.txt`, core 0.4 to 0.19). They give
the model's sizes, so that no checkpoint is needed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from os.path import basename

from willfit.errors import BadInput
from willfit.launch.base import Launch
from willfit.launch.flags import flag_table
from willfit.launch.scanning import Dialect
from willfit.launch.training.commands import allocator, not_counted, read
from willfit.launch.training.megatron_model import PROGRAM, config_of
from willfit.launch.training.megatron_settings import settings_of
from willfit.launch.training.starting import script_of, started

READS_VARIABLES = True

_SCRIPT = re.compile(r"(pretrain|finetune|train)_\w+\.py")
_GPT = re.compile(r"(pretrain_gpt|pretrain_deepseek\w*|train_gpt|finetune_gpt)\.py")

#: A flag that scripts of that name have if they are Megatron's.
_MARKS = ("--num-layers", "--micro-batch-size", "--hidden-size", "--tensor-model-parallel-size")


def recognises(words: Sequence[str]) -> bool:
    """Whether a command starts a training script of Megatron-LM."""
    name = basename(script_of(words))
    if name in (
        "pretrain_gpt.py",
        "pretrain_hybrid.py",
        "pretrain_mamba.py",
        "pretrain_t5.py",
        "pretrain_bert.py",
    ):
        return True
    return _SCRIPT.fullmatch(name) is not None and any(word.partition("=")[0] in _MARKS for word in words)


def parse(
    words: Sequence[str], version: str | None = None, variables: Mapping[str, str] | None = None
) -> Launch:
    """Read a command that starts Megatron-LM.

    Parameters
    ----------
    words
        The command, split as a shell would.
    version
        Version of Megatron Core; None for the newest that is known.
    variables
        What is set for it.

    Raises
    ------
    BadInput
        For a flag that Megatron-LM does not have, missing sizes, or a value that it would refuse.
    """
    start = started(words)
    script = basename(start.rest[0])
    if not _GPT.fullmatch(script):
        raise BadInput(f"{PROGRAM}: models of {script} cannot be read from flags", "known is pretrain_gpt.py")
    table = flag_table("megatron_flags.txt")
    found = read(start.rest[1:], table, script, PROGRAM, version, Dialect(abbreviations=False))
    version = found.version
    if found.positionals:
        raise BadInput(f"{script}: {found.positionals[0][:60]!r} belongs to no flag")
    keys = found.keys
    keys.program = PROGRAM
    tp = keys.whole("tensor_model_parallel_size") or 1
    model, config, notes = config_of(keys, tp)
    settings, more = settings_of(
        keys, start.devices, config["num_hidden_layers"], version, allocator(variables or {})
    )
    off = {"cuda_graph_impl": "none", "moe_token_dispatcher_type": "allgather"}
    return Launch(
        engine="training",
        model=model,
        revision=None,
        settings=settings,
        devices=start.devices,
        notes=(*found.notes, *notes, *more, *not_counted(keys, table, off)),
        config=config,
    )
