"""Write the pages and pictures that come from the code: command help, accuracy, terminal pictures.

python scripts/build_docs.py            # write
python scripts/build_docs.py --check    # only say whether they are as the code has them
"""

from __future__ import annotations

import argparse
import io
import os
import re
import sys
from contextlib import redirect_stdout, suppress
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import TerminalTheme

from willfit.allocator.settings import AllocatorSettings
from willfit.asking import ask_about, ask_candidates, machine_of
from willfit.engines.base import Question
from willfit.planning.serving_plans import Asked, plan_serving
from willfit.surfaces.cli.app import COMMANDS, SECOND_WORDS, main
from willfit.surfaces.report import candidates, estimate, front
from willfit.tracing import asking
from willfit.training.settings import TrainingSettings
from willfit.validation.cases import read_cases
from willfit.validation.run import validate_files
from willfit.validation.scoring import Score

ROOT = Path(__file__).parents[1]
CASES = ROOT / "tests" / "data" / "cases"

#: The file of training runs, about which the page says more.
TRAINING = "training.jsonl"

#: Files of published measurements whose metrics are shown, with the engine's title in English and Chinese.
SHOWN = (
    (("vllm.jsonl",), "vLLM", "vLLM"),
    (("vllm_more.jsonl",), "vLLM, more logs", "vLLM，更多日志"),
    (("vllm_oracle.jsonl",), "vLLM's own planner", "vLLM 自带的规划"),
    (("sglang.jsonl",), "SGLang", "SGLang"),
    (("sglang_more.jsonl",), "SGLang, more logs", "SGLang，更多日志"),
    (("other_serving.jsonl", "other_serving_more.jsonl"), "other servers", "其他服务引擎"),
    (("llamacpp.jsonl",), "llama.cpp", "llama.cpp"),
    (("llamacpp_more.jsonl",), "llama.cpp, more logs", "llama.cpp，更多日志"),
    (("llamacpp_oracle.jsonl",), "llama.cpp's own planner", "llama.cpp 自带的规划"),
    (("ollama.jsonl", "ollama_more.jsonl"), "Ollama", "Ollama"),
    (("local_engines.jsonl",), "other local engines", "其他本地引擎"),
    (("transformers.jsonl",), "transformers", "transformers"),
    (("transformers_more.jsonl",), "transformers, more measurements", "transformers，更多测量"),
    ((TRAINING,), "training", "训练"),
)

#: What a metric means, in words; metrics not listed are not shown.
METRICS = {
    "vllm.weights_gib": ("weights of a rank", "单卡权重"),
    "vllm.kv_bytes_per_token": ("cache bytes per token", "每个 token 的缓存字节数"),
    "vllm.kv_cache_gib": ("cache pool, end to end", "缓存池（端到端）"),
    "vllm.num_gpu_blocks": ("cache blocks", "缓存块数"),
    "vllm.kv_cache_tokens": ("cache tokens", "缓存 token 数"),
    "vllm.max_concurrency": ("concurrency", "最大并发"),
    "vllm.params_bytes": ("parameter bytes of a rank", "单卡参数字节数"),
    "sglang.weights_gib": ("weights of a rank", "单卡权重"),
    "sglang.kv_cache_tokens": ("cache tokens, free memory given", "缓存 token 数（给定空闲显存）"),
    "tensorrt-llm.kv_cache_tokens": ("cache tokens, TensorRT-LLM", "缓存 token 数（TensorRT-LLM）"),
    "llama.cpp.model_buffer_mib": ("weights in each buffer", "各缓冲区的权重"),
    "llama.cpp.kv_buffer_mib": ("caches in each buffer", "各缓冲区的 KV 缓存"),
    "llama.cpp.context_buffer_mib": ("caches and states in each buffer", "各缓冲区的缓存与状态"),
    "llama.cpp.rs_buffer_mib": ("recurrent states in each buffer", "各缓冲区的循环状态"),
    "llama.cpp.compute_buffer_mib": ("compute in each buffer", "各缓冲区的计算空间"),
    "llama.cpp.tensor_bytes": ("bytes of a file's tensors, from the config", "由配置预测的文件张量字节数"),
    "ik_llama.cpp.kv_total_mib": ("caches, ik_llama.cpp", "KV 缓存（ik_llama.cpp）"),
    "ollama.ollama_required_mib": ("what Ollama expects", "Ollama 的预估"),
    "ollama.kv_buffer_mib": ("caches in each buffer", "各缓冲区的 KV 缓存"),
    "ollama.compute_buffer_mib": ("compute in each buffer", "各缓冲区的计算空间"),
    "transformers.peak_allocated_gib": ("peak allocated", "分配峰值"),
    "transformers.peak_reserved_gib": ("peak reserved", "保留峰值"),
    "transformers.nvidia_smi_gib": ("whole device", "整卡占用"),
    "litgpt.peak_allocated_gib": ("peak allocated, LitGPT", "分配峰值（LitGPT）"),
    "train.peak_active_gib": ("peak active", "活跃峰值"),
    "train.peak_reserved_gib": ("peak reserved", "保留峰值"),
    "train.nvidia_smi_gib": ("whole device", "整卡占用"),
}

THEME = TerminalTheme(
    (16, 20, 30),
    (222, 226, 234),
    [(40, 46, 60), (226, 103, 127), (47, 191, 113), (242, 163, 58), (76, 141, 255), (176, 111, 224),
     (95, 196, 214), (208, 212, 220)],
)  # fmt: skip


def commands_page() -> str:
    """The help of every command, as the program prints it."""
    os.environ["COLUMNS"] = "100"  # what argparse wraps its help to
    parts = ["# Commands\n\nThis page is written by `scripts/build_docs.py` from the program's own help.\n"]
    several = [[first, second] for first, seconds in SECOND_WORDS.items() for second in seconds]
    for words in ([], *([command] for command in COMMANDS), *several):
        out = io.StringIO()
        with redirect_stdout(out), suppress(SystemExit):
            main([*words, "--help"])
        title = " ".join(["willfit", *words])
        parts.append(f"## `{title}`\n\n```text\n{out.getvalue().rstrip()}\n```\n")
    return "\n".join(parts)


def accuracy_tables() -> tuple[str, str, str]:
    """The accuracy table in English and Chinese, and the whole page."""
    from training_accuracy import section, summary

    every = sorted(CASES.glob("*.jsonl"))
    scores = {
        title: validate_files([CASES / name for name in names], constants_from=every)
        for names, title, _ in SHOWN
    }
    english = ["| engine | what | n | median error | 90th percentile | inside the 90 % interval |",
               "| --- | --- | ---: | ---: | ---: | ---: |"]  # fmt: skip
    chinese = ["| 引擎 | 指标 | 样本数 | 误差中位数 | 90 分位误差 | 落在 90 % 区间内 |",
               "| --- | --- | ---: | ---: | ---: | ---: |"]  # fmt: skip
    page = [
        "# Accuracy\n",
        "This page is written by `scripts/build_docs.py`: the scores of `willfit validate --held-out` over the",
        "measurements in `tests/data/cases/`. Each was published by someone else: a start-up log, a benchmark table.",
        "No constant was fitted to the model that it helps to predict: models are dealt into five folds, and each is",
        "predicted with constants fitted to all files' other models. Predictions use the settings; for vLLM also the",
        "device's visible total, and for SGLang the memory that was free before loading, where the log has them.\n",
    ]
    for names, title, translated in SHOWN:
        score = scores[title]
        for metric, figures in score.metrics().items():
            if metric not in METRICS or "share" in figures:
                continue
            row = (
                f"{figures['n']:.0f} | {figures['median_ape']:.2f} % | {figures['p90_ape']:.2f} % | "
                f"{100 * figures['coverage90']:.0f} % |"
            )
            english.append(f"| {title} | {METRICS[metric][0]} | {row}")
            chinese.append(f"| {translated} | {METRICS[metric][1]} | {row}")
        page.append(_page_of(names, title, score))
        if names == (TRAINING,):
            cases = read_cases(CASES / TRAINING)
            page.append(section(score, cases))
            for words, chinese_words, n, middle, most, inside in summary(score, cases):
                row = f"{n} | {middle:.2f} % | {most:.2f} % | {100 * inside:.0f} % |"
                english.append(f"| {title} | {words} | {row}")
                chinese.append(f"| {translated} | {chinese_words} | {row}")
    return "\n".join(english), "\n".join(chinese), "\n".join(page)


def _page_of(names: tuple[str, ...], title: str, score: Score) -> str:
    files = " and ".join(f"`{name}`" for name in names)
    lines = [f"## {title}\n", f"{files}: {score.n_predicted} of {score.n_cases} cases predicted.\n"]
    lines += ["| metric | n | median error | 90th percentile | bias | in interval | under |",
              "| --- | ---: | ---: | ---: | ---: | ---: | ---: |"]  # fmt: skip
    for metric, figures in score.metrics().items():
        if "share" in figures:
            lines.append(f"| {metric} | {figures['n']:.0f} | {100 * figures['share']:.1f} % wrong | | | | |")
            continue
        lines.append(
            f"| {metric} | {figures['n']:.0f} | {figures['median_ape']:.2f} % | {figures['p90_ape']:.2f} % | "
            f"{figures['bias']:+.2f} % | {100 * figures['coverage90']:.0f} % | {100 * figures['under']:.0f} % |"
        )
    reasons: dict[str, int] = {}
    for _, reason in score.skipped:
        reasons[reason] = reasons.get(reason, 0) + 1
    lines += [f"\nSkipped: {reason} ({count})." for reason, count in sorted(reasons.items())]
    return "\n".join(lines) + "\n"


def pictures() -> dict[str, str]:
    """Terminal pictures by file name."""
    drawn = {}
    console = _recorder(96)
    machine = machine_of("rtx4090")
    estimate.render(ask_about("Qwen/Qwen3-8B", machine, Question(32768, 4), "vllm"), console)
    drawn["estimate.svg"] = _svg(console, "willfit Qwen/Qwen3-8B --gpu rtx4090 --context 32k --users 4")
    console = _recorder(96)
    candidates.render(ask_candidates("Qwen/Qwen3-32B", Question()), console)
    drawn["candidates.svg"] = _svg(console, "willfit Qwen/Qwen3-32B")
    asked = asking.training(
        "meta-llama/Llama-3.1-8B",
        machine_of("a100-80g"),
        TrainingSettings(seq_len=2048),
        AllocatorSettings(),
        offline=True,
    )
    drawn["trace.svg"] = asking.answered(asked).picture().decode()
    wanted = Asked("Qwen/Qwen3-32B", 32_768, 64, needs=("per-user >= 20",), offline=True)
    drawn["front.svg"] = front.picture(plan_serving(wanted))
    return drawn


def _recorder(width: int) -> Console:
    return Console(
        record=True,
        width=width,
        file=io.StringIO(),
        force_terminal=True,
        color_system="truecolor",
        highlight=False,
    )


def _svg(console: Console, title: str) -> str:
    text = console.export_svg(title=title, theme=THEME, unique_id="willfit")
    # The exporter refers to a web font; the picture must not need the network.
    return re.sub(r"@font-face\s*\{[^}]*\}\s*", "", text).replace("Fira Code", "ui-monospace")


def replaced(text: str, mark: str, body: str) -> str:
    """`text` with what stands between `<!-- mark -->` and `<!-- /mark -->` replaced."""
    pattern = re.compile(rf"(<!-- {mark} -->\n).*?(\n<!-- /{mark} -->)", re.DOTALL)
    if not pattern.search(text):
        sys.exit(f"no place marked {mark!r}")
    return pattern.sub(lambda match: match.group(1) + body + match.group(2), text)


def everything() -> dict[Path, str]:
    """All files that this script writes, with their texts."""
    sys.path.insert(0, str(Path(__file__).parent))
    english, chinese, page = accuracy_tables()
    files = {ROOT / "docs" / "commands.md": commands_page(), ROOT / "docs" / "accuracy.md": page}
    for name, table in (("README.md", english), ("README.zh-CN.md", chinese)):
        files[ROOT / name] = replaced((ROOT / name).read_text(encoding="utf-8"), "accuracy", table)
    for name, picture in pictures().items():
        files[ROOT / "docs" / "pictures" / name] = picture
    from comparison_pages import pages

    return {**files, **{ROOT / "docs" / name: text for name, text in pages().items()}}


def run() -> None:
    parser = argparse.ArgumentParser(description="Write the pages and pictures that come from the code.")
    parser.add_argument("--check", action="store_true", help="only say whether they are up to date")
    check = parser.parse_args().check
    stale = []
    for path, text in everything().items():
        text = text if text.endswith("\n") else text + "\n"
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            stale.append(path.relative_to(ROOT))
            if not check:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8")
    print("\n".join(f"{'stale' if check else 'written'}: {path}" for path in stale) or "all up to date")
    raise SystemExit(1 if check and stale else 0)


if __name__ == "__main__":
    run()
