"""Details of one line each, found by mutation testing: every test here fails if its line is changed."""

import argparse
import importlib.util
import io
import itertools
import pickle
import re
import shutil
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from support.colours import load, make_colours, train
from support.processes import ROOT
from torch import Tensor, nn

from shufflenetv2 import devices, exporting, package
from shufflenetv2.__main__ import main
from shufflenetv2.builder import is_path, resolve
from shufflenetv2.commands import classify, options
from shufflenetv2.commands.train import read_data
from shufflenetv2.description import STANDARD, Description, Preprocess
from shufflenetv2.devices import Group
from shufflenetv2.errors import CheckpointError, ExportError, ImageError, TrainingError
from shufflenetv2.evaluation import counting
from shufflenetv2.inference import classifier as inference
from shufflenetv2.inference.stream import Result
from shufflenetv2.network.formats.table import SMALLEST_WITH_SMALL_STEM, Shape
from shufflenetv2.network.model import SPECS, ShuffleNetV2
from shufflenetv2.photos.folders import LabelledPhotos
from shufflenetv2.photos.listing import find_photos
from shufflenetv2.training.augment import Augmentation, TrainingPhotos, epoch_batches
from shufflenetv2.training.digests import contents
from shufflenetv2.training.history import curves
from shufflenetv2.training.optimizing import sgd
from shufflenetv2.training.recipe import size_at
from shufflenetv2.training.run import KINDS, RUN_FORMAT, RunFolder, read_state
from shufflenetv2.training.trainer import Recipe, Trainer
from shufflenetv2.transport import Reply
from shufflenetv2.weights import checkpoint, download, manifest
from shufflenetv2.weights.checkpoint import Checkpoint
from shufflenetv2.weights.manifest import default_entry

CIFAR = "shufflenet_v2_x0_5/cifar10_v2"


@pytest.mark.parametrize("plain", [True, False])
def test_plain_is_the_plain_network(plain: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[nn.Module] = []

    def stop(model: nn.Module, *arguments: Any, **options: Any) -> Any:
        built.append(model)
        raise ExportError("so much is enough")

    monkeypatch.setattr(exporting, "write_built", stop)
    monkeypatch.setattr(counting, "count_hits", stop)
    (tmp_path / "cat").mkdir()
    shutil.copy(ROOT / "images/cat.jpg", tmp_path / "cat")
    options = ["--weights", CIFAR, *(["--plain"] if plain else [])]
    assert main(["export", "--format", "torchscript", *options]) == 1
    assert main(["evaluate", str(tmp_path), *options]) == 1
    assert [any(isinstance(each, nn.BatchNorm2d) for each in model.modules()) for model in built] == [plain, plain]


@pytest.mark.parametrize(
    ("options", "shape"),
    [
        ([], Shape(2, 3, 0, True)),  # 0: as the weights say
        (["--fixed-batch", "3"], Shape(3, 3, 0, False)),
        (["--fixed-batch", "1", "--size", "40"], Shape(1, 3, 40, False)),
        (["--size", "224"], Shape(2, 3, 224, True)),
    ],
    ids=str,
)
def test_what_shape_is_exported(
    options: list[str], shape: Shape, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def write_nothing(model: nn.Module, order: exporting.Order, path: Path) -> list[str]:
        asked.append(order.shape)
        path.touch()
        return []

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(exporting, "write_built", write_nothing)
    assert main(["export", "--format", "torchscript", "--weights", CIFAR, *options]) == 0
    crop = resolve(None, CIFAR).preprocess.crop
    assert asked == [replace(shape, size=shape.size or crop, smallest=SMALLEST_WITH_SMALL_STEM)]
    assert [each.name for each in tmp_path.iterdir()] == ["shufflenet_v2_x0_5.pt"]


@pytest.mark.parametrize("by_hub", [False, True])
def test_a_pickled_classifier_keeps_what_it_was_made_with(by_hub: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    choose = inference.choose_device
    monkeypatch.setattr(inference, "choose_device", lambda device: asked.append(device) or choose("cpu"))
    classify = inference.Classifier(resolve(None, CIFAR), top=3, device="cuda:1", deploy=False, progress=False)
    monkeypatch.setattr(inference, "made_by_hub", lambda: by_hub)
    kept = {"top": 3, "device": "cpu", "deploy": False, "runtime": "torch"}
    kept |= {"precision": "float32", "min_probability": 0.0, "progress": False, "categories": classify.categories}
    function, arguments, _ = classify.__reduce__()
    if by_hub:
        assert function.keywords == {"source": "local", **kept}
        assert arguments == (str(ROOT), "classifier", "shufflenet_v2_x0_5", "cifar10_v2")
        return
    assert arguments == (("shufflenet_v2_x0_5", "cifar10_v2"), kept)
    again = pickle.loads(pickle.dumps(classify))
    assert (again.top, again.deploy, again.weights.title) == (3, False, CIFAR)
    assert asked == ["cuda:1", "cpu"]
    assert any(isinstance(each, nn.BatchNorm2d) for each in again.model.modules())


def test_no_two_processes_augment_alike() -> None:
    photos = LabelledPhotos((Path("a.png"), Path("b.png")), (0, 1), ("a", "b"))
    seeds = {
        (epoch, rank): epoch_batches(
            TrainingPhotos(photos, Augmentation(), 32), 1, Group(rank, 2, torch.device("cpu")), 0, 7, epoch
        ).generator.initial_seed()  # of the loaders' workers
        for epoch in range(2)
        for rank in range(2)
    }
    assert len(set(seeds.values())) == 4


@pytest.mark.parametrize(
    ("status", "again"), {**dict.fromkeys((408, 425, 429, 500, 502, 503, 504), True), 403: False, 501: False}.items()
)
def test_what_may_pass_is_tried_again(status: int, again: bool, make_entry: Callable[..., Any]) -> None:
    with pytest.raises(download._AttemptError) as caught:
        download._judge(Reply(status, {}, b""), make_entry(b"data"))
    assert caught.value.retry is again


def test_hidden_files_are_no_photos(tmp_path: Path) -> None:
    (tmp_path / ".Trash").mkdir()
    for name in ("cat.jpg", "._cat.jpg", ".Trash/old.jpg"):  # macOS leaves the second beside each photo on a USB stick
        shutil.copy(ROOT / "images/cat.jpg", tmp_path / name)
    assert list(find_photos([tmp_path])) == [tmp_path / "cat.jpg"]


def test_a_failed_import_leaves_nothing_behind(tmp_path: Path) -> None:
    shutil.copy(ROOT / "hubconf.py", tmp_path)
    (tmp_path / "weights.json").write_text("{}")
    (tmp_path / "shufflenetv2").mkdir()
    (tmp_path / "shufflenetv2/__init__.py").write_text("raise ImportError('torch is too old')\n")
    before = set(sys.modules)
    for _ in range(2):  # the second time as the first
        spec = importlib.util.spec_from_file_location("hubconf_in_a_test", tmp_path / "hubconf.py")
        assert spec is not None
        assert spec.loader is not None
        with pytest.raises(ImportError, match="torch is too old"):
            spec.loader.exec_module(importlib.util.module_from_spec(spec))
    assert set(sys.modules) == before


class TestWeights:
    @pytest.mark.parametrize("tensor", [torch.ones(8, 8), torch.tensor(1.0), "text", None])
    def test_what_is_no_convolution(self, tensor: Any) -> None:
        held = Checkpoint({"conv1.0.weight": tensor, "conv5.0.weight": tensor}, None, "mine.pth")
        for ask in (lambda: held.in_channels, lambda: held.widths):
            with pytest.raises(CheckpointError, match="has no convolution under"):
                ask()

    @pytest.mark.parametrize(("tensor", "classes"), [(torch.ones(7, 3), 7), (torch.ones(7), 0), ("text", 0), (None, 0)])
    def test_classes_are_the_rows_of_the_classifier(self, tensor: Any, classes: int) -> None:
        assert Checkpoint({"fc.weight": tensor}, None, "mine.pth").num_classes == classes

    def test_each_width_has_its_own_default(self) -> None:
        assert [str(default_entry(arch)) for arch in SPECS] == [f"{arch}/imagenet1k_v1" for arch in SPECS]
        assert default_entry("resnet18") is None

    def test_the_default_is_the_one_that_says_so(self, monkeypatch: pytest.MonkeyPatch) -> None:
        one = default_entry("shufflenet_v2_x0_5")
        entries = (replace(one, name="x_v1", default=False), one)  # type: ignore[type-var]
        monkeypatch.setattr(manifest, "load_manifest", lambda: entries)
        assert default_entry("shufflenet_v2_x0_5") is one

    def test_other_files_are_told_from_checkpoints(self) -> None:
        header = (20).to_bytes(8, "little")
        with pytest.raises(CheckpointError, match="is a safetensors file"):
            checkpoint.load_plain(header + b"{" + b" " * 12, "x")
        for data in (header + b"{" + b" " * 11, header + b"[" + b" " * 20):  # no longer than its header; another header
            with pytest.raises(CheckpointError, match="cannot be loaded as a checkpoint"):
                checkpoint.load_plain(data, "x")
        state = io.BytesIO()
        torch.save({"format": RUN_FORMAT}, state)
        with pytest.raises(
            CheckpointError, match=r"is the state of a training run, not a model; use best.pth beside it"
        ):
            checkpoint.parse_checkpoint(state.getvalue(), "x", SPECS)

    def test_bundled_weights_need_no_network(self) -> None:
        assert [resolve(None, name).local for name in (CIFAR, "shufflenet_v2_x0_5/imagenet1k_v1")] == [True, False]

    def test_the_manifest_counts_the_parameters(self) -> None:
        for entry in manifest.load_manifest():
            with torch.device("meta"):
                model = ShuffleNetV2(SPECS[entry.arch], entry.num_classes)
            assert sum(each.numel() for each in model.parameters()) == entry.num_params, entry

    def test_photos_are_prepared_as_for_imagenet(self) -> None:
        assert Preprocess(256, 224, "bilinear", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)) == STANDARD

    def test_the_bar_shows_the_bytes_so_far(
        self, make_entry: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        bars = []

        class Bar(nullcontext[Any]):
            n = 0

            def update(self, more: int) -> None:
                self.n += more
                shown.append(self.n)

            def __enter__(self) -> Any:
                return self

        shown: list[int] = []
        monkeypatch.setattr(download, "progress_bar", lambda *arguments, **options: bars.append(Bar()) or bars[-1])
        for wanted in (False, True):
            with download._progress_bar(make_entry(b"x" * 25), wanted) as on_bytes:
                for received in (0, 10, 10, 25):
                    on_bytes(received)
        assert shown == [10, 10, 25]
        assert len(bars) == 1

    def test_pauses_double_and_vary_by_half(self, monkeypatch: pytest.MonkeyPatch) -> None:
        failure = download._AttemptError("cause", retry=True)
        for pick, seconds in ((min, [0.25, 0.5, None]), (max, [0.75, 1.5, None])):
            monkeypatch.setattr(download, "_RANDOM", SimpleNamespace(uniform=pick))
            assert [download._pause(failure, number) for number in (1, 2, 3)] == seconds

    @pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
    def test_a_nested_tensor_is_refused(self) -> None:
        nested = torch.nested.nested_tensor([torch.ones(1), torch.ones(2)])
        with pytest.raises(CheckpointError, match="'key' must be a dense tensor with data, got a nested tensor"):
            checkpoint._check_kind("key", nested, torch.ones(2), "mine.pth")

    @pytest.mark.parametrize(("url", "good"), [("https://x.example/a", True), ("https://x.example/a b", False)])
    def test_an_address_has_no_space(self, url: str, good: bool) -> None:
        assert manifest._is_https(url) is good


class TestProcesses:
    @pytest.mark.parametrize("size", [1, 2])
    def test_they_speak_only_if_there_are_several(self, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
        said: list[str] = []
        for name in ("all_reduce", "broadcast", "barrier"):
            monkeypatch.setattr(devices.dist, name, lambda *arguments, name=name: said.append(name))
        group = Group(0, size, torch.device("cpu"))
        assert torch.equal(group.add(torch.ones(2)), torch.ones(2))
        group.copy_from_leader(torch.ones(2))
        group.wait()
        assert said == (["all_reduce", "broadcast", "barrier"] if size == 2 else [])
        assert [Group(rank, 2, torch.device("cpu")).leads for rank in (0, 1)] == [True, False]

    @pytest.mark.parametrize(("failures", "kind"), [(1, ValueError), (2, SystemExit), (None, SystemExit)])
    def test_the_first_to_fail_tells(
        self, failures: int | None, kind: type[BaseException], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def add(key: str, amount: int) -> int:
            if failures is None:
                raise RuntimeError("the store is gone")
            return failures - 1 + amount  # those before, and this one

        ended: list[bool] = []
        monkeypatch.setattr(devices.time, "sleep", lambda seconds: None)
        for name, function in {
            "is_torchelastic_launched": lambda: True,
            "rendezvous": lambda url: iter([(SimpleNamespace(add=add), 1, 2)]),
            "init_process_group": lambda *arguments, **options: None,
            "destroy_process_group": lambda: ended.append(True),
        }.items():
            monkeypatch.setattr(devices.dist, name, function)
        with pytest.raises(kind) as caught, devices.join("cpu") as group:  # noqa: PT012
            assert (group.rank, group.size) == (1, 2)
            raise ValueError("a photo is bad")
        assert ended == [True]
        assert str(caught.value) == ("a photo is bad" if kind is ValueError else "1")


class TestTraining:
    @pytest.mark.parametrize("momentum", [0.0, 0.9])
    def test_a_step_with_and_without_momentum(self, momentum: float) -> None:
        """Of weights alone, not of biases and norms, a part decays."""
        model = nn.Linear(3, 2)
        weight, bias = model.weight.detach().clone(), model.bias.detach().clone()
        optimizer = sgd(model, 0.1, momentum, 0.5)
        model(torch.ones(1, 3)).sum().backward()  # all gradients are one
        optimizer.step()
        steps = 1 + momentum  # Nesterov's looks one step ahead
        torch.testing.assert_close(model.weight.detach(), weight - 0.1 * steps * (1 + 0.5 * weight))
        torch.testing.assert_close(model.bias.detach(), bias - 0.1 * steps)

    @pytest.fixture
    def photos(self, tmp_path: Path) -> LabelledPhotos:
        """Twice the same picture, once more in another size."""
        for index, size in enumerate([(32, 32), (32, 32), (40, 30)]):
            Image.effect_noise(size, 90).convert("RGB").save(tmp_path / f"{index}.png")
        shutil.copy(tmp_path / "0.png", tmp_path / "1.png")
        return LabelledPhotos(tuple(tmp_path / f"{index}.png" for index in range(3)), (1, 1, 0), ("a", "b"))

    def test_photos_of_the_right_size_are_only_decoded(self, photos: LabelledPhotos) -> None:
        for augmentation, size in (
            (Augmentation(photo_size=32), (32, 32)),
            (Augmentation(photo_size=32, trivial_augment=True), None),
            (Augmentation(photo_size=32, random_erasing=0.1), None),
            (Augmentation(), None),
        ):
            assert TrainingPhotos(photos, augmentation, 64).ready_size == size
        loaded = TrainingPhotos(photos, Augmentation(photo_size=32), 64)
        assert [loaded[index][1] for index in range(3)] == [1, 1, 0]
        images = [loaded[index][0] for index in range(3)]
        assert [each.shape for each in images] == [(3, 32, 32)] * 3
        with Image.open(photos.paths[0]) as image:
            assert bytes(images[0].permute(1, 2, 0).flatten().tolist()) == image.tobytes()

    def test_every_augmentation_takes_part(self, photos: LabelledPhotos) -> None:
        def steps(augmentation: Augmentation) -> list[str]:
            return [type(each).__name__ for each in TrainingPhotos(photos, augmentation, 64).transform.transforms]

        assert steps(Augmentation(min_scale=0.3)) == ["RandomResizedCrop", "PILToTensor"]
        cut = TrainingPhotos(photos, Augmentation(min_scale=0.3), 64).transform.transforms[0]
        assert (tuple(cut.size), cut.scale) == ((64, 64), (0.3, 1.0))
        everything = Augmentation(photo_size=32, trivial_augment=True, random_erasing=0.5)
        assert steps(everything) == ["Resize", "CenterCrop", "TrivialAugmentWide", "PILToTensor", "RandomErasing"]

    def test_each_process_draws_its_own(self, photos: LabelledPhotos, monkeypatch: pytest.MonkeyPatch) -> None:
        """Shifts, flips and mixing come from torch's global state, which each epoch of each process seeds anew."""
        seeds: list[int] = []

        def seeded(seed: int) -> None:
            seeds.append(seed)
            raise InterruptedError

        model = ShuffleNetV2(SPECS["shufflenet_v2_x0_5"], 2)
        monkeypatch.setattr(torch, "manual_seed", seeded)
        for rank in (0, 1, 2):
            group = Group(rank, 1, torch.device("cpu"))
            with pytest.raises(InterruptedError):
                Trainer(model, photos, STANDARD, Recipe(((64, 1.0),)), group).run_epoch(None)
        assert len(set(seeds)) == 3

    def test_each_step_has_its_own_gradient(self, photos: LabelledPhotos, monkeypatch: pytest.MonkeyPatch) -> None:
        """Of equal photos and weights, it is the same in every step."""
        photos = photos.take([0, 1, 0, 1])
        recipe = Recipe(
            ((32, 1.0),), epochs=1, batch_size=2, lr=0.0, workers=0, augmentation=Augmentation(32, flip=False)
        )
        torch.manual_seed(0)
        model = ShuffleNetV2(SPECS["shufflenet_v2_x0_5"], 2)
        trainer = Trainer(model, photos, STANDARD, recipe, Group(0, 1, torch.device("cpu")))
        monkeypatch.setattr("shufflenetv2.training.augment.shift", lambda images, most: images)
        monkeypatch.setattr(
            "shufflenetv2.training.augment.BatchTransform.__call__",
            lambda self, images, labels, size: (images.float() / 255, labels),
        )
        gradients: list[Tensor] = []
        assert model.fc.bias.grad is None
        monkeypatch.setattr(trainer.optimizer, "step", lambda: gradients.append(model.fc.bias.grad.clone()))
        ticks = itertools.count()
        monkeypatch.setattr("shufflenetv2.training.trainer.time", SimpleNamespace(perf_counter=lambda: next(ticks)))
        result = trainer.run_epoch(SimpleNamespace(set_postfix=lambda **shown: None, update=lambda: None))
        # From 0 to 5, and from 1 to 2 and 3 to 4 it waited for photos.
        assert (result.epoch, trainer.epoch, result.size, result.seconds, result.waiting) == (1, 1, 32, 5, 2 / 5)
        assert len(gradients) == 2
        assert float(gradients[0].abs().min()) > 0.1
        torch.testing.assert_close(gradients[1], gradients[0])

    def test_weights_are_told_from_others_by_all_they_hold(self) -> None:
        held = {"a": torch.ones(2, 3), "b": torch.zeros(3)}
        others = [
            {**held, "a": torch.tensor([[1.0, 1, 1], [1, 1, 2]])}, {**held, "a": torch.ones(3, 2)},
            {**held, "a": torch.ones(2, 3).view(torch.int32)}, {"a": held["a"], "c": held["b"]},
        ]  # fmt: skip
        words = [contents(each) for each in (held, *others)]
        assert len(set(words)) == 5
        assert contents(dict(reversed(held.items()))) == words[0]

    def test_what_is_validated_on(self, photos: LabelledPhotos, tmp_path: Path) -> None:
        for split in ("mine", "data/train", "data/val", "data/test"):
            for name in ("a", "b"):
                (tmp_path / split / name).mkdir(parents=True)
                for index in range(4 if split == "data/train" else 1):
                    shutil.copy(photos.paths[0], tmp_path / split / name / f"{index}.png")
        data = str(tmp_path / "data")

        def validated(**options: Any) -> list[str]:
            arguments = argparse.Namespace(**{"data": data, "val": None, "held_out": 0.25, "seed": 0, **options})
            train, val = read_data(arguments)
            assert len(train) == (6 if data + "/train" == options.get("data") and options.get("held_out") != 0 else 8)
            return [path.relative_to(tmp_path).parts[-3] for path in val.paths] if val else []

        assert validated() == ["val", "val"]
        assert validated(val=str(tmp_path / "mine")) == ["mine", "mine"]
        assert validated(data=data + "/train") == ["train", "train"]
        assert validated(data=data + "/train", held_out=0) == []

    @pytest.mark.parametrize("count", [5, 7])
    def test_the_first_five_changes_are_told(self, count: int, tmp_path: Path) -> None:
        folder = object.__new__(RunFolder)
        folder.path, folder.settings = tmp_path, {f"option {index}": 2 for index in range(count)}
        with pytest.raises(TrainingError) as caught:
            folder.restore({"settings": {f"option {index}": 1 for index in range(count)}})
        assert str(caught.value).count(" was 1 and is 2") == 5
        assert ("; and 2 more. " if count == 7 else "option 4 was 1 and is 2. ") in str(caught.value)

    def test_the_last_size_lasts(self) -> None:
        assert size_at(1.0, ((64, 0.5), (96, 0.5))) == 96

    def test_batches_of_one(self) -> None:
        for batch_size, frozen, pixels in ((1, True, 32), (1, False, 33), (2, False, 32)):
            assert Recipe(((pixels, 1.0),), batch_size=batch_size, freeze_backbone=frozen).batch_size == batch_size
        with pytest.raises(TrainingError, match="--batch-size 1 with --sizes 32 leaves BatchNorm one value"):
            Recipe(((64, 0.5), (32, 0.5)), batch_size=1)

    @pytest.mark.parametrize("frozen", [True, False])
    def test_what_is_trained(self, frozen: bool, photos: LabelledPhotos) -> None:
        model = ShuffleNetV2(SPECS["shufflenet_v2_x0_5"], 2)
        Trainer(model, photos, STANDARD, Recipe(((64, 1.0),), freeze_backbone=frozen), Group(0, 1, torch.device("cpu")))
        trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
        assert trained == ({"fc.weight", "fc.bias"} if frozen else set(dict(model.named_parameters())))

    def test_everything_is_drawn(self) -> None:
        history = [{"epoch": 1, "loss": 2.0, "accuracy": 0.3, "val_accuracy": 0.2}]
        history.append({"epoch": 2, "loss": 1.0, "accuracy": 0.7, "val_accuracy": 0.5})
        drawn = {curves(history), curves([{**row, "val_accuracy": 0.4} for row in history])}
        drawn |= {curves([history[0], {**history[1], key: 0.9}]) for key in history[1]}
        assert len(drawn) == 6
        with Image.open(io.BytesIO(curves(history))) as image:
            assert image.size == (900, 350)

    def test_a_state_before_its_first_epoch(self, tmp_path: Path) -> None:
        state = {"format": RUN_FORMAT, "schema_version": 1, **{key: kind() for key, kind in KINDS.items()}}
        torch.save(state, tmp_path / "last.pth")
        with pytest.raises(CheckpointError, match="its history is not that of its epochs"):
            read_state(tmp_path / "last.pth")

    def test_what_follows_from_the_state_is_written_again(self, tmp_path: Path) -> None:
        data, run = make_colours(tmp_path / "data", 4), tmp_path / "run"
        assert train(data, run, "--epochs", "1") == 0
        before = {path.name: path.read_bytes() for path in run.iterdir()}
        for name in ("best.pth", "log.csv", "curves.png"):
            (run / name).unlink()
        (run / f".last.pth.{'0' * 32}.shufflenetv2-partial").touch()
        (run / "notes.txt").touch()
        assert train(data, run, "--epochs", "1", "--resume") == 0
        after = {path.name: path.read_bytes() for path in run.iterdir()}
        assert after.keys() == {*before, "notes.txt"}
        assert {name: after[name] for name in ("last.pth", "log.csv", "curves.png")}.items() <= before.items()
        assert load(run / "best.pth")["categories"] == ["blue", "green", "red"]


class TestPackage:
    @pytest.mark.parametrize(
        ("text", "value"),
        [("", 7.5), ("  ", 7.5), (" 3 ", 3.0), ("1e-3", 0.001), *((bad, None) for bad in ("0", "-1", "inf", "x"))],
    )
    def test_a_bound_of_the_environment(self, text: str, value: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SHUFFLENETV2_TIMEOUT", text)
        if value is None:
            with pytest.raises(ValueError, match="SHUFFLENETV2_TIMEOUT must be a number above 0, got"):
                package.limit("SHUFFLENETV2_TIMEOUT", 7.5)
        else:
            assert package.limit("SHUFFLENETV2_TIMEOUT", 7.5) == value

    def test_a_bound_in_whole_numbers(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SHUFFLENETV2_MAX_BYTES", "1")
        assert package.limit("SHUFFLENETV2_MAX_BYTES", 7) == 1
        monkeypatch.setenv("SHUFFLENETV2_MAX_BYTES", "0.5")
        with pytest.raises(ValueError, match=r"must be a number above 0, got '0\.5'"):
            package.limit("SHUFFLENETV2_MAX_BYTES", 7)

    def test_the_commit_is_known_in_an_archive_alone(self) -> None:
        assert re.fullmatch(r"|[0-9a-f]{7,40} \d{4}-\d\d-\d\d", package.REVISION)

    def test_sample_photos(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        assert {path.parent for path in package.sample_photos()} == {ROOT / "images"}
        monkeypatch.setattr(package, "PACKAGE", tmp_path)
        (tmp_path / "samples").mkdir()
        assert package.sample_photos() == []
        for name in ("b.jpg", "a.jpg", "c.png"):
            (tmp_path / "samples" / name).touch()
        assert [path.name for path in package.sample_photos()] == ["a.jpg", "b.jpg"]

    def test_what_is_missing(self) -> None:
        package.require("reading", "pillow>=12.3", "torch")
        assert package.missing(["pillow>=12.3", "absent_one>=2", "absent_two"]) == ["absent_one>=2", "absent_two"]
        with pytest.raises(ImportError) as caught:
            package.require("dancing", "torch", "absent_one>=2", "absent_two")
        assert str(caught.value) == (
            "dancing needs absent_one, absent_two, which are not installed; type: "
            "pip install 'absent_one>=2' absent_two"
        )
        with pytest.raises(
            ImportError, match=r"needs absent_two, which is not installed; type: pip install absent_two$"
        ):
            package.require("dancing", "absent_two")

    @pytest.mark.parametrize(
        ("shown", "terminal", "disable"),
        [(None, True, False), (None, False, True), (True, False, False), (False, True, True)],
    )
    def test_a_bar_is_shown_on_a_terminal(
        self, shown: bool | None, terminal: bool, disable: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sys, "stderr", SimpleNamespace(isatty=lambda: terminal))
        monkeypatch.setattr(torch.hub, "tqdm", lambda **options: options)
        assert package.progress_bar(5, "photo", shown=shown, desc="x") == {
            "total": 5, "unit": "photo", "disable": disable, "desc": "x",
        }  # fmt: skip


def test_a_file_that_describes_itself_needs_no_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = ShuffleNetV2(SPECS["shufflenet_v2_x0_5"], 2)
    described = Description("shufflenet_v2_x0_5", 3, ("cat", "dog"), STANDARD)
    checkpoint.write_checkpoint(tmp_path / "best.pth", model.state_dict(), described)
    classify = inference.Classifier(resolve(None, tmp_path / "best.pth"), top=1)
    assert len(classify.predict(torch.zeros(1, 3, 64, 64))[0]) == 1
    assert not caplog.records


def test_an_architecture_s_name_may_be_a_folder_s() -> None:
    assert is_path("shufflenet_v2_x0_5/mine.pth")
    assert is_path("shufflenet_v2_x0_5/runs/mine")
    assert not is_path("shufflenet_v2_x0_5/mine")


def test_a_bad_photo_in_json() -> None:
    assert (
        classify.to_json(Result(Path("a.jpg"), [], ImageError("a.jpg is empty")))
        == '{"photo": "a.jpg", "error": "a.jpg is empty"}'
    )


@pytest.mark.parametrize(("kind", "most"), [(options.port, 65535), (options.positive, 10**6), (options.size, 2048)])
def test_the_largest_number(kind: Callable[[str], int], most: int) -> None:
    assert kind(str(most)) == most
    with pytest.raises(argparse.ArgumentTypeError, match="must be a whole number"):
        kind(str(most + 1))
