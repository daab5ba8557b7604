"""`python -m tests.oracle.llama_cpp.architectures`: small files of all architectures, with llama.cpp's plans for them.

Rewrites the plans in `tests/data/gguf/architectures.jsonl`, asking for every file under every setting. With
`--discover ARCHITECTURE` it adds a file of an architecture: it asks the library what an empty file lacks, adds that,
and asks again. `--set KEY=JSON` states a key first, `--experts` those of mixtures, `--tensors` tensors that a file must
have though the library does not insist on them.

python -m tests.oracle.llama_cpp.architectures --discover cohere2moe --experts --set attention.sliding_window=512
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from willfit.checkpoints.gguf import GgufHeader

from .gguf_file import make_header
from .library import HOME, RELEASE
from .live import Gpu, Oracle

RECORD = Path(__file__).parents[2] / "data" / "gguf" / "architectures.jsonl"

#: Ways of running a file: settings, and how many GPUs there are.
SETTINGS: dict[str, tuple[dict[str, Any], int]] = {
    "processor": ({"flash_attn": "auto", "n_parallel": 4, "kv_unified": True}, 0),
    "flash": ({"flash_attn": True}, 1),
    "scores": ({"flash_attn": False, "n_parallel": 4}, 1),
    "partial": ({"flash_attn": True, "cache_type_k": "q8_0", "cache_type_v": "q8_0", "n_gpu_layers": 3}, 1),
    "vectors": ({"flash_attn": True, "embeddings": True, "n_parallel": 2}, 1),
    "two": ({"flash_attn": False, "n_outputs_max": 1}, 2),
    "drafts": ({"flash_attn": True, "load_mtp": True, "ctx_type": "mtp", "n_outputs_max": 1}, 1),
}
_ALL = {"n_ctx": 2048, "n_batch": 512, "n_ubatch": 256}

_SIZES: dict[str, Any] = {
    "vocab_size": 1024,
    "context_length": 4096,
    "embedding_length": 512,
    "features_length": 512,
    "block_count": 6,
    "feed_forward_length": 768,
    "attention.head_count": 8,
    "attention.head_count_kv": 2,
    "attention.key_length": 64,
    "attention.value_length": 64,
    "rope.dimension_count": 64,
    "attention.layer_norm_epsilon": 1e-5,
    "attention.layer_norm_rms_epsilon": 1e-5,
}
_EXPERTS: dict[str, Any] = {
    "expert_count": 16,
    "expert_used_count": 4,
    "expert_feed_forward_length": 256,
    "expert_shared_count": 1,
    "expert_shared_feed_forward_length": 256,
    "expert_gating_func": 2,
    "expert_weights_scale": 2.5,
    "expert_weights_norm": True,
    "leading_dense_block_count": 1,
    "interleave_moe_layer_step": 2,
    "moe_every_n_layers": 2,
}
#: What is stated where the library insists on a key.
_INSISTED: dict[str, Any] = {
    "rope.dimension_sections": (16, 24, 24, 0),
    "attention.sliding_window": 512,
    "attention.q_lora_rank": 192,
    "attention.kv_lora_rank": 128,
    "attention.relative_buckets_count": 32,
    "attention.group_norm_epsilon": 1e-5,
    "attention.group_norm_groups": 8,
    "attention.clamp_kqv": 8.0,
    "attention.max_alibi_bias": 8.0,
    "attention.key_length_swa": 64,
    "attention.value_length_swa": 64,
    "attention.indexer.head_count": 32,
    "attention.indexer.key_length": 128,
    "attention.indexer.top_k": 512,
    "embedding_length_per_layer_input": 64,
    "full_attention_interval": 4,
    "logit_scale": 0.5,
    "rope.freq_base_swa": 10000.0,
    "shortconv.l_cache": 3,
    "use_parallel_residual": True,
    "xielu.alpha_n": 0.8,
    "xielu.alpha_p": 0.8,
    "xielu.beta": 0.5,
    "xielu.eps": 1e-6,
}
_FLOATS = re.compile(r"ffn_gate_inp|ssm_conv1d|token_types|position_embd|norm|rel_b|altup|\.bias$|\.scale$")
_KEY = re.compile(r"key not found in model: (\S+)")
_LACKS = re.compile(r"(?:missing )?tensor '([^']+)'(?: not found)?(?!.* has wrong shape)")
_SHAPE = re.compile(r"tensor '([^']+)' has wrong shape; expected ([^;]*?), got")

Shapes = dict[str, tuple[int, ...]]


def header_of(metadata: Mapping[str, Any], tensors: Mapping[str, Sequence[int]]) -> GgufHeader:
    """A header from metadata, and dimensions of tensors as ggml has them."""
    return make_header(
        {key: tuple(value) if isinstance(value, list) else value for key, value in metadata.items()},
        [(name, _type(name, ne), tuple(reversed(ne))) for name, ne in tensors.items()],
    )


def _type(name: str, ne: Sequence[int]) -> str:
    """Matrices are F16, all else F32."""
    stacked = name.endswith("_exps.weight")
    plain = sum(n > 1 for n in ne) <= 1 and not stacked
    return "F32" if plain or _FLOATS.search(name) else "F16"


def read(path: Path = RECORD) -> list[dict[str, Any]]:
    """The recorded files, with what was planned for them."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def unfolded(entry: Mapping[str, Any]) -> Shapes:
    """Dimensions of all tensors of a recorded file."""
    found: Shapes = {}
    for name, _, *ne in entry["tensors"]:
        layers = re.search(r"\{([\d,]+)\}", name)
        for index in layers[1].split(",") if layers else [""]:
            found[name.replace(layers[0], index) if layers else name] = tuple(ne)
    return found


def folded(tensors: Mapping[str, Sequence[int]]) -> list[list[Any]]:
    """Name, type and dimensions of each tensor, those that several layers have as one: `blk.{0,1,2}.attn_q.weight`."""
    layers: dict[tuple[Any, ...], list[str]] = {}
    for name, ne in tensors.items():
        found = re.match(r"((?:enc\.|dec\.)?blk\.)(\d+)(\..+)", name)
        key = f"{found[1]}%{found[3]}" if found else name
        layers.setdefault((key, _type(name, ne), *ne), []).append(found[2] if found else "")
    return [[key.replace("%", "{" + ",".join(of) + "}"), *rest] for (key, *rest), of in layers.items()]


def plans(oracle: Oracle, header: GgufHeader) -> dict[str, Any]:
    """What the library plans under each setting; a setting that it refuses is left out."""
    found = {}
    for name, (settings, count) in SETTINGS.items():
        if name == "drafts" and not any("nextn_predict_layers" in key for key in header.metadata):
            continue
        answer = oracle.ask(header, _ALL | settings, (Gpu(),) * count)
        if answer.error is None:
            graph = answer.settled["graph"]
            found[name] = {
                "nodes": graph["nodes"],
                "splits": graph["splits"],
                "model": answer.model,
                "context": answer.context,
                "compute": answer.compute,
            }
    return found


def discover(oracle: Oracle, metadata: dict[str, Any], tensors: Shapes) -> tuple[dict[str, Any], Shapes]:
    """What a file must have to be loaded, beyond what is given.

    Raises
    ------
    OSError
        If the library says something else than what it lacks.
    """
    architecture = metadata["general.architecture"]
    known: Shapes = {}
    while True:
        answer = oracle.ask(header_of(metadata, tensors), _ALL)
        if answer.error is None:
            return metadata, tensors
        log = answer.settled.get("log", answer.error)
        key, shape, lacking = _KEY.search(log), _SHAPE.search(log), _LACKS.search(log)
        bare = key[1].removeprefix(f"{architecture}.") if key else ""
        if key and key[1] not in metadata and bare in _INSISTED | _EXPERTS:
            metadata[key[1]] = (_INSISTED | _EXPERTS)[bare]
        elif shape:
            ne = tuple(int(n) for n in re.findall(r"-?\d+", shape[2]))
            if min(ne) <= 0:
                raise OSError(f"{architecture}: {shape[1]} would be {ne}")
            tensors[shape[1]] = known[_leaf(shape[1])] = ne
        elif lacking and lacking[1] not in tensors:
            tensors[lacking[1]] = known.get(_leaf(lacking[1]), (1,))
        else:
            raise OSError(f"{architecture}: {answer.error}")


def _leaf(name: str) -> str:
    return re.sub(r"blk\.\d+\.", "", name)


def write(entries: Iterable[Mapping[str, Any]], path: Path = RECORD) -> None:
    """Write the record, a line a file."""
    path.write_text("".join(json.dumps(entry, separators=(",", ":")) + "\n" for entry in entries))


def main(words: Sequence[str] | None = None) -> int:
    """Add a file, or plan all of them again."""
    parser = argparse.ArgumentParser(prog="architectures", description=__doc__)
    parser.add_argument("--discover", metavar="ARCHITECTURE", default="")
    parser.add_argument("--experts", action="store_true")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=JSON")
    parser.add_argument("--tensors", type=json.loads, default={}, metavar="JSON")
    parser.add_argument("--library", type=Path, default=HOME / RELEASE)
    asked = parser.parse_args(words)
    entries = read()
    with Oracle(asked.library) as oracle:
        if asked.discover:
            stated = _SIZES | (_EXPERTS if asked.experts else {})
            stated |= {key: json.loads(value) for key, value in (one.split("=", 1) for one in asked.set)}
            metadata = {f"{asked.discover}.{key}": value for key, value in stated.items()}
            metadata["general.architecture"] = asked.discover
            metadata, tensors = discover(oracle, metadata, {k: tuple(v) for k, v in asked.tensors.items()})
            name = f"{asked.discover}+experts" if asked.experts else asked.discover
            entries = [entry for entry in entries if entry["id"] != name]
            entries.append({"id": name, "metadata": metadata, "tensors": folded(tensors)})
        for entry in entries:
            if not asked.discover or entry is entries[-1]:
                entry["plans"] = plans(oracle, header_of(entry["metadata"], unfolded(entry)))
    write(entries)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
