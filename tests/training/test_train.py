"""Training: what it computes, and that nothing is lost when it fails."""

import argparse
import csv
import shutil
from collections.abc import Iterator
from dataclasses import MISSING, fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from support.colours import COLOURS, ENVIRONMENT, assert_equal, load, make_colours, train
from support.processes import ROOT, run_python
from support.skips import needs_posix

from shufflenetv2.__main__ import main
from shufflenetv2.commands.train import add_arguments, make_recipe
from shufflenetv2.description import STANDARD, Description, Preprocess
from shufflenetv2.devices import Group
from shufflenetv2.entrypoints import classifier
from shufflenetv2.errors import TrainingError
from shufflenetv2.network.model import SPECS, ShuffleNetV2, spec_of
from shufflenetv2.photos.folders import LabelledPhotos, hold_out, read_labelled
from shufflenetv2.photos.transform import PhotoTransform
from shufflenetv2.training.augment import Augmentation, BatchTransform, TrainingPhotos, derived_seed, shift
from shufflenetv2.training.optimizing import moving_average, sgd
from shufflenetv2.training.recipe import rate_factor, size_at
from shufflenetv2.training.trainer import Recipe, Trainer

pytestmark = pytest.mark.usefixtures("one_thread")

DESCRIPTION = Description("shufflenet_v2_x0_5", 3, ("a", "b"), STANDARD)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixteen 32x32 photos of each of three noisy colours."""
    return make_colours(tmp_path_factory.mktemp("colours"))


@pytest.mark.slow
def test_learns_and_describes_itself(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is red and what is blue is learnt in seconds, and the result needs nothing but its file."""
    arguments = ["--epochs", "8", "--sizes", "64:0.5", "72:0.5", "--batch-size", "4", "--lr", "0.02", "--ema", "0.8"]
    assert train(data, tmp_path, *arguments) == 0
    assert capsys.readouterr().err.count("\nepoch ") == 7
    with open(tmp_path / "log.csv", newline="") as file:
        log = list(csv.DictReader(file))
    assert [row["epoch"] for row in log] == [str(epoch) for epoch in range(1, 9)]
    assert [row["size"] for row in log] == ["64"] * 4 + ["72"] * 4
    assert float(log[-1]["loss"]) < float(log[0]["loss"])
    assert all(0 <= float(row["waiting"]) < 1 for row in log)
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "best.pth",
        "command.json",
        "curves.png",
        "last.pth",
        "log.csv",
    ]

    best = load(tmp_path / "best.pth")
    assert best["arch"] == "shufflenet_v2_x0_5"
    assert best["categories"] == list(COLOURS)
    assert best["preprocess"]["resize"] == best["preprocess"]["crop"] == 72  # type: ignore[index]
    accuracy = max(float(row["val_accuracy"]) for row in log)
    assert best["metrics"]["acc@1"] == pytest.approx(100 * accuracy, abs=1e-3)  # type: ignore[index]
    assert accuracy > 0.9
    classify = classifier(weights=tmp_path / "best.pth")
    for name in COLOURS:
        prediction = classify(data / name / "0.png")[0]
        assert (prediction.label, len(classify.categories)) == (name, 3)  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def finished(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one epoch."""
    output = tmp_path_factory.mktemp("finished")
    assert train(data, output, "--epochs", "1") == 0
    return output


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy of it to go on with."""
    for path in finished.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def error_of(capsys: pytest.CaptureFixture[str]) -> str:
    message = capsys.readouterr().err
    assert message.startswith("shufflenetv2: error: ")
    assert "Traceback" not in message
    return message


@needs_posix
def test_a_full_disk(data: Path, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import resource

    before = (run / "last.pth").read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, hard))  # room for best.pth, not for last.pth
    try:
        assert train(data, run, "--epochs", "2", "--resume") == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert f"epoch 2 cannot be written to {run}" in error_of(capsys)
    assert (run / "last.pth").read_bytes() == before
    assert sorted(path.name for path in run.iterdir()) == [
        "best.pth",
        "command.json",
        "curves.png",
        "last.pth",
        "log.csv",
    ]
    assert train(data, run, "--epochs", "2", "--resume") == 0


def test_a_loss_that_is_not_a_number(
    data: Path, run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (run / "last.pth").read_bytes()
    monkeypatch.setattr(torch.nn.CrossEntropyLoss, "forward", lambda self, logits, _: logits.sum() * torch.nan)
    assert train(data, run, "--epochs", "2", "--resume") == 1
    message = error_of(capsys)
    assert "no longer finite (NaN or infinite) in epoch 2" in message
    assert "lower --lr than 0.05" in message
    assert message.endswith("longer --warmup than 0.1; the files of epoch 1 are intact\n")
    assert (run / "last.pth").read_bytes() == before
    assert train(data, run / "new", "--epochs", "2") == 1
    assert error_of(capsys).endswith("longer --warmup than 0.1\n")  # no epoch has left files


@pytest.mark.parametrize("workers", ["0", "1"])
def test_a_corrupt_photo(data: Path, tmp_path: Path, workers: str, capsys: pytest.CaptureFixture[str]) -> None:
    for name in COLOURS:
        (tmp_path / "data" / name).mkdir(parents=True)
        for path in sorted((data / name).iterdir())[:4]:
            (tmp_path / "data" / name / path.name).symlink_to(path)
    corrupt = tmp_path / "data/green/corrupt.jpg"
    corrupt.write_bytes((ROOT / "images/cat.jpg").read_bytes()[:3000])
    output = tmp_path / "run"
    assert train(tmp_path / "data", output, "--epochs", "1", "--held-out", "0", "--workers", workers) == 1
    assert str(corrupt) in error_of(capsys)
    assert [path.name for path in output.iterdir()] == ["command.json"]  # which the next command writes anew


def test_a_corrupt_photo_to_validate_on_is_told_before_the_first_epoch(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    val = make_colours(tmp_path / "val", 1)
    (val / "red/corrupt.jpg").write_bytes((ROOT / "images/cat.jpg").read_bytes()[:3000])
    monkeypatch.setattr(Trainer, "run_epoch", lambda *arguments: pytest.fail("an epoch began"))
    assert train(data, tmp_path / "run", "--epochs", "1", "--val", str(val)) == 1
    assert f"{val / 'red/corrupt.jpg'} cannot be decoded" in error_of(capsys)


def test_sizes_have_shares_or_none() -> None:
    recipe = make_recipe(parse("--sizes", "64", "96"), DESCRIPTION)
    assert recipe.sizes == ((64, 0.5), (96, 0.5))
    recipe = make_recipe(parse("--sizes", "64:0.6", "96:0.2"), DESCRIPTION)
    assert [share for _, share in recipe.sizes] == pytest.approx([0.75, 0.25])
    with pytest.raises(TrainingError, match="give every size its share of the epochs, or none"):
        make_recipe(parse("--sizes", "64:0.6", "96"), DESCRIPTION)


def test_an_empty_class(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "red").symlink_to(data / "red")
    assert train(photos, tmp_path / "run", "--epochs", "1") == 1
    assert "has one class, 'red'" in error_of(capsys)
    (photos / "green").mkdir()
    assert train(photos, tmp_path / "run", "--epochs", "1") == 1
    assert f"the folder {photos / 'green'} holds no photo" in error_of(capsys)


def test_nothing_is_written_through_a_link(data: Path, run: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    mine = tmp_path_factory.mktemp("mine") / "mine"
    mine.write_text("untouched")
    written = ("best.pth", "log.csv", "curves.png")
    for name in written:
        (run / name).unlink()
    for name in (*written, *(f".{name}.partial" for name in written)):
        (run / name).symlink_to(mine)
    assert train(data, run, "--epochs", "1", "--resume") == 0
    assert mine.read_text() == "untouched"
    assert not any((run / name).is_symlink() for name in written)


def test_a_frozen_backbone_stays(data: Path, run: Path, tmp_path: Path) -> None:
    output = tmp_path / "frozen"
    arguments = ["--weights", str(run / "best.pth"), "--freeze-backbone", "--epochs", "1", "--ema", "0"]
    assert train(data, output, *arguments) == 0
    before, after = (load(folder / "best.pth")["state_dict"] for folder in (run, output))
    assert isinstance(before, dict)
    assert isinstance(after, dict)
    changed = [key for key in before if not torch.equal(before[key], after[key])]
    assert changed == ["fc.weight", "fc.bias"]


def parse(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args(["photos", "--output", "run", *arguments])


def test_the_defaults_are_the_recipes() -> None:
    options = vars(parse())
    for field in (*fields(Recipe), *fields(Augmentation)):
        if field.default is not MISSING:
            assert options[field.name] == field.default, field.name
    recipe = Recipe(((224, 1.0),))
    assert make_recipe(parse(), DESCRIPTION) == recipe
    assert (recipe.weight_decay, recipe.decay, recipe.ema, recipe.workers) == (5e-5, "cosine", 0.99, 2)
    assert (recipe.epochs, recipe.batch_size, recipe.lr) == (30, 64, 0.05)
    assert (recipe.warmup, recipe.momentum, recipe.label_smoothing) == (0.1, 0.9, 0.1)


def test_every_option_reaches_the_recipe() -> None:
    arguments = (
        "--sizes 64:0.2 96:0.2 --epochs 3 --batch-size 4 --accumulate 5 --lr 0.6 --decay linear --warmup 0.7 "
        "--momentum 0.8 --weight-decay 0.9 --clip-norm 3 --label-smoothing 0.11 --ema 0.12 "
        "--workers 1 --amp --channels-last --seed 14 --photo-size 32 --min-scale 0.5 --no-flip --trivial-augment "
        "--random-erasing 0.1 --mixup 0.2 --cutmix 0.3 --balanced --temperature 2 "
        "--distill-weight 0.4 --reestimate-norms --teacher it.pt"
    )
    sizes, augmentation = ((64, 0.5), (96, 0.5)), Augmentation(32, 0.5, False, True, 0.1, 0.2, 0.3)
    expected = (sizes, 3, 4, 5, 0.6, "linear", 0.7, 0.8, 0.9, 3.0, 0.11, "equal", True, 2.0, 0.4, 0.12)
    all_of_it = (*expected, True, False, 1, True, True, 14, True, augmentation)
    assert make_recipe(parse(*arguments.split()), replace(DESCRIPTION, small_stem=True)) == Recipe(*all_of_it)
    others = make_recipe(parse("--class-weights", "auto", "--freeze-backbone", "--random-erasing", "1"), DESCRIPTION)
    assert others.augmentation.random_erasing == 1  # a probability may be
    assert (others.class_weights, others.freeze_backbone, others.reestimate_norms) == ("auto", True, False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--balanced --class-weights auto", "both make up for classes of unequal size; give one"),
        ("--freeze-backbone --reestimate-norms", "would change the frozen backbone"),
        ("--freeze-backbone --weights none", "on what --weights know; give some"),
        ("--temperature 2", "say how to learn from a --teacher; give one"),
        ("--distill-weight 0.5", "say how to learn from a --teacher; give one"),
    ],
)
def test_options_that_would_spoil_each_other(
    arguments: str, message: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["train", str(data), "--output", str(tmp_path / "run"), "--weights", "cifar10", "--held-out", "0.25"]
    assert main([*command, *arguments.split()]) == 1
    assert message in error_of(capsys)
    assert not (tmp_path / "run").exists()


def test_a_size_that_gets_no_epoch_is_told(caplog: pytest.LogCaptureFixture) -> None:
    make_recipe(parse("--sizes", "64", "96", "128", "--epochs", "2"), DESCRIPTION)
    assert "of 2 epochs none is left for --sizes 128; give more" in caplog.text


def test_a_run_among_the_photos_is_refused(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for output in (data / "run", data):
        assert train(data, output, "--epochs", "1") == 1
        assert f"--output {output} is among the photos, in {data}, where it would be a class" in error_of(capsys)
    val = make_colours(tmp_path / "val", 1)
    assert train(data, val / "run", "--epochs", "1", "--val", str(val)) == 1
    assert f"--output {val / 'run'} is among the photos, in {val}, where" in error_of(capsys)
    assert sorted(path.name for folder in (data, val) for path in folder.iterdir()) == sorted([*COLOURS] * 2)


def test_a_reading_process_that_dies_is_told(data: Path) -> None:
    recipe = Recipe(((32, 1.0),), epochs=1, batch_size=6, workers=0)
    model = ShuffleNetV2(spec_of("shufflenet_v2_x0_5", small_stem=True), 3)
    trainer = Trainer(model, read_labelled(data), STANDARD, recipe, Group(0, 1, torch.device("cpu")))

    def dying() -> Iterator[Any]:
        raise RuntimeError("DataLoader worker (pid(s) 17) exited unexpectedly")
        yield

    with pytest.raises(TrainingError, match=r"a process that reads photos has died: .*/dev/shm.*--workers 0"):
        trainer._taken(dying())
    other = iter(lambda: (_ for _ in ()).throw(RuntimeError("Caught RuntimeError in DataLoader worker process 0")), 1)
    with pytest.raises(RuntimeError, match=r"^Caught"):  # it has died of something else, which is told as it is
        trainer._taken(map(next, other))


@pytest.mark.slow
def test_what_it_needs_is_said_in_one_line(tmp_path: Path) -> None:
    program = """
import contextlib, sys
sys.modules.update(dict.fromkeys(["torchvision", "tqdm", "matplotlib"]))
from shufflenetv2.__main__ import main
with contextlib.suppress(SystemExit):
    main(["train", "--help"])
sys.exit(main(["train", "photos", "--output", "run"]))
"""
    environment = {**ENVIRONMENT, "PYTHONPATH": str(ROOT)}
    result = run_python(program, cwd=tmp_path, env=environment, check=False)
    assert "--trivial-augment" in result.stdout
    assert result.stderr == (
        "shufflenetv2: error: training needs torchvision, tqdm, matplotlib, which are not installed; type: "
        "pip install 'torchvision>=0.25' 'tqdm>=4.66' 'matplotlib>=3.9'\n"
    )
    assert result.returncode == 1
    assert not list(tmp_path.iterdir())


def test_the_schedule() -> None:
    assert [rate_factor(p, 0.25, "linear") for p in (0, 0.125, 0.25, 0.625, 1)] == [0, 0.5, 1, 0.5, 0]
    assert [round(rate_factor(p, 0, "cosine"), 6) for p in (0, 0.25, 0.5, 1)] == [1, 0.853553, 0.5, 0]
    sizes = ((64, 0.5), (96, 0.3), (112, 0.2))
    assert [size_at(epoch / 10, sizes) for epoch in range(10)] == [64] * 5 + [96] * 3 + [112] * 2


def test_no_weight_decay_on_norms() -> None:
    model = ShuffleNetV2(SPECS["shufflenet_v2_x0_5"], 10)
    decayed, free = sgd(model, 0.1, 0.9, 5e-4).param_groups
    assert (decayed["weight_decay"], free["weight_decay"]) == (5e-4, 0)
    norms = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    expected = {id(parameter) for norm in norms for parameter in norm.parameters()} | {id(model.fc.bias)}
    assert {id(parameter) for parameter in free["params"]} == expected
    assert len(decayed["params"]) + len(free["params"]) == len(list(model.parameters()))


def test_the_moving_average() -> None:
    model = torch.nn.BatchNorm1d(1)
    average, copied = moving_average(model, 0.2), moving_average(model, 0)
    values = (3.0, 7.0, -2.0, 0.3)
    wanted = 0.0
    for step, value in enumerate(values):
        torch.nn.init.constant_(model.weight, value)
        model.running_mean.fill_(-value)
        model.num_batches_tracked.fill_(step)
        average.update_parameters(model)
        copied.update_parameters(model)
        decay = min(0.2, (1 + step) / (10 + step))
        wanted = value if step == 0 else decay * wanted + (1 - decay) * value
    state = average.module.state_dict()
    assert (state["weight"].item(), state["running_mean"].item()) == pytest.approx((wanted, -wanted))
    assert state["num_batches_tracked"].item() == 3
    assert_equal(dict(copied.module.state_dict()), dict(model.state_dict()))


def test_no_two_processes_draw_alike() -> None:
    parts = [(seed, epoch) for seed in range(3) for epoch in range(30)]
    parts += [(*part, rank) for part in parts for rank in range(4)]
    # torch's generator for the CPU looks at the lower 32 bits alone.
    assert len({derived_seed(*part) % 2**32 for part in parts}) == len(parts)


def test_shift_moves_each_image_by_its_own_offset() -> None:
    images = torch.arange(6 * 3 * 8 * 8, dtype=torch.int32).remainder(251).to(torch.uint8).view(6, 3, 8, 8)
    torch.manual_seed(0)
    moved = shift(images, 2)
    padded = torch.nn.functional.pad(images.float(), (2, 2, 2, 2), mode="reflect").to(torch.uint8)
    offsets = set()
    for one, image in zip(moved, padded, strict=True):
        places = [(y, x) for y in range(5) for x in range(5) if torch.equal(one, image[:, y : y + 8, x : x + 8])]
        assert len(places) == 1
        offsets.update(places)
    assert len(offsets) > 1


def test_enlarged_as_at_inference() -> None:
    """Pillow rounds to whole grey levels after each of its two passes; nothing else differs."""
    preprocess = Preprocess(112, 112, "bilinear", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    image = Image.open(ROOT / "images/cat.jpg").convert("RGB").resize((32, 32))
    pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).view(1, 32, 32, 3).permute(0, 3, 1, 2)
    transform = BatchTransform(Augmentation(flip=False), preprocess, 10)
    trained_on, _ = transform(pixels, torch.zeros(1, dtype=torch.int64), 112)
    levels = (trained_on - PhotoTransform(preprocess)(image)) * torch.tensor(preprocess.std).view(3, 1, 1) * 255
    assert levels.abs().max() < 1.01


def test_of_a_very_long_photo_the_middle_is_resized(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of it, 64 pixels high, would be 77 MB."""
    strip = Image.new("RGB", (6001, 1), "red")
    strip.paste("blue", (2993, 0, 3009, 1))
    strip.save(tmp_path / "strip.png")
    photos = TrainingPhotos(LabelledPhotos((tmp_path / "strip.png",), (0,), ("a",)), Augmentation(photo_size=64), 64)
    sizes = []
    monkeypatch.setattr(Image.Image, "resize", watched(Image.Image.resize, sizes))
    image, _ = photos[0]
    assert sizes == [(16, 1)]
    assert isinstance(image, torch.Tensor)
    assert image.amax((1, 2)).tolist() == [0, 0, 255]


def watched(resize: Any, sizes: list[tuple[int, int]]) -> Any:
    def call(image: Image.Image, *arguments: Any, **options: Any) -> Image.Image:
        sizes.append(image.size)
        return resize(image, *arguments, **options)  # type: ignore[no-any-return]

    return call


def test_hold_out_takes_its_part_of_every_class() -> None:
    paths = tuple(Path(f"{index}.jpg") for index in range(50))
    photos = LabelledPhotos(paths, (0,) * 20 + (1,) * 30, ("a", "b"))
    train_set, held = hold_out(photos, 0.1, seed=4)
    assert sorted(train_set.paths + held.paths) == sorted(paths)
    assert (held.labels.count(0), held.labels.count(1)) == (2, 3)
    assert hold_out(photos, 0.1, seed=4)[1] == held
    assert hold_out(photos, 0.1, seed=5)[1] != held
    assert [photos.labels[photos.paths.index(path)] for path in held.paths] == list(held.labels)


@pytest.mark.slow
def test_split_folders_are_found(data: Path, tmp_path: Path) -> None:
    for split, names in (("train", COLOURS), ("test", list(COLOURS)[:2])):
        (tmp_path / "photos" / split).mkdir(parents=True)
        for name in names:  # copies: photos that are learnt from cannot be validated on
            shutil.copytree(data / name, tmp_path / "photos" / split / name)
    assert train(tmp_path / "photos", tmp_path / "run", "--epochs", "1") == 0
    metrics = load(tmp_path / "run/best.pth")["metrics"]
    assert metrics["dataset"] == "32 validation photos"  # type: ignore[index]
    assert read_labelled(tmp_path / "photos" / "train").categories == tuple(COLOURS)
