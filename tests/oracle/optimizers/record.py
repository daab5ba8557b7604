"""Records what optimizers of other libraries and of older torch keep and take: `tests/data/optimizer_runs.jsonl`.

Their Python files are read from a folder of unpacked wheels, one `NAME-VERSION` each (`pip download --no-deps`, then
unzip); those of older torch from `torch-VERSION`, of which only `torch/optim` and `torch/utils/_foreach_utils.py` are
needed: the steps of any version run on the torch that is installed. Usage: `python record.py FOLDER > runs.jsonl`.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys
import types
import warnings
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "training" / "optimizers"))
from tracker import measure

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
TORCH = ("1.13.1", "2.0.1", "2.1.2", "2.2.2", "2.3.1", "2.4.1", "2.6.0", "2.8.0", "2.10.0", "2.12.0")
DECAY = {"weight_decay": 0.1}

#: willfit's name, module and class of torch, options.
OF_TORCH = (
    ("adam", "adam", "Adam", {}), ("adam", "adam", "Adam", DECAY), ("adamw", "adamw", "AdamW", {}),
    ("nadam", "nadam", "NAdam", {}), ("nadam", "nadam", "NAdam", DECAY), ("radam", "radam", "RAdam", {}),
    ("radam", "radam", "RAdam", DECAY), ("adamax", "adamax", "Adamax", {}), ("adagrad", "adagrad", "Adagrad", DECAY),
    ("adadelta", "adadelta", "Adadelta", DECAY), ("rmsprop", "rmsprop", "RMSprop", DECAY),
    ("sgd", "sgd", "SGD", {"momentum": 0.9, "nesterov": True, **DECAY}),
)  # fmt: skip


def plain(named):
    return [parameter for _, parameter in named]


def split(named, **options):
    """The Trainer's groups: what is not projected first."""
    rest = [parameter for name, parameter in named if "proj" not in name]
    return [
        {"params": rest},
        {"params": [parameter for name, parameter in named if "proj" in name], **options},
    ]


def trained(optimizer):
    optimizer.train()
    return optimizer


def low_rank(**options):
    gap = {"update_proj_gap": 4, "scale": 1.0}
    return lambda module, kind: lambda named: getattr(module, kind)(split(named, **gap, **options), lr=1e-3)


def muon_groups(named):
    return [
        {"params": [one for name, one in named if "proj" in name], "use_muon": True},
        {"params": [one for name, one in named if "proj" not in name], "use_muon": False},
    ]


#: Folder, module, willfit's name, its options and implementation, and how the optimizer is made of a module.
LIBRARIES = (
    *(
        ("galore-torch-1.0", "galore_torch.adamw", "galore_adamw", {"rank": rank, "proj_type": kind}, None,
         low_rank(rank=rank, proj_type=kind), "AdamW")
        for rank in (8, 48) for kind in ("std", "reverse_std", "left", "right", "full")
        if (rank, kind) != (48, "reverse_std")
    ),
    ("galore-torch-1.0", "galore_torch.adafactor", "galore_adafactor", {"rank": 8}, None,
     lambda module, kind: lambda named: getattr(module, kind)(
         split(named, rank=8, proj_type="std", update_proj_gap=4, scale=1.0), lr=1e-3, scale_parameter=False,
         relative_step=False), "Adafactor"),
    ("apollo-torch-1.0.3", "apollo_torch.apollo", "apollo_adamw", {"rank": 8}, None,
     low_rank(rank=8, proj="random", scale_type="channel", proj_type="std"), "AdamW"),
    ("apollo-torch-1.0.3", "apollo_torch.apollo", "apollo_mini", {}, None,
     low_rank(rank=1, proj="random", scale_type="tensor", proj_type="std"), "AdamW"),
    ("apollo-torch-1.0.3", "apollo_torch.apollo", "apollo_adamw", {"rank": 8, "proj": "svd"}, None,
     low_rank(rank=8, proj="svd", scale_type="channel", proj_type="std"), "AdamW"),
    ("lion-pytorch-0.2.3", "lion_pytorch.lion_pytorch", "lion", {}, None,
     lambda module, _: lambda named: module.Lion(plain(named), lr=1e-3), ""),
    ("adam-mini-1.1.1", "adam_mini.adam_mini", "adam_mini", {"dim": 64, "n_heads": 8}, None,
     lambda module, _: lambda named: module.Adam_mini(named, lr=1e-3, dim=64, n_heads=8, n_kv_heads=4, verbose=False),
     ""),
    ("came-pytorch-0.1.3", "came_pytorch.CAME", "came", {}, None,
     lambda module, _: lambda named: module.CAME(plain(named), lr=1e-3), ""),
    ("prodigyopt-1.1.2", "prodigyopt.prodigy", "prodigy", {}, None,
     lambda module, _: lambda named: module.Prodigy(plain(named), lr=1.0), ""),
    *(
        ("torch-optimi-0.3.3", "optimi", name, {}, way,
         lambda module, kind, way=way: lambda named: getattr(module, kind)(
             plain(named), lr=1e-3, weight_decay=0.0,
             **({"foreach": True} if way == "foreach" else {"triton": False})), kind)
        for name, kind in (("stable_adamw", "StableAdamW"), ("optimi_adamw", "AdamW"))
        for way in ("for-loop", "foreach")
    ),
    *(
        ("schedulefree-1.4.1", "schedulefree", f"schedule_free_{base}", {}, way,
         lambda module, kind, way=way: lambda named: trained(
             getattr(module, kind)(plain(named), lr=1e-3, foreach=way == "foreach")), kind)
        for base, kind in (("adamw", "AdamWScheduleFree"), ("radam", "RAdamScheduleFree"), ("sgd", "SGDScheduleFree"))
        for way in ("foreach", "for-loop")
    ),
    ("muon-optimizer-0.1.0", "muon", "muon", {"variant": "keller"}, None,
     lambda module, _: lambda named: module.SingleDeviceMuonWithAuxAdam(muon_groups(named)), ""),
    ("SOAP-git", "soap", "soap", {}, None,
     lambda module, _: lambda named: module.SOAP(plain(named), lr=1e-3, precondition_frequency=4), ""),
    ("Moonlight-git", "moonlight", "muon", {"variant": "moonlight"}, None,
     lambda module, _: lambda named: module.Muon(
         muon_params=[one for name, one in named if "proj" in name],
         adamw_params=[one for name, one in named if "proj" not in name]), ""),
    ("Fira-git", "optimizer_torch.fira_adamw", "fira", {"rank": 8}, None,
     lambda module, _: lambda named: module.AdamW(
         split(named, rank=8, proj_type="std", update_proj_gap=4, alpha=1.0), lr=1e-3), ""),
)  # fmt: skip


#: willfit's name and the class; kernels are left away, since states are made before they run.
OF_BITSANDBYTES = (("adamw_8bit", "AdamW8bit"), ("adamw_32bit", "AdamW"), ("ademamix_8bit", "AdEMAMix8bit"))
OF_TORCHAO = (
    ("adamw_torch_8bit", "AdamW8bit"),
    ("adamw_torch_4bit", "AdamW4bit"),
    ("ao_adamw_fp8", "AdamWFp8"),
)


def states_only(folder, home, module, classes):
    """Rows without a step: its kernels run on a device, or are compiled."""
    sys.path.insert(0, str(folder / home))
    loaded = importlib.import_module(module)
    if module == "bitsandbytes.optim":
        kernels = importlib.import_module("bitsandbytes.functional")
        kernels.optimizer_update_8bit_blockwise = kernels.optimizer_update_32bit = lambda *_, **__: None
        importlib.import_module("bitsandbytes.optim.optimizer").sync_gpu = lambda _: None
    library, _, version = home.rpartition("-")
    for name, kind in classes:
        for dtype in DTYPES:
            make = getattr(loaded, kind)
            found = row(library, version, name, {}, None, dtype, lambda named, make=make: make(plain(named)))
            yield {**found, "first": None, "later": None}


def row(library, version, name, options, implementation, dtype, make):
    stays, first, later = measure(make, DTYPES[dtype])
    return {
        "library": library, "version": version, "name": name, "options": options, "implementation": implementation,
        "dtype": dtype, "stays": stays, "first": first, "later": later,
    }  # fmt: skip


def of_libraries(folder):
    for home, module, name, options, way, make, kind in LIBRARIES:
        path = str(folder / home)
        if path not in sys.path:
            sys.path.insert(0, path)
        loaded = importlib.import_module(module)
        library, _, version = home.rpartition("-")
        for dtype in DTYPES:
            if name == "soap" and dtype != "fp32":
                continue  # its preconditioners are float32, and products of two dtypes fail
            yield row(library, version, name, options, way, dtype, make(loaded, kind))


def of_torch(folder):
    import torch.utils._foreach_utils as utils

    grouped = utils._group_tensors_by_device_and_dtype
    for version in TORCH:
        home = folder / f"torch-{version}" / "torch"
        utils._group_tensors_by_device_and_dtype = grouped
        if version.startswith("2.0"):  # its grouping gives lists, later ones lists and indices
            spec = importlib.util.spec_from_file_location("old_utils", home / "utils" / "_foreach_utils.py")
            old = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(old)
            utils._group_tensors_by_device_and_dtype = old._group_tensors_by_device_and_dtype
        package = types.ModuleType(f"optim_{version}")
        package.__path__ = [str(home / "optim")]
        sys.modules[package.__name__.replace(".", "_")] = package
        for name, module, kind, options in OF_TORCH:
            loaded = getattr(importlib.import_module(f"{package.__name__.replace('.', '_')}.{module}"), kind)
            for way in ("for-loop", "foreach"):
                yield row(
                    "torch", version, name, options, way, "fp32",
                    lambda named, loaded=loaded, options=options, way=way: loaded(
                        plain(named), lr=1e-3, foreach=way == "foreach", **options),
                )  # fmt: skip
    utils._group_tensors_by_device_and_dtype = grouped


def main(folder):
    warnings.simplefilter("ignore")
    rows = [*states_only(folder, "bitsandbytes-0.50.2", "bitsandbytes.optim", OF_BITSANDBYTES)]
    rows += [*of_libraries(folder), *of_torch(folder)]
    torch.compile = lambda function=None, **_: function or (lambda given: given)
    rows += states_only(folder, "torchao-0.18.0", "torchao.optim", OF_TORCHAO)
    for found in rows:
        print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
