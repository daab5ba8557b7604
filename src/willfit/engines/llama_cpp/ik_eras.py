"""What ik_llama.cpp does differently from build to build: one table.

It counts its commits, too: it left llama.cpp in August 2024, and took little of it since.
"""

from __future__ import annotations

from willfit.engines.llama_cpp.era import Era
from willfit.engines.versions import changed, succession

#: The build that is assumed without a word.
NEWEST_IK = "b4840"

#: Types of its own that ik_llama.cpp's CUDA can multiply with, in the order in which they came.
_OWN: tuple[tuple[int, tuple[str, ...]], ...] = (
    (
        0,
        (
            "IQ1_BN",
            "IQ2_BN",
            "IQ2_K",
            "IQ3_K",
            "IQ4_K",
            "IQ5_K",
            "IQ6_K",
            "Q6_0",
            "IQ4_KS",
            "IQ2_KS",
            "IQ4_KSS",
        ),
    ),
    (3696, ("IQ5_KS",)),
    (3707, ("IQ2_KT", "IQ3_KT", "IQ4_KT")),
    (3714, ("IQ2_K_R4", "IQ3_K_R4", "IQ4_K_R4", "IQ5_K_R4")),
    (3715, ("IQ4_KS_R4", "IQ5_KS_R4")),
    (3726, ("IQ1_S_R4",)),
    (3729, ("IQ1_M_R4",)),
    (3778, ("IQ3_KS",)),
    (3800, ("IQ2_KL",)),
    (3810, ("IQ1_KT",)),
)


def _own(build: int) -> tuple[str, ...]:
    return tuple(kind for since, kinds in _OWN if since <= build for kind in kinds)


IK_ERAS: tuple[Era, ...] = succession(
    Era(
        (0,),
        splits_batch=True,
        offloads_products=True,
        spare_sequence=True,
        multiplies=_own(0),
        takes_over="rows",
        places_blindly=True,
        rotates_apart=True,
        keys_early=True,
        output_rows="sequences",
        results="either",
        encodes_late=True,
        caches_encoders=True,
        mask_padding=32,
    ),
    changed((3413,), fuses_norms=True),
    changed((3478,), fuses_gates=True),
    changed((3480,), sums_experts="plain"),
    changed((3541,), latent_cache=True, chooses_latents=True),
    changed((3561,), keys_by_head=True),
    changed((3590,), multiplies_halves=True),
    changed((3597,), maps_overrides=True),
    changed((3683,), takes_over="fused"),
    changed((3696,), multiplies=_own(3696)),
    changed((3707,), multiplies=_own(3707)),
    changed((3714,), multiplies=_own(3714)),
    changed((3715,), multiplies=_own(3715)),
    changed((3726,), multiplies=_own(3726)),
    changed((3729,), multiplies=_own(3729)),
    changed((3745,), takes_over="shared"),
    changed((3778,), multiplies=_own(3778)),
    changed((3780,), mask_padding=64),
    changed((3800,), multiplies=_own(3800)),
    changed((3810,), multiplies=_own(3810)),
    changed((3827,), caches_drafts=True),
    changed((3838,), products_apart=True),
    changed((3869,), fuses_dense=True),
    changed((3873,), pipeline_copies=1),
    changed((3886,), weights_early=True),
    changed((3907,), half_masks=True, mask_padding=16),
    changed((3909,), doubles_biases=True),
    changed((3916,), keeps_expert_biases=True),
    changed((3918,), caches_drafts=False),
    changed((3926,), sums_experts="weighted"),
    changed((3928,), flash_on=True, fuses_experts=True),
    changed((3953,), spare_sequence=False),
    changed((3983,), mla=3),
    changed((4832,), attention_mib=256),
)
