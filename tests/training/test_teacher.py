"""Distillation, and training on classes of unequal size: what is computed, and what is refused before it begins."""

import copy
import json
import re
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
import torch
import torch.nn.functional as F
from support.colours import COLOURS, assert_equal, load, make_colours, train
from support.networks import randomise
from torch import Tensor, nn

import tools.teacher
from shufflenetv2.__main__ import main
from shufflenetv2.builder import resolve
from shufflenetv2.description import STANDARD, Description
from shufflenetv2.devices import Group
from shufflenetv2.errors import CheckpointError, TrainingError
from shufflenetv2.network.formats.described import KEYS
from shufflenetv2.network.model import ShuffleNetV2, spec_of
from shufflenetv2.photos.folders import LabelledPhotos, read_labelled
from shufflenetv2.photos.transform import PhotoTransform
from shufflenetv2.training.augment import TrainingPhotos, class_weights, epoch_batches
from shufflenetv2.training.recipe import Augmentation, Recipe
from shufflenetv2.training.teacher import Teacher, distillation, open_teacher
from shufflenetv2.training.trainer import Trainer
from shufflenetv2.weights.checkpoint import write_checkpoint

pytestmark = pytest.mark.usefixtures("one_thread")

ALONE = Group(0, 1, torch.device("cpu"))
CPU = torch.device("cpu")
NAMES = tuple(COLOURS)


class Mean(nn.Module):
    """A foreign network: the logits are the mean of each channel of its input, whatever the size."""

    def __init__(self, factor: float = 1.0) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, images: Tensor) -> Tensor:
        return self.factor * images.mean([2, 3])


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_colours(tmp_path_factory.mktemp("colours"), 8)


@pytest.fixture
def script(tmp_path: Path) -> Path:
    torch.jit.script(Mean()).save(tmp_path / "mean.pt")
    return tmp_path / "mean.pt"


@pytest.fixture
def program(tmp_path: Path) -> Path:
    shape = {0: torch.export.Dim("batch"), 2: torch.export.Dim("height"), 3: torch.export.Dim("width")}
    torch.export.save(
        torch.export.export(Mean(), (torch.zeros(2, 3, 33, 34),), dynamic_shapes=(shape,)), tmp_path / "mean.pt2"
    )
    return tmp_path / "mean.pt2"


def described(
    path: Path, categories: tuple[str, ...], mean: tuple[float, ...] = STANDARD.mean, crop: int = 64
) -> nn.Module:
    """A checkpoint that names its classes and how it sees photos."""
    torch.manual_seed(0)
    model = randomise(ShuffleNetV2(spec_of("shufflenet_v2_x0_5"), len(categories)))
    preprocess = replace(STANDARD, resize=crop, crop=crop, mean=mean)
    write_checkpoint(path, model.state_dict(), Description("shufflenet_v2_x0_5", 3, categories, preprocess))
    return model


def test_the_loss_is_that_of_the_paper() -> None:
    """Hinton et al. 2015, section 2: cross-entropy with the softened answers, times T squared, less their entropy."""
    generator = torch.Generator().manual_seed(0)
    logits, answers = torch.randn(2, 5, 7, generator=generator, dtype=torch.float64)
    soft, own = (answers / 4).softmax(1), (logits / 4).softmax(1)
    expected = (soft * (soft.log() - own.log())).sum(1).mean() * 16
    assert float(distillation(logits, answers, 4.0).mean()) == pytest.approx(float(expected), rel=1e-6)
    assert distillation(logits, logits, 2.0).tolist() == pytest.approx([0] * 5, abs=1e-6)


def test_gradients_of_a_hot_teacher_are_of_the_labels_magnitude() -> None:
    logits = torch.tensor([[1.0, -1.0, 0.5]], requires_grad=True)
    answers = torch.tensor([[0.3, 0.2, -0.5]])
    [hot] = torch.autograd.grad(distillation(logits, answers, 1000.0).mean(), logits)
    centred = (logits - logits.mean()) - (answers - answers.mean())
    assert torch.allclose(hot, centred.detach() / 3, atol=1e-3)  # section 2.1: matching logits


@pytest.mark.parametrize("kind", ["script", "program"])
def test_a_foreign_file_sees_the_models_own_input(kind: str, request: pytest.FixtureRequest) -> None:
    teacher = open_teacher(str(request.getfixturevalue(kind)), NAMES, STANDARD, [32, 64], CPU)
    images = torch.rand(3, 3, 48, 48)
    assert torch.allclose(teacher(images), images.mean([2, 3]), atol=1e-6)


@pytest.mark.slow
def test_a_file_that_export_wrote_teaches_its_own_labels(tmp_path: Path) -> None:
    categories = tuple(reversed(COLOURS))
    described(tmp_path / "teacher.pth", categories)
    assert main(["export", "--weights", str(tmp_path / "teacher.pth"), "-o", str(tmp_path / "teacher.pt2")]) == 0
    images = torch.rand(2, 3, 64, 64)
    plain, exported = (
        open_teacher(str(tmp_path / name), NAMES, STANDARD, [64], CPU) for name in ("teacher.pth", "teacher.pt2")
    )
    assert torch.allclose(exported(images), plain(images), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(plain(images), plain(images).flip(1), atol=0.1)  # the order of labels matters


def test_a_described_teacher_gets_its_own_normalisation_size_and_order(tmp_path: Path) -> None:
    categories = tuple(reversed(COLOURS))
    model = described(tmp_path / "teacher.pth", categories, mean=(0.1, 0.2, 0.3))
    teacher = open_teacher(str(tmp_path / "teacher.pth"), NAMES, STANDARD, [32], CPU)
    pixels = torch.rand(2, 3, 32, 32)
    mine, theirs = (
        (pixels - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(STANDARD.std).view(3, 1, 1)
        for mean in (STANDARD.mean, (0.1, 0.2, 0.3))
    )
    with torch.inference_mode():
        expected = model(F.interpolate(theirs, (64, 64), mode="bilinear", align_corners=False)).flip(1)
    assert torch.allclose(teacher(mine), expected, rtol=1e-4, atol=1e-4)
    assert expected.std() > 0.1


def test_a_teacher_knows_its_classes_as_the_weights_to_start_from_do(tmp_path: Path) -> None:
    """By WordNet id, which ImageNet's folders are called, and in either form of Unicode."""
    model = described(tmp_path / "accent.pth", ("e\u0301", "b"))
    teacher = open_teacher(str(tmp_path / "accent.pth"), ("b", "\xe9"), STANDARD, [64], CPU)
    images = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        assert torch.allclose(teacher(images), model(images).flip(1), rtol=1e-4, atol=1e-4)
    of_imagenet = randomise(ShuffleNetV2(spec_of("shufflenet_v2_x0_5"), 1000))
    torch.save(of_imagenet.state_dict(), tmp_path / "bare.pth")
    ids = [str(each.wordnet_id) for each in resolve(None, tmp_path / "bare.pth").classes]
    teacher = open_teacher(str(tmp_path / "bare.pth"), ids[::-1], STANDARD, [224], CPU)
    images = torch.rand(2, 3, 224, 224)
    with torch.inference_mode():
        assert torch.allclose(teacher(images), of_imagenet(images).flip(1), rtol=1e-4, atol=1e-4)


def test_a_teacher_for_grey_photos_is_refused(tmp_path: Path) -> None:
    grey = ShuffleNetV2(spec_of("shufflenet_v2_x0_5"), 3, 1)
    write_checkpoint(tmp_path / "g.pth", grey.state_dict(), Description("shufflenet_v2_x0_5", 1, NAMES, STANDARD))
    with pytest.raises(TrainingError, match=r"g\.pth is for images of 1 channel, and photos have 3; give another$"):
        open_teacher(str(tmp_path / "g.pth"), NAMES, STANDARD, [64], CPU)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("cifar10", "--teacher shufflenet_v2_x0_5/cifar10_v2 knows 10 classes .*, and the photos have 3"),
        ("teacher-of-two.pth", "knows 2 classes .red, blue., and the photos have 3"),
        ("wide.pt", r"answers images \[9, 3, 64, 64\] with \[9, 96\], expected \[9, 3\]"),
        ("fails.pt", r"--teacher .*fails.pt fails on images \[9, 3, 64, 64\]"),
        ("two.pt2", r"fails on images \[9, 3, 64, 64\].*take any: dynamic_shapes=\(\{0: Dim\("),
        ("nan.pt", r"answers images \[9, 3, 64, 64\] with NaN or infinity"),
        ("damaged.pt2", "cannot be opened"),
    ],
)
def test_what_cannot_teach_is_refused_before_the_first_epoch(
    name: str, told: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    described(tmp_path / "teacher-of-two.pth", ("red", "blue"))
    torch.jit.script(nn.Sequential(nn.AdaptiveAvgPool2d((32, 1)), nn.Flatten())).save(tmp_path / "wide.pt")
    torch.jit.script(nn.Linear(5, 3)).save(tmp_path / "fails.pt")
    torch.export.save(torch.export.export(Mean(), (torch.zeros(2, 3, 64, 64),)), tmp_path / "two.pt2")
    torch.jit.script(Mean(torch.nan)).save(tmp_path / "nan.pt")
    with zipfile.ZipFile(tmp_path / "damaged.pt2", "w") as archive:
        archive.writestr("damaged/archive_format", "pt2")
    given = name if name == "cifar10" else str(tmp_path / name)
    assert train(data, tmp_path / "run", "--epochs", "1", "--teacher", given) == 1
    error = capsys.readouterr().err
    assert re.search(told, error), error
    assert not (tmp_path / "run").exists()


def test_a_teacher_is_tried_on_the_largest_batch(tmp_path: Path) -> None:
    path = tmp_path / "some.pt2"
    shape = {0: torch.export.Dim("batch", min=2, max=64)}
    torch.export.save(torch.export.export(Mean(), (torch.zeros(2, 3, 32, 32),), dynamic_shapes=(shape,)), path)
    assert open_teacher(str(path), NAMES, STANDARD, [32], CPU, (2, 64)).title == str(path)
    with pytest.raises(TrainingError, match=r"fails on images \[65, 3, 32, 32\]"):
        open_teacher(str(path), NAMES, STANDARD, [32], CPU, (64, 65))


class Cast(nn.Module):
    """Of what torch.export makes of this, the cast insists on float32."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 3, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.layer(images).float().mean([2, 3])


def test_a_teacher_is_tried_under_amp_as_training_will_ask_it(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shape, path = {0: torch.export.Dim("batch")}, tmp_path / "cast.pt2"
    torch.export.save(torch.export.export(Cast(), (torch.zeros(2, 3, 32, 32),), dynamic_shapes=(shape,)), path)
    assert open_teacher(str(path), NAMES, STANDARD, [32], CPU).title == str(path)
    taught = ["--epochs", "1", "--sizes", "32", "--small-stem", "--teacher", str(path), "--amp"]
    assert train(data, tmp_path / "run", *taught) == 1
    error = capsys.readouterr().err
    assert re.search(r"--teacher .*cast\.pt2 does not compute under --amp: .*BFloat16; leave --amp out$", error, re.M)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("layer", [nn.BatchNorm2d(3), nn.Dropout(0.5)])
@pytest.mark.parametrize("count", [2, 64])
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")  # BatchNorm asks for the number of values
def test_a_teacher_in_training_mode_is_refused(layer: nn.Module, count: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(layer, Mean(), nn.Linear(3, 3))
    images, shape = torch.randn(2, 3, 32, 32), {0: torch.export.Dim("batch")}
    for mode, name in ((False, "eval.pt2"), (True, "train.pt2")):
        path = tmp_path / name
        torch.export.save(torch.export.export(network.train(mode), (images,), dynamic_shapes=(shape,)), path)
        if mode:
            with pytest.raises(TrainingError, match=r"training mode does; call \.eval\(\) before exporting it"):
                open_teacher(str(path), NAMES, STANDARD, [32], CPU, (count,))
        else:
            open_teacher(str(path), NAMES, STANDARD, [32], CPU, (count,))
    torch.jit.trace(network.train(), images, check_trace=False).save(tmp_path / "trace.pt")  # type: ignore[no-untyped-call]
    with pytest.raises(TrainingError, match="as a network in training mode does"):
        open_teacher(str(tmp_path / "trace.pt"), NAMES, STANDARD, [32], CPU, (count,))


def test_the_teacher_sees_the_crops_that_the_model_sees(data: Path, tmp_path: Path) -> None:
    """With all of the weight on the teacher, the loss follows from what was shown to it."""
    torch.jit.script(Mean()).save(tmp_path / "teacher.pt")
    photos = read_labelled(data)
    torch.manual_seed(0)
    model = ShuffleNetV2(spec_of("shufflenet_v2_x0_5", small_stem=True), 3)
    start = copy.deepcopy(model).train()
    recipe = Recipe(
        ((32, 1.0),),
        epochs=1,
        batch_size=8,
        lr=1e-9,
        workers=0,
        distill_weight=1.0,
        temperature=1.0,
        label_smoothing=0.0,
    )
    teacher = open_teacher(str(tmp_path / "teacher.pt"), photos.categories, STANDARD, [32], CPU)
    seen: list[Tensor] = []

    def watched(images: Tensor) -> Tensor:
        seen.append(images)
        return teacher.network(images)

    trainer = Trainer(model, photos, STANDARD, recipe, ALONE, replace(teacher, network=watched))
    result = trainer.run_epoch(MagicMock())
    assert sum(map(len, seen)) == len(photos)
    with torch.no_grad():
        losses = [distillation(start(each), each.mean([2, 3]), 1.0) for each in seen]
    assert result.loss == pytest.approx(float(torch.cat(losses).mean()), rel=1e-3)


@pytest.mark.slow
def test_resumed_with_a_teacher_bit_for_bit_and_with_another_not_at_all(
    data: Path, tmp_path: Path, script: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    taught = ["--epochs", "2", "--sizes", "32", "--small-stem", "--reestimate-norms"]
    taught += ["--class-weights", "auto", "--teacher", str(script)]
    assert train(data, tmp_path / "whole", *taught) == 0
    run_epoch = Trainer.run_epoch

    def interrupted(trainer: Trainer, bar: object) -> object:
        if trainer.epoch == 1:
            raise KeyboardInterrupt
        return run_epoch(trainer, bar)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "run_epoch", interrupted)
        assert train(data, tmp_path / "cut", *taught) == 130
    capsys.readouterr()
    torch.jit.script(nn.Sequential(Mean(), nn.Linear(3, 3))).save(tmp_path / "other.pt")
    for changed, told in (
        (["--teacher", str(tmp_path / "other.pt")], "teacher was one of sha256"),
        (["--temperature", "2"], "temperature was 4.0 and is 2.0"),
        (["--distill-weight", "0.5"], "distill weight was 0.9 and is 0.5"),
    ):
        assert train(data, tmp_path / "cut", *taught, *changed, "--resume") == 1
        assert f"holds another run: {told}" in capsys.readouterr().err
    assert train(data, tmp_path / "cut", *taught, "--resume") == 0
    for name in ("last.pth", "best.pth"):
        assert_equal(load(tmp_path / "whole" / name), load(tmp_path / "cut" / name))
    assert load(tmp_path / "cut" / "best.pth")["small_stem"] is True


def test_norms_are_those_of_the_photos_as_validation_sees_them(data: Path) -> None:
    photos = read_labelled(data)
    small = spec_of("shufflenet_v2_x0_5", small_stem=True)
    preprocess = replace(STANDARD, resize=32, crop=32)
    recipe = Recipe(((32, 1.0),), epochs=1, batch_size=len(photos), workers=0, reestimate_norms=True)
    trainer = Trainer(ShuffleNetV2(small, 3), photos, preprocess, recipe, ALONE)
    trainer.run_epoch(MagicMock())
    average = trainer.average.module
    images = PhotoTransform(preprocess)(list(photos.paths))
    given = average.conv1[0](images)
    assert torch.allclose(average.conv1[1].running_mean, given.mean([0, 2, 3]), atol=1e-5)
    assert torch.allclose(average.conv1[1].running_var, given.var([0, 2, 3]), rtol=1e-4)
    assert average.conv1[1].momentum == 0.1  # as it was, for a run that goes on


@pytest.mark.parametrize("clip_norm", [0.0, 0.01])
def test_gradients_are_clipped_over_a_whole_step(data: Path, clip_norm: float, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = Recipe(((32, 1.0),), epochs=1, batch_size=6, accumulate=2, workers=0, clip_norm=clip_norm)
    model = ShuffleNetV2(spec_of("shufflenet_v2_x0_5", small_stem=True), 3)
    trainer = Trainer(model, read_labelled(data), replace(STANDARD, resize=32, crop=32), recipe, ALONE)
    norms: list[Tensor] = []
    step = trainer.optimizer.step

    def measured() -> None:
        gradients = [each.grad for each in model.parameters() if each.grad is not None]
        norms.append(torch.stack([each.norm() for each in gradients]).norm())
        step()

    monkeypatch.setattr(trainer.optimizer, "step", measured)
    trainer.run_epoch(MagicMock())
    assert len(norms) == 2
    if clip_norm:
        torch.testing.assert_close(torch.stack(norms), torch.full((2,), clip_norm), rtol=1e-3, atol=0)
    else:
        assert min(norms) > 0.1


def test_class_weights_give_each_class_the_same_part() -> None:
    photos = LabelledPhotos((Path("x"),) * 8, (0, 0, 0, 0, 0, 1, 1, 2), ("a", "b", "c"))
    weights = class_weights(photos)
    labels = torch.tensor(photos.labels)
    assert torch.allclose(weights[labels].mean(), torch.ones(()))
    parts = torch.stack([weights[labels][labels == label].sum() for label in range(3)])
    assert torch.allclose(parts, torch.full((3,), 8 / 3))


def test_a_file_that_describes_itself_wrongly_is_no_foreign_one(data: Path, tmp_path: Path) -> None:
    described(tmp_path / "mine.pth", tuple(sorted(COLOURS)))
    path = tmp_path / "mine.pt"
    assert main(["export", "--format", "torchscript", "--weights", str(tmp_path / "mine.pth"), "-o", str(path)]) == 0
    kept: dict[str, Any] = dict.fromkeys(KEYS, "")
    script = torch.jit.load(path, _extra_files=kept)  # type: ignore[no-untyped-call]
    torch.jit.save(script, path, _extra_files={**kept, "schema_version": "99"})  # type: ignore[no-untyped-call]
    with pytest.raises(CheckpointError, match="schema_version"):
        open_teacher(str(path), tuple(sorted(COLOURS)), STANDARD, [40], CPU)


class Brightness(nn.Module):
    """A network without BatchNorm, so that batches do not matter."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.last = nn.Linear(3, classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.last(images.mean([2, 3]))  # type: ignore[no-any-return]


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("taught", [False, True])
def test_weights_of_classes_are_of_each_photos_whole_loss(mixed: bool, taught: bool) -> None:
    """However the photos are dealt to batches, and with what is smoothed onto other classes."""
    labels = torch.tensor([0] * 10 + [1] * 2)
    photos = LabelledPhotos((Path("x"),) * 12, tuple(labels.tolist()), ("common", "rare"))
    recipe = Recipe(((32, 1.0),), epochs=1, batch_size=4, class_weights="auto", label_smoothing=0.1)
    torch.manual_seed(0)
    network, answers = Brightness(2), Brightness(2)
    teacher = Teacher(answers, "it", "it") if taught else None
    trainer = Trainer(ShuffleNetV2(spec_of("shufflenet_v2_x0_5"), 2), photos, STANDARD, recipe, ALONE, teacher)
    trainer.replica = network
    shares = 0.7 * F.one_hot(labels, 2) + 0.3 * F.one_hot(labels.flip(0), 2) if mixed else None

    def targets(images: Tensor, given: Tensor, size: int) -> tuple[Tensor, Tensor]:
        return images, given if shares is None else shares[images[:, 0, 0, 0].long()]

    trainer.transform = targets  # type: ignore[assignment]
    images = torch.randn(12, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    images[:, 0, 0, 0] = torch.arange(12)  # by which each photo is known
    gradients = []
    for parts in ([12], [6, 6], [4, 4, 4], [1] * 12):
        network.zero_grad()
        for some, own in zip(images.split(parts), labels.split(parts), strict=True):
            trainer._backward(some, own, 32, len(own) / 12, synchronize=True)
        gradients.append(torch.cat([each.grad.flatten() for each in network.parameters() if each.grad is not None]))
    logits = network(images)
    soft = shares if shares is not None else F.one_hot(labels, 2).float()
    losses = -((0.9 * soft + 0.05) * logits.log_softmax(1)).sum(1)
    if taught:
        losses = 0.1 * losses + 0.9 * distillation(logits, answers(images), recipe.temperature)
    expected = torch.autograd.grad((losses * (soft @ torch.tensor([12 / 20, 12 / 4]))).mean(), [*network.parameters()])
    for each in gradients:
        torch.testing.assert_close(each, torch.cat([part.flatten() for part in expected]), rtol=1e-5, atol=1e-6)


def test_balanced_draws_each_class_as_often(data: Path) -> None:
    photos = read_labelled(data)
    red = [index for index, label in enumerate(photos.labels) if label == photos.categories.index("red")]
    rare = photos.take([index for index in range(len(photos)) if index not in red[1:]])  # one red photo
    dataset = TrainingPhotos(rare, Augmentation(photo_size=32), 32)
    drawn = torch.cat(
        [labels for epoch in range(40) for _, labels in epoch_batches(dataset, 3, ALONE, 0, 0, epoch, balanced=True)]
    )
    shares = drawn.bincount() / len(drawn)
    assert torch.allclose(shares, torch.full((3,), 1 / 3), atol=0.06)  # four standard deviations of 680 draws
    again = [labels for _, labels in epoch_batches(dataset, 3, ALONE, 0, 0, 0, balanced=True)]
    assert torch.equal(torch.cat(again), drawn[: len(rare)])


def test_an_opened_teacher_is_named_by_its_contents(tmp_path: Path, script: Path) -> None:
    described(tmp_path / "a.pth", NAMES)
    first = open_teacher(str(tmp_path / "a.pth"), NAMES, STANDARD, [32], CPU).contents
    (tmp_path / "moved.pth").write_bytes((tmp_path / "a.pth").read_bytes())
    assert open_teacher(str(tmp_path / "moved.pth"), NAMES, STANDARD, [32], CPU).contents == first
    assert open_teacher(str(script), NAMES, STANDARD, [32], CPU).contents != first
    with pytest.raises(TrainingError, match=r"expected \[2, 2\]"):
        open_teacher(str(script), ("a", "b"), STANDARD, [32], CPU)


@pytest.mark.slow
def test_two_networks_make_a_teacher(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``python -m tools teacher``, stopped after an epoch and gone on with: the file is one that ``train`` takes."""
    quick = {name: replace(plan, batch=6, rate=0.02, average=0.5) for name, plan in tools.teacher.PLANS.items()}
    for epochs in (1, 6):
        plans = {name: replace(plan, epochs=epochs) for name, plan in quick.items()}
        monkeypatch.setattr(tools.teacher, "PLANS", plans)
        tools.teacher.teacher(data, tmp_path / "teacher", held_out=0.25)
    logs = json.loads((tmp_path / "teacher/log.json").read_text())
    assert [len(log) for log in logs.values()] == [6, 6]
    preprocess = replace(STANDARD, resize=32, crop=32)
    teacher = open_teacher(str(tmp_path / "teacher/teacher.pt2"), NAMES, preprocess, [32], CPU)
    transform, photos = PhotoTransform(preprocess), read_labelled(data)
    logits = teacher(torch.cat([transform(path) for path in photos.paths]))
    assert logits.dtype == torch.float32
    assert int((logits.argmax(1) == torch.tensor(photos.labels)).sum()) > len(photos) * 0.7


def test_patches_are_whitened() -> None:
    images = torch.rand(50, 3, 9, 9).cumsum(3)  # of pixels that depend on each other
    images -= images.mean()
    outputs = tools.teacher.whitening(images)
    outputs.requires_grad_(False).bias.zero_()
    found = outputs(images)[:, :12].transpose(0, 1).flatten(1)
    covariance = found @ found.T / found.shape[1]
    torch.testing.assert_close(covariance, torch.diag(covariance.diagonal()), atol=1e-3, rtol=0)
    assert float(covariance.diagonal().max()) <= 1 + 1e-4
