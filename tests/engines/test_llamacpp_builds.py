"""Builds of llama.cpp by releases, and by the programs that ship it."""

import pytest

from willfit.engines.llama_cpp.builds import NEWEST_BUILD, build_inside, build_of
from willfit.errors import BadInput


@pytest.mark.parametrize(
    ("version", "build"),
    [
        (None, NEWEST_BUILD),
        ("b6000", 6000),
        ("6000", 6000),
        ("b6000-abc1234", 6000),
        ("0.5.0", 11312),
        ("v0.4.1", 10964),
        ("0.4.7", 10964),  # not known: the one before it
        ("9.0", 11312),
        ("0.0.1", 10454),
    ],
)
def test_a_version_names_a_build(version, build):
    assert build_of(version) == build


def test_what_names_no_build():
    with pytest.raises(BadInput, match="cannot read the build 'master'"):
        build_of("master")
    with pytest.raises(BadInput):
        build_of("x.y")


@pytest.mark.parametrize(
    ("program", "version", "build"),
    [
        ("llama-cpp-python", "0.2.20", 1573),
        ("llama-cpp-python", "0.3.16", 6170),
        ("llama-cpp-python", "0.3.36", 11312),
        ("koboldcpp", "1.90.2", 5227),
        ("koboldcpp", "1.91", 5227),
        ("koboldcpp", "1.0", 969),
    ],
)
def test_programs_ship_a_build(program, version, build):
    assert build_inside(program, version) == build
