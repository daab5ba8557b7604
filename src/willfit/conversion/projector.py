"""The file of a model's encoders for pictures and sound (`mmproj`), which llama.cpp keeps beside the language model.

Its tensors are those of the encoders, under the names that they have in the checkpoint; the converter cuts some of them
in pieces of the same size.

Source: `MmprojModel` and its subclasses in `conversion/*.py`, and `tools/mtmd/legacy-models` for LLaVA, of llama.cpp
0.5.0.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from willfit.architectures.build import build
from willfit.architectures.model import Architecture, Tensor
from willfit.checkpoints.config import Config
from willfit.checkpoints.gguf import GgufHeader
from willfit.conversion.record import Entry, header_of
from willfit.errors import BadInput
from willfit.file_types import NUMBERS, quantization
from willfit.ggml_types import GGML_TYPES

#: Classes whose encoders the converter reads (`MMPROJ_MODEL_MAP`), by what they begin with.
_READ = (
    "AudioFlamingo3", "BailingMoeV3VL", "CogVLM", "DeepseekOCR", "DeepseekV4For", "DotsOCR", "Exaone4_5_", "Gemma3",
    "Gemma4", "Glm4v", "Glm5Next", "Glm5v", "GlmOcr", "Granite4Vision", "GraniteSpeech", "HunYuanVL", "Idefics3",
    "InternVL", "Janus", "KimiK25", "KimiVL", "Lfm2Audio", "Lfm2Vl", "LightOnOCR", "Llama4", "MERaLiON2", "MiMoV2",
    "MiniCPMV4_6", "MiniMaxM3", "Mistral3", "MuseGlimmer", "NemotronH_Nano_VL", "PaddleOCRVL", "Phi4ForCausalLMV",
    "Qwen2Audio", "Qwen2VL", "Qwen2_5Omni", "Qwen2_5_VL", "Qwen3ASR", "Qwen3Omni", "Qwen3VL", "Qwen3_5", "Qwen4Exp",
    "SmolVLM", "StepVL", "Step3p7", "Ultravox", "Voxtral", "YoutuVL",
)  # fmt: skip

#: Classes whose encoder an older program reads.
_LLAVA = ("LlavaFor", "LlavaNextFor")

#: Tables of positions, which are written in F32.
_POSITIONS = re.compile(r"pos(?:ition|itional)?_emb|embed_positions|rel_pos")
#: What single classes write in F32 beyond that.
_FLOAT: dict[str, re.Pattern[str]] = {
    "DeepseekOCR": re.compile(r"\.neck\.|\.net_|\.embeddings\."),
    "Gemma3For": re.compile(r"\.embeddings\."),
    "Idefics3": re.compile(r"\.embeddings\."),
    "SmolVLM": re.compile(r"\.embeddings\."),
}
#: The first matrix, a convolution: in F16 or F32 whatever is asked for.
_PATCHES = re.compile(r"patch_embed\w*\.(?:proj|linear)?\.?weight|patch_merger\.weight|conv[12]\.weight")
#: Text that marks sound, which is no part of the encoder.
_LEFT_OUT = "audio_bos_eos_token"


def projector(
    config: Config, file_type: str = "F16", architecture: Architecture | None = None
) -> GgufHeader | None:
    """The header of the file with a model's encoders; None if it has none that the converter reads.

    Parameters
    ----------
    file_type
        `F16`, as such files are published, `BF16`, `F32` or `Q8_0`.
    architecture
        What `config` describes, if it is at hand.

    Raises
    ------
    BadInput
        If the type is another, or a field of the config is missing or wrong.
    """
    kind = quantization(file_type).file_type
    if kind not in ("F16", "BF16", "F32", "Q8_0"):
        raise BadInput(f"projectors are not made in {file_type}", "known: F16, BF16, F32, Q8_0")
    architecture = architecture or build(config)
    name = next(iter(architecture.class_names), "")
    if _is_pixtral(config):
        name = "Mistral3"
    if not architecture.towers or not name.startswith((*_READ, *_LLAVA)):
        return None
    entries = _llava(architecture) if name.startswith(_LLAVA) else _read(architecture, name, kind)
    modalities = {tower.modality for tower in architecture.towers}
    metadata = {
        "general.architecture": "clip",
        "general.type": "mmproj",
        "general.file_type": NUMBERS[kind],
        "clip.has_vision_encoder": "vision" in modalities,
        "clip.has_audio_encoder": "audio" in modalities,
    }
    return header_of(entries, metadata)


def _is_pixtral(config: Config) -> bool:
    """LLaVA's class with the encoder that the converter reads."""
    section = config.section("vision_config")
    return section is not None and section.text("model_type", default="") == "pixtral"


def _llava(architecture: Architecture) -> Iterator[Entry]:
    """Matrices in F16, without the last layer and the norm behind it, whose result is not used."""
    for tower in architecture.towers:
        for tensor in tower.tensors:
            if "post_layernorm" in tensor.name:
                continue
            unused = 1 if "{layer}" in tensor.name else 0
            for index in range(tensor.copies - unused):
                called = tensor.name.replace("{layer}", str(index))
                yield Entry(called, tensor.shape[::-1], "F16" if len(tensor.shape) > 1 else "F32")


def _read(architecture: Architecture, name: str, kind: str) -> Iterator[Entry]:
    forced = next((pattern for start, pattern in _FLOAT.items() if name.startswith(start)), None)
    for tower in architecture.towers:
        for tensor in tower.tensors:
            if _LEFT_OUT in tensor.name:
                continue
            entry = _entry(tensor, name, kind, forced)
            for index in range(tensor.copies):
                yield entry._replace(name=entry.name.replace("{layer}", str(index)))
    if name.startswith("Qwen2_5Omni"):  # the table that its encoder of sound computes
        sound = next(tower for tower in architecture.towers if tower.modality == "audio")
        yield Entry("audio_tower.embed_positions.weight", (sound.hidden_size, _SOUND_POSITIONS), "F32")


#: Positions of 30 seconds of sound in Whisper's encoder.
_SOUND_POSITIONS = 1500


def _entry(tensor: Tensor, name: str, kind: str, forced: re.Pattern[str] | None) -> Entry:
    shape = tensor.shape
    if name.startswith("MuseGlimmer") and tensor.name.endswith("patch_embedding.weight"):
        shape = (shape[0], shape[1] // 2)  # two frames as one
    if (
        sum(size > 1 for size in shape) < 2
        or _POSITIONS.search(tensor.name)
        or (forced and forced.search(tensor.name))
    ):
        chosen = "F32"
    elif _PATCHES.search(tensor.name) or len(shape) > 2:
        chosen = "F16" if kind == "F16" else "F32"
    elif shape[-1] % GGML_TYPES[kind].block:
        chosen = "F16"
    else:
        chosen = kind
    return Entry(tensor.name, shape[::-1], chosen)
