"""Edits of commands of llama.cpp's programs."""

from __future__ import annotations

from willfit.engines.llama_cpp.builds import build_of
from willfit.fixing import candidates as ways
from willfit.fixing.candidates import CACHE, ON_DEVICES, SPEED, WEIGHTS, Candidate
from willfit.fixing.given import Given
from willfit.launch.editing.changes import Change, DropFlag, SetFlag
from willfit.launch.llama_settings import FLASH_VALUE

#: Contexts are filled up to this many tokens (`llama-context.cpp`).
_PADDING = 256


def candidates(given: Given) -> list[Candidate]:
    """What may be edited, by llama.cpp's own flags."""
    settings, details = given.settings, given.details
    found: list[Candidate] = []
    if settings.swa_full:
        found.append(
            Candidate(
                "--swa-full", (None,), lambda _: (DropFlag("--swa-full"),), lambda _: SPEED,
                lambda _: "prompts that changed in the middle are read again",
            )
        )  # fmt: skip
    flash = () if details["flash_attn"] else (_flash(given),)
    if flash:
        found.append(
            Candidate("-fa", ("on",), lambda _: flash, lambda _: 0.5, lambda _: "nothing, as a rule")
        )
    found += ways.halved(
        "-ub", settings.n_ubatch or 512, 64, SPEED, "prompts are read {} tokens at a time, which is slower"
    )
    if settings.cache_type_k in ("f32", "f16", "bf16") and settings.cache_type_v in ("f32", "f16", "bf16"):
        found.append(
            Candidate(
                "-ctk -ctv", ("q8_0",),
                lambda value: (SetFlag("-ctk", value), SetFlag("-ctv", value), *flash), lambda _: CACHE,
                lambda _: "keys and values are rounded to 8 bits",
            )
        )  # fmt: skip
    sequences = max(1, details["n_ctx"] // max(1, details["context"]))
    found += ways.shorter("-c", details["n_ctx"], _PADDING * sequences, sequences=sequences)
    return [*found, *_experts(given), *ways.layers("-ngl", details.get("n_gpu_layers"))]


def _flash(given: Given) -> Change:
    """Flash attention on, which older builds say without a word."""
    named = given.settings.fork == "llama.cpp" and build_of(given.settings.version) >= FLASH_VALUE
    return SetFlag("-fa", "on" if named else None)


def _experts(given: Given) -> list[Candidate]:
    """The fewest layers whose experts stay in RAM."""
    layers = given.subject.architecture.layers
    count = len(layers)
    if given.settings.cpu_moe or not any(
        layer.feed_forward and layer.feed_forward.experts for layer in layers
    ):
        return []
    return [
        Candidate(
            "--n-cpu-moe", range(count, given.settings.n_cpu_moe, -1),
            lambda value: (SetFlag("--n-cpu-moe", str(value)),), lambda value: WEIGHTS + value / count,
            lambda value: f"experts of {value} of {count} layers run on the processor", fills=ON_DEVICES,
        )
    ]  # fmt: skip
