"""The numbers by which answers are judged, against independent computations of them."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.skips import NOT_INSTALLED
from torch import Tensor

from shufflenetv2.builder import resolve
from shufflenetv2.description import Category
from shufflenetv2.errors import DatasetError
from shufflenetv2.evaluation.counting import mcnemar, paired_interval
from shufflenetv2.evaluation.judging import (
    Answers,
    confusion,
    coverage,
    fit_temperature,
    likelihood,
    per_class,
    reliability,
)
from shufflenetv2.evaluation.report import compared


def answers(logits: Tensor, labels: Tensor) -> Answers:
    paths = tuple(Path(f"{index}.png") for index in range(len(labels)))
    return Answers(resolve(None, "cifar10"), paths, labels, logits, 0)


def noisy(count: int, scale: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Logits that are ``scale`` times those of the distribution that the labels are drawn from."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(count, 10, generator=generator)
    labels = torch.multinomial(logits.softmax(1), 1, generator=generator).flatten()
    return scale * logits, labels


def test_one_class_under_a_label_and_a_wordnet_id_is_one_answer() -> None:
    logits, labels = noisy(50, 1)
    one = answers(logits, labels)
    birds = [Category("crane", "n1"), Category("crane", "n2")]
    birds += [Category(f"class {index}", f"n{index}") for index in range(3, 11)]

    def known_as(classes: list[Category]) -> Answers:
        return replace(one, source=replace(one.source, classes=tuple(classes)))

    named, by_id = known_as(birds), known_as([Category(str(each.wordnet_id)) for each in birds])
    assert compared(named, by_id)["differing"] == compared(by_id, named)["differing"] == []
    swapped = known_as([birds[1], birds[0], *birds[2:]])
    cranes = [f"{index}.png" for index, each in enumerate(one.answers.tolist()) if each < 2]
    assert [row["photo"] for row in compared(named, swapped)["differing"]] == cranes != []


def test_equal_logits_are_counted_by_one_rule() -> None:
    logits, labels = noisy(2000, 1)
    tied = answers(logits.bfloat16().float().round(), labels)
    assert tied.counts.top1 == int(tied.right.sum()) == int(confusion(tied).trace())
    assert tied.counts.top1 < tied.counts.top5 < tied.counts.photos == 2000


@pytest.mark.parametrize("scale", [0.2, 1.0, 3.0])
def test_the_temperature_undoes_a_scale(scale: float) -> None:
    logits, labels = noisy(20_000, scale)
    temperature = fit_temperature(logits, labels)
    assert temperature == pytest.approx(scale, rel=0.03)
    least = likelihood(logits, labels, temperature)
    for factor in (0.5, 0.9, 0.999, 1.001, 1.1, 2):
        assert likelihood(logits, labels, factor * temperature) > least
    error, _ = reliability((logits.double() / temperature).softmax(1), logits.argmax(1) == labels)
    assert error < 0.015


def test_a_temperature_is_refused_where_none_is_best() -> None:
    logits, labels = noisy(199, 1)
    with pytest.raises(DatasetError, match="at least 200 photos, got 199"):
        fit_temperature(logits, labels)
    logits, _ = noisy(300, 1)
    for right in (logits.argmax(1), logits.argmin(1)):
        with pytest.raises(DatasetError, match="no temperature"):
            fit_temperature(logits, right)


def test_mcnemar_is_the_binomial_test() -> None:
    stats = pytest.importorskip("scipy.stats", reason=NOT_INSTALLED + "scipy")
    for alone, other in ((0, 0), (0, 1), (5, 5), (3, 17), (17, 3), (120, 161), (1000, 1100)):
        expected = stats.binomtest(alone, alone + other).pvalue if alone + other else 1.0
        assert mcnemar(alone, other) == pytest.approx(expected, rel=1e-9)
    assert mcnemar(20_000, 25_000) < 1e-100


def test_the_paired_interval_covers() -> None:
    """Of many draws with a known difference, some 95 % of the intervals hold it."""
    generator = torch.Generator().manual_seed(1)
    held = 0
    for _ in range(1000):
        drawn = torch.multinomial(torch.tensor([0.8, 0.08, 0.12]), 400, True, generator=generator)
        low, high = paired_interval(int((drawn == 1).sum()), int((drawn == 2).sum()), 400)
        held += low <= 4.0 <= high
    assert 930 <= held <= 975
    assert paired_interval(0, 0, 100) == (pytest.approx(-1.92, abs=0.01), pytest.approx(1.92, abs=0.01))
    low, high = paired_interval(0, 1, 1)
    assert -100 <= low < high <= 100


def test_precision_and_recall_are_scikit_learns() -> None:
    metrics = pytest.importorskip("sklearn.metrics", reason=NOT_INSTALLED + "sklearn")
    logits, labels = noisy(500, 1)
    labels[labels == 7] = 3
    said = answers(logits, labels)
    found = per_class(said)
    classes = list(range(10))
    matrix = metrics.confusion_matrix(labels.tolist(), said.answers.tolist(), labels=classes)
    assert confusion(said).tolist() == matrix.tolist()
    precision, recall, _, support = metrics.precision_recall_fscore_support(
        labels.tolist(), said.answers.tolist(), labels=classes, zero_division=0
    )
    for row in found:
        index = int(str(row["index"]))
        assert row["photos"] == support[index]
        assert row["precision"] == pytest.approx(precision[index])
        assert row["recall"] == (pytest.approx(recall[index]) if support[index] else None)


def test_reliability_by_hand() -> None:
    probabilities = torch.tensor([[0.95, 0.05], [0.91, 0.09], [0.4, 0.6], [1.0, 0.0]], dtype=torch.float64)
    error, bins = reliability(probabilities, torch.tensor([True, False, False, True]))
    # 0.95 and 1.0 lie in (14/15, 1], 0.91 in (13/15, 14/15], 0.6 in (8/15, 9/15]
    assert [each["photos"] for each in bins] == [1, 1, 2]
    assert error == pytest.approx(0.25 * 0.6 + 0.25 * 0.91 + 0.5 * (1 - 0.975))


def test_coverage_by_hand() -> None:
    rows = {row["min_probability"]: row for row in coverage([0.3, 0.6, 0.9], [False, True, True])}
    assert rows[0.0] == {"min_probability": 0, "answered": 1, "accuracy": pytest.approx(2 / 3)}
    assert rows[0.5] == {"min_probability": 0.5, "answered": pytest.approx(2 / 3), "accuracy": 1}
    assert rows[0.9]["answered"] == pytest.approx(1 / 3)
    assert rows[0.91] == {"min_probability": 0.91, "answered": 0, "accuracy": None}


def test_a_comparison_counts_photos() -> None:
    labels = torch.tensor([0, 1, 2, 3, 4])
    one = answers(torch.eye(10)[[0, 1, 2, 9, 9]], labels)
    two = answers(torch.eye(10)[[0, 5, 2, 3, 8]], labels)
    found = compared(one, two)
    assert [found[key] for key in ("photos", "only_first", "only_second", "difference", "p")] == [5, 1, 1, 0, 1]
    assert [row["photo"] for row in found["differing"]] == ["1.png", "3.png", "4.png"]
    assert math.isclose(found["interval"][0], -found["interval"][1])
    with pytest.raises(DatasetError, match="the same photos"):
        compared(one, answers(torch.eye(10)[[0]], labels[:1]))
