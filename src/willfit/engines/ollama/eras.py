"""What changed in Ollama, and when.

Read at the release tags 0.1.33 to 0.32.15: `llm/memory.go` (estimates of versions up to 0.12.10), `llm/ggml.go`, from
0.5.12 on `fs/ggml/ggml.go` (sizes by architecture), `llm/server.go` and `llm/llama_server.go` (layouts, what is
started), `server/sched.go` (sequences at once), `server/routes.go` and `envconfig/config.go` (defaults),
`ml/backend/ggml/ggml.go` and `kvcache/` (the engine of its own), `llama/llama.go` and `LLAMA_CPP_VERSION`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from willfit.engines.versions import Version, changed, era_of, succession
from willfit.quantities import GIB

NEWEST = "0.32.15"

#: How Ollama decides which layers go to devices. `pooled`: what is free on all devices is one number. `each`: device by
#: device, layers in turn. `layout`: from the last layer on, as evenly as they fit. `fit`: llama-server decides.
Placing = Literal["pooled", "each", "layout", "fit"]


@dataclass(frozen=True, slots=True)
class Era:
    """How Ollama behaves from a version on.

    Attributes
    ----------
    since
        First version that behaves so.
    llama_cpp
        The build of llama.cpp that is linked, or from 0.30 on started.
    placing
        How its llama.cpp models are placed; see `Placing`.
    measured
        The engine of its own says what it needs before anything is placed; before, that is estimated as for llama.cpp.
    auto_flash
        llama.cpp decides about flash attention where nobody did.
    cache_types
        A quantized cache can be asked for, and estimates know of it.
    context
        Tokens of a sequence by default; 0: by the devices' memory.
    caps_context
        More context than the model was trained for is cut back.
    parallel
        Sequences at once by default: so many if they fit, else one.
    single_projector
        Models with a projector file answer one at a time, whatever is asked.
    ubatch
        A micro-batch has the batch's tokens; before, llama.cpp's 512.
    packs_devices
        A model that does not fit on one device goes to the fewest that hold it; before, to all.
    maps
        When llama.cpp maps the file where nobody says: `always`; where the host has `roomy` memory for it; and only
        with layers on `devices`.
    direct_io
        Files are read past the page cache for devices that share the host's memory.
    gpu_overhead
        OLLAMA_GPU_OVERHEAD keeps memory of each device free.
    buffer_layer
        What is added on each device as a reserve: nothing, the `first` layer, or the `largest` group of tensors.
    weights_logged
        What `memory.weights.total` counts: `weights`; layers with their cache (`cached`), or without (`layers`), both
        without the output layer.
    from_last
        Layers are placed from the last to the first, and what stays on the host counts as it is; before, each of those
        counts like the last one.
    inline_vision
        Where an image encoder in the model's own file is counted: nowhere, on the `first` device, or with the `output`.
    cpu_reserve
        Without devices, estimates count a layer in reserve and the graph as well.
    checks_host
        What does not go to devices and is more than free RAM and swap is refused, but not on Apple's machines.
    key_lengths
        Estimates know that heads may be wider than the embedding divided by their number.
    head_lists
        Numbers of heads that differ from layer to layer are read.
    recurrent_states
        Estimates know layers without attention heads.
    windows
        In the engine of its own sliding layers keep no more than their window.
    spare_token
        Of several sequences each keeps a token beyond the window.
    padding
        Cells of its caches without flash attention are a multiple of this.
    half_masks, gates_at_once
        In its graphs masks are F16 with flash attention from the start, and activations and gates are one operation.
    counts_pool
        What CUDA's kernels take beside its graphs is counted with them.
    wide_flash
        CUDA's flash attention has kernels for heads of 512 elements; without them it runs on the processor.
    encoder_flash
        Its image encoders have flash attention too.
    checkpoints
        Earlier recurrent states that it keeps for each sequence.
    projector_room
        Bytes that each device must have free so that llama-server puts the projector on one.
    projector_beside
        So many beside the projector; before, with it.
    projector_shared
        Devices that share the host's memory and may hold it: none, `metal`, `all`.
    projector_target
        llama-server is told to leave room for it.
    """

    since: Version
    llama_cpp: str = "b2770"
    placing: Placing = "pooled"
    measured: bool = False
    auto_flash: bool = False
    cache_types: bool = False
    context: int = 2048
    caps_context: bool = True
    parallel: int = 1
    single_projector: bool = False
    ubatch: bool = False
    packs_devices: bool = False
    maps: Literal["always", "roomy", "devices"] = "always"
    direct_io: bool = False
    gpu_overhead: bool = False
    buffer_layer: Literal["none", "first", "largest"] = "none"
    weights_logged: Literal["weights", "cached", "layers"] = "weights"
    from_last: bool = False
    inline_vision: Literal["", "first", "output"] = ""
    cpu_reserve: bool = True
    checks_host: bool = False
    key_lengths: bool = False
    head_lists: bool = False
    recurrent_states: bool = False
    windows: bool = False
    spare_token: bool = False
    padding: int = 32
    half_masks: bool = False
    gates_at_once: bool = False
    counts_pool: bool = False
    wide_flash: bool = False
    encoder_flash: bool = False
    checkpoints: int = 0
    projector_room: int = 10 * GIB
    projector_beside: bool = False
    projector_shared: Literal["", "metal", "all"] = ""
    projector_target: bool = False


ERAS = succession(
    Era((0, 0)),
    changed((0, 1, 34), buffer_layer="first"),
    changed((0, 1, 35), caps_context=False),
    changed((0, 1, 39), llama_cpp="b2986"),
    changed((0, 1, 40), llama_cpp="b3051"),
    changed((0, 1, 45), llama_cpp="b3171", placing="each", weights_logged="cached", key_lengths=True),
    changed((0, 1, 46), maps="roomy"),
    changed((0, 2), llama_cpp="b3337", parallel=4, single_projector=True, maps="devices"),
    changed((0, 2, 2), checks_host=True),
    changed((0, 2, 8), llama_cpp="b3440"),
    changed((0, 3, 1), llama_cpp="b3485"),
    changed((0, 3, 4), llama_cpp="b3535"),
    changed((0, 3, 10), llama_cpp="b3661", gpu_overhead=True),
    changed((0, 3, 14), llama_cpp="b3862"),
    changed((0, 4, 1), single_projector=False),
    changed((0, 5), cache_types=True),
    changed((0, 5, 2), llama_cpp="b4260"),
    changed((0, 5, 3), llama_cpp="b4327"),
    changed((0, 5, 8), llama_cpp="b4419"),
    changed((0, 5, 13), llama_cpp="b4779"),
    changed((0, 6, 1), weights_logged="layers", inline_vision="first"),
    changed((0, 6, 3), weights_logged="weights", windows=True),
    changed((0, 6, 6), llama_cpp="b5125"),
    changed((0, 6, 7), llama_cpp="b5162", context=4096, parallel=2),
    changed((0, 6, 8), llama_cpp="b5237"),
    changed((0, 7), llama_cpp="b5359", buffer_layer="largest", from_last=True),
    changed((0, 7, 1), buffer_layer="first", inline_vision="output"),
    changed((0, 8), half_masks=True),
    changed((0, 9, 3), head_lists=True, caps_context=True),
    changed((0, 10), parallel=1),
    changed((0, 11, 5), llama_cpp="b6121", packs_devices=True),
    changed((0, 11, 11), measured=True, recurrent_states=True),
    changed((0, 12), gates_at_once=True),
    changed((0, 12, 4), llama_cpp="b6646", spare_token=True, counts_pool=True),
    changed((0, 12, 6), llama_cpp="b6752"),
    changed((0, 12, 7), cpu_reserve=False, half_masks=False),
    changed((0, 12, 11), llama_cpp="b6840", placing="layout"),
    changed((0, 13, 2), llama_cpp="b7209", padding=256, encoder_flash=True),
    changed((0, 13, 3), llama_cpp="b7345", ubatch=True),
    changed((0, 13, 4), auto_flash=True),
    changed((0, 13, 5), llama_cpp="b7437"),
    changed((0, 15, 5), context=0, checkpoints=24),
    changed((0, 20, 4), wide_flash=True),
    changed((0, 30), llama_cpp="b9452", placing="fit", checks_host=False),
    changed((0, 30, 1), llama_cpp="b9479"),
    changed((0, 30, 4), llama_cpp="b9493", projector_shared="metal"),
    changed((0, 30, 5), llama_cpp="b9509"),
    changed((0, 30, 9), llama_cpp="b9626"),
    changed((0, 30, 10), llama_cpp="b9672"),
    changed((0, 30, 11), llama_cpp="b9781", projector_room=GIB, projector_beside=True),
    changed((0, 31), llama_cpp="b9840"),
    changed((0, 31, 2), llama_cpp="b9888", projector_target=True, projector_shared="all"),
    changed((0, 32, 2), llama_cpp="b10069", direct_io=True),
    changed((0, 32, 3), llama_cpp="b10091"),
    changed((0, 32, 6), llama_cpp="b10242"),
    changed((0, 32, 8), llama_cpp="b10353"),
    changed((0, 32, 10), llama_cpp="b10380"),
    changed((0, 32, 14), llama_cpp="b10434"),
    changed((0, 32, 15), llama_cpp="b10488"),
)


def era_for(version: str) -> Era:
    """The era of a version."""
    return era_of(version, ERAS)
