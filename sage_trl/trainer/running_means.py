"""Metrics and evaluation loss as means over what they count, pairs or tokens, not over batches or processes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

# Name -> (totals, counts): the metric is the sum of the totals over the sum of the counts.
Metrics = dict[str, tuple[Tensor, Tensor]]
# Under this name the losses themselves are counted, which the `Trainer` logs by itself in training.
LOSS = "loss"


class RunningMeans:
    """Comes before a TRL trainer in the bases.

    TRL logs the mean over batches of each batch's mean, and the `Trainer` the mean over batches of the evaluation
    losses. Batches of trees differ in what they hold, so that both would depend on how rows are divided.
    """

    model: Any
    accelerator: Any
    _metrics: Any

    def add_to_means(self, metrics: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        """Add a batch of every process; all must call it with the same names.

        Args:
            metrics: see `Metrics`.
        """
        mode = "train" if self.model.training else "eval"
        totals = [totals.detach().sum().float() for totals, _ in metrics.values()]
        counts = [counts.sum().float() for _, counts in metrics.values()]
        reduced = self.accelerator.reduce(torch.stack([*totals, *counts]), reduction="sum").tolist()
        for index, name in enumerate(metrics):
            total, count = self._sums[mode].get(name, (0.0, 0.0))
            total, count = total + reduced[index], count + reduced[len(metrics) + index]
            self._sums[mode][name] = total, count
            if count and name != LOSS:
                self._metrics[mode][name] = [total / count]

    @property
    def _sums(self) -> defaultdict[str, dict[str, tuple[float, float]]]:
        sums: defaultdict[str, dict[str, tuple[float, float]]] = self.__dict__.setdefault(
            "_known_sums", defaultdict(dict)
        )
        return sums

    def evaluation_loss(self) -> float | None:
        """The mean over what has been evaluated, None where nothing has."""
        total, count = self._sums["eval"].get(LOSS, (0.0, 0.0))
        return total / count if count else None

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """TRL's, after which new means begin."""
        super().log(logs, *args, **kwargs)  # type: ignore[misc]
        self._sums["train" if self.model.training else "eval"].clear()

    def evaluation_loop(self, *args: Any, metric_key_prefix: str = "eval", **kwargs: Any) -> Any:
        """The `Trainer`'s, with the loss over pairs or tokens in the place of the mean over batches."""
        self._sums["eval"].clear()
        output = super().evaluation_loop(*args, metric_key_prefix=metric_key_prefix, **kwargs)  # type: ignore[misc]
        loss = self.evaluation_loss()
        if loss is not None:
            output.metrics[f"{metric_key_prefix}_loss"] = loss
        return output
