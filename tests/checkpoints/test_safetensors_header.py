import pytest
import torch
from checkpoint_files import Bytes, local, safetensors, tensor, traced_peak
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from willfit.checkpoints.safetensors import StoredTensor, read_header
from willfit.checkpoints.source import LocalFile
from willfit.errors import BadInput

TORCH_NAMES = {
    torch.float64: "fp64", torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16",
    torch.float8_e4m3fn: "fp8_e4m3", torch.float8_e5m2: "fp8_e5m2", torch.float8_e8m0fnu: "fp8_e8m0",
    torch.int64: "int64", torch.int32: "int32", torch.int16: "int16", torch.int8: "int8",
    torch.uint8: "uint8", torch.bool: "bool", torch.uint16: "uint16", torch.complex64: "complex64",
}  # fmt: skip


@settings(max_examples=40)
@given(
    st.dictionaries(
        st.text(min_size=1, max_size=12).filter(lambda name: name != "__metadata__"),
        st.tuples(st.sampled_from(list(TORCH_NAMES)), st.lists(st.integers(0, 5), max_size=4)),
        max_size=6,
    )
)
def test_agrees_with_the_reference_writer(tmp_path_factory, wanted):
    path = tmp_path_factory.mktemp("st") / "model.safetensors"
    tensors = {
        name: torch.zeros(shape, dtype=torch.uint8).to(dtype) for name, (dtype, shape) in wanted.items()
    }
    save_file(tensors, path, metadata={"format": "pt"})
    with LocalFile(path) as source:
        found = read_header(source)
    assert {(t.name, t.dtype, t.shape, t.bytes) for t in found} == {
        (name, TORCH_NAMES[t.dtype], tuple(t.shape), t.numel() * t.element_size())
        for name, t in tensors.items()
    }


def test_types_below_a_byte():
    # fp4: 3 x 6 x 4 bit = 72 bit = 9 B; fp6: 4 x 6 bit = 24 bit = 3 B
    entries = {"a": tensor("F4", [3, 6], 0, 9), "b": tensor("F6_E3M2", [4], 9, 12)}
    assert read_header(Bytes(safetensors(entries, 12))) == (
        StoredTensor("a", "fp4", (3, 6), 9),
        StoredTensor("b", "fp6_e3m2", (4,), 3),
    )


def test_unknown_size_is_not_checked_against():
    data = safetensors({"a": tensor("F32", [8], 0, 32)}, 0)
    assert read_header(Bytes(data, sized=False)) == (StoredTensor("a", "fp32", (8,), 32),)


BROKEN = {
    "overlap": ({"a": tensor("U8", [4], 0, 4), "b": tensor("U8", [4], 2, 6)}, 6, "overlaps"),
    "gap": ({"a": tensor("U8", [4], 0, 4), "b": tensor("U8", [4], 5, 9)}, 9, "gap"),
    "beyond the file": ({"a": tensor("U8", [4], 0, 4)}, 3, "truncated"),
    "rest": ({"a": tensor("U8", [4], 0, 4)}, 5, "belong to no tensor"),
    "shape and offsets": ({"a": tensor("F32", [4], 0, 8)}, 8, "16 bytes by its shape, 8 by its offsets"),
    "half a byte": ({"a": tensor("F4", [3], 0, 1)}, 1, "whole bytes"),
    "unknown type": ({"a": tensor("F5", [3], 0, 1)}, 1, "unknown type 'F5'"),
    "type is a list": ({"a": {"dtype": ["U8"], "shape": [1], "data_offsets": [0, 1]}}, 1, "unknown type"),
    "negative size": ({"a": tensor("U8", [-1, -4], 0, 4)}, 4, "no valid shape"),
    "size is true": ({"a": tensor("U8", [True], 0, 1)}, 1, "no valid shape"),
    "size is a float": ({"a": tensor("U8", [1.0], 0, 1)}, 1, "no valid shape"),
    "huge size": ({"a": tensor("U8", [2**64], 0, 1)}, 1, "no valid shape"),
    "huge product": ({"a": tensor("U8", [2**62] * 60, 0, 1)}, 1, "by its shape"),
    "backward offsets": ({"a": tensor("U8", [0], 4, 0)}, 4, "by its offsets"),
    "one offset": ({"a": {"dtype": "U8", "shape": [1], "data_offsets": [0]}}, 1, "no valid offsets"),
    "entry is a list": ({"a": [1]}, 0, "not described by an object"),
    "metadata is a number": ({"__metadata__": {"a": 1}}, 0, "__metadata__"),
    "twice": ('{"a": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}, "a": 1}', 0, "occurs twice"),
    "NaN": ('{"a": NaN}', 0, "NaN"),
    "not closed": ('{"a": ', 0, "not JSON"),
    "nested": ('{"a":' + "[" * 200_000, 0, "nests too deeply"),
}


@pytest.mark.parametrize(("entries", "data_bytes", "says"), BROKEN.values(), ids=list(BROKEN))
def test_contradictions_are_named_and_the_reference_reader_refuses_them_too(
    tmp_path, entries, data_bytes, says
):
    data = safetensors(entries, data_bytes)
    with pytest.raises(BadInput, match=says), local(tmp_path / "a.safetensors", data) as source:
        read_header(source)
    if says != "occurs twice":  # the reference takes the last one of two
        with pytest.raises(SafetensorError), safe_open(tmp_path / "a.safetensors", framework="pt"):
            pass


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "empty"),
        (b"\n<!DOCTYPE html><html>Sign in", "HTML"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n", "Git LFS"),
        (b"PK\x03\x04" + bytes(100), "pickle"),
        (b"GGUF\x03\0\0\0" + bytes(40), "GGUF file"),
        ((2**63).to_bytes(8, "little") + b"{}", "9223372036854775808 bytes long"),
        ((100_000_001).to_bytes(8, "little") + b"{}" + bytes(100), "100000001 bytes long"),
        ((1000).to_bytes(8, "little") + b"{}", "truncated"),
        ((1).to_bytes(8, "little") + b"{}", "not JSON"),
    ],
)
@pytest.mark.parametrize("sized", [True, False])
def test_other_files_are_named(data, says, sized):
    with pytest.raises(BadInput, match=says):
        read_header(Bytes(data, sized))


GOOD = safetensors(
    {
        "__metadata__": {"format": "pt"},
        "w.weight": tensor("BF16", [4, 8], 0, 64),
        "b": tensor("F32", [4], 64, 80),
    },
    80,
)


def test_truncated_anywhere_is_bad_input():
    for length in range(len(GOOD)):
        with pytest.raises(BadInput):
            read_header(Bytes(GOOD[:length]))


def test_any_flipped_bit_gives_a_consistent_header_or_bad_input():
    accepted = 0
    for bit in range(8 * (len(GOOD) - 80)):
        data = bytearray(GOOD)
        data[bit // 8] ^= 1 << bit % 8
        try:
            tensors = read_header(Bytes(bytes(data)))
        except BadInput:
            continue
        accepted += 1
        assert sum(t.bytes for t in tensors) == 80
    assert accepted > 0  # a flipped letter of a name is no contradiction


@given(st.binary(max_size=300))
def test_any_bytes_are_bad_input(data):
    with pytest.raises(BadInput):
        read_header(Bytes(data.replace(b"}", b"")))


def test_a_hostile_header_takes_bounded_memory():
    # 8 MB of empty lists would parse to 2.7 million lists of 56 B and more
    hostile = safetensors('{"a":[' + "[]," * 2_700_000 + "[]]}", 0)

    def read() -> None:
        with pytest.raises(BadInput, match="more than 524288 tensors"):
            read_header(Bytes(hostile))

    assert traced_peak(read) < 2 * len(hostile) + 2**20
