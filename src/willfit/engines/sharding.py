"""What one rank of a tensor- and pipeline-parallel engine holds of the weights, before an engine's own padding."""

from __future__ import annotations

from dataclasses import dataclass

from willfit.engines.base import Subject
from willfit.formats.weights import WeightLine
from willfit.quantities import DTYPE_BYTES, ceil_div

#: Formats of plain numbers, which engines convert to the dtype that they compute in.
_FLOATS = frozenset({"fp32", "fp16", "bf16"})


@dataclass(frozen=True, slots=True)
class Sharding:
    """How weights are spread over ranks.

    Attributes
    ----------
    tensor, pipeline
        Degrees of tensor and pipeline parallelism.
    experts
        Degree of expert parallelism inside the tensor-parallel ranks: so many groups share the experts out, and
        the ranks of a group divide each.
    attention
        Ranks that divide attention, where fewer than the others do (attention data parallelism); None for `tensor`.
    """

    tensor: int = 1
    pipeline: int = 1
    experts: int = 1
    attention: int | None = None

    @property
    def ranks(self) -> int:
        """Devices that one replica takes."""
        return self.tensor * self.pipeline


def parameter_bytes(subject: Subject, sharding: Sharding, dtype: str = "bf16", mtp: bool = False) -> int:
    """Bytes of the parameters of the fullest rank, what is not quantized in `dtype`.

    Stored buffers are not loaded, multi-token-prediction modules only if `mtp` says so. Each stage of a pipeline has
    its share of the layers, the first the embedding, the last the head.
    """
    architecture = subject.architecture
    ends = {id(tensor): "first" for tensor in architecture.embeddings}
    ends |= {id(tensor): "last" for tensor in architecture.head}
    sizes = {"first": 0, "last": 0, "inner": 0}
    for line in subject.lines:
        if (mtp or line.tensor.part != "mtp") and line.tensor.kind != "buffer":
            sizes[ends.get(id(line.tensor), "inner")] += rank_bytes(line, sharding, dtype)
    if sharding.pipeline == 1:
        return sum(sizes.values())
    stage = on_stage(sizes["inner"], len(architecture.layers), sharding.pipeline)
    return stage + max(sizes["first"], sizes["last"] + (sizes["first"] if architecture.tied else 0))


def on_stage(size: int, layers: int, stages: int) -> int:
    """What the fullest stage of a pipeline holds of something that all layers have alike."""
    return ceil_div(size * ceil_div(layers, stages), max(layers, 1))


def rank_bytes(line: WeightLine, sharding: Sharding, dtype: str = "bf16") -> int:
    """Bytes of a line on one rank, plain numbers as `dtype`."""
    tensor, ranks = line.tensor, sharding.tensor
    whole, share = 1, 1
    if tensor.part == "attention" and sharding.attention is not None:
        ranks = sharding.attention
    if tensor.part == "experts" and sharding.experts > 1:
        ranks = max(1, ranks // sharding.experts)
        whole = tensor.copies if tensor.copies > 1 else tensor.shape[0]
        share = ceil_div(whole, sharding.experts)
    size, name = line.on_rank(ranks), line.format.name
    if name in _FLOATS:
        size = size // DTYPE_BYTES[name] * DTYPE_BYTES[dtype]
    return ceil_div(size * share, whole)
