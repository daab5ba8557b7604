"""Pages that put predictions beside measurements which others published, and a table that nobody filled in.

Measured figures are in `docs/measured/`; what is predicted is worked out anew whenever the pages are written.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from willfit.asking import ask_about, find_subject, machine_of
from willfit.engines.base import Machine, Question
from willfit.engines.table import ENGINES
from willfit.engines.transformers import Settings as CallSettings
from willfit.engines.transformers.readings import hidden_bytes, readings
from willfit.engines.vllm import Settings as ServerSettings
from willfit.engines.vllm import estimate as serve
from willfit.quantities import GIB, MIB

MEASURED = Path(__file__).parents[1] / "docs" / "measured"

#: What the article leaves open: Chinese prose is about 0.65 tokens a character in Qwen's vocabulary; the newest
#: transformers and vLLM when Qwen2.5 was new; an answer of some paragraphs.
_TOKENS_PER_CHARACTER = 0.65
_LONG = 10_000
_ANSWER = 500
_TRANSFORMERS, _VLLM = "4.46.0", "0.6.3"

#: Why a measured row lies where it does, where a rule says so.
_WHY = {
    ("transformers", "fp4"): "One matrix at a time is expanded to 16 bits while a product runs.",
    ("transformers", "bnb-int8"): (
        "Products are made in 32-bit integers before they are scaled. The article also saw 20,000 MiB for a moment; "
        "no tensor that the code makes for such a prompt is that large, so this is not explained. What is put aside "
        "as outliers depends on the text and is not predicted either."
    ),
    (
        "transformers",
        "bf16",
    ): "Cache and one MLP's activations of the prompt; only the last position's logits.",
    ("transformers", "awq"): (
        "The prompt's cache and activations explain a quarter of the growth. The rest is not explained by "
        "transformers' own code: kernels of AutoAWQ that expand and keep matrices are a possible cause."
    ),
    ("transformers", "gptq-int4"): (
        "As AWQ: more than cache and activations of one prompt. Several turns of a conversation would add caches that "
        "outgrow their segments."
    ),
    ("transformers", "gptq-int8"): (
        "Less than the cache and activations of 6,500 tokens: this prompt was shorter, or read before it ended."
    ),
    ("vllm", "bf16"): "Weights, cache and CUDA graphs; the share for activations is free between requests.",
    (
        "vllm",
        "awq",
    ): "The budget is the same, so fewer bytes of weights make a larger cache, not a smaller process.",
    ("vllm", "gptq-int4"): "As AWQ.",
    ("vllm", "gptq-int8"): (
        "Weights and the profiled activations leave too little for one sequence of 32,768 tokens: vLLM refuses to "
        "start. With `--max-model-len 8192` it would start."
    ),
}


def pages() -> dict[str, str]:
    """Pages by their path under `docs/`."""
    written = {
        "qwen25_rtx4090.md": qwen_page(),
        "chatglm2_prompts.md": chatglm_page(),
        "pictures/chatglm2_prompts.svg": chatglm_picture(),
    }
    if "llama.cpp" in ENGINES:
        written["qwen25_gguf.md"] = gguf_page()
    return written


def qwen_page() -> str:
    """Qwen2.5 on one RTX 4090, as an article measured it with `nvidia-smi`."""
    machine = machine_of("rtx4090")
    prompt = int(_LONG * _TOKENS_PER_CHARACTER)
    lines = [
        "# Qwen2.5 on one RTX 4090: measured and predicted\n",
        "This page is written by `scripts/build_docs.py`. The measured figures are from a widely read article, which "
        "watched `nvidia-smi` (MiB of the whole card) after loading and while a long text was worked on.\n",
        "What the article does not say is assumed: a text of 10,000 characters is "
        f"{prompt:,} tokens ({_TOKENS_PER_CHARACTER} a character), an answer {_ANSWER} tokens; transformers "
        f"{_TRANSFORMERS}, SDPA attention, a growing cache; vLLM {_VLLM}. The driver keeps "
        f"{hidden_bytes(machine.devices[0]) // MIB} MiB of the card, which its tool counts as used; a display would "
        "come on top, and is the likeliest cause of what the static rows have more.\n",
        "## transformers\n",
        "| model | after loading | predicted | | long text | predicted | | why |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    rows = _rows("qwen25_rtx4090.csv")
    lines += [_called(row, machine, prompt) for row in rows if row["engine"] == "transformers"]
    lines += [
        "\nIntervals hold nine of ten measured figures of this kind; they are wide because what lies outside torch "
        "(context, display, libraries) differs by a GiB from machine to machine.\n",
        "## vLLM\n",
        "vLLM takes a share of the card whatever the model is. The static figures look like less than its default of "
        "0.9 (22,108 MiB), but need not be: the share also holds the activations of the largest batch, which are "
        "tried once at the start and then given back. They come again with a long text, so the two measured figures "
        "should lie between what is left without them and the whole share. With the model's own 32,768 tokens as "
        "`max_model_len`, and batches as large, that is so:\n",
    ]
    for share in (0.9, 0.85):
        lines += [
            f"### `gpu_memory_utilization={share}`, `max_model_len=32768`\n",
            "| model | measured, static | predicted | | measured, long text | whole share | why |",
            "| --- | ---: | ---: | ---: | ---: | ---: | --- |",
        ]
        lines += [_served(row, machine, share) for row in rows if row["engine"] == "vllm"]
        lines.append("")
    lines.append(
        "The 7B row fits the default share, the 14B rows a slightly smaller one. Either way the 8-bit 14B does not "
        "start, as the article found, although its weights alone would fit."
    )
    return "\n".join(lines)


def _called(row: dict[str, str], machine: Machine, prompt: int) -> str:
    plain = row["format"] in ("", "bf16")
    subject, _ = find_subject(row["model"], None if plain else row["format"], offline=True)
    dtype = "auto"
    load = readings(subject, machine, CallSettings(version=_TRANSFORMERS, dtype=dtype, phase="load"))[0]
    asked = CallSettings(version=_TRANSFORMERS, dtype=dtype, input_len=prompt, output_len=_ANSWER)
    long = readings(subject, machine, asked)[0]
    cells = [row["label"]]
    for measured, interval in ((row["static_mib"], load.process), (row["long_mib"], long.process)):
        value, low, high = (bytes_ / MIB for bytes_ in interval)
        cells += [
            f"{int(measured):,}",
            f"{value:,.0f} ({low:,.0f} to {high:,.0f})",
            f"{100 * (value / float(measured) - 1):+.1f} %",
        ]
    return "| " + " | ".join((*cells, _WHY["transformers", _kind(row)])) + " |"


def _served(row: dict[str, str], machine: Machine, share: float) -> str:
    subject, _ = find_subject(row["model"], None, offline=True)
    asked = ServerSettings(version=_VLLM, gpu_memory_utilization=share, max_model_len=32_768)
    found = serve(subject, machine, asked, 1)
    why = _WHY["vllm", _kind(row)]
    if found.verdict == "does_not_fit":
        measured = f"{int(row['static_mib']):,}" if row["static_mib"] else "out of memory"
        return f"| {row['label']} | {measured} | does not start | | | | {why} |"
    device = found.devices[0]
    whole = device.peak_bytes + hidden_bytes(machine.devices[0])
    static = whole - sum(term.bytes for term in device.terms if term.name == "activations")
    if not row["static_mib"]:
        return f"| {row['label']} | out of memory | {static / MIB:,.0f} | | | {whole / MIB:,.0f} | {why} |"
    error = 100 * (static / MIB / float(row["static_mib"]) - 1)
    return (
        f"| {row['label']} | {int(row['static_mib']):,} | {static / MIB:,.0f} | {error:+.1f} % | "
        f"{int(row['long_mib']):,} | {whole / MIB:,.0f} | {why} |"
    )


def _kind(row: dict[str, str]) -> str:
    name = row["model"].lower()
    for kind in ("awq", "gptq-int4", "gptq-int8"):
        if name.endswith(kind):
            return kind
    return row["format"] or "bf16"


@dataclass(frozen=True, slots=True)
class _Line:
    """A straight line: MiB at no tokens, and MiB of a token."""

    at_zero: float
    per_token: float


def chatglm_page() -> str:
    """ChatGLM2-6B in fp16 over the length of its prompt."""
    points = _points()
    fitted, last, every = _least_squares(points), _predicted("generate"), _predicted("prefill")
    weights = find_subject("zai-org/chatglm2-6b", None, offline=True)[0].weight_bytes
    tokens = {name: fitted.per_token / line.per_token for name, line in (("last", last), ("all", every))}
    rows = [
        f"| {count:,.0f} | {seen:,.1f} | {_at(every, count * tokens['all']):,.1f} | "
        f"{100 * (_at(every, count * tokens['all']) / seen - 1):+.2f} % |"
        for count, seen in points
    ]
    return "\n".join(
        [
            "# ChatGLM2-6B: memory over the length of the prompt\n",
            "This page is written by `scripts/build_docs.py`. Someone measured "
            "`torch.cuda.max_memory_allocated()` of ChatGLM2-6B in fp16 for prompts of 100 to 5,900 characters.\n",
            "![Measured points on the predicted line](pictures/chatglm2_prompts.svg)\n",
            "## Where the line begins\n",
            f"{weights:,} B of weights (6.24 B parameters x 2 B) are {weights / MIB:,.1f} MiB. With cuBLAS's workspace "
            f"{every.at_zero:,.1f} MiB are predicted for an empty prompt; the measured points lead to "
            f"{fitted.at_zero:,.1f} MiB ({100 * (every.at_zero / fitted.at_zero - 1):+.2f} %).\n",
            "## How steep it is\n",
            "A token takes cache in all 28 layers (2 heads x 128 x 2 sides x 2 B each: 28 KiB), and for the largest "
            "moment of the pass either the MLP's activations or its row of logits (65,024 x 2 B, and as much twice "
            "over where they are converted to 32 bits).\n",
            "| what the pass computes | MiB a token | tokens a character that the measured slope asks for |",
            "| --- | ---: | ---: |",
            f"| the last position's logits, as `generate()` asks for | {last.per_token:.4f} | {tokens['last']:.2f} |",
            f"| all positions' logits in 16 and in 32 bits | {every.per_token:.4f} | {tokens['all']:.2f} |",
            "",
            "The source counts characters. Vocabularies that were made for Chinese take less than one token for a "
            "character of prose, so the second reading is the one that fits: cache and logits of every position make "
            f"the slope of {fitted.per_token:.4f} MiB a character. The number of tokens in a character is the only "
            "figure that is taken from the measurements; everything else follows from the config.\n",
            "| characters | measured, MiB | predicted, MiB | |",
            "| ---: | ---: | ---: | ---: |",
            *rows,
        ]
    )


def _predicted(phase: str) -> _Line:
    """The line of a pass over the prompt; for `prefill` with all logits, and their 32-bit copy."""
    subject, _ = find_subject("zai-org/chatglm2-6b", None, offline=True)
    machine = machine_of("a100-80gb-sxm")

    def allocated(tokens: int) -> float:
        asked = CallSettings(
            version="4.30.2",
            dtype="fp16",
            attn_impl="sdpa",
            input_len=tokens,
            output_len=1,
            phase=phase,  # type: ignore[arg-type]
            loading=False,
        )
        size = readings(subject, machine, asked)[0].allocated[0]
        copied = tokens * subject.architecture.logits_per_row * 4 if phase == "prefill" else 0
        return (size + copied) / MIB

    short, long = 1000, 3000
    slope = (allocated(long) - allocated(short)) / (long - short)
    return _Line(allocated(short) - short * slope, slope)


def chatglm_picture() -> str:
    """The measured points on the predicted line."""
    points = _points()
    fitted, line = _least_squares(points), _predicted("prefill")
    scale = fitted.per_token / line.per_token
    ends = [(count, _at(line, count * scale)) for count in (0, 6000)]
    return plot(
        points,
        ends,
        "ChatGLM2-6B, fp16: allocated peak over the length of the prompt",
        "characters of the prompt",
        "MiB",
    )


def _at(line: _Line, tokens: float) -> float:
    return line.at_zero + line.per_token * tokens


def _least_squares(points: Sequence[tuple[float, float]]) -> _Line:
    mean = [sum(values) / len(points) for values in zip(*points, strict=True)]
    slope = sum((x - mean[0]) * (y - mean[1]) for x, y in points) / sum((x - mean[0]) ** 2 for x, _ in points)
    return _Line(mean[1] - slope * mean[0], slope)


def _points() -> list[tuple[float, float]]:
    rows = _rows("chatglm2_prompts.csv")
    return [(float(row["characters"]), float(row["max_memory_allocated_mib"])) for row in rows]


#: Sizes of the picture, and the colours of the others.
_WIDTH, _HEIGHT, _LEFT, _BOTTOM = 760, 420, 80, 56
_PAPER, _INK, _GRID, _DOT, _STROKE = "#10141e", "#dee2ea", "#282e3c", "#f2a33a", "#4c8dff"


def plot(
    dots: Sequence[tuple[float, float]],
    line: Sequence[tuple[float, float]],
    title: str,
    across: str,
    up: str,
) -> str:
    """Dots (measured) and a line (predicted) as a picture."""
    every = [*dots, *line]
    right = _ceiling(max(x for x, _ in every))
    low, high = _floor(min(y for _, y in every)), _ceiling(max(y for _, y in every))

    def place(x: float, y: float) -> tuple[float, float]:
        wide, tall = _WIDTH - _LEFT - 24, _HEIGHT - _BOTTOM - 48
        return _LEFT + wide * x / right, _HEIGHT - _BOTTOM - tall * (y - low) / (high - low)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="ui-monospace, '
        f'monospace" font-size="13" fill="{_INK}">',
        f"<title>{title}</title>",
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" rx="8" fill="{_PAPER}"/>',
        f'<text x="{_LEFT}" y="28" font-size="15">{title}</text>',
    ]
    for step in range(5):
        value = low + (high - low) * step / 4
        x, y = place(0, value)
        parts.append(f'<path d="M{x:.1f} {y:.1f}H{_WIDTH - 24}" stroke="{_GRID}"/>')
        parts.append(f'<text x="{x - 8:.1f}" y="{y + 4:.1f}" text-anchor="end">{value:,.0f}</text>')
    for step in range(7):
        x, y = place(right * step / 6, low)
        parts.append(
            f'<text x="{x:.1f}" y="{y + 20:.1f}" text-anchor="middle">{right * step / 6:,.0f}</text>'
        )
    (x1, y1), (x2, y2) = (place(*end) for end in line)
    parts.append(
        f'<path d="M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}" stroke="{_STROKE}" stroke-width="2" fill="none"/>'
    )
    for dot in dots:
        x, y = place(*dot)
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{_DOT}"/>')
    parts.append(f'<text x="{_WIDTH - 24}" y="{_HEIGHT - 14}" text-anchor="end">{across}</text>')
    parts.append(f'<text x="{_LEFT - 8}" y="46" text-anchor="end">{up}</text>')
    parts.append(
        f'<circle cx="{_LEFT + 16}" cy="{_HEIGHT - 18}" r="3.5" fill="{_DOT}"/>'
        f'<text x="{_LEFT + 26}" y="{_HEIGHT - 14}">measured</text>'
        f'<path d="M{_LEFT + 110} {_HEIGHT - 18}h24" stroke="{_STROKE}" stroke-width="2"/>'
        f'<text x="{_LEFT + 142}" y="{_HEIGHT - 14}">predicted</text>'
    )
    return "\n".join((*parts, "</svg>"))


def _ceiling(value: float) -> float:
    step = 500 if value < 20_000 else 5000
    return -(-value // step) * step


def _floor(value: float) -> float:
    step = 500 if value < 20_000 else 5000
    return value // step * step


#: The table that its author left empty.
_GGUF_MODELS = tuple(f"Qwen/Qwen2.5-{size}-Instruct" for size in ("7B", "14B", "32B", "72B"))
_GGUF_TYPES = ("q8_0", "q6_k", "q5_k_m", "q5_k_s", "q4_k_m", "q4_k_s", "q3_k_l", "q3_k_m", "q3_k_s", "q2_k")
_GGUF_CONTEXTS = (4096, 32_768)


def gguf_page() -> str:
    """Sizes of Qwen2.5's GGUF files and what llama.cpp takes with all layers on one device."""
    machine = machine_of("h200")
    lines = [
        "# Qwen2.5 as GGUF: files, and memory with all layers on one device\n",
        "This page is written by `scripts/build_docs.py`. It fills in a table that its author left empty. Sizes are "
        "predicted from the config, by the mix of tensor types that llama.cpp's quantizer makes; memory is that of "
        "llama.cpp with all layers on the device, one sequence and the cache in f16.\n",
        "| model | type | file | "
        + " | ".join(f"{context // 1024}k context" for context in _GGUF_CONTEXTS)
        + " |",
        "| --- | --- | ---: | " + " | ".join("---:" for _ in _GGUF_CONTEXTS) + " |",
    ]
    for model in _GGUF_MODELS:
        for kind in _GGUF_TYPES:
            subject, _ = find_subject(model, kind, offline=True)
            cells = [model.removeprefix("Qwen/"), kind.upper(), f"{subject.weight_bytes / GIB:,.2f} GiB"]
            for context in _GGUF_CONTEXTS:
                question = Question(context)
                found = ask_about(model, machine, question, "llama.cpp", kind, offline=True)
                low, high = (bound / GIB for bound in found.devices[0].interval_bytes)
                cells.append(f"{found.devices[0].peak_bytes / GIB:,.2f} GiB ({low:,.2f} to {high:,.2f})")
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _rows(name: str) -> list[dict[str, str]]:
    with (MEASURED / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
