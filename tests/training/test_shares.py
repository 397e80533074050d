"""Every photo is learnt from once an epoch, whatever the number of photos, of batches a step and of processes."""

import csv
import math
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from support.colours import SCRATCH, make_colours
from support.processes import torchrun
from support.shares import CASES, learn
from torch import nn

from shufflenetv2.description import STANDARD, Preprocess
from shufflenetv2.devices import Group
from shufflenetv2.entrypoints import shufflenet_v2_x0_5
from shufflenetv2.errors import TrainingError
from shufflenetv2.photos.folders import hold_out, read_labelled
from shufflenetv2.photos.transform import PhotoTransform
from shufflenetv2.training.augment import Augmentation

ALONE = Group(0, 1, torch.device("cpu"))


pytestmark = pytest.mark.usefixtures("one_thread")


def shares(photos: int, batch_size: int) -> int:
    """Steps of one process."""
    return min(math.ceil(photos / batch_size), photos // 2)


def assert_same_step(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    """The classifier has learnt the same, up to the order of sums, and the same means are reported."""
    learnt = (wanted["after"] - wanted["before"]).abs().max()
    assert learnt > 1e-3
    assert (found["after"] - wanted["after"]).abs().max() < 1e-4 * learnt
    assert found["loss"] == pytest.approx(wanted["loss"], rel=1e-5)
    assert found["accuracy"] == pytest.approx(wanted["accuracy"], abs=1e-9)


def check_shares(results: list[dict[str, Any]], photos: int, batch_size: int, accumulate: int) -> None:
    batches = [batch for result in results for batch in result["batches"]]
    assert sorted(chain(*batches)) == list(range(photos))
    sizes = [len(batch) for batch in batches]
    assert min(sizes) >= 2
    assert max(sizes) - min(sizes) <= 1
    assert max(sizes) <= max(batch_size, 3)
    steps = len(results[0]["batches"]) // accumulate
    assert [len(result["batches"]) for result in results] == [steps * accumulate] * len(results)
    # All at once, one process computes the mean over a step's photos: that is what the others must have learnt.
    whole = learn(ALONE, photos, next(size for size in range(2, photos + 1) if shares(photos, size) == steps), 1)
    assert len(whole["batches"]) == steps
    for result in results:
        assert_same_step(result, whole)


@pytest.mark.parametrize(("photos", "batch_size", "accumulate"), CASES)
@pytest.mark.slow
def test_one_process(photos: int, batch_size: int, accumulate: int) -> None:
    check_shares([learn(ALONE, photos, batch_size, accumulate)], photos, batch_size, accumulate)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 3])
def test_several_processes(processes: int, tmp_path: Path) -> None:
    torchrun(processes, "tests.support.shares", tmp_path)
    ranks = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(processes)]
    for case, results in zip(CASES, zip(*ranks, strict=True), strict=True):
        check_shares(list(results), *case)


def test_the_issue_s_example() -> None:
    """108 photos at batch 64 were one step of 64."""
    assert [len(batch) for batch in learn(ALONE, 108, 64, 1)["batches"]] == [54, 54]


def test_the_next_epoch_has_another_order() -> None:
    first, second = (learn(ALONE, 11, 4, 1, seed=seed)["batches"] for seed in (0, 1))
    assert first != second


@pytest.mark.parametrize(("photos", "batch_size", "accumulate", "needed"), [(1, 64, 1, 2), (5, 64, 3, 6), (2, 1, 3, 3)])
def test_too_few_photos(photos: int, batch_size: int, accumulate: int, needed: int) -> None:
    with pytest.raises(TrainingError, match=f"{photos} photos are too few .* at least {needed}"):
        learn(ALONE, photos, batch_size, accumulate)


def test_one_photo_at_a_time_if_asked_for() -> None:
    everything = {"freeze_backbone": False, "augmentation": Augmentation(32)}
    assert [len(batch) for batch in learn(ALONE, 5, 1, 1, **everything)["batches"]] == [1] * 5


@pytest.mark.slow
def test_two_processes_share_the_work(tmp_path: Path) -> None:
    data, output = make_colours(tmp_path / "data", 15), tmp_path / "run"  # 33 photos to learn from
    options = ["--epochs", "6", "--batch-size", "6", "--channels-last", "--held-out", "0.25", "--reestimate-norms"]
    result = torchrun(2, "shufflenetv2", "train", data, "--output", output, *SCRATCH, *options)
    assert result.stderr.count("\nepoch ") in (5, 6)  # one process reports
    with open(output / "log.csv", newline="") as file:
        log = list(csv.DictReader(file))
    assert float(log[-1]["loss"]) < float(log[0]["loss"])
    for row in log:  # means over all photos
        hits = float(row["accuracy"]) * 33
        assert hits == pytest.approx(round(hits), abs=1e-3)
    assert shufflenet_v2_x0_5(weights=output / "best.pth")(torch.zeros(1, 3, 64, 64)).shape == (1, 3)
    check_norms(data, torch.load(output / "last.pth", weights_only=True)["average"])


def check_norms(data: Path, average: dict[str, torch.Tensor]) -> None:
    """The statistics are the means over the batches of both processes, of which each saw half of the photos."""
    photos, _ = hold_out(read_labelled(data), 0.25, 0)
    order = torch.randperm(33, generator=torch.Generator().manual_seed(0)).tolist()
    batches = [photos.take(mine[at : at + 6]) for mine in (order[::2], order[1::2]) for at in range(0, len(mine), 6)]
    prepare = PhotoTransform(Preprocess(72, 72, "bilinear", STANDARD.mean, STANDARD.std))
    weight = average["module.conv1.0.weight"]
    given = [nn.functional.conv2d(prepare(list(batch.paths)), weight, stride=2, padding=1) for batch in batches]
    assert [len(each) for each in given] == [6, 6, 5, 6, 6, 4]
    for key, wanted in (
        ("mean", torch.stack([each.mean((0, 2, 3)) for each in given]).mean(0)),
        ("var", torch.stack([each.var((0, 2, 3)) for each in given]).mean(0)),
    ):
        torch.testing.assert_close(average[f"module.conv1.1.running_{key}"], wanted, rtol=1e-4, atol=1e-5)
    assert average["module.conv1.1.num_batches_tracked"] == 6


def no_large_file() -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (10**6, 10**6))


FAILURES = {
    "a bad photo": (["--held-out", "0"], "corrupt.png"),  # one process meets it, the other waits for its gradients
    "a loss": (["--lr", "1e6", "--warmup", "0", "--epochs", "5"], "no longer finite"),  # both meet it
    "a disk": (["--epochs", "1"], "cannot be written"),  # the leader alone meets it
}


@pytest.mark.slow
@pytest.mark.parametrize("failure", FAILURES)
def test_a_failure_of_one_ends_all_with_one_message(tmp_path: Path, failure: str) -> None:
    data, output = make_colours(tmp_path / "data", 8), tmp_path / "run"
    options, said = FAILURES[failure]
    if failure == "a bad photo":
        (data / "red/corrupt.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    limit = {"preexec_fn": no_large_file} if failure == "a disk" else {}
    result = torchrun(2, "shufflenetv2", "train", data, "--output", output, *SCRATCH, *options, check=False, **limit)
    assert result.returncode == 1
    messages = [line for line in result.stderr.splitlines() if "shufflenetv2: error: " in line]
    assert len(messages) == 1, result.stderr
    assert said in messages[0]
    assert "shufflenetv2/__main__.py" not in result.stderr  # torchrun ends in a traceback of its own, none is ours
