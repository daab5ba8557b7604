"""Which llama.cpp and mlx-lm are in LM Studio, and what it sets for them, by version.

The program and its runtimes have versions of their own: 0.3.32 of the program came with 1.59 of the runtimes for GGUF
files, which update by themselves. What is set is read in `lmstudio-js` (`lms-kv-config/src/schema.ts`, whose history
has the defaults) and in logs that users published; mlx-lm's versions are those that `mlx-engine` asks for.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, NamedTuple

from willfit.engines.versions import Version, changed, era_of, parse_version, succession
from willfit.errors import BadInput


class Release(NamedTuple):
    """What a version of the program came with.

    Attributes
    ----------
    program, runtime
        Versions of LM Studio, and of its runtimes for GGUF files at that time.
    build
        The build of llama.cpp in the runtime.
    mlx
        The mlx-lm in the runtime for MLX at that time.
    stated
        The build is one that LM Studio's users read off it; the others are the newest of the day on which a runtime
        appeared.
    """

    program: str
    runtime: str
    build: int
    mlx: str
    stated: bool = False


#: In the order of time, so that all columns grow.
RELEASES = (
    Release("0.3.10", "1.16", 4719, "0.21.1"),
    Release("0.3.13", "1.20", 4870, "0.21.5"),
    Release("0.3.14", "1.22", 4974, "0.22.2"),
    Release("0.3.15", "1.26", 5092, "0.22.5", stated=True),
    Release("0.3.16", "1.31", 5449, "0.24.1"),
    Release("0.3.17", "1.36", 5740, "0.25.3"),
    Release("0.3.19", "1.40", 5940, "0.26.0"),
    Release("0.3.22", "1.44", 6096, "0.26.0"),
    Release("0.3.24", "1.46", 6290, "0.26.4"),
    Release("0.3.25", "1.48", 6380, "0.27.0"),
    Release("0.3.27", "1.50", 6558, "0.27.1"),
    Release("0.3.30", "1.52", 6700, "0.28.3"),
    Release("0.3.31", "1.53", 6880, "0.28.3"),
    Release("0.3.32", "1.57", 7063, "0.28.4"),
    Release("0.3.33", "1.60", 7220, "0.28.4"),
    Release("0.3.34", "1.63", 7386, "0.29.1"),
    Release("0.3.37", "1.103", 7700, "0.30.2"),
    Release("0.4.0", "2.0", 7860, "0.30.4"),
    Release("0.4.4", "2.4", 8150, "0.30.7"),
    Release("0.4.7", "2.8", 8530, "0.31.1"),
    Release("0.4.9", "2.10", 8637, "0.31.1"),
    Release("0.4.9", "2.11", 8650, "0.31.2"),
    Release("0.4.12", "2.13", 8990, "0.31.3"),
    Release("0.4.15", "2.20", 9440, "0.31.3"),
    Release("0.4.16", "2.21", 9550, "0.31.3"),
    Release("0.4.18", "2.24", 9851, "0.32.0", stated=True),
    Release("0.4.20", "2.27", 10200, "0.32.0"),
    Release("0.4.21", "2.28", 10252, "0.32.0", stated=True),
    Release("0.4.21", "2.33", 10760, "0.32.1", stated=True),
    Release("0.4.21", "2.40", 11002, "0.32.1", stated=True),
    Release("0.4.25", "2.46", 11180, "0.32.1"),
)

#: The newest version of the program that was seen in use.
NEWEST = "0.4.25"

#: The first version of any runtime; those of the program are lower.
_RUNTIMES: Version = (1, 0)

#: `llama.cpp-mac-arm64-apple-metal-advsimd@2.40.0`: a runtime with its name in front, as `lms runtime ls` lists it.
_NAMED = re.compile(r"(?:llama\.cpp|mlx-llm)[-\w]*?[@-]v?(\d+(?:\.\d+)+)")


@dataclass(frozen=True, slots=True)
class Era:
    """What LM Studio sets from a version of its runtimes on.

    Attributes
    ----------
    since
        The first such version.
    flash
        On which devices flash attention is on without a word: none, those of NVIDIA, or all.
    serves
        The runtime has llama.cpp's server inside, with its slots and saved prompts.
    parallel
        Predictions at once without a word.
    full_windows
        Sliding layers keep whole sequences.
    batch
        Tokens of a logical batch; a physical one has 512.
    autofits
        Layers, and the context, are fitted to free memory by llama.cpp's own code.
    chunk
        Tokens of a prompt that the runtime for MLX computes at once.
    """

    since: Version
    flash: Literal["none", "cuda", "all"] = "none"
    serves: bool = False
    parallel: int = 1
    full_windows: bool = True
    batch: int = 512
    autofits: bool = False
    chunk: int = 512


ERAS = succession(
    Era((0,)),
    changed((1, 53), flash="cuda"),
    changed((1, 57), flash="all"),
    changed((2, 0), serves=True, parallel=4),
    changed((2, 8), chunk=2048),
    changed((2, 11), full_windows=False),
    changed((2, 20), batch=2048),
    changed((2, 27), autofits=True),
)


def release_of(version: str) -> Release:
    """What is in a version of LM Studio, or of a runtime: `0.3.32`, `1.44.0`, `llama.cpp-...-advsimd@2.40.0`.

    A version that is not known is taken for the newest before it.

    Raises
    ------
    BadInput
        If the version cannot be read.
    """
    named = _NAMED.fullmatch(version.strip())
    asked = parse_version(named[1] if named else version)
    runtime = asked >= _RUNTIMES
    known = [
        release
        for release in RELEASES
        if parse_version(release.runtime if runtime else release.program) <= asked
    ]
    if not known:
        raise BadInput(
            f"LM Studio {version[:40]} is older than what is known", f"the first is {RELEASES[0].program}"
        )
    written = ".".join(map(str, asked))
    return known[-1]._replace(runtime=written) if runtime else known[-1]._replace(program=written)


def era_for(release: Release) -> Era:
    """What is set in a release."""
    return era_of(release.runtime, ERAS)
