"""Reading `llama-server -m FILE ...`, `llama-cli`, `llama serve` and the other programs of llama.cpp, and of its fork.

Flags as `common/arg.cpp` of llama.cpp 0.5.0 has them, with those of builds since August 2023
(`data/llamacpp_flags.txt`), and ik_llama.cpp's (`data/ik_llama_flags.txt`). A flag wins over the variable that stands
for it, that over a preset.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from willfit.engines.llama_cpp.builds import NEWEST_BUILD, build_of
from willfit.engines.llama_cpp.ik_eras import NEWEST_IK
from willfit.engines.llama_cpp.settings import Drafting, Settings
from willfit.errors import BadInput
from willfit.launch.base import DraftModel, Launch
from willfit.launch.flags import FlagTable, flag_table
from willfit.launch.llama_names import PROGRAMS, Named, llama_program
from willfit.launch.llama_options import DIALECT, number, with_preset, with_variables
from willfit.launch.llama_settings import Reading, from_hub
from willfit.launch.notes import not_counted, of_other_versions
from willfit.launch.scanning import Options, scan

#: `parse` is given the variables in front of the command as well.
READS_VARIABLES = True

#: Flags after which nothing is loaded.
_NOTHING_LOADED = {
    "-h", "--help", "--usage", "--version", "--license", "--list-devices", "--cache-list", "-cl",
    "--completion-bash",
}  # fmt: skip

#: Variables of ggml that change memory.
_VARIABLES = {
    "GGML_CUDA_ENABLE_UNIFIED_MEMORY": "memory that the driver moves between card and host",
    "GGML_CUDA_NO_PINNED": "host memory that is not pinned",
    "GGML_CUDA_FORCE_CUBLAS": "products by cuBLAS",
    "GGML_VK_PREFER_HOST_MEMORY": "memory of the host that stands in for the card's",
}

#: Sequences that a context may have (`LLAMA_MAX_SEQ`), which llama-embedding takes since this build.
_MAX_SEQUENCES, _EMBEDS_ALL = 256, 6578

#: Of the fork, the newest commit that was read.


class _Preset(NamedTuple):
    """A flag that stands for a model and settings."""

    model: str
    settings: dict[str, Any]
    draft: str = ""


_FIM = {"n_ubatch": 1024, "n_batch": 1024, "n_ctx": 0}
_OSS = {"n_ubatch": 2048, "n_batch": 32768, "n_parallel": 2, "n_ctx": 262144}
_SMALL = {"n_ctx": 512, "embeddings": True}
_GEMMA = {"n_ubatch": 2048, "n_batch": 2048, "n_parallel": 32, "n_ctx": 65536, "embeddings": True}
_CODER = "ggml-org/Qwen2.5-Coder-{0}B-Q8_0-GGUF:qwen2.5-coder-{0}b-q8_0.gguf"

#: At the end of `common/arg.cpp: common_params_parser_init`.
_PRESETS = {
    "--embd-gemma-default": _Preset(
        "ggml-org/embeddinggemma-300M-qat-q4_0-GGUF:embeddinggemma-300M-qat-Q4_0.gguf", _GEMMA
    ),
    "--embd-bge-small-en-default": _Preset(
        "ggml-org/bge-small-en-v1.5-Q8_0-GGUF:bge-small-en-v1.5-q8_0.gguf", _SMALL
    ),
    "--embd-e5-small-en-default": _Preset("ggml-org/e5-small-v2-Q8_0-GGUF:e5-small-v2-q8_0.gguf", _SMALL),
    "--embd-gte-small-default": _Preset("ggml-org/gte-small-Q8_0-GGUF:gte-small-q8_0.gguf", _SMALL),
    "--fim-qwen-1.5b-default": _Preset(_CODER.format("1.5"), _FIM),
    "--fim-qwen-3b-default": _Preset(_CODER.format("3"), _FIM),
    "--fim-qwen-7b-default": _Preset(_CODER.format("7"), _FIM),
    "--fim-qwen-7b-spec": _Preset(_CODER.format("7"), _FIM, _CODER.format("0.5")),
    "--fim-qwen-14b-spec": _Preset(_CODER.format("14"), _FIM, _CODER.format("0.5")),
    "--fim-qwen-30b-default": _Preset(
        "ggml-org/Qwen3-Coder-30B-A3B-Instruct-Q8_0-GGUF:qwen3-coder-30b-a3b-instruct-q8_0.gguf", _FIM
    ),
    "--gpt-oss-20b-default": _Preset("ggml-org/gpt-oss-20b-GGUF:gpt-oss-20b-mxfp4.gguf", _OSS),
    "--gpt-oss-120b-default": _Preset("ggml-org/gpt-oss-120b-GGUF:latest", _OSS),
    "--vision-gemma-4b-default": _Preset("ggml-org/gemma-3-4b-it-qat-GGUF:latest", {"n_ctx": 0}),
    "--vision-gemma-12b-default": _Preset("ggml-org/gemma-3-12b-it-qat-GGUF:latest", {"n_ctx": 0}),
}


def recognises(words: Sequence[str]) -> bool:
    """Whether a command starts a program of llama.cpp that loads a model, but llama-bench."""
    named = llama_program(words)
    return named is not None and named.name != "bench"


def parse(
    words: Sequence[str], version: str | None = None, variables: Mapping[str, str] | None = None
) -> Launch:
    """Read a command that starts a program of llama.cpp.

    Parameters
    ----------
    words
        The command, split as a shell would.
    version
        Build (`b6000`) or release (`0.5.0`) of llama.cpp; None for the newest that is known.
    variables
        What is set in front of it.

    Raises
    ------
    BadInput
        For a flag that the program does not have, a value that it would refuse, or a command without a model.
    """
    named = llama_program(words)
    assert named is not None
    if any(word in _NOTHING_LOADED for word in named.rest):
        raise BadInput(f"{named.called}: nothing is loaded", "leave --help, --version and --list-devices out")
    if named.name == "run":
        return _parse_run(named, version)
    given = dict(variables or {})
    tables = flag_table("ik_llama_flags.txt"), flag_table("llamacpp_flags.txt")
    fork = named.name == "sweep-bench" or is_fork(words[0], named.rest, *tables)
    table = flag_table("ik_llama_flags.txt" if fork else "llamacpp_flags.txt").of_program(named.name)
    scanned = scan(named.rest, table, named.called, DIALECT, version)
    if scanned.positionals:
        raise BadInput(f"{named.called}: {scanned.positionals[0][:60]!r} belongs to no flag", "write -m FILE")
    notes = with_variables(scanned, table, given, named.called)
    options = scanned.options
    if isinstance(options.get("--models-preset"), str) and "--model" not in options:
        with_preset(scanned, table, options["--models-preset"], named.called)
    presets = [_PRESETS[name] for name in _PRESETS if options.get(name)]
    settings = dict(presets[-1].settings) if presets else {}
    build = NEWEST_BUILD if fork else build_of(version)
    reading = Reading(named.called, options, build, fork)
    model = _model(named, options, presets)
    drafting, draft = reading.drafting()
    if drafting is None and presets and presets[-1].draft:
        drafting, draft = Drafting(), DraftModel(presets[-1].draft, "draft")
    settings |= _settings(named, reading, build)
    settings |= reading.projector("--hf-repo" in options or bool(presets))
    if given.get("CUDA_VISIBLE_DEVICES", "all").strip() in ("", "-1") and "devices" not in settings:
        settings["devices"] = ()
    engine = "ik_llama.cpp" if fork else "llama.cpp"
    shown = (version or NEWEST_IK) if fork else f"b{build}"
    return Launch(
        engine="llama.cpp",
        model=model,
        revision=None,
        settings=Settings(
            program=PROGRAMS[named.name],
            fork=engine,  # type: ignore[arg-type]
            version=version,
            drafting=drafting,
            **settings,
        ),
        notes=(
            *of_other_versions(scanned, table, engine, shown),
            *notes,
            *not_counted(scanned),
            *_about_program(named, version),
            *_about_model(model),
            *reading.notes,
            *(f"{what} ({name}) is not counted" for name, what in _VARIABLES.items() if name in given),
        ),
        draft=draft,
    )


def is_fork(path: str, words: Sequence[str], fork: FlagTable, usual: FlagTable) -> bool:
    """Whether a command is for ik_llama.cpp: its path says so, or a flag that llama.cpp never had."""
    if "ik_llama" in path:
        return True
    known = usual.flags.keys() | usual.negatives.keys()
    return any(word in fork.flags and word.replace("_", "-") not in known for word in words)


def _model(named: Named, options: Options, presets: list[_Preset]) -> str:
    """The model as the locator finds it: a file, `organisation/name:quantization`, or an address."""
    repo, file = options.get("--hf-repo"), options.get("--hf-file")
    path, url = options.get("--model"), options.get("--model-url")
    if repo:
        return f"{str(repo).partition(':')[0]}:{file}" if file else from_hub(str(repo))
    if presets:
        return presets[-1].model
    if url:
        return str(url)
    if path:
        return str(path)
    if named.inside:
        return named.inside
    if options.get("--docker-repo"):
        raise BadInput(
            f"{named.called}: models of Docker Hub are not read ({str(options['--docker-repo'])[:60]})",
            "name the same model with -hf, or its file with -m",
        )
    if named.name == "server" and (options.get("--models-dir") or not options.data):
        raise BadInput(
            f"{named.called}: without a model it starts as a router, which loads models as they are asked for",
            "ask about one of them: write -m FILE or -hf organisation/model",
        )
    raise BadInput(f"{named.called}: no model is named", "write -m FILE or -hf organisation/model:Q4_K_M")


def _settings(named: Named, reading: Reading, build: int) -> dict[str, Any]:
    settings = reading.numbers() | reading.switches() | reading.words() | reading.adapters()
    parallel = reading.given("--parallel")
    if parallel is not None:
        least = -(2**31) if named.name == "server" else 1
        sequences = number(named.called, "--parallel", str(parallel), least, reading.notes)
        if not sequences:
            raise BadInput(
                f"{named.called}: --parallel is 0, expected at least 1", "-1 leaves it to the server"
            )
        settings["n_parallel"] = max(-1, sequences)
    per_slot = reading.given("--kv-unified-per-slot")
    if per_slot is not None and "n_ctx" not in settings:
        # `tools/server/server.cpp: llama_server`; four slots where their number is left open
        slots = settings.get("n_parallel", -1)
        tokens = number(named.called, "--kv-unified-per-slot", str(per_slot), 1, reading.notes)
        settings["n_ctx"] = tokens * (slots if slots > 0 else 4)
    if named.name == "perplexity":
        settings |= _of_perplexity(reading, settings)
    elif named.name == "embedding":
        settings |= _of_embedding(reading, settings, build)
    elif named.name == "batched-bench":
        lists = [int(one) for one in re.findall(r"\d+", str(reading.given("-npl") or ""))]
        settings["n_parallel"] = max(lists, default=1)
    return settings


def _of_perplexity(reading: Reading, settings: Mapping[str, Any]) -> dict[str, Any]:
    """As many chunks at once as fit into a batch (`tools/perplexity/perplexity.cpp: llama_perplexity`)."""
    context, batch = settings.get("n_ctx") or 512, settings.get("n_batch", 2048)
    tasks = [reading.given(name) for name in ("--hellaswag", "--winogrande", "--multiple-choice")]
    if any(tasks):
        sequences, more = max(4, settings.get("n_parallel", 1)), {"kv_unified": True}
    else:
        sequences, more = max(1, batch // context), {}
    total = sequences * context
    stride = reading.given("--ppl-stride")
    half = number(reading.program, "--ppl-stride", str(stride), 0, []) // 2 if stride is not None else 0
    return {"n_ctx": total + half, "n_batch": min(batch, total), "n_parallel": sequences, **more}


def _of_embedding(reading: Reading, settings: Mapping[str, Any], build: int) -> dict[str, Any]:
    """Whole texts in one batch (`examples/embedding/embedding.cpp`)."""
    found: dict[str, Any] = {"embeddings": True}
    if settings.get("n_parallel", 1) == 1 and build >= _EMBEDS_ALL:
        found |= {"n_parallel": _MAX_SEQUENCES, "kv_unified": True}
    batch = max(settings.get("n_batch", 2048), settings.get("n_ctx", 0))
    found["n_batch"] = batch
    if reading.given("--attention") != "causal":
        found["n_ubatch"] = batch
    return found


def _about_program(named: Named, version: str | None) -> list[str]:
    if "llamafile" in named.called:
        return ["a llamafile is read as the newest llama.cpp; its own version is not known"]
    if named.old and version is None:
        return [
            f"programs are called as {named.called} until June 2024; the newest build is assumed all the same"
        ]
    return []


def _about_model(model: str) -> list[str]:
    if model.endswith(":latest"):
        return ["no quantization is named: Q4_K_M is taken, else Q8_0, else the first file of the repository"]
    return []


def _parse_run(named: Named, version: str | None) -> Launch:
    """`llama-run [flags] MODEL [prompt]`, from December 2024 to the end of 2025 (`tools/run/run.cpp`)."""
    table = flag_table("llamarun_flags.txt")
    scanned = scan(named.rest, table, named.called, DIALECT._replace(underscores=False), version)
    if not scanned.positionals:
        raise BadInput(f"{named.called}: no model is named", f"write {named.called} FILE")
    reading = Reading(named.called, scanned.options, build_of(version))
    context = reading.given("--context-size")
    tokens = (
        2048 if context is None else number(named.called, "--context-size", str(context), 1, reading.notes)
    )
    settings: dict[str, Any] = {"n_ctx": tokens, "n_batch": tokens}
    if reading.given("--threads") is not None:
        settings["n_threads"] = number(
            named.called, "--threads", str(reading.given("--threads")), 1, reading.notes
        )
    if reading.given("--ngl") is not None:
        settings["n_gpu_layers"] = reading.layers("--ngl", str(reading.given("--ngl")))
    return Launch(
        engine="llama.cpp",
        model=_model_of_run(scanned.positionals[0], named.called),
        revision=None,
        settings=Settings(program="api", version=version, **settings),
        notes=(*not_counted(scanned), *reading.notes),
    )


def _model_of_run(text: str, called: str) -> str:
    """The model that llama-run means: a file, a repository with a file behind it, an address, or Ollama's name."""
    scheme, separator, rest = text.partition("://")
    if not separator:
        scheme, rest = ("file" if "/" in text or text.endswith(".gguf") else "ollama"), text
    if scheme in ("hf", "huggingface"):
        parts = rest.split("/", 2)
        return f"{parts[0]}/{parts[1]}:{parts[2]}" if len(parts) > 2 else from_hub(rest)
    if scheme in ("http", "https"):
        return text
    if scheme != "file":
        raise BadInput(f"{called}: models of {scheme} are not read ({rest[:60]})", "give the model's file")
    return rest
