"""Peak rate of a processor from its cores and clock."""

from __future__ import annotations

from willfit.rules.result import RuleResult


def peak_flops(cores: int, clock_mhz: int, flop_per_cycle: int = 2) -> RuleResult:
    """Cores x clock x operations per cycle, in FLOP/s.

    Parameters
    ----------
    cores
        Arithmetic units (CUDA cores, stream processors).
    clock_mhz
        Clock in MHz.
    flop_per_cycle
        Operations of one unit in one cycle; a fused multiply-add counts as 2.
    """
    return RuleResult(
        name="peak FLOP/s",
        inputs={"cores": cores, "clock_mhz": clock_mhz, "flop_per_cycle": flop_per_cycle},
        value=cores * clock_mhz * 10**6 * flop_per_cycle,
        unit="FLOP/s",
        formula=f"{cores} cores x {clock_mhz} MHz x {flop_per_cycle} FLOP per cycle",
        why="Matrices run on tensor cores with rates of their own, and decoding waits for memory instead.",
        source="how vendors derive the fp32 rate in their data sheets",
    )
