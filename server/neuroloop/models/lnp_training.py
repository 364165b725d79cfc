"""The training loop of an LNP fit, on Lightning (the extra `train`). Imported by `lnp_fit` when a fit starts."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Callable
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from neuroloop.models.kept import Kept, State
from neuroloop.models.lnp_torch import LNPModule, correlation, poisson_loss

# One line per fit about devices that were not found, and an advertisement.
logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)


class Windows(Dataset[dict[str, Tensor]]):
    """Pieces of a recording, `bins` long, each after the `lead` frames on which its first bin depends.

    pixels: (time, pixels). counts: (time, cells). use: (time,), the weight of every bin; 0 in what leads a piece.
    """

    def __init__(self, pixels: Tensor, counts: Tensor, use: Tensor, lead: int, bins: int) -> None:
        self._pixels, self._counts, self._use, self._lead = pixels, counts, use, lead
        spans = [(start, min(start + lead + bins, len(use))) for start in range(0, len(use) - lead, bins)]
        self._spans = [(first, last) for first, last in spans if use[first + lead : last].any()]

    def __len__(self) -> int:
        return len(self._spans)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        first, last = self._spans[index]
        use = self._use[first:last].clone()
        use[: self._lead] = 0
        return {"pixels": self._pixels[first:last], "counts": self._counts[first:last], "use": use}


class Training(lightning.LightningModule):
    """Minimises the averaged Poisson loss and the regularisers; tells the correlation of bins that are held out."""

    def __init__(self, model: LNPModule, settings: Any) -> None:
        super().__init__()
        self.model, self.fit_settings = model, settings

    def training_step(self, batch: dict[str, Tensor]) -> Tensor:
        rates, counts, use = self._rates(batch)
        loss = (poisson_loss(rates, counts) * use[..., None]).sum() / (use.sum() * counts.shape[2])
        chosen = self.fit_settings
        loss = loss + self.model.regularisation(chosen.smooth_space, chosen.smooth_time, chosen.sparse)
        for filters in (self.model.history, self.model.coupling):
            if filters.numel():
                loss = loss + chosen.shrink_spike_filters * filters.square().mean()
        self.log("loss", loss.detach(), on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch: dict[str, Tensor]) -> None:
        rates, counts, use = self._rates(batch)
        kept = use[0].bool()
        self.log("correlation", correlation(rates[:, kept], counts[:, kept]).mean(), batch_size=1)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        learned = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        if self.fit_settings.optimizer == "adamw":
            return torch.optim.AdamW(learned, lr=self.fit_settings.learning_rate)
        return torch.optim.LBFGS(learned, max_iter=20, history_size=20, line_search_fn="strong_wolfe")

    def _rates(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Rates, counts and weights of the bins of a batch that have all their lags."""
        first = self.model.settings.lags - 1
        rates = self.model.respond(self.model.drive(batch["pixels"], batch["counts"]))
        return rates, batch["counts"][:, first:], batch["use"][:, first:]


class Progress(Callback):
    """Notes a metric after every epoch; where `restores`, puts the parameters of the largest back after the fit.

    In memory and without files, which Lightning's own checkpoints need.
    """

    def __init__(self, metric: str, restores: bool, tell: Callable[[int, float], None] | None) -> None:
        self.metric, self.restores, self.tell = metric, restores, tell
        self.curve: list[float] = []
        self.best: dict[str, Tensor] = {}

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        value = float(trainer.callback_metrics[self.metric])
        if self.restores and value > max(self.curve, default=-math.inf):
            self.best = {name: tensor.detach().clone() for name, tensor in pl_module.model.state_dict().items()}
        self.curve.append(value)
        if self.tell is not None:
            self.tell(len(self.curve), value)

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        if self.best:
            pl_module.model.load_state_dict(self.best)


class Keeping(Callback):
    """Hands over the state after an epoch when the next begins, for only then has every callback seen it."""

    def __init__(
        self, kept: Kept, state: State | None, progress: Progress, stop: EarlyStopping, generator: torch.Generator
    ) -> None:
        """state: what the fit goes on from."""
        self._kept, self._progress, self._stop, self._generator = kept, progress, stop, generator
        self._state = state
        if state is not None:
            progress.curve, progress.best = state["curve"], state["best"]
            stop.load_state_dict(state["stop"])
            # Now: Lightning begins to iterate over the first epoch before it says that it starts.
            generator.set_state(state["generator"])

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        if self._state is not None:
            pl_module.model.load_state_dict(self._state["model"])
            trainer.optimizers[0].load_state_dict(self._state["optimizer"])
            self._state = None
        elif self._progress.curve:
            self._kept.save(
                {
                    "model": dict(pl_module.model.state_dict()),
                    "optimizer": trainer.optimizers[0].state_dict(),
                    "generator": self._generator.get_state(),
                    "stop": self._stop.state_dict(),
                    "curve": self._progress.curve,
                    "best": self._progress.best,
                }
            )


def train(
    model: LNPModule,
    training: Windows,
    validation: Windows | None,
    settings: Any,
    tell: Callable[[int, float], None] | None = None,
    kept: Kept = Kept(),  # noqa: B008 (immutable)
) -> list[float]:
    """Fit the module in place, from what is kept on.

    Returns the held-out correlation of each epoch; the loss where nothing is held out.
    """
    monitor = "loss" if validation is None else "correlation"
    progress = Progress(monitor, restores=validation is not None, tell=tell)
    stop = EarlyStopping(
        monitor,
        min_delta=settings.min_delta,
        patience=settings.patience,
        mode="min" if validation is None else "max",
        check_on_train_epoch_end=True,
        check_finite=False,
    )
    generator = torch.Generator().manual_seed(settings.seed)
    state = kept.load()
    keeping = Keeping(kept, state, progress, stop, generator)
    learned_from = DataLoader(training, shuffle=len(training) > 1, generator=generator)
    held_out = None if validation is None else DataLoader(validation)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # advice on workers and log intervals
        trainer = lightning.Trainer(
            max_epochs=settings.epochs - len(progress.curve),
            accelerator="gpu" if settings.device == "cuda" else settings.device,
            devices=1,
            callbacks=[progress, stop, keeping],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
        )
        trainer.fit(Training(model, settings), learned_from, held_out)
    return progress.curve
