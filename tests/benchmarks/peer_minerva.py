"""minerva's side of the table: an epoch of `LearnFromRandomnessModel`, on the networks that ours trains too.

The step is what its training step does, `forward`, `_loss_from_targets` and its own optimiser, in a loop without the
Trainer, which would add logging and hooks to every batch. One thread. On the way to this model `minerva.models.ssl`
imports all others, and with them torchvision, timm and transformers; so the packages on the way stand empty here.
"""

import importlib.util
import sys
from types import ModuleType

import torch
from tests.benchmarks import data
from tests.benchmarks.workers import ROOT, Work, serve
from torch import nn

PACKAGES = ("minerva", "torch", "lightning", "numpy")


def _stand_empty(*names: str) -> None:
    """Packages of minerva whose `__init__` isn't run."""
    found = importlib.util.find_spec("minerva")
    assert found is not None
    (folder,) = found.submodule_search_locations or ()
    for name in names:
        module = ModuleType(name)
        module.__path__ = [f"{folder}/{'/'.join(name.split('.')[1:])}"]
        sys.modules[name] = module


def epoch() -> Work:
    """All windows once, in batches."""
    _stand_empty("minerva.models", "minerva.models.ssl", "minerva.losses")
    sys.path.insert(0, str(ROOT / "server"))  # for the networks, which need nothing that isn't there
    from minerva.models.ssl.lfr import LearnFromRandomnessModel
    from tests.benchmarks.networks import make

    made = make()
    model = LearnFromRandomnessModel(
        made.backbone, nn.ModuleList(made.projectors), nn.ModuleList(made.predictors), adapter=made.adapter
    )
    optimizer = model.configure_optimizers()
    batches = torch.split(made.windows, data.BATCH)

    def step() -> None:
        for batch in batches:
            optimizer.zero_grad(set_to_none=True)
            loss = model._loss_from_targets(*model(batch))
            loss.backward()
            optimizer.step()

    with torch.no_grad():
        losses = [model._loss_from_targets(*model(batch)).item() for batch in batches]
    return Work(step, {"losses": losses})


if __name__ == "__main__":
    torch.set_num_threads(1)
    serve(PACKAGES, {"lfr_epoch": epoch})
