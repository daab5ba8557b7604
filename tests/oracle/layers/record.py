"""Trace the layers of models, and write tests/data/layer_traces.jsonl.

    python tests/oracle/layers/record.py [WORD...]

With words, only models whose name has one of them are traced anew.
"""

from __future__ import annotations

import json
import pathlib
import sys
import warnings

import live
import stand_ins
import torch
import transformers
from models import MODELS

from willfit.architectures.build import build
from willfit.checkpoints import catalogue
from willfit.checkpoints.config import Config

TRACES = pathlib.Path(__file__).parents[2] / "data" / "layer_traces.jsonl"
#: The length is no multiple of the chunks of recurrent mixers, and longer than small windows.
BATCH, LENGTH, SPECTRUM = 2, 1184, 3000


def config_of(model):
    """A config: bundled under an id, or spelt out."""
    return dict(catalogue.find(model).config) if isinstance(model, str) else dict(model)


def _clean(fields):
    """Without what transformers would ask other packages about."""
    fields = {k: v for k, v in fields.items() if k not in ("quantization_config", "dtype", "torch_dtype")}
    return {k: _clean(v) if isinstance(v, dict) and k.endswith("_config") else v for k, v in fields.items()}


def _built(fields, attention):
    kind = type(transformers.AutoConfig.for_model(fields["model_type"]))
    config = kind.from_dict(_clean(fields))
    autos = [transformers.AutoModelForCausalLM, transformers.AutoModel]
    if getattr(config, "is_encoder_decoder", False):
        autos = [transformers.AutoModelForSpeechSeq2Seq, transformers.AutoModelForSeq2SeqLM]
        config.max_target_positions = 2048
    else:
        config = config.get_text_config()
    config.use_cache = False
    options = {"dtype": torch.bfloat16, "attn_implementation": attention}
    with torch.device("meta"):
        for auto in autos:
            try:
                return auto.from_config(config, **options).train()
            except ValueError as error:
                if "Unrecognized configuration class" not in str(error):
                    raise
    raise ValueError(f"no class for {fields['model_type']}")


def _layers(model, count):
    """The list of a decoder's layers."""
    lists = [
        (n, m) for n, m in model.named_modules() if isinstance(m, torch.nn.ModuleList) and len(m) == count
    ]
    return min(lists, key=lambda pair: (pair[0].count("."), len(pair[0])))[1]


def _parts(model, architecture):
    """Lists of layers by part, with the indices to trace: one of each distinct layer."""
    if not architecture.encoder:
        first = {}
        for index, layer in enumerate(architecture.layers):
            first.setdefault(id(layer), index)
        return {"layers": (_layers(model, len(architecture.layers)), list(first.values()))}
    inside = getattr(model, "model", model)
    found = {"encoder": inside.encoder, "layers": inside.decoder}
    # The first layer of T5 makes biases that the others share.
    return {part: (getattr(stack, "block", None) or stack.layers, [1]) for part, stack in found.items()}


def traced(model):
    """The lines of a model."""
    fields = config_of(model)
    architecture = build(Config(fields))
    for attention in ("sdpa", "eager"):
        try:
            net = _built(fields, attention)
        except ValueError as error:
            if "does not support an attention implementation" not in str(error):
                raise
            continue
        length = min(LENGTH, architecture.positions_end - 32) if architecture.positions_end else LENGTH
        tokens = torch.zeros(BATCH, length, dtype=torch.long, device="meta")
        inputs = {"input_ids": tokens, "use_cache": False}
        if architecture.encoder:
            inputs["decoder_input_ids"] = tokens
        if architecture.encoder_tokens:
            bins = net.config.num_mel_bins
            del inputs["input_ids"]
            inputs["input_features"] = torch.zeros(BATCH, bins, SPECTRUM, device="meta", dtype=torch.bfloat16)
        for part, (layers, indices) in _parts(net, architecture).items():
            for index in indices:
                args, kwargs = live.arguments(net, layers[index], **inputs)
                found = live.trace(layers[index], args, kwargs)
                yield {
                    "model": model, "attention": attention, "part": part, "layer": index, "batch": BATCH,
                    "length": length if part == "layers" else args[0].shape[1], **found,
                }  # fmt: skip


def main():
    """Trace what was asked and what is missing."""
    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    kept_alive = stand_ins.install()
    words, old = sys.argv[1:], {}
    if TRACES.exists():
        for line in map(json.loads, TRACES.read_text().splitlines()):
            old.setdefault(json.dumps(line["model"]), []).append(line)
    lines = []
    for model in MODELS:
        key = json.dumps(model)
        if key in old and not any(word.lower() in key.lower() for word in words):
            lines += old[key]
            continue
        try:
            lines += traced(model)
            print(key[:60], flush=True)
        except Exception as error:
            print(f"{key[:60]}: {error!r:.200}", file=sys.stderr, flush=True)
            lines += old.get(key, [])
    TRACES.write_text("".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines))
    del kept_alive


if __name__ == "__main__":
    main()
