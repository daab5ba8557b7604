"""What vLLM's profile run takes for encoders of images, videos and sounds: how many items of what size.

V1 encodes as many of the largest items as the encoder budget holds, all at once, and keeps their vectors while the
language model runs (`v1/worker/gpu_model_runner.py: profile_run`, `multimodal/encoder_budget.py`, 0.33; before 0.10
`profile_run` itself). V0 gives each sequence its items (`worker/model_runner.py`, `worker/enc_dec_model_runner.py`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

from willfit.architectures.model import Architecture, Tensor, Tower
from willfit.engines.base import Subject
from willfit.engines.versions import Version, parse_version
from willfit.engines.vllm.profiling.runner import uses_v2_runner
from willfit.engines.vllm.settings import Resolved, Settings
from willfit.quantities import ceil_div, round_up

#: A tiled encoder pads the positions of a tile to a multiple of this (`models/mllama.py`).
_TILE_STEP = 8

#: Hidden states that a tiled encoder holds in its last layers: five kept outputs and the residual.
_TILED_STATES = 6

#: Models whose largest video is as many of the largest images as fit into a sequence, two frames each, at most this
#: many, and until when it was one more (`models/qwen2_vl.py: _MAX_FRAMES_PER_VIDEO`).
_VIDEOS_OF_IMAGES = frozenset({"qwen2_vl", "qwen2_5_vl"})
_MOST_PAIRS = 7
_ONE_PAIR_MORE_UNTIL: Version = (0, 11)

#: Gemma 4's videos: frames, and tokens of each, of which the encoder makes all but the marks and the time
#: (`models/gemma4_mm.py: get_mm_max_tokens_per_item`).
_GEMMA_4_FRAMES, _GEMMA_4_FRAME, _GEMMA_4_MARKS = 32, 70, 2 + 6

#: Sounds that may be as long as the context (`models/voxtral.py: get_max_audio_tokens`).
_SOUNDS_TO_THE_END = frozenset({"voxtral"})

#: Items are counted into the budget rounded up before this version.
_ROUNDS_DOWN: Version = (0, 10)

#: Patches and frames for each token where a family does not say.
_POSITIONS_PER_TOKEN = {"vision": 4, "audio": 2}


@dataclass(frozen=True, slots=True)
class EncoderRun:
    """What the profile's encoders take.

    Attributes
    ----------
    running
        Bytes at their widest instant.
    least, most
        The same with the fewest and the most copies that attention kernels make of queries, keys and values.
    kept
        Bytes that are there while the language model runs: their vectors, and what they were made of.
    formula
        What is encoded; gives `running`.
    """

    running: int = 0
    least: int = 0
    most: int = 0
    kept: int = 0
    formula: str = ""


@dataclass(frozen=True, slots=True)
class _Item:
    """The largest thing that an encoder is given: tokens of the language model, positions of its own."""

    what: str
    tokens: int
    positions: int


def encoder_run(subject: Subject, resolved: Resolved, settings: Settings, size: int) -> EncoderRun:
    """What encoding the profile's items takes.

    Parameters
    ----------
    size
        Bytes of an element of the model's dtype.
    """
    architecture = subject.architecture
    if settings.language_model_only or settings.skip_mm_profiling:
        return EncoderRun()
    towers = architecture.towers
    if architecture.encoder and architecture.encoder_tokens:
        towers = (_speech_tower(architecture),)
    found = [(item, tower) for tower in towers if (item := _largest(architecture, tower, resolved, settings))]
    if not found:
        return EncoderRun()
    item, tower = max(found, key=lambda pair: pair[0].tokens)
    if architecture.family == "mllama":
        each = _tiled_elements(architecture, tower)
        live = resolved.max_num_seqs * each * size
        formula = f"{resolved.max_num_seqs} images x {each} elements x {size} B"
        return EncoderRun(live, live, live, 0, formula)
    count = _count(architecture, item, resolved, settings)
    typical, least, most = _elements(tower, settings.tensor_parallel)
    inputs = _input_elements(tower)
    positions = count * item.positions
    vectors = count * item.tokens * architecture.hidden_size * (1 + _deep_levels(tower)) * size
    pixels = positions * inputs * size
    # V0 encodes images and videos one after the other; the V2 runner lets go of pixels once they are encoded.
    kinds = 2 if item.what == "video" and resolved.era.generation == "v0" else 1
    stays = 0 if uses_v2_runner(subject, settings) else kinds * pixels
    return EncoderRun(
        running=positions * typical * size + kinds * pixels,
        least=positions * least * size + kinds * pixels,
        most=positions * most * size + 2 * kinds * pixels,
        kept=kinds * vectors + stays,
        formula=f"{count} {item.what}(s) of {item.tokens} tokens x {item.positions} positions x "
        f"{typical + kinds * inputs} elements x {size} B",
    )


def _largest(
    architecture: Architecture, tower: Tower, resolved: Resolved, settings: Settings
) -> _Item | None:
    """The largest item of a tower that prompts may have; None if they may have none."""
    what = "image" if tower.modality == "vision" else "sound"
    tokens = tower.tokens or resolved.max_num_batched_tokens
    positions = tower.positions or tokens * _POSITIONS_PER_TOKEN[tower.modality]
    if settings.max_pixels and tower.modality == "vision" and tower.tokens:
        each = _pixels_per_position(tower) * positions // tokens
        scaled = max(1, settings.max_pixels // each) if each else tokens
        tokens, positions = scaled, scaled * positions // tokens
    image = _Item(what, tokens, positions)
    allowed = settings.limit("image" if tower.modality == "vision" else "audio") > 0
    if architecture.model_type in _SOUNDS_TO_THE_END:
        windows = ceil_div(resolved.max_model_len, tokens)
        image = _Item(what, resolved.max_model_len, windows * positions)
    video = _video(architecture, image, resolved, settings) if tower.modality == "vision" else None
    if video is not None and settings.limit("video") > 0 and (video.tokens >= tokens or not allowed):
        return video
    return image if allowed else None


def _video(architecture: Architecture, image: _Item, resolved: Resolved, settings: Settings) -> _Item | None:
    """The largest video, where it can be larger than an image."""
    if architecture.model_type in _VIDEOS_OF_IMAGES:
        most = _MOST_PAIRS + (parse_version(settings.version) < _ONE_PAIR_MORE_UNTIL)
        pairs = max(1, min(most, resolved.max_model_len // image.tokens))
        return _Item("video", pairs * image.tokens, pairs * image.positions)
    if architecture.model_type == "gemma4":
        positions = _GEMMA_4_FRAMES * _GEMMA_4_FRAME * image.positions // image.tokens
        return _Item("video", _GEMMA_4_FRAMES * (_GEMMA_4_FRAME + _GEMMA_4_MARKS), positions)
    return None


def _count(architecture: Architecture, item: _Item, resolved: Resolved, settings: Settings) -> int:
    """How many of the largest items are encoded at once."""
    sequences, batch = resolved.max_num_seqs, resolved.max_num_batched_tokens
    if resolved.era.generation == "v0":
        if architecture.encoder:
            return sequences
        # An image and a video for each sequence, as many sequences as have room for them.
        kinds = 2 if item.what == "video" else 1
        return max(1, min(sequences, batch // (kinds * item.tokens)))
    budget = max(batch, item.tokens)
    rounds_down = parse_version(settings.version) >= _ROUNDS_DOWN
    within = budget // item.tokens if rounds_down else ceil_div(budget, item.tokens)
    modality = {"image": "image", "video": "video", "sound": "audio"}[item.what]
    limit = 1 if architecture.encoder else settings.limit(modality)
    per_prompt = max(1, min(limit, resolved.max_model_len // item.tokens))
    if architecture.encoder:
        # Encoders and decoders in one do not chunk prompts.
        sequences = min(sequences, batch // item.tokens)
    return max(1, min(within, sequences * per_prompt))


def _elements(tower: Tower, ranks: int) -> tuple[int, int, int]:
    """Elements of a position that are alive at the widest instant of a layer: as a rule, at least, at most.

    Either the MLP with its residual stream, its normalized input and both widths; or attention with queries, keys and
    values together, queries and keys once more to be rotated and once rotated, and the output (`models/qwen2_5_vl.py:
    Qwen2_5_VisionAttention`). Some kernels copy less, and some rotate in fp32.
    """
    hidden, width, heads = tower.hidden_size, ceil_div(tower.width, ranks), ceil_div(tower.hidden_size, ranks)
    gated = any("gate" in tensor.name and tensor.copies > 1 for tensor in tower.tensors)
    mlp = 2 * hidden + (3 if gated else 2) * width
    return (
        max(mlp, hidden + 8 * heads),
        max(mlp - hidden, hidden + 4 * heads),
        max(mlp + width, hidden + 14 * heads),
    )


def _input_elements(tower: Tower) -> int:
    """Elements of an image or a spectrogram for each position: what the first kernel takes."""
    kernel = _first_kernel(tower)
    if kernel is None:
        return 0
    if tower.modality == "audio":
        # The second convolution of the stem halves the frames.
        return 2 * kernel.shape[1]
    return prod(kernel.shape[1:])


def _pixels_per_position(tower: Tower) -> int:
    kernel = _first_kernel(tower)
    return kernel.shape[-1] * kernel.shape[-2] if kernel is not None and len(kernel.shape) > 2 else 0


def _first_kernel(tower: Tower) -> Tensor | None:
    """The convolution, or the linear layer, that patches or frames go through first."""
    return next(
        (
            tensor
            for tensor in tower.tensors
            if tensor.kind == "conv" or (tensor.kind == "linear" and "patch" in tensor.name)
        ),
        None,
    )


def _deep_levels(tower: Tower) -> int:
    """Levels of a Qwen3-VL encoder whose vectors go to the decoder's first layers, beside the last one's."""
    return max((tensor.copies for tensor in tower.tensors if "deepstack" in tensor.name), default=0)


def _speech_tower(architecture: Architecture) -> Tower:
    """Whisper's encoder as a tower."""
    layer = architecture.encoder[0]
    width = layer.feed_forward.width if layer.feed_forward else 0
    heads = getattr(layer.mixers[0], "heads", 1)
    tower = Tower(
        "audio", architecture.embeddings, architecture.hidden_size, len(architecture.encoder), heads, width
    )
    return replace(tower, tokens=architecture.encoder_tokens, positions=architecture.encoder_tokens)


def _tiled_elements(architecture: Architecture, tower: Tower) -> int:
    """Llama 3.2's encoder for the image of a sequence (`worker/enc_dec_model_runner.py: profile_run`).

    Its layers attend over all tiles of an image under a mask that is written out, and hold both widths of the MLP.
    """
    tile = next(t.shape[0] for t in tower.tensors if t.name.endswith("gated_positional_embedding.embedding"))
    positions = ceil_div(architecture.encoder_tokens, tile) * round_up(tile, _TILE_STEP)
    return positions * (2 * tower.width + _TILED_STATES * tower.hidden_size) + positions**2
