"""Record what PEFT adds to tiny models, for `tests/data/training/adapters.jsonl`.

Run in an environment of its own with torch, transformers and peft: `python tests/oracle/adapters/record.py >> FILE`.
Each line: the question, the versions, trained parameters as {shape: how many}, their dtypes, and elements of tensors
that the adapter keeps besides, by dtype.
"""

from __future__ import annotations

import itertools
import json
import sys
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
import cases
import peft
import torch
import transformers

NAMES = {
    "prefix": "PrefixTuning", "prompt": "PromptTuning", "p_tuning": "PromptEncoder", "adalora": "AdaLora",
    "multitask_prompt": "MultitaskPromptTuning", "cartridge": "Cartridge", "cpt": "CPT",
    "adaption_prompt": "AdaptionPrompt", "trainable_tokens": "TrainableTokens", "ln_tuning": "LNTuning",
    "loha": "LoHa", "lokr": "LoKr", "vblora": "VBLoRA", "randlora": "RandLora", "fourierft": "FourierFT",
    "waveft": "WaveFT", "tinylora": "TinyLora", "unilora": "UniLora",
}  # fmt: skip


def config_class(kind: str) -> Any:
    wanted = (NAMES.get(kind, kind) + "config").lower()
    return next((getattr(peft, name) for name in dir(peft) if name.lower() == wanted), None)


def model_of(name: str) -> Any:
    fields = dict(cases.MODELS[name])
    kind = fields.pop("architectures")[0]
    config = transformers.AutoConfig.for_model(fields.pop("model_type"), **fields)
    torch.manual_seed(0)
    return getattr(transformers, kind)(config).to(torch.bfloat16)


def measure(name: str, kind: str, fields: dict[str, Any]) -> dict[str, Any] | None:
    """What PEFT adds; None if it refuses."""
    build = config_class(kind)
    if build is None:
        return None
    model = model_of(name)
    own = {id(tensor) for tensor in itertools.chain(model.parameters(), model.buffers())}
    task = "SEQ_2_SEQ_LM" if name == "t5" else "CAUSAL_LM"
    try:
        wrapped = peft.get_peft_model(model, build(task_type=task, **fields))
    except Exception as error:
        return {"refused": f"{type(error).__name__}: {error}"[:200]}
    trained: Counter[str] = Counter()
    dtypes: Counter[str] = Counter()
    held: Counter[str] = Counter()
    for parameter in wrapped.parameters():
        if parameter.requires_grad:
            trained["x".join(map(str, parameter.shape))] += 1
            dtypes[str(parameter.dtype).removeprefix("torch.")] += parameter.numel()
        elif id(parameter) not in own:
            held[str(parameter.dtype).removeprefix("torch.")] += parameter.numel()
    for buffer in {id(buffer): buffer for buffer in wrapped.buffers()}.values():
        if id(buffer) not in own:
            held[str(buffer.dtype).removeprefix("torch.")] += buffer.numel()
    return {"trained": dict(sorted(trained.items())), "dtypes": dict(dtypes), "held": dict(held)}


def questions() -> Any:
    for name in cases.MODELS:
        for kind, rank, options in cases.WRAPPING:
            yield name, kind, rank, cases.TWO[name], [], 0, options
        for kind in cases.DEFAULTS:
            yield name, kind, None, None, [], 0, {"total_step": 100} if kind == "adalora" else {}
        for kind, tokens, options in cases.PROMPTING:
            yield name, kind, None, None, [], tokens, options
    for name, kind, rank, targets, saved, options in cases.OTHER:
        yield name, kind, rank, targets, saved, 0, options


def main() -> None:
    warnings.simplefilter("ignore")
    versions = {"peft": peft.__version__, "transformers": transformers.__version__}
    for name, kind, rank, targets, saved, tokens, options in questions():
        fields = dict(options)
        if rank is not None:
            fields["r"] = rank
        if targets is not None:
            fields["target_modules"] = list(targets) if isinstance(targets, list) else targets
        if kind == "ia3" and targets is not None and "feedforward_modules" not in fields:
            fields["feedforward_modules"] = fields["target_modules"][1:]
            options = {**options, "feedforward_modules": fields["feedforward_modules"]}
        if saved:
            fields["modules_to_save"] = list(saved)
        if tokens:
            fields["num_virtual_tokens"] = tokens
        answer = measure(name, kind, fields)
        if answer is not None:
            question = {"model": name, "kind": kind, "rank": rank, "targets": targets, "saved": saved,
                        "tokens": tokens, "options": options}  # fmt: skip
            print(json.dumps({**question, **versions, **answer}))


if __name__ == "__main__":
    main()
