"""`python -m tests.oracle.llama_cpp.survey [TEXT]`: how often llama.cpp and willfit agree, model by model.

python -m tests.oracle.llama_cpp.survey qwen3 --file-type Q4_K_M --show 2
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from .compare import VERSION, differences, ours, theirs
from .gguf_file import with_types
from .headers import header_of, recorded
from .library import HOME, RELEASE
from .live import Gpu, Oracle
from .questions import SETTINGS

#: Architectures of the GPUs that are asked about; ROCm's is a number of the gfx target.
_CAPABILITIES = {"rocm": 0x1100}


def main(words: Sequence[str] | None = None) -> int:
    """Ask both and print where they differ."""
    parser = argparse.ArgumentParser(prog="survey", description=__doc__)
    parser.add_argument("text", nargs="?", default="", help="part of a model's or architecture's name")
    parser.add_argument("--file-type", default="Q4_K_M")
    parser.add_argument("--setting", default="", help="part of a setting's name (questions.SETTINGS)")
    parser.add_argument("--backend", default="cuda", choices=("cuda", "rocm", "vulkan", "metal"))
    parser.add_argument("--show", type=int, default=1, help="differences to print for each model")
    parser.add_argument("--library", type=Path, default=HOME / RELEASE)
    parser.add_argument("--version", default=VERSION, help="what willfit is told the library is")
    asked = parser.parse_args(words)
    total: Counter[str] = Counter()
    gpu = Gpu(asked.backend, _CAPABILITIES.get(asked.backend, Gpu.capability))
    with Oracle(asked.library) as oracle:
        for model in recorded():
            header = header_of(model)
            architecture = header.metadata["general.architecture"]
            if asked.text.lower() not in f"{model} {architecture}".lower():
                continue
            try:
                header = with_types(header, oracle.types(header, asked.file_type))
            except OSError:
                total["not read by the library"] += 1
                print(f"{architecture:<18} {model:<46} the library does not read its header")
                continue
            same, told, parts = 0, [], Counter[str]()
            settings = [one for one in SETTINGS if asked.setting in one.name]
            for setting in settings:
                gpus = (gpu,) * len(setting.gpus)
                answer = oracle.ask(header, setting.settings, gpus)
                mine, refusal = None, None
                try:
                    mine = ours(header, setting.settings, gpus, asked.version)
                except Exception as error:
                    refusal = repr(error)
                if answer.error is not None:
                    found: dict[str, object] = {} if refusal else {"error": answer.error}
                else:
                    found = dict(differences(theirs(answer), mine)) if mine else {"willfit": refusal}
                same += not found
                parts.update(found.keys())
                if found:
                    told.append(f"    {setting.name}: {found}")
            total["same"] += same
            total["different"] += len(settings) - same
            words_of_parts = ", ".join(f"{part} {count}" for part, count in parts.most_common())
            print(f"{architecture:<18} {model:<46} {same}/{len(settings)} {words_of_parts}")
            for line in told[: asked.show]:
                print(line)
    print(dict(total))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
