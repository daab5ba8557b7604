"""What a projector's encoder computes for one picture (`tools/mtmd/clip.cpp`, `tools/mtmd/models/qwen3vl.cpp`).

A program that has one runs it on a picture at start, so that its buffers are as large as most pictures will need.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from willfit.engines.llama_cpp.graph.ops import Graph
from willfit.engines.llama_cpp.graph.scheduler import Backend, Reserved, Scheduler
from willfit.engines.llama_cpp.graph.tensor import Buffer, Node, row_bytes

#: Red, green, blue.
_CHANNELS = 3


@dataclass(frozen=True, slots=True)
class Encoder:
    """The shape of a vision encoder.

    Attributes
    ----------
    layers, hidden, feed_forward, heads
        Of the encoder.
    patch, merge
        Side of a patch in pixels; side in patches of what becomes one token.
    side
        Side in pixels of the picture that it runs on at start.
    output
        Width of the vectors that the model is given.
    fused
        Queries, keys and values are one matrix.
    rotary
        Positions are rotated into queries and keys.
    learned
        Positions are learned, and fitted to the picture.
    frames
        Kernels that see the picture as a frame of a film each.
    gated
        The MLP has a gate.
    known
        It is built so as here; False where another builder only does something like it.
    largest
        Side of the largest picture, of those that are not all brought to one size; 0 where they are.
    """

    layers: int
    hidden: int
    feed_forward: int
    heads: int
    patch: int
    merge: int
    side: int
    output: int
    fused: bool = True
    rotary: bool = True
    learned: bool = True
    frames: int = 2
    gated: bool = False
    known: bool = True
    largest: int = 0

    @property
    def patches(self) -> int:
        """Patches of the picture."""
        return (self.side // self.patch) ** 2


class _Pictures(Graph):
    def __init__(self, shape: Encoder, weights: Buffer, flash: bool) -> None:
        super().__init__()
        self.shape = shape
        self.flash = flash
        self.weights = weights

    def matrix(self, *ne: int, type: str = "F16") -> Node:
        """A weight."""
        a, b, c, d = [*ne, 1, 1, 1, 1][:4]
        return Node("none", type, (a, b, c, d), buffer=self.weights)

    def linear(self, x: Node, width: int) -> Node:
        """A linear layer with a bias."""
        return self.add(self.mul_mat(self.matrix(x.ne[0], width), x), self.matrix(width, type="F32"))

    def normed(self, x: Node) -> Node:
        """A norm with weights and biases."""
        y = self.mul(self.norm(x), self.matrix(x.ne[0], type="F32"))
        return self.add(y, self.matrix(x.ne[0], type="F32"))

    def patched(self, picture: Node) -> Node:
        """Patches as vectors in the order of rows: a convolution without overlap."""
        shape = self.shape
        each, count = shape.patch**2 * _CHANNELS, shape.side // shape.patch
        kernel = self.matrix(shape.patch, shape.patch, _CHANNELS, shape.hidden)
        columns = self._node("im2col", kernel.type, (each, count, count, 1), [kernel, picture])
        columns = self.reshape(columns, each, count * count)
        y = self.mul_mat(columns, self.reshape(kernel, each, shape.hidden))
        y = self.reshape(y, count, count, 1, shape.hidden)
        return self.cont(self.permute(y, 0, 1, 3, 2))

    def grouped(self, x: Node) -> Node:
        """Vectors of patches with those side by side that become one token."""
        shape = self.shape
        count, merge = shape.side // shape.patch, shape.merge
        y = self.reshape(x, shape.hidden * merge, count // merge, merge, count // merge)
        return self.cont(self.permute(y, 0, 2, 1, 3), shape.hidden, shape.patches)

    def start(self) -> Node:
        """What goes into the first layer."""
        shape = self.shape
        count = shape.side // shape.patch
        picture = self.input("F32", shape.side, shape.side, _CHANNELS, name="picture")
        x = self.patched(picture)
        for _ in range(shape.frames - 1):
            x = self.add(x, self.patched(picture))
        x = self.permute(x, 1, 2, 0, 3)
        if shape.merge > 1:
            x = self.grouped(self.cont(x, shape.hidden * shape.merge, count // shape.merge, count))
        else:
            x = self.cont(x, shape.hidden, shape.patches)
        x = self.add(x, self.matrix(shape.hidden, type="F32"))
        if shape.learned:
            table = self.matrix(count, count, shape.hidden, type="F32")
            fitted = self.permute(self._like("upscale", table), 1, 2, 0, 3)
            fitted = self.cont(fitted, shape.hidden, shape.patches)
            if shape.merge > 1:
                fitted = self.cont(fitted, shape.hidden * shape.merge, count // shape.merge, count)
                fitted = self.grouped(fitted)
            x = self.add(x, fitted)
        return x

    def attention(self, x: Node, positions: Node) -> Node:
        """Attention among all patches."""
        shape = self.shape
        width, count = shape.hidden // shape.heads, x.ne[1]
        if shape.fused:
            both = self.linear(x, 3 * shape.hidden)
            steps = (row_bytes("F32", width), both.nb[1])
            parts = [
                self.view(both, (width, shape.heads, count), steps, row_bytes("F32", index * shape.hidden))
                for index in range(3)
            ]
        else:
            parts = [self.reshape(self.linear(x, shape.hidden), width, shape.heads, count) for _ in range(3)]
        q, k, v = parts
        if shape.rotary:
            q, k = self.rope(q, positions), self.rope(k, positions)
        for one in (q, k, v):
            self.expand(one)
        q, k, v = (self.permute(one, 0, 2, 1, 3) for one in (q, k, v))
        if self.flash:
            y = self.flash_attn(q, self.cast(k, "F16"), self.cast(v, "F16"), None)
            return self.linear(self.reshape(y, shape.hidden, count), shape.hidden)
        v = self.cont(self.transpose(v))
        y = self.mul_mat(v, self.soft_max(self.mul_mat(k, q)))
        return self.linear(self.cont(self.permute(y, 0, 2, 1, 3), shape.hidden, count), shape.hidden)

    def mlp(self, x: Node) -> Node:
        """The MLP of a layer."""
        shape = self.shape
        y = self.linear(x, shape.feed_forward)
        gate = self.linear(x, shape.feed_forward) if shape.gated else None
        return self.linear(
            self.unary("gelu", y) if gate is None else self.glu("swiglu", gate, y), shape.hidden
        )

    def build(self) -> None:
        """All of it."""
        shape = self.shape
        positions = self.input("I32", 4 * shape.patches, name="positions")
        x = self.start()
        for index in range(shape.layers):
            self.layer = index
            x = self.add(self.attention(self.normed(x), positions), x)
            x = self.add(x, self.mlp(self.normed(x)))
        self.layer = -1
        x = self.normed(x)
        merged = shape.merge**2
        x = self.reshape(x, shape.hidden * merged, shape.patches // merged)
        x = self.linear(self.unary("gelu", self.linear(x, x.ne[0])), shape.output)
        x.is_output = True
        self.expand(x)


def reserve(shape: Encoder, backends: Sequence[Backend], device: int | None, flash: bool) -> Reserved:
    """What the compute buffers of an encoder hold.

    Parameters
    ----------
    backends
        Its device, if it has one, and the processor.
    device
        Index of the device that its weights are on; None on the host.
    flash
        Attention without scores in memory.
    """
    place = backends[0].place if device is not None else "CPU"
    graph = _Pictures(shape, Buffer(place, device, weights=True), flash)
    graph.build()
    return Scheduler(backends).reserve(graph.nodes, graph.leafs)
