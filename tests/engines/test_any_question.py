"""Whatever is asked of whatever engine: an answer whose figures agree, or one line that says why there is none."""

from contextlib import suppress
from io import StringIO

import pytest
from rich.console import Console

from willfit.asking import answer_about, machine_of
from willfit.engines.base import Question
from willfit.engines.table import ENGINES
from willfit.errors import BadInput
from willfit.estimate import Estimate
from willfit.surfaces.report.estimate import render

#: Dense, experts, windows with pictures, states, latents, no transformer, an encoder: each in a format, or as it is.
STORED = (
    ("Qwen/Qwen3-8B", "Q4_K_M"),
    ("Qwen/Qwen3-30B-A3B", "nf4"),
    ("google/gemma-3-12b-it", "mlx4"),
    ("Qwen/Qwen3-Next-80B-A3B-Instruct", "UD-Q4_K_XL"),
    ("deepseek-ai/DeepSeek-V2-Lite", None),
    ("RWKV/rwkv-4-169m-pile", "Q8_0"),
    ("google-bert/bert-large-uncased", None),
)
MACHINES = (("rtx4090+rtx3060", "32G"), ("m1-16g", None), ("cpu", "16G"))


@pytest.mark.parametrize("gpus", MACHINES, ids=[name for name, _ in MACHINES])
@pytest.mark.parametrize("engine", ENGINES)
def test_an_answer_or_one_line(engine: str, gpus: tuple[str, str | None]) -> None:
    for model, stored in STORED:
        with suppress(BadInput):
            check(
                answer_about(
                    model, machine_of(*gpus), Question(8192, 2), engine, stored, offline=True
                ).estimate
            )


def check(found: Estimate) -> None:
    for place in (*found.devices, found.host):
        low, high = place.interval_bytes
        assert low <= place.peak_bytes <= high
        assert all(0 <= term.low_bytes <= term.bytes <= term.high_bytes for term in place.terms)
    capacity = found.capacity
    if capacity is not None and not found.refusal:
        assert capacity.max_context <= capacity.kv_cache_tokens
    printed = StringIO()
    render(found, Console(file=printed, width=80), explain=True)
    assert found.model in printed.getvalue()
    lines = printed.getvalue().splitlines()[2:]
    assert max(len(line.rstrip()) for line in lines) <= 80


def test_gguf_files_are_refused_by_those_that_do_not_load_them() -> None:
    for engine in ("mlc-llm", "mlx", "exllamav2", "exllamav3"):
        found = answer_about("Qwen/Qwen3-8B:Q4_K_M", machine_of("rtx4090"), Question(), engine, offline=True)
        assert "does not load GGUF files; llama.cpp does" in found.estimate.refusal
    found = answer_about(
        "Qwen/Qwen3-8B:Q4_K_M", machine_of("rtx4090"), Question(), "transformers", offline=True
    )
    # 8,190,735,360 parameters
    assert any("unpack them: 30.51 GiB in fp32" in note for note in found.estimate.notes)


def test_a_file_that_llama_cpp_cannot_read_is_named() -> None:
    with pytest.raises(BadInput, match=r"lacks token_embd\.weight"):
        answer_about("poolside/Laguna-S-2.1-DFlash-FP8:Q8_0", machine_of("rtx4090"), Question(), offline=True)


def test_a_processor_and_its_host_share_the_ram() -> None:
    """What transformers holds on the processor is not there for its process a second time."""

    def asked(ram: str) -> Estimate:
        return answer_about("Qwen/Qwen3-8B", machine_of("cpu", ram), Question(8192), offline=True).estimate

    found = asked("18G")
    (processor,) = found.devices
    assert found.host.usable_bytes == 18 * 2**30 - processor.peak_bytes
    assert processor.verdict == "fits"
    assert found.verdict == "does_not_fit"
    assert asked("64G").verdict == "fits"
