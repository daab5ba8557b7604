"""Record what torch's allocator does in real training steps on a GPU, for `tests/allocator/test_recorded.py`.

    .venv/bin/python benchmarks/gpu/record_allocator.py [--steps 6] [--only NAME] [--out tests/data/allocator/gpu]

Each recipe runs in a process of its own, since allocator settings and history belong to a process: a model from a
config with random weights, a few optimizer steps from the first allocation on. Recipes that the device is too small
for are skipped with a line. What is kept is the stream of sizes and frees, and the peaks that torch counted.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import pathlib
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

GIB = 2**30


@dataclass(frozen=True)
class Recipe:
    """A model and how it is trained."""

    name: str
    config: dict[str, Any]
    least_gib: int
    batch: int = 1
    length: int = 1024
    dtype: str = "bfloat16"
    autocast: bool = False
    checkpointing: bool = False
    optimizer: str = "fused"
    varying: bool = False
    settings: str = ""
    empties: bool = False


def llama(hidden: int, layers: int, vocab: int = 32000) -> dict[str, Any]:
    """A Llama of a size."""
    return {
        "model_type": "llama", "hidden_size": hidden, "intermediate_size": hidden * 7 // 2, "num_hidden_layers": layers,
        "num_attention_heads": hidden // 64, "num_key_value_heads": hidden // 256, "vocab_size": vocab,
    }  # fmt: skip


RECIPES = (
    Recipe("tiny", llama(256, 2), 2),
    Recipe("small_foreach", llama(1024, 8), 8, batch=2, optimizer="foreach"),
    Recipe("small_autocast", llama(1024, 8), 12, batch=4, dtype="float32", autocast=True),
    Recipe("small_varying", llama(1024, 8), 16, batch=4, varying=True),
    Recipe(
        "small_varying_expandable",
        llama(1024, 8),
        16,
        batch=4,
        varying=True,
        settings="expandable_segments:True",
    ),
    Recipe("small_emptied", llama(1024, 8), 16, batch=4, varying=True, empties=True),
    Recipe("gpt2_dropout", {"model_type": "gpt2"}, 8, batch=8, optimizer="foreach"),
    Recipe("medium_checkpointed", llama(2048, 16, 128256), 24, batch=4, checkpointing=True),
    Recipe("medium_split", llama(2048, 16, 128256), 32, batch=4, settings="max_split_size_mb:128"),
    Recipe("medium_rounded", llama(2048, 16, 128256), 32, batch=4, settings="roundup_power2_divisions:8"),
    Recipe("large", llama(4096, 24, 128256), 72, length=2048),
    Recipe("large_expandable", llama(4096, 24, 128256), 72, length=2048, settings="expandable_segments:True"),
)


def steps(recipe: Recipe, count: int) -> None:
    """Train from the first allocation on."""
    import torch
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM

    torch.manual_seed(0)
    dtype = getattr(torch, recipe.dtype)
    fields = {key: value for key, value in recipe.config.items() if key != "model_type"}
    config = CONFIG_MAPPING[recipe.config["model_type"]](**fields)
    with torch.device("cuda"):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation="sdpa")
    model.train()
    if recipe.checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    optimizer = torch.optim.AdamW(model.parameters(), **{recipe.optimizer: True})
    for step in range(count):
        length = recipe.length - (step * 137 % 512 if recipe.varying else 0)
        tokens = torch.randint(0, config.vocab_size, (recipe.batch, length), device="cuda")
        with torch.autocast("cuda", torch.bfloat16, enabled=recipe.autocast):
            loss = model(input_ids=tokens, labels=tokens).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if recipe.empties:
            torch.cuda.empty_cache()


def record(recipe: Recipe, count: int, out: pathlib.Path) -> str:
    """Run one recipe in this process, and write its stream."""
    import torch

    from willfit.allocator.recorded import recorded

    have = torch.cuda.get_device_properties(0).total_memory
    if have < recipe.least_gib * GIB:
        return f"skipped: needs {recipe.least_gib} GiB"
    torch.cuda.init()
    # No stack is kept, so that a million entries take little room.
    torch.cuda.memory._record_memory_history(context=None, stacks="python", max_entries=2_000_000)
    steps(recipe, count)
    torch.cuda.synchronize()
    stats = torch.cuda.memory_stats()
    snapshot = torch.cuda.memory._snapshot()
    program = recorded(snapshot)
    out.mkdir(parents=True, exist_ok=True)
    kept = {
        "recipe": recipe.name,
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name(0),
        "settings": recipe.settings,
        "peak_allocated": stats["allocated_bytes.all.peak"],
        "peak_reserved": stats["reserved_bytes.all.peak"],
        "retries": stats["num_alloc_retries"],
        "sizes": program.sizes,
        "events": program.events,
        "streams": program.streams,
        "emptied": program.emptied,
        "segments": program.segments,
    }
    path = out / f"{recipe.name}.json.gz"
    path.write_bytes(gzip.compress(json.dumps(kept, separators=(",", ":")).encode(), mtime=0))
    return (
        f"{len(program.events)} events, {stats['allocated_bytes.all.peak'] / GIB:.2f} GiB allocated and "
        f"{stats['reserved_bytes.all.peak'] / GIB:.2f} reserved at most, {path.stat().st_size / 1000:.0f} kB"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=6, help="optimizer steps (6)")
    parser.add_argument("--only", help="one recipe, in this process")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("tests/data/allocator/gpu"))
    given = parser.parse_args()
    if given.only:
        recipe = next(recipe for recipe in RECIPES if recipe.name == given.only)
        print(record(recipe, given.steps, given.out))
        return
    for recipe in RECIPES:
        words = [
            sys.executable,
            __file__,
            "--only",
            recipe.name,
            "--steps",
            str(given.steps),
            "--out",
            str(given.out),
        ]
        environment = {**os.environ, "PYTORCH_ALLOC_CONF": recipe.settings}
        environment.pop("PYTORCH_CUDA_ALLOC_CONF", None)
        done = subprocess.run(words, capture_output=True, text=True, env=environment, check=False)
        said = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines()
        print(f"{recipe.name:28}{said[-1] if said else 'said nothing'}", flush=True)


if __name__ == "__main__":
    main()
