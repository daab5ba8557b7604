"""What is asked about where nothing is named: the devices of this machine."""

from willfit import asking
from willfit.hardware.host import HostMemory
from willfit.hardware.probe import DetectedDevice
from willfit.hardware.table import find_device

GIB = 2**30
CARD = find_device("rtx4090")


def machine(monkeypatch, free, **given):
    found = (DetectedDevice(CARD, 24 * GIB, free, 0),)
    monkeypatch.setattr("willfit.hardware.detect.detect_devices", lambda: found)
    monkeypatch.setattr("willfit.hardware.detect.detect_host", lambda: HostMemory(64 * GIB, 50 * GIB))
    return asking.this_machine(**given)


def test_what_is_free_counts_and_what_is_used_is_said(monkeypatch):
    busy = machine(monkeypatch, 14 * GIB)
    assert busy.devices[0].usable_bytes == 14 * GIB
    assert "10.00 GiB of GeForce RTX 4090 are in use now" in busy.devices[0].assumption
    assert machine(monkeypatch, 24 * GIB - GIB // 4).devices[0].assumption == ""


def test_ram_that_is_named_counts_instead_of_what_is_available(monkeypatch):
    assert machine(monkeypatch, 20 * GIB).host_bytes == 50 * GIB
    assert machine(monkeypatch, 20 * GIB, host_ram="128G").host_bytes == 128 * GIB


def test_a_fork_is_answered_by_the_module_of_its_origin():
    words = [
        "./ik_llama.cpp/build/bin/llama-server",
        "-m",
        "Qwen3-8B-Q4_K_M.gguf",
        "-c",
        "4096",
        "-ngl",
        "99",
    ]
    found = asking.ask_command(words, asking.machine_of("rtx4090"), offline=True)
    assert (found.engine, found.verdict) == ("ik_llama.cpp", "fits")
    newer = asking.ask_command(words, asking.machine_of("rtx4090"), version="b99999", offline=True)
    assert any("ik_llama.cpp b99999 is not known; it is taken to behave as b" in note for note in newer.notes)
