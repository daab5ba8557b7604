"""The device table in the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table

from willfit.hardware.device import Device
from willfit.quantities import GIB


def as_json(devices: Sequence[Device]) -> list[dict[str, Any]]:
    """The devices as JSON."""
    return [
        {
            "name": device.name,
            "vendor": device.vendor,
            "arch": device.arch,
            "year": device.year,
            "compute_capability": device.compute_capability,
            "marketing_bytes": device.marketing_bytes,
            "reported_bytes": device.reported_bytes,
            "usable_bytes": device.usable_bytes,
            "usable_source": device.usable_source,
            "bandwidth_gbs": device.bandwidth_gbs,
            "unified_memory": device.unified_memory,
        }
        for device in devices
    ]


def render(devices: Sequence[Device], console: Console) -> None:
    """Print the devices with their memory as sold, as reported and as usable."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("device")
    table.add_column("vendor", style="dim")
    for name in ("as sold", "reported", "usable", "GB/s"):
        table.add_column(name, justify="right")
    for device in devices:
        sold = f"{device.marketing_bytes / GIB:.0f} GB" if device.marketing_bytes else ""
        bandwidth = f"{device.bandwidth_gbs:,.0f}" if device.bandwidth_gbs else ""
        table.add_row(
            device.name,
            device.vendor,
            sold,
            _gib(device.reported_bytes),
            _gib(device.usable_bytes),
            bandwidth,
        )
    console.print(Padding(table, (1, 2)))


def _gib(size: int | None) -> str:
    return f"{size / GIB:.2f} GiB" if size else ""
