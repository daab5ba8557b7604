"""Reading `llama-bench -m FILE -p 512 -n 128 ...`: several tests, of which the one that takes most is estimated.

Every value may be a list, numbers also a range (`512-2048*2`), and each combination is a test
(`tools/llama-bench/llama-bench.cpp`); a context has room for the prompt, the answer and what stands before them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from willfit.engines.llama_cpp.builds import build_of
from willfit.engines.llama_cpp.settings import Settings
from willfit.errors import BadInput
from willfit.ggml_types import GGML_TYPES
from willfit.launch.base import Launch
from willfit.launch.flags import flag_table
from willfit.launch.llama_names import llama_program
from willfit.launch.llama_options import AUTO, DIALECT, FALSE, TRUE
from willfit.launch.llama_settings import LOADING, Reading, from_hub
from willfit.launch.llamacpp import is_fork
from willfit.launch.notes import not_counted, of_other_versions
from willfit.launch.scanning import scan

READS_VARIABLES = True

#: Values where none are given (`cmd_params_defaults`).
_PROMPT, _ANSWER, _BATCH = 512, 128, 2048

_RANGE = re.compile(r"(-?\d+)(?:-(\d+)(?:([+*])(\d+))?)?")
_MOST_VALUES = 10_000


def recognises(words: Sequence[str]) -> bool:
    """Whether a command starts llama-bench."""
    named = llama_program(words)
    return named is not None and named.name == "bench"


def parse(
    words: Sequence[str], version: str | None = None, variables: Mapping[str, str] | None = None
) -> Launch:
    """Read a command that starts llama-bench.

    Parameters
    ----------
    words
        The command, split as a shell would.
    version
        Build or release of llama.cpp; None for the newest that is known.
    variables
        What is set in front of it.

    Raises
    ------
    BadInput
        For a flag that the program does not have, a value that it would refuse, or a command without a model.
    """
    named = llama_program(words)
    assert named is not None
    if any(word in ("-h", "--help", "--version", "--list-devices") for word in named.rest):
        raise BadInput(f"{named.called}: nothing is loaded", "leave --help, --version and --list-devices out")
    fork = is_fork(
        words[0], named.rest, flag_table("ik_llamabench_flags.txt"), flag_table("llamabench_flags.txt")
    )
    table = flag_table("ik_llamabench_flags.txt" if fork else "llamabench_flags.txt")
    scanned = scan(_joined(named.rest), table, named.called, DIALECT, version)
    if scanned.positionals:
        raise BadInput(f"{named.called}: {scanned.positionals[0][:60]!r} belongs to no flag", "write -m FILE")
    build = build_of(version)
    tests = _Tests(Reading(named.called, scanned.options, build, fork))
    settings = tests.settings()
    if (variables or {}).get("CUDA_VISIBLE_DEVICES", "all").strip() in ("", "-1"):
        settings["devices"] = ()
    engine = "ik_llama.cpp" if fork else "llama.cpp"
    return Launch(
        engine="llama.cpp",
        model=tests.model(),
        revision=None,
        settings=Settings(program="bench", fork=engine, version=version, **settings),  # type: ignore[arg-type]
        notes=(
            *(of_other_versions(scanned, table, engine, f"b{build}") if not fork else ()),
            *tests.notes(),
            *not_counted(scanned),
            *tests.reading.notes,
        ),
    )


def _joined(words: Sequence[str]) -> list[str]:
    """The words with lists of one flag that stands several times put together, as the program does."""
    table = flag_table("llamabench_flags.txt").flags
    found: list[str] = []
    places: dict[str, int] = {}
    index = 0
    while index < len(words):
        word = words[index]
        flag = table.get(word.replace("_", "-") if word.startswith("--") else word)
        found.append(word)
        if flag is not None and flag.takes == "value" and index + 1 < len(words):
            index += 1
            if flag.name in places and not flag.quiet:
                found.pop()
                found[places[flag.name]] += f",{words[index]}"
            else:
                places[flag.name] = len(found)
                found.append(words[index])
        index += 1
    return found


def _bits(name: str) -> float:
    """Bits of an element; the fork's own types of the cache have eight and less."""
    kind = GGML_TYPES.get(name.upper())
    return kind.bits_per_weight if kind is not None else 8


class _Tests:
    """The tests of one command, and the one of them that takes most."""

    def __init__(self, reading: Reading) -> None:
        self.reading = reading
        self.several: list[str] = []

    def model(self) -> str:
        repo, file = self.reading.given("--hf-repo"), self.reading.given("--hf-file")
        models = str(self.reading.given("--model") or "").split(",")
        if repo:
            first = str(repo).split(",")[0]
            return f"{first.partition(':')[0]}:{str(file).split(',')[0]}" if file else from_hub(first)
        if len(models) > 1:
            raise BadInput(
                f"{self.reading.program}: {len(models)} models are named", "ask about one at a time"
            )
        if not models[0]:
            raise BadInput(f"{self.reading.program}: no model is named", "write -m FILE")
        return models[0]

    def settings(self) -> dict[str, Any]:
        reading = self.reading
        settings: dict[str, Any] = {
            "n_ctx": self._context(),
            "n_batch": self._most("--batch-size", _BATCH),
            "n_gpu_layers": self._layers(),
            "fit": False,
        }
        for flag, field in (("--ubatch-size", "n_ubatch"), ("--threads", "n_threads")):
            if reading.given(flag) is not None:
                settings[field] = self._most(flag, 0) or None
        for side in ("k", "v"):
            types = self._list(f"--cache-type-{side}")
            if types:
                checked = [reading.cache_type(f"--cache-type-{side}", one) for one in types]
                settings[f"cache_type_{side}"] = max(checked, key=_bits)
        if reading.given("--memory-f32") is not None and any(self._truths("--memory-f32")):
            settings |= {"cache_type_k": "f32", "cache_type_v": "f32"}
        settings |= self._placed() | self._switched()
        if reading.given("--fit-target", "--fit-ctx") is not None:
            settings |= {"fit": True, "n_gpu_layers": "auto"}
            if reading.given("--fit-target") is not None:
                settings["fit_target_mib"] = (max(self._numbers("--fit-target")),)
            if reading.given("--fit-ctx") is not None:
                settings["fit_ctx"] = max(self._numbers("--fit-ctx"))
        return settings

    def notes(self) -> list[str]:
        if not self.several:
            return []
        return [f"several tests: the largest is estimated (of {', '.join(self.several)})"]

    def _context(self) -> int:
        """Tokens of the longest test."""
        prompts = self._numbers("--n-prompt") or [_PROMPT]
        answers = self._numbers("--n-gen") or [_ANSWER]
        depths = self._numbers("--n-depth") or [0]
        longest = max(*prompts, *answers)
        for pair in self.reading.given("-pg") or ():
            numbers = re.fullmatch(r"(\d+),(\d+)", pair)
            if numbers is None:
                raise BadInput(f"{self.reading.program}: -pg is {pair[:40]!r}, expected PROMPT,ANSWER")
            longest = max(longest, int(numbers[1]) + int(numbers[2]))
        if not longest:
            raise BadInput(f"{self.reading.program}: no test is left", "write -p 512 or -n 128")
        return longest + max(depths)

    def _placed(self) -> dict[str, Any]:
        """Where the model goes; of several ways the first."""
        reading, settings = self.reading, dict[str, Any]()
        experts = self._numbers("--n-cpu-moe")
        if experts:
            settings["n_cpu_moe"] = min(experts)
        mode = self._first("--split-mode")
        if mode:
            settings["split_mode"] = reading.split_mode(mode)
        main = self._numbers("--main-gpu")
        if main:
            settings["main_gpu"] = main[0]
        shares = self._first("--tensor-split")
        if shares:
            settings["tensor_split"] = reading.shares("--tensor-split", shares)
        devices = self._first("--device")
        if devices and devices != "auto":
            settings["devices"], backend = reading.devices("--device", devices.replace("/", ","))
            settings |= {"backend": backend} if backend else {}
        overrides = [group for text in reading.given("--override-tensor") or () for group in text.split(",")]
        if overrides and overrides[0]:
            settings["override_tensor"] = tuple(reading.pairs(overrides[0], ";"))
        if len(overrides) > 1:
            self.several.append("--override-tensor")
        servers = tuple(one for text in reading.given("--rpc") or () for one in text.split(",") if one)
        return settings | ({"rpc_servers": servers} if servers else {})

    def _switched(self) -> dict[str, Any]:
        reading, settings = self.reading, dict[str, Any]()
        flash = self._list("--flash-attn")
        if flash:
            if any(one not in TRUE + FALSE + AUTO for one in flash):
                raise BadInput(f"{reading.program}: --flash-attn is {flash[0][:40]!r}, expected 0, 1 or auto")
            off, on = any(one in FALSE for one in flash), all(one in TRUE for one in flash)
            settings["flash_attn"] = "off" if off else "on" if on else "auto"
        for flag, field, when in (
            ("--no-kv-offload", "kv_offload", all),
            ("--no-op-offload", "op_offload", all),
        ):
            truths = self._truths(flag)
            if truths and when(truths):
                settings[field] = False
        for flag, field, usual in (
            ("--embeddings", "embeddings", False),
            ("--no-host", "no_host", False),
            ("--mmap", "mmap", True),
            ("--repack", "repack", True),
            ("--direct-io", "direct_io", False),
        ):
            truths = self._truths(flag)
            if truths and truths[0] is not usual:
                settings[field] = truths[0]
        mode = self._first("--load-mode")
        if mode is not None:
            if mode not in LOADING:
                raise BadInput(
                    f"{reading.program}: there is no --load-mode {mode[:40]}", f"known: {', '.join(LOADING)}"
                )
            settings |= LOADING[mode]
        for flag, field in (("--mla-use", "mla"), ("--attention-max-batch", "max_attention_mib")):
            numbers = self._numbers(flag)
            if numbers:
                settings[field] = max(numbers)
        if reading.given("--fused-moe") is not None:
            settings["fused_moe"] = self._numbers("--fused-moe")[0] != 0
        if reading.given("--run-time-repack") is not None and self._numbers("--run-time-repack")[0]:
            settings["run_time_repack"] = True
        return settings

    def _layers(self) -> Any:
        """Most layers of all tests; negative ones are all."""
        layers = self._numbers("--n-gpu-layers")
        return "all" if not layers or min(layers) < 0 else max(layers)

    def _most(self, flag: str, usual: int) -> int:
        return max(self._numbers(flag), default=usual)

    def _first(self, flag: str) -> str | None:
        values = self._list(flag)
        return values[0] if values else None

    def _list(self, flag: str) -> list[str]:
        text = self.reading.given(flag)
        values = [] if text is None else str(text).split(",")
        if len(set(values)) > 1:
            self.several.append(flag)
        return values

    def _truths(self, flag: str) -> list[bool]:
        values = self._list(flag)
        if any(one not in TRUE + FALSE for one in values):
            raise BadInput(f"{self.reading.program}: {flag} is {','.join(values)[:40]!r}, expected 0 or 1")
        return [one in TRUE for one in values]

    def _numbers(self, flag: str) -> list[int]:
        """The numbers of a list with ranges (`parse_int_range`)."""
        found: list[int] = []
        for part in self._list(flag):
            match = _RANGE.fullmatch(part)
            if match is None:
                raise BadInput(
                    f"{self.reading.program}: {flag} is {part[:40]!r}, expected numbers or FIRST-LAST+STEP"
                )
            first, last = int(match[1]), int(match[2] or match[1])
            step, times = int(match[4] or 1), match[3] == "*"
            if first != last and flag not in self.several:
                self.several.append(flag)
            while first <= last:
                found.append(first)
                after = first * step if times else first + step
                if after <= first or len(found) > _MOST_VALUES:
                    raise BadInput(f"{self.reading.program}: {flag} is {part[:40]!r}, which does not end")
                first = after
        return found
