"""Reading what llama.cpp logs while it makes a context: sizes in MiB with two decimals, as users see them."""

from __future__ import annotations

import re
from typing import Any

_BUFFER = re.compile(r"(?P<function>\w+): +(?P<buffer>\S+) +(?P<kind>KV|RS|compute|output|DSV4 \S+ state)")
_SIZE = re.compile(r"buffer size = +(?P<mib>[\d.]+) MiB")
_KV = re.compile(
    r"size = +(?P<mib>[\d.]+) MiB \( *(?P<cells>\d+) cells, +(?P<layers>\d+) layers, +(?P<seqs>\d+/\d+) seqs\), "
    r"K \((?P<type_k>\w+)\): +(?P<k_mib>[\d.]+) MiB, V \((?P<type_v>\w+)\): +(?P<v_mib>[\d.]+) MiB"
)
_RS = re.compile(
    r"size = +(?P<mib>[\d.]+) MiB \( *(?P<cells>\d+) cells, +(?P<layers>\d+) layers, +(?P<seqs>\d+) seqs"
    r"(?: +(?P<rs_seq>\d+) rs_seq)?\), R \((?P<type_r>\w+)\): +(?P<r_mib>[\d.]+) MiB, "
    r"S \((?P<type_s>\w+)\): +(?P<s_mib>[\d.]+) MiB"
)
_GRAPH = re.compile(r"graph(?: \(pp bs=\d+, tg bs=\d+\))?: (?P<counts>nodes = .*)")
_COUNT = re.compile(r"(?P<name>[a-z ]+) = (?P<pp>\d+)(?: / (?P<tg>\d+))?")
_LAYERS = re.compile(r"offloaded (?P<layers>\d+)/(?P<of>\d+) layers to GPU")


def read_log(text: str) -> dict[str, Any]:
    """What the lines say.

    Returns
    -------
    dict
        `kv_buffers`, `rs_buffers`, `compute_buffers`, `output_buffers`: (buffer type, MiB) in the order of the log.
        `kv_pools`, `rs_pools`: a dict for each cache. `graph`: nodes, splits, inputs of the prompt's graph, with `_tg`
        those of generation. `layers_offloaded`: (n, of). `flash_attn_refused`: whether `auto` turned it off.
    """
    buffers: dict[str, list[tuple[str, float]]] = {}
    kv_pools, rs_pools = [], []
    graph: dict[str, int] = {}
    refusals = ("Flash Attention not supported, set to disabled", "flash_attn is not compatible")
    found: dict[str, Any] = {"flash_attn_refused": any(words in text for words in refusals)}
    for line in text.splitlines():
        if (size := _SIZE.search(line)) and (buffer := _BUFFER.search(line)):
            kind = buffer["kind"].split()[0].lower()
            buffers.setdefault(f"{kind}_buffers", []).append((buffer["buffer"], float(size["mib"])))
        elif pool := _KV.search(line):
            kv_pools.append(_typed(pool.groupdict()))
        elif pool := _RS.search(line):
            rs_pools.append(_typed(pool.groupdict()))
        elif counts := _GRAPH.search(line):
            for count in _COUNT.finditer(counts["counts"]):
                name = count["name"].strip().replace(" ", "_")
                graph[name] = int(count["pp"])
                graph[f"{name}_tg"] = int(count["tg"] or count["pp"])
        elif layers := _LAYERS.search(line):
            found["layers_offloaded"] = (int(layers["layers"]), int(layers["of"]))
    for kind in ("kv", "rs", "compute", "output"):
        found[f"{kind}_buffers"] = buffers.get(f"{kind}_buffers", [])
    if states := buffers.get("dsv4_buffers"):
        found["state_buffers"] = states
    return {**found, "kv_pools": kv_pools, "rs_pools": rs_pools, "graph": graph}


def _typed(pool: dict[str, str | None]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, text in pool.items():
        if text is None:
            continue
        if name.endswith("mib"):
            found[name] = float(text)
        elif name in ("cells", "layers", "rs_seq"):
            found[name] = int(text)
        else:
            found[name] = text
    return found
