"""llama.cpp: what there is room for on devices and in RAM, and what is said about it."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest

from willfit.asking import ask_command, find_subject, machine_of
from willfit.engines.base import Machine, Subject
from willfit.engines.llama_cpp import Settings, estimate
from willfit.estimate import Estimate
from willfit.hardware.table import find_device

GIB = 2**30
CARD = find_device("RTX 4090")

DENSE, MIXTURE, WINDOWS, HYBRID = (
    "Qwen/Qwen3-4B",
    "Qwen/Qwen3-30B-A3B",
    "google/gemma-3-12b-it",
    "Qwen/Qwen3.5-9B",
)


@cache
def subject(model: str) -> Subject:
    return find_subject(f"{model}:Q4_K_M", offline=True)[0]


def asked(model: str, machine: Machine, **given: object) -> Estimate:
    made = {"n_ctx": 8192, "n_gpu_layers": "all", **given}
    return estimate(subject(model), machine, Settings(**made))  # type: ignore[arg-type]


def read_from_disk(found: Estimate) -> str:
    return next((note for note in found.notes if "read from disk" in note), "")


@pytest.mark.parametrize(
    ("machine", "given"),
    [
        (Machine((CARD,)), {}),
        (Machine((CARD,)), {"n_parallel": 3}),
        (Machine((CARD, find_device("RTX 3060 12GB"))), {"kv_unified": True, "n_parallel": 6}),
        (Machine((), 12 * GIB), {}),
        (Machine((CARD,), 6 * GIB), {"n_gpu_layers": 10}),
        (Machine((find_device("m2 16g"),)), {}),
    ],
    ids=["shared", "own", "two", "processor", "partly", "mac"],
)
@pytest.mark.parametrize("model", [DENSE, WINDOWS, HYBRID])
def test_what_there_is_room_for_fits_and_more_does_not(
    model: str, machine: Machine, given: dict[str, object]
) -> None:
    """Asking again for what the answer has room for fits, mapped weights in RAM included; a step more does not."""
    found = asked(model, machine, **given)
    held = found.capacity
    assert held is not None
    assert held.max_context <= held.kv_cache_tokens

    def excess(tokens: int, **others: object) -> int:
        again = asked(model, machine, **{**given, **others, "n_ctx": tokens})
        if read_from_disk(again) and not read_from_disk(found):
            return 1  # more than stays in RAM
        places = [place for place in (*again.devices, again.host) if place.usable_bytes is not None]
        return max(place.peak_bytes - (place.usable_bytes or 0) for place in places)

    slots = {} if found.details["context"] == found.details["n_ctx"] else {"n_parallel": 1}
    trained = subject(model).architecture.max_positions or 0
    tokens = held.max_context if slots or held.max_context == trained else held.kv_cache_tokens
    assert excess(tokens, **slots) <= 0
    if tokens < trained:
        assert excess(tokens + 256, **slots) > 0
    if not slots and found.details["sequences"] > 1:
        assert held.max_concurrency * found.details["context"] == pytest.approx(held.kv_cache_tokens)


def test_mapped_weights_that_do_not_stay_in_ram_are_read_from_disk() -> None:
    """By hand: all matrices but the table, less what RAM holds beside the kernel's records and the process."""
    header = subject(MIXTURE).gguf
    assert header is not None
    stacks = sum(tensor.bytes for tensor in header.tensors if "_exps." in tensor.name)
    small = asked(MIXTURE, Machine((CARD,), 8 * GIB), cpu_moe=True)
    place = 8 * GIB * 63 // 64 - small.host.peak_bytes
    assert f"{(stacks - place) / GIB:.2f} GiB of {stacks / GIB:.2f} GiB of mapped weights" in read_from_disk(
        small
    )
    assert "experts are chosen" in read_from_disk(small)
    enough = 64 * (stacks + small.host.peak_bytes) // 63
    assert read_from_disk(asked(MIXTURE, Machine((CARD,), enough - GIB // 8), cpu_moe=True))
    assert not read_from_disk(asked(MIXTURE, Machine((CARD,), enough + GIB // 8), cpu_moe=True))
    # A table is mapped, too, but a few of its rows are read.
    assert not read_from_disk(asked(MIXTURE, Machine((CARD,), GIB // 4)))
    # What is not mapped is private.
    private = asked(MIXTURE, Machine((CARD,), 8 * GIB), cpu_moe=True, mmap=False)
    assert (private.verdict, read_from_disk(private)) == ("does_not_fit", "")
    assert not read_from_disk(asked(MIXTURE, Machine((CARD,)), cpu_moe=True))


def test_the_published_example_of_experts_in_ram() -> None:
    words = [
        "llama-server",
        "-m",
        "Qwen3-235B-A22B-Q4_K_M.gguf",
        "-ngl",
        "99",
        "-c",
        "16384",
        "--n-cpu-moe",
        "99",
    ]
    assert read_from_disk(ask_command(words, machine_of("rtx4090", "128G"), offline=True))
    assert not read_from_disk(ask_command(words, machine_of("rtx4090", "192G"), offline=True))
    ollama = ask_command(["ollama", "run", "qwen3:235b"], machine_of("rtx4090", "64G"), offline=True)
    assert "experts are chosen" in read_from_disk(ollama)


def test_memory_that_is_shared_is_counted_once() -> None:
    mac = find_device("m3 max 64g")
    found = asked(DENSE, Machine((mac,)))
    assert found.host.usable_bytes == 64 * GIB - found.devices[0].peak_bytes
    assert asked(DENSE, Machine((CARD,))).host.usable_bytes is None
    assert asked(DENSE, Machine((CARD,), GIB)).host.usable_bytes == GIB
    # Half of the model on the device, half beside it: each fits alone, together they do not.
    tight = replace(mac, marketing_bytes=2 * GIB)
    both = asked(DENSE, Machine((tight,)), n_gpu_layers=18, mmap=False)
    assert both.devices[0].verdict == "fits"
    assert both.verdict == "does_not_fit"


def test_a_context_that_nobody_asked_for_is_said() -> None:
    def said(gpu: str, **given: object) -> str:
        notes = asked(DENSE, machine_of(gpu), **{"n_ctx": None, "n_gpu_layers": None, **given}).notes
        return next((note for note in notes if "no context" in note), "")

    assert "40,960 tokens are what the model was trained for" in said("rtx4090")
    assert "--fit finds room for, of the 40,960" in said("6GiB")
    assert "40,960 tokens are what the model was trained for" in said("6GiB", fit=False)
    assert "the program's own choice" in said("rtx4090", version="b5000")
    assert said("rtx4090", n_ctx=4096) == ""


def test_what_would_help_is_enough() -> None:
    """More experts in RAM than were asked for, and a context that slots share."""
    machine = Machine((find_device("RTX 3060 12GB"),), 64 * GIB)
    over = asked(MIXTURE, machine, n_cpu_moe=8)
    advice = next(one for one in over.remedies if one.startswith("--n-cpu-moe"))
    needed = int(advice.split()[1].rstrip(":"))
    assert needed > 8
    assert asked(MIXTURE, machine, n_cpu_moe=needed).devices[0].verdict != "does_not_fit"
    long = asked(DENSE, Machine((find_device("RTX 3060 12GB"),)), n_ctx=200_000)
    advice = next(one for one in long.remedies if one.startswith("-c "))
    shorter = asked(DENSE, Machine((find_device("RTX 3060 12GB"),)), n_ctx=int(advice.split()[1].rstrip(":")))
    assert shorter.devices[0].verdict != "does_not_fit"
