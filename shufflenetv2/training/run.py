"""The folder of one training run: what is in it, when it is written, how a run is taken up again.

``last.pth`` is the state after the last whole epoch, ``best.pth`` the model that did best in validation (without
validation, the last one), ``log.csv`` the history, ``curves.png`` its picture, drawn at the end. Each file appears
whole or not at all.
"""

import csv
import dataclasses
import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..description import Description, Metrics
from ..errors import CheckpointError, TrainingError
from ..files import write_whole
from ..inference import Counts, count_hits
from ..package import progress_bar
from ..photos.folders import LabelledPhotos
from ..photos.transform import PhotoTransform
from ..weights.checkpoint import load_plain, save_whole, write_checkpoint
from .trainer import EpochResult, Trainer

FORMAT = "shufflenetv2-training"
# A resumed run may follow another schedule, and go faster or slower; everything else would make it another run.
FREE = ("epochs", "sizes", "lr", "workers")


class RunFolder:
    """One run.

    Args:
        path: the folder; made if it is missing.
        trainer: before its first epoch.
        val: photos to validate on; ``None`` keeps the last epoch's weights as the best.
        description: of the model to come.
        start: what else the run depends on, in plain types.
    """

    def __init__(
        self,
        path: Path,
        trainer: Trainer,
        val: LabelledPhotos | None,
        description: Description,
        start: dict[str, Any],
    ) -> None:
        self.path, self.trainer, self.val, self.description = path, trainer, val, description
        recipe = dataclasses.asdict(trainer.recipe)
        recipe |= recipe.pop("augmentation")
        self.settings = {key: value for key, value in recipe.items() if key not in FREE}
        self.settings |= {"arch": description.arch, "processes": trainer.group.size, **start}
        self.history: list[dict[str, float | int]] = []
        self.best = -1.0

    def train(self, resume: bool) -> None:
        """Train from the start, or from the last whole epoch, to the end.

        Raises:
            TrainingError: the folder holds another run, the loss is not finite, or a file cannot be written.
            ImageError: naming a photo that cannot be used.
        """
        trainer, group = self.trainer, self.trainer.group
        self._open(resume)
        left = (trainer.recipe.epochs - trainer.epoch) * trainer.steps
        with progress_bar(left, "step", shown=None if group.leads else False, dynamic_ncols=True) as bar:
            while trainer.epoch < trainer.recipe.epochs:
                bar.set_description(f"epoch {trainer.epoch + 1}/{trainer.recipe.epochs}", refresh=False)
                result = trainer.run_epoch(bar)
                counts = self._validate()
                if group.leads:
                    with self._writing(f"the results of epoch {result.epoch}"):
                        self._save(result, counts)
                    bar.write(self._line(result, counts), file=sys.stderr)
                group.wait()
        if group.leads:
            with self._writing("curves.png"):
                write_whole(self.path / "curves.png", curves(self.history))

    def _open(self, resume: bool) -> None:
        last = self.path / "last.pth"
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            if not last.exists():
                return
            if not resume:
                raise TrainingError(
                    f"{self.path} holds a run already; give --resume to continue it, or another --output to start anew"
                )
            data = last.read_bytes()
        except OSError as error:
            raise TrainingError(f"{self.path} cannot be used: {error.strerror}; choose another --output") from error
        state = load_plain(data, str(last))
        if not isinstance(state, dict) or state.get("format") != FORMAT:
            raise CheckpointError(f"{last} is not the state of a training run, so nothing can be resumed from it")
        was = state["settings"]
        changed = [key for key in {**was, **self.settings} if was.get(key) != self.settings.get(key)]
        if changed:
            listed = ", ".join(f"{key} was {was.get(key)!r} and is {self.settings.get(key)!r}" for key in changed)
            raise TrainingError(f"{self.path} holds a run with other settings: {listed}; resume it with the same ones")
        self.history, self.best = state["history"], state["best"]
        self.trainer.restore(state)

    def _validate(self) -> Counts | None:
        """What the averaged weights score, counted by all processes together."""
        if self.val is None:
            return None
        model, transform = self.trainer.average.module.eval(), PhotoTransform(self.description.preprocess)
        return count_hits(model, transform, self.val, self.trainer.group, workers=self.trainer.recipe.workers or 1)

    def _save(self, result: EpochResult, counts: Counts | None) -> None:
        row = dataclasses.asdict(result)
        metrics = None
        accuracy = 0.0
        if counts and self.val:
            accuracy = counts.top1 / counts.photos
            row["val_accuracy"] = accuracy
            metrics = Metrics(
                dataset=f"{counts.photos} validation photos",
                acc1=100 * accuracy,
                acc5=100 * counts.top5 / counts.photos,
                measured_by="shufflenetv2 train",
            )
        self.history.append(row)
        better = accuracy >= self.best
        self.best = max(accuracy, self.best)
        state = {"format": FORMAT, "settings": self.settings, "history": self.history, "best": self.best}
        if better:
            description = dataclasses.replace(self.description, metrics=metrics)
            write_checkpoint(self.path / "best.pth", self.trainer.average.module.state_dict(), description)
        save_whole(self.path / "last.pth", {**state, **self.trainer.state()})
        write_whole(self.path / "log.csv", table(self.history).encode())

    @contextmanager
    def _writing(self, what: str) -> Iterator[None]:
        try:
            yield
        except (OSError, RuntimeError) as error:  # torch.save wraps some of the system's errors
            raise TrainingError(
                f"{what} cannot be written to {self.path}: {error}. What was written before is intact: make room, then "
                "--resume"
            ) from error

    def _line(self, result: EpochResult, counts: Counts | None) -> str:
        validation = (
            f", validation {counts.top1} of {counts.photos} ({counts.top1 / counts.photos:.2%})" if counts else ""
        )
        return (
            f"epoch {result.epoch}/{self.trainer.recipe.epochs}: {result.size} px, lr {result.lr:.4f}, loss "
            f"{result.loss:.4f}, accuracy {result.accuracy:.2%}{validation}, {result.seconds:.1f} s, waiting for "
            f"photos {result.waiting:.1%}"
        )


def table(history: list[dict[str, float | int]]) -> str:
    """The history as CSV, one line an epoch."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(history[0]), lineterminator="\n")
    writer.writeheader()
    for row in history:
        writer.writerow({key: f"{value:.6g}" if isinstance(value, float) else value for key, value in row.items()})
    return text.getvalue()


def curves(history: list[dict[str, float | int]]) -> bytes:
    """Loss and accuracy against the epoch, as a PNG."""
    from matplotlib.figure import Figure  # it takes a second, and `train --help` works without it

    epochs = [row["epoch"] for row in history]
    figure = Figure(figsize=(9, 3.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(epochs, [row["loss"] for row in history], marker=".", label="training")
    left.set(xlabel="epoch", ylabel="loss")
    right.plot(epochs, [100 * row["accuracy"] for row in history], marker=".", label="training")
    if "val_accuracy" in history[0]:
        right.plot(epochs, [100 * row["val_accuracy"] for row in history], marker=".", label="validation")
    right.set(xlabel="epoch", ylabel="top-1 accuracy, %")
    right.legend()
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=100)
    return image.getvalue()
