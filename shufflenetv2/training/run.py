"""The folder of one training run: what is in it, when it is written, how a run is taken up again.

``last.pth`` is the state after the last whole epoch; what follows from it is written after it, again on resuming:
``best.pth``, the model that did best in validation (without validation, the last one), ``log.csv``, the history, and at
the end ``curves.png``, its picture. Each file appears whole or not at all.
"""

import dataclasses
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..description import Description, Metrics, parse_description, to_json
from ..errors import CheckpointError, TrainingError
from ..evaluation.counting import Counts, count_hits
from ..files import TEMPORARY, check_folder, read_regular, shown, write_whole
from ..network.formats.table import TAKEN
from ..network.model import SPECS
from ..package import logger, progress_bar
from ..photos.ahead import check_photos
from ..photos.folders import LabelledPhotos
from ..photos.transform import PhotoTransform
from ..weights.checkpoint import MAX_BYTES, RUN_FORMAT, load_plain, save_whole, write_checkpoint
from .again import FILE, is_foreign
from .digests import holds
from .history import curves, table
from .trainer import EpochResult, Trainer

SCHEMA_VERSION = 1
KINDS = {"epoch": int, "settings": dict, "history": list, "best": float, "description": dict}
KINDS |= {"model": dict, "average": dict, "optimizer": dict}
# A resumed run may follow another schedule, and go faster or slower; everything else would make it another run.
FREE = ("epochs", "sizes", "lr", "workers")
WRITTEN = ("best.pth", "log.csv", "curves.png")  # and last.pth, by which a run is known


def open_run(path: Path, resume: bool) -> dict[str, Any] | None:
    """The state of the run in ``path``, if it is to go on; else the folder is made.

    Raises:
        TrainingError: there is a run and none to resume, or the reverse; the folder cannot be written to, or holds
            files of others that would be replaced.
        CheckpointError: ``last.pth`` is no state of a run.
    """
    last = path / "last.pth"
    there = os.path.exists(last)
    if resume and not there:
        raise TrainingError(
            f"nothing can be resumed in {path}: it holds no last.pth, which the first whole epoch leaves; leave out "
            "--resume to start anew, or give the --output of another run"
        )
    if not there:
        _check_new(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        check_folder(path)
    except OSError as error:
        raise TrainingError(
            f"{path} cannot be used as the folder of a run: {error.strerror}; choose another --output"
        ) from error
    state = read_state(last) if there else None
    if there and not resume:
        raise TrainingError(f"{path} holds a run already; give --resume to go on with it, or another --output")
    return state


def _check_new(path: Path) -> None:
    """Nothing of the user's is replaced by a run that begins in ``path``, and its folder can be given as weights."""
    if path.name.lower().endswith(TAKEN):
        raise TrainingError(
            f"--output {shown(path)} would be read as another format ({', '.join(TAKEN)}), not as the folder of a run; "
            "name another"
        )
    others = [name for name in WRITTEN if os.path.lexists(path / name)] + [FILE] * is_foreign(path)
    if others:
        raise TrainingError(
            f"{shown(path)} holds files that the run would replace: {', '.join(others)}; give another --output, or "
            "move them away"
        )


def read_state(last: Path) -> dict[str, Any]:
    """What ``last.pth`` holds, as far as that can be checked without the network.

    Raises:
        CheckpointError: it is no state of a run, or not of this version.
    """
    try:
        data = read_regular(last, MAX_BYTES)
        state = load_plain(data, str(last))
    except OSError as error:
        raise _useless(last, f"cannot be read ({error.strerror or error})") from error
    except CheckpointError as error:
        raise _useless(last, "is damaged, or no file that train wrote") from error
    if not isinstance(state, dict) or state.get("format") != RUN_FORMAT:
        raise _useless(last, "is not the state of a training run")
    version = state.get("schema_version")
    if version != SCHEMA_VERSION:
        raise _useless(last, f"is of another version: schema_version {version!r:.40}, this code reads {SCHEMA_VERSION}")
    wrong = [key for key, kind in KINDS.items() if not isinstance(state.get(key), kind)]
    if wrong:
        raise _useless(last, f"is half a state: {', '.join(wrong)} missing or of another type")
    columns = EpochResult.__dataclass_fields__.keys()
    whole = all(isinstance(row, dict) and row.keys() >= columns for row in state["history"])
    if not whole or not len(state["history"]) == state["epoch"] > 0:
        raise _useless(last, "is half a state: its history is not that of its epochs")
    return state


def _useless(last: Path, why: str) -> CheckpointError:
    return CheckpointError(
        f"{last} {why}, so the run cannot be resumed; start anew with another --output (best.pth can be its --weights)"
    )


class RunFolder:
    """One run.

    Args:
        path: the folder.
        trainer: before its first epoch.
        val: photos to validate on; ``None`` keeps the last epoch's weights as the best.
        description: of the model to come.
        start: what else decides what is learnt, in words.
    """

    def __init__(
        self,
        path: Path,
        trainer: Trainer,
        val: LabelledPhotos | None,
        description: Description,
        start: dict[str, str],
    ) -> None:
        self.path, self.trainer, self.val, self.description = path, trainer, val, description
        recipe = dataclasses.asdict(trainer.recipe)
        recipe |= recipe.pop("augmentation")
        self.settings = {key.replace("_", " "): value for key, value in recipe.items() if key not in FREE}
        self.settings |= {"arch": description.arch, "processes": trainer.group.size, **start}
        self.history: list[dict[str, float | int]] = []
        self.best = -1.0

    def train(self) -> None:
        """Train from the start, or from where ``restore`` went, to the end.

        Raises:
            TrainingError: the loss is not finite, or a file cannot be written.
            ImageError: naming a photo that cannot be used.
        """
        trainer, group = self.trainer, self.trainer.group
        if self.val and not self.history:  # a damaged one would end the run after its first epoch
            mine = self.val.paths[group.rank :: group.size]
            check_photos(mine, PhotoTransform(self.description.preprocess), trainer.recipe.workers or 1)
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

    def restore(self, state: dict[str, Any] | None) -> None:
        """Go to the last whole epoch; TrainingError, CheckpointError: it is of another run, or cannot be used."""
        if state is None:
            return
        was, now, last = state["settings"], self.settings, self.path / "last.pth"
        changed = [key for key in {**was, **now} if was.get(key) != now.get(key)]
        if changed:
            listed = "; ".join(f"{key} was {was.get(key, 'none')} and is {now.get(key, 'none')}" for key in changed[:5])
            more = f"; and {len(changed) - 5} more" if len(changed) > 5 else ""
            raise TrainingError(
                f"{self.path} holds another run: {listed}{more}. Resume it with the same settings, weights and photos "
                f"({', '.join(f'--{each}' for each in FREE)} may differ), or give another --output"
            )
        epochs = state["epoch"]
        if epochs > self.trainer.recipe.epochs:
            raise TrainingError(f"{self.path} has {epochs} epochs behind it; give --epochs {epochs + 1} or more")
        try:
            self.described = parse_description(state["description"], SPECS, str(last))
            self.trainer.restore(state)
        except Exception as error:  # torch and ManifestError: a dozen types
            raise _useless(last, "does not fit this network") from error
        self.history, self.best = state["history"], state["best"]
        if not (self.path / "best.pth").exists() and (latest := self.history[-1].get("val_accuracy", 0.0)) < self.best:
            logger.warning("%s holds no best.pth: from here on the best is counted anew", self.path)
            self.best = latest
        if self.trainer.group.leads:
            with self._writing("what follows from last.pth"):
                for left in self.path.iterdir():
                    if TEMPORARY.fullmatch(left.name):
                        left.unlink()  # a killed process had no time to
                self._publish(again=True)

    def _validate(self) -> Counts | None:
        """What the averaged weights score, counted by all processes together."""
        if self.val is None:
            return None
        model, transform = self.trainer.average.module.eval(), PhotoTransform(self.description.preprocess)
        try:
            return count_hits(model, transform, self.val, self.trainer.group, workers=self.trainer.recipe.workers or 1)
        except CheckpointError as error:  # finite weights, whose answers are not
            raise self.trainer.diverged("the answers are", self.trainer.epoch, self.trainer.steps) from error

    def _save(self, result: EpochResult, counts: Counts | None) -> None:
        row = dataclasses.asdict(result)
        metrics = None
        if counts:
            row["val_accuracy"] = counts.top1 / counts.photos
            metrics = Metrics(
                dataset=f"{counts.photos} validation photos",
                acc1=100 * counts.top1 / counts.photos,
                acc5=100 * counts.top5 / counts.photos,
                measured_by="shufflenetv2 train",
            )
        self.history.append(row)
        self.best = max(row.get("val_accuracy", 0.0), self.best)
        self.described = dataclasses.replace(self.description, metrics=metrics)
        about = {"format": RUN_FORMAT, "schema_version": SCHEMA_VERSION, "settings": self.settings}
        about |= {"history": self.history, "best": self.best, "description": to_json(self.described)}
        save_whole(self.path / "last.pth", {**about, **self.trainer.state()})
        self._publish()

    def _publish(self, again: bool = False) -> None:
        """Write what follows from the state, after the state itself."""
        best, tensors = self.path / "best.pth", self.trainer.average.module.state_dict()
        # One from before that holds them may have been given a temperature (evaluate --calibrate), and stays.
        if self.history[-1].get("val_accuracy", 0.0) >= self.best and not (again and holds(best, tensors)):
            write_checkpoint(best, tensors, self.described)
        write_whole(self.path / "log.csv", table(self.history).encode())

    @contextmanager
    def _writing(self, what: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise TrainingError(
                f"{what} cannot be written to {self.path}: {error}. What was written before is intact: make room, then "
                "--resume"
            ) from error

    def _line(self, result: EpochResult, counts: Counts | None) -> str:
        share = counts and f"{counts.top1 / counts.photos:.2%}"
        validation = f", validation {counts.top1} of {counts.photos} ({share})" if counts else ""
        learnt = f"loss {result.loss:.4f}, accuracy {result.accuracy:.2%}{validation}"
        place = f"epoch {result.epoch}/{self.trainer.recipe.epochs}: {result.size} px, lr {result.lr:.4f}"
        return f"{place}, {learnt}, {result.seconds:.1f} s, waiting for photos {result.waiting:.1%}"
