"""No file puts anything into a model that was not checked; whatever is refused leaves the model as it was."""

import gzip
import io
import json
import logging
import os
import pickle
import random
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision.models
from hypothesis import given, settings
from hypothesis import strategies as st
from support import json_edits
from support.checkpoints import checkpoint_bytes, reference_model
from support.fault_rows import fault
from support.skips import needs_posix
from torch import Tensor, nn
from torch.utils.serialization import config

from shufflenetv2 import entrypoints
from shufflenetv2.description import Description, Metrics, Preprocess, parse_description, to_json
from shufflenetv2.errors import CheckpointError, ManifestError
from shufflenetv2.network.deploy import deploy
from shufflenetv2.network.model import SPECS, ShuffleNetV2, Spec
from shufflenetv2.weights import checkpoint as checkpoints
from shufflenetv2.weights.checkpoint import load, parse_checkpoint, read_checkpoint, write_checkpoint

TINY = Spec(stage_channels=(4, 8, 16), head_channels=8, stem_channels=4, stage_units=(1, 1, 1))
StateDict = dict[str, Any]


@pytest.fixture
def model() -> ShuffleNetV2:
    torch.manual_seed(1)
    return ShuffleNetV2(TINY, num_classes=5)


@pytest.fixture
def good() -> StateDict:
    torch.manual_seed(2)
    return dict(ShuffleNetV2(TINY, num_classes=5).state_dict())


def snapshot(model: nn.Module) -> dict[str, tuple[int, Tensor]]:
    return {key: (tensor.data_ptr(), tensor.clone()) for key, tensor in model.state_dict(keep_vars=True).items()}


def refuses(model: ShuffleNetV2, state_dict: StateDict, message: str) -> None:
    """Loading fails with ``message``, and every tensor of the model is the same object with the same bits."""
    before = snapshot(model)
    with pytest.raises(CheckpointError, match=message):
        load(model, parse_checkpoint(checkpoint_bytes(state_dict), "mine.pth", SPECS))
    after = snapshot(model)
    assert [(key, where) for key, (where, _) in before.items()] == [(key, where) for key, (where, _) in after.items()]
    assert all(torch.equal(before[key][1], after[key][1]) for key in before)


class TestWhatIsAccepted:
    @pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
    @pytest.mark.parametrize("counters", [False, True])
    def test_both_formats_with_and_without_counters(
        self, legacy: bool, counters: bool, model: ShuffleNetV2, good: StateDict
    ) -> None:
        good["stage2.0.branch1.1.num_batches_tracked"] = torch.tensor(7)
        load(model, parse_checkpoint(checkpoint_bytes(good, legacy, counters), "mine.pth", SPECS))
        for key, tensor in model.state_dict().items():
            expected = good[key] if counters or not key.endswith("num_batches_tracked") else torch.tensor(0)
            assert torch.equal(tensor, expected), key

    @pytest.mark.parametrize("dtype", checkpoints.FLOATING)
    def test_floating_dtypes_become_the_default_one(
        self, dtype: torch.dtype, model: ShuffleNetV2, good: StateDict
    ) -> None:
        stored = {key: tensor.to(dtype) if tensor.is_floating_point() else tensor for key, tensor in good.items()}
        load(model, parse_checkpoint(checkpoint_bytes(stored), "mine.pth", SPECS))
        for key, tensor in model.state_dict().items():
            assert tensor.dtype == good[key].dtype
            assert torch.equal(tensor, stored[key].to(tensor.dtype)), key

    def test_parameters_and_odd_strides_become_plain_tensors(self, model: ShuffleNetV2, good: StateDict) -> None:
        good["conv1.1.running_mean"] = nn.Parameter(good["conv1.1.running_mean"])
        good["conv1.1.weight"] = torch.ones(1).expand(4)
        good["fc.weight"] = good["fc.weight"].t().contiguous().t()
        load(model, parse_checkpoint(checkpoint_bytes(good), "mine.pth", SPECS))
        assert torch.equal(model.state_dict()["fc.weight"], good["fc.weight"])
        assert all(tensor.is_contiguous() for tensor in model.state_dict().values())
        assert not model.conv1[1].running_mean.requires_grad
        with torch.no_grad():
            model.conv1[1].weight[0] = 2  # its values share no memory
        assert model.conv1[1].weight.tolist() == [2, 1, 1, 1]

    def test_onto_the_meta_device(self, good: StateDict) -> None:
        with torch.device("meta"):
            model = ShuffleNetV2(TINY, num_classes=5)
        load(model, parse_checkpoint(checkpoint_bytes(good), "mine.pth", SPECS))
        assert all(torch.equal(tensor, good[key]) for key, tensor in model.state_dict().items())


def put(key: str, value: Any) -> Callable[[StateDict], None]:
    return lambda state_dict: state_dict.update({key: value})


def drop(key: str) -> Callable[[StateDict], None]:
    return lambda state_dict: state_dict.pop(key)


KEY = "stage3.0.branch2.0.weight"  # (4, 4, 1, 1)


def quantize(state_dict: StateDict) -> None:
    state_dict[KEY] = torch.quantize_per_tensor(torch.ones(4, 4, 1, 1), 0.1, 0, torch.qint8)


def nest(state_dict: StateDict) -> None:
    state_dict["conv1.1.num_batches_tracked"] = torch.nested.nested_tensor([torch.ones(1)])


SPOILT = [
    ("NaN", put(KEY, torch.full((4, 4, 1, 1), torch.nan)), f"'{KEY}' holds values that are not finite"),
    ("infinity", put("fc.bias", torch.tensor([0, 1, torch.inf, 0, 0])), "'fc.bias' holds values that are not finite"),
    (
        "infinite-once-cast", put(KEY, torch.full((4, 4, 1, 1), 1e300, dtype=torch.float64)),
        f"'{KEY}' holds values that are not finite in torch.float32",
    ),
    ("negative-variance", put("conv1.1.running_var", -torch.ones(4)), "'conv1.1.running_var' holds a negative"),
    ("missing-key", drop(KEY), f"lacks the tensor '{KEY}'"),
    (
        "one-counter-missing", drop("conv1.1.num_batches_tracked"),
        "lacks the tensor 'conv1.1.num_batches_tracked'",
    ),
    ("further-key", put("fc.scale", torch.ones(5)), "has a tensor 'fc.scale', which this network does not have"),
    ("shape", put(KEY, torch.ones(4, 4)), rf"'{KEY}' must have shape \[4, 4, 1, 1\], got \[4, 4\]"),
    ("int64", put(KEY, torch.ones(4, 4, 1, 1, dtype=torch.int64)), f"'{KEY}' must have .* got torch.int64"),
    ("complex", put(KEY, torch.ones(4, 4, 1, 1, dtype=torch.complex64)), f"'{KEY}' must have .* got torch.complex64"),
    ("float8", put(KEY, torch.ones(4, 4, 1, 1).to(torch.float8_e5m2)), f"'{KEY}' must have .* got torch.float8_e5m2"),
    ("counter-dtype", put("conv1.1.num_batches_tracked", torch.tensor(0.5)), "num_batches_tracked' must have .*int64"),
    ("sparse", put(KEY, torch.ones(4, 4, 1, 1).to_sparse()), f"'{KEY}' must be a dense tensor .* torch.sparse_coo"),
    ("meta", put(KEY, torch.ones(4, 4, 1, 1, device="meta")), f"'{KEY}' must be a dense tensor .* meta device"),
    (
        "nested-counter", nest,
        "'conv1.1.num_batches_tracked' must be a dense tensor .* nested",
    ),
    (
        "quantized", quantize,
        f"'{KEY}' must be a dense tensor .* quantized",
    ),
    ("number", put(KEY, 3.0), f"'{KEY}' must be a tensor, got a float"),
    ("text", put(KEY, "\x1b[31m"), f"'{KEY}' must be a tensor, got a str"),
]  # fmt: skip


@pytest.mark.filterwarnings("ignore:Validating sparse tensor invariants:UserWarning")
@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated:UserWarning")  # by torch, for quantized tensors
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors is in prototype stage:UserWarning")
@pytest.mark.filterwarnings("ignore:.*quantize_per_tensor.* are deprecated:UserWarning")  # still loadable, though
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        pytest.param(
            spoil, message, id=name,
            marks=fault(
                37, "NaN; wrong key, shape, dtype, layout; sparse, meta, complex",
                "CheckpointError names the tensor; the model is bit-identical to before",
            ),
        )
        for name, spoil, message in SPOILT
    ],
)  # fmt: skip
def test_a_spoilt_tensor(
    spoil: Callable[[StateDict], None], message: str, model: ShuffleNetV2, good: StateDict
) -> None:
    spoil(good)
    refuses(model, good, message)


class Payload:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch owned",)


@fault(37, "pickle payload", "never run: CheckpointError")
@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_a_payload_is_not_run(legacy: bool, good: StateDict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    good["fc.bias"] = Payload()
    data = checkpoint_bytes(good, legacy)
    with pytest.raises(CheckpointError, match=r"\(UnpicklingError: Trying to load unsupported GLOBAL posix.system"):
        parse_checkpoint(data, "mine.pth", SPECS)
    assert not list(tmp_path.iterdir())
    torch.load(io.BytesIO(data), weights_only=False)
    assert [each.name for each in tmp_path.iterdir()] == ["owned"]  # it would have worked


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "mine.pth is empty; expected what torch.save"),
        (b"\n  ", "mine.pth is empty"),
        (b"<html>", "mine.pth is a web page; download the file itself"),
        (b"<?xml version", "mine.pth is XML; of what `export` wrote for OpenVINO the name ends in .xml"),
        (b"<\0\0\0ET12", "mine.pth is a program of ExecuTorch; of what `export` wrote the name ends in .pte"),
        (b"\n<!DOCTYPE html>", "mine.pth is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "type: git lfs pull"),
        (tarfile.TarInfo("best.pth").tobuf(), r"mine.pth is a tar archive; unpack it \(tar xf\)"),
        (b"\x93NUMPY\x01\0v\0", "is a numpy array"),
        (b"\x89HDF\r\n\x1a\n", "is an HDF5 file"),
        (gzip.compress(b"hello", mtime=0), r"mine.pth is compressed by gzip; unpack it \(gunzip, or tar xzf\)"),
        (b"hello", "cannot be loaded as a checkpoint"),
        (b"PK\x03\x04", "cannot be loaded as a checkpoint"),
        (pickle.dumps({"a": 1}), "cannot be loaded as a checkpoint|has keys|no BatchNorm"),
    ],
)
def test_no_checkpoint_at_all(content: bytes, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        parse_checkpoint(content, "mine.pth", SPECS)


def test_a_name_in_the_file_cannot_write_to_the_terminal() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("archive/data.pkl", b"\x80\x02c\x1b[31mos\nsystem\x1b]0;owned\x07\n.")
        file.writestr("archive/version", b"3\n")
        file.writestr("archive/byteorder", b"little")
    with pytest.raises(CheckpointError, match="system") as caught:
        parse_checkpoint(buffer.getvalue(), "mine.pth", SPECS)
    assert str(caught.value).isprintable()


class TestNearMisses:
    """Files that are named as what they are, with the remedy."""

    def test_folded(self, model: ShuffleNetV2) -> None:
        folded = deploy(model.eval()).state_dict()
        with pytest.raises(CheckpointError, match=r"looks like the folded deploy form.*ask for deploy=True"):
            parse_checkpoint(checkpoint_bytes(folded), "mine.pth", SPECS)

    @pytest.mark.parametrize(
        "wrap",
        [
            lambda good: {"epoch": 3, "model": good, "optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]}},
            lambda good: {"model_state_dict": good, "loss": 0.5, "counts": {0: 3, 1: 4}},
            lambda good: {"state_dict": good, "hyper_parameters": {"lr": 0.1}, "pytorch-lightning_version": "2.5"},
            lambda good: {f"module.{key}": value for key, value in good.items()},
            lambda good: {f"_orig_mod.{key}": value for key, value in good.items()},
            lambda good: {f"module._orig_mod.{key}": value for key, value in good.items()},
            lambda good: {"n_averaged": torch.tensor(7), **{f"module.{key}": value for key, value in good.items()}},
            lambda good: {"state_dict": {f"module.{key}": value for key, value in good.items()}},
            lambda good: {
                "_orig_mod.n_averaged": torch.tensor(7),
                **{f"_orig_mod.module.{key}": value for key, value in good.items()},
            },
            lambda good: {0: "notes", "model": good},
        ],
        ids=[
            "optimizer",
            "model_state_dict",
            "lightning",
            "module",
            "compiled",
            "both",
            "average",
            "state_dict.module",
            "compiled average",
            "beside a number",
        ],
    )
    def test_unwrapped(
        self, wrap: Callable[[StateDict], StateDict], good: StateDict, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO)
        checkpoint = parse_checkpoint(checkpoint_bytes(wrap(good)), "mine.pth", SPECS)
        assert checkpoint.state_dict.keys() == good.keys()
        assert all(torch.equal(checkpoint.state_dict[key], good[key]) for key in good)
        assert all(record.getMessage().startswith("mine.pth: the ") for record in caplog.records)
        assert caplog.records

    def test_a_classifier_behind_dropout_and_averaged_counters(
        self, good: StateDict, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO)
        renamed = {key.replace("fc.", "fc.1."): value for key, value in good.items()}
        averaged = {key: value.double() if key.endswith("tracked") else value for key, value in renamed.items()}
        checkpoint = parse_checkpoint(checkpoint_bytes(averaged), "mine.pth", SPECS)
        assert checkpoint.state_dict.keys() == good.keys()
        for key, tensor in checkpoint.state_dict.items():
            assert tensor.dtype == good[key].dtype, key
            assert torch.equal(tensor, good[key]), key
        assert "mine.pth: the classifier was taken from under 'fc.1.', and what lay before it left out" in caplog.text
        several = {**renamed, "fc.4.weight": torch.ones(2, 2), "fc.4.bias": torch.ones(2)}
        assert "fc.4.weight" in parse_checkpoint(checkpoint_bytes(several), "mine.pth", SPECS).state_dict

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (
                lambda good: {"model": good, "ema": good},
                r"several state dicts, 'model', 'ema'; save one",
            ),
            (lambda good: {f"backbone.{key}": value for key, value in good.items()}, r"a part of another.*'backbone.'"),
            (lambda good: {f"model.{key}": value for key, value in good.items()}, r"begin with 'model.'.*removeprefix"),
            (
                lambda good: {"conv1.weight": torch.ones(2), "layer1.0.conv1.weight": 0, "layer1.0.conv5.weight": 0},
                "mine.pth is a ShuffleNet V2 for CIFAR whose units are built otherwise; .* torchvision's layout",
            ),
            (lambda good: {"pre.0.weight": 0, "stage2.0.residual.0.weight": 0}, "is a ShuffleNet V2 for CIFAR whose"),
            (lambda good: {"optimizer": {"state": {}}, "epoch": 3}, r"is a wrapped checkpoint with the keys"),
            (
                lambda good: {"optimizer": {"state": {}}, "net": {"0.weight": torch.ones(2, 2)}},
                r"is a wrapped checkpoint .*weights_only=True\)\['net'\]",
            ),
            (
                lambda good: {"state_dict": {0: 1, **{f"module.{key}": value for key, value in good.items()}}},
                "has keys that are not names",
            ),
            (
                lambda good: {"fc.weight": torch.ones(2, 3)},
                r"has no tensor 'conv1.0.weight'.*fc.weight",
            ),
            (lambda good: {"first_conv.0.weight": torch.ones(2)}, "megvii's own ShuffleNet"),
            (lambda good: {"fc._packed_params.dtype": torch.ones(2)}, "is quantised"),
            (lambda good: {**good, "conv1.0.zero_point": torch.zeros(())}, "is quantised"),
            (lambda good: {**good, "conv5.0.weight_orig": torch.ones(2)}, r"pruned or parametrised; .*prune.remove"),
            (lambda good: {"conv1.0.parametrizations.weight.original0": torch.ones(2)}, "pruned or parametrised"),
            (lambda good: {"a\x1b\n": good, "b": good}, r"several state dicts, 'a\\x1b\\n', 'b'"),
        ],
    )
    def test_refused_with_the_remedy(
        self, change: Callable[[StateDict], StateDict], message: str, good: StateDict
    ) -> None:
        with pytest.raises(CheckpointError, match=message):
            parse_checkpoint(checkpoint_bytes(change(good)), "mine.pth", SPECS)

    @pytest.mark.parametrize("under", ["", "state_dict"])  # the latter as Lightning writes it
    def test_the_remedy_for_a_part_of_another_works_as_it_stands(
        self, under: str, good: StateDict, tmp_path: Path
    ) -> None:
        part = {f"model.{key}": value for key, value in good.items()} | {"criterion.weight": torch.ones(5)}
        torch.save({under: part, "epoch": 3} if under else part, tmp_path / "mine.ckpt")
        with pytest.raises(CheckpointError, match="so the network is a part of another; save it alone: ") as caught:
            read_checkpoint(tmp_path / "mine.ckpt", SPECS)
        names = {"torch": torch, "path": tmp_path / "mine.ckpt", "new_path": tmp_path / "new.pth"}
        exec(str(caught.value).partition("save it alone: ")[2], names)
        again = read_checkpoint(tmp_path / "new.pth", SPECS).state_dict
        assert again.keys() == good.keys()
        assert all(torch.equal(again[key], good[key]) for key in good)

    @pytest.mark.parametrize(
        ("key", "tensor", "message"),
        [
            ("conv1.0.weight", torch.zeros(4, 0, 3, 3), r"of 4 dimensions with 1 to 1,024 input channels, got \[4, 0,"),
            ("conv1.0.weight", torch.zeros(1).expand(4, 1025, 3, 3), r"input channels, got \[4, 1025, 3, 3\]"),
            ("conv1.0.weight", torch.zeros(4, 3, 9), r"input channels, got \[4, 3, 9\]"),
            ("conv1.0.weight", "text", "got str"),
            ("fc.weight", torch.zeros(0, 16), r"of 2 dimensions with 1 to 1,000,000 classes, got \[0, 16\]"),
            ("fc.weight", torch.zeros(1).expand(1_000_001, 16), r"classes, got \[1000001, 16\]"),
            ("fc.weight", torch.zeros(16), r"classes, got \[16\]"),
            ("fc.weight", [1.0], "got list"),
        ],
    )
    def test_the_first_and_the_last_layer(self, key: str, tensor: object, message: str, good: StateDict) -> None:
        with pytest.raises(CheckpointError, match=f"mine.pth: '{key}' must be a tensor .*{message}"):
            parse_checkpoint(checkpoint_bytes({**good, key: tensor}), "mine.pth", SPECS)

    @pytest.mark.parametrize(("channels", "classes"), [(1, 1), (1024, 1000)])
    def test_the_most_and_the_least_are_read(self, channels: int, classes: int) -> None:
        good = ShuffleNetV2(TINY, classes, channels).state_dict()
        checkpoint = parse_checkpoint(checkpoint_bytes(good), "mine.pth", SPECS)
        assert (checkpoint.in_channels, checkpoint.num_classes) == (channels, classes)

    @pytest.mark.parametrize(
        ("name", "message"),
        [("resnet18", "is a ResNet's"), ("mobilenet_v2", "is another network's"), ("efficientnet_b0", "is another")],
    )
    def test_another_family(self, name: str, message: str) -> None:
        state_dict = getattr(torchvision.models, name)().state_dict()
        with pytest.raises(CheckpointError, match=message):
            parse_checkpoint(checkpoint_bytes(state_dict), "mine.pth", SPECS)

    def test_other_containers(self, model: ShuffleNetV2, tmp_path: Path) -> None:
        torch.jit.script(model.eval()).save(tmp_path / "script.pt")
        torch.export.save(torch.export.export(model, (torch.rand(1, 3, 64, 64),)), tmp_path / "exported.pt2")
        header = b'{"conv1.0.weight":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
        (tmp_path / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
        for name, message in (
            (
                "script.pt",
                r"is a TorchScript file; if `shufflenetv2 export` wrote it, call it NAME.pt; else .*"
                r"torch.jit.load\(path\).state_dict",
            ),
            ("exported.pt2", "is a torch.export file"),
            ("model.safetensors", r"is a safetensors file.*load_file\(path\)"),
        ):
            with pytest.raises(CheckpointError, match=message):
                parse_checkpoint((tmp_path / name).read_bytes(), name, SPECS)

    @pytest.mark.parametrize("way", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
    def test_an_archive_with_a_checkpoint_in_it(self, way: int, good: StateDict) -> None:
        """As browsers and GitHub pack what is downloaded; numpy's .npz and .keras are zips of others, too."""
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", way) as archive:
            archive.writestr("runs/best.pth", checkpoint_bytes(good))
            archive.writestr("runs/\x1b[31m.txt", b"")
        within = r"'runs/\\x1b\[31m.txt', 'runs/best.pth'"
        with pytest.raises(CheckpointError, match=f"mine.zip is a zip archive of {within}; unpack it, and give the"):
            parse_checkpoint(buffer.getvalue(), "mine.zip", SPECS)

    def test_the_remedy_for_torchscript_works(self, model: ShuffleNetV2, tmp_path: Path) -> None:
        torch.jit.script(model.eval()).save(tmp_path / "script.pt")
        torch.save(torch.jit.load(tmp_path / "script.pt").state_dict(), tmp_path / "new.pth")
        checkpoint = parse_checkpoint((tmp_path / "new.pth").read_bytes(), "new.pth", SPECS)
        load(ShuffleNetV2(TINY, num_classes=5), checkpoint)

    def test_a_whole_model(self, model: ShuffleNetV2) -> None:
        buffer = io.BytesIO()
        torch.save(model, buffer)
        with pytest.raises(CheckpointError, match=r"torch.save\(model.state_dict\(\)"):
            parse_checkpoint(buffer.getvalue(), "mine.pth", SPECS)

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ([1, 2], "holds a list, expected a state dict"),
            (torch.ones(3), "holds a Tensor, expected a state dict"),
            ({}, "holds an empty state dict"),
            ({1: torch.ones(1)}, "has keys that are not names"),
        ],
    )
    def test_no_state_dict(self, content: Any, message: str) -> None:
        buffer = io.BytesIO()
        torch.save(content, buffer)
        with pytest.raises(CheckpointError, match=message):
            parse_checkpoint(buffer.getvalue(), "mine.pth", SPECS)


class TestMemory:
    """What a file would unpack to is known before it is unpacked."""

    def test_an_expanded_tensor(self, good: StateDict) -> None:
        claims = {**good, "fc.weight": torch.zeros(1).expand(1_000_000, 100_000)}
        data = checkpoint_bytes(claims)
        assert len(data) < 200_000
        checkpoint = parse_checkpoint(data, "mine.pth", SPECS)
        with torch.device("meta"):
            model = ShuffleNetV2(TINY, num_classes=checkpoint.num_classes)
        with pytest.raises(CheckpointError, match=r"'fc.weight' claims 400,000,000,000 bytes and holds fewer"):
            load(model, checkpoint)

    def test_a_compressed_file(self, good: StateDict) -> None:
        packed = io.BytesIO()
        with (
            zipfile.ZipFile(io.BytesIO(checkpoint_bytes(good))) as plain,
            zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as target,
        ):
            for file in plain.infolist():
                target.writestr(file.filename, plain.read(file))
        with pytest.raises(CheckpointError, match=r"is compressed, which torch.save never does"):
            parse_checkpoint(packed.getvalue(), "mine.pth", SPECS)


class TestStrides:
    """A loaded network computes in the order in which a new one does: bit for bit, whatever layout a file keeps."""

    def test_a_file_from_channels_last_training(self) -> None:
        arch = "shufflenet_v2_x0_5"
        reference = reference_model(arch)
        stored = {key: value.clone() for key, value in reference.state_dict().items()}
        reference.to(memory_format=torch.channels_last)
        kept = {
            key: value.to(memory_format=torch.channels_last) if value.dim() == 4 else value
            for key, value in stored.items()
        }
        depthwise = kept["stage2.0.branch1.0.weight"]
        assert depthwise.stride() == (9, 1, 3, 1)  # so the fault is real
        model = ShuffleNetV2(SPECS[arch]).eval()
        load(model, parse_checkpoint(checkpoint_bytes(kept), "last.pth", SPECS))
        fresh = ShuffleNetV2(SPECS[arch])
        for (key, ours), theirs in zip(model.state_dict().items(), fresh.state_dict().values(), strict=True):
            assert ours.stride() == theirs.stride(), key
        new = reference_model(arch)
        images = torch.randn(2, 3, 97, 131, generator=torch.Generator().manual_seed(0))
        with torch.inference_mode():
            expected = new(images)
            assert float(expected.std(0).max()) > 1e-3
            assert torch.equal(model(images), expected)

    def test_shared_memory_is_given_to_one(self, good: StateDict) -> None:
        shared = torch.rand(40)
        good["stage2.0.branch1.1.weight"], good["stage2.0.branch1.1.bias"] = shared[:4], shared[:4]
        model = ShuffleNetV2(TINY, num_classes=5)
        load(model, parse_checkpoint(checkpoint_bytes(good), "mine.pth", SPECS))
        storages = [tensor.untyped_storage() for tensor in model.state_dict().values()]
        assert len({storage.data_ptr() for storage in storages}) == len(storages)
        assert all(storage.nbytes() <= 8 * 1024 * 4 for storage in storages)


DESCRIPTION = Description(
    arch="shufflenet_v2_x0_5",
    in_channels=3,
    categories=("cat", "dog", "tea cup"),
    preprocess=Preprocess(72, 64, "bilinear", (0.5, 0.4, 0.3), (0.2, 0.2, 0.2)),
    metrics=Metrics("my photos", 91.5, 99.0, "me"),
)


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> StateDict:
    """The content of a file that write_checkpoint wrote."""
    torch.manual_seed(3)
    path = tmp_path_factory.mktemp("described") / "best.pth"
    model = ShuffleNetV2(SPECS["shufflenet_v2_x0_5"], num_classes=3)
    write_checkpoint(path, model.state_dict(), DESCRIPTION)
    assert [each.name for each in path.parent.iterdir()] == ["best.pth"]
    content: StateDict = torch.load(path, weights_only=True)
    return content


@pytest.mark.parametrize("description", [DESCRIPTION, replace(DESCRIPTION, metrics=None)])
def test_a_description_comes_back(description: Description, described: StateDict) -> None:
    content = {**described, **to_json(description)}
    assert parse_checkpoint(checkpoint_bytes(content), "best.pth", SPECS).description == description


LABELS = st.text(min_size=1, max_size=20).filter(lambda text: text.isprintable() and bool(text.strip()))
NUMBERS = st.floats(-1000, 1000)
DESCRIPTIONS = st.builds(
    Description,
    arch=st.sampled_from([*SPECS]),
    in_channels=st.integers(1, 1024),
    categories=st.lists(LABELS, min_size=1, max_size=5).map(tuple),
    preprocess=st.builds(
        lambda resize, crop, mean, std: Preprocess(max(resize, crop), min(resize, crop), "bilinear", mean, std),
        *[st.integers(1, 2048)] * 2,
        st.tuples(NUMBERS, NUMBERS, NUMBERS),
        st.tuples(*[st.floats(0, 1000, exclude_min=True)] * 3),
    ),
    metrics=st.none()
    | st.builds(
        lambda dataset, accuracies, by: Metrics(dataset, min(accuracies), max(accuracies), by),
        LABELS,
        st.tuples(*[st.floats(0, 100)] * 2),
        LABELS,
    ),
)


@settings(max_examples=25, deadline=None, derandomize=True, database=None)
@given(description=DESCRIPTIONS)
def test_any_description_comes_back(description: Description) -> None:
    assert parse_description(json.loads(json.dumps(to_json(description))), SPECS, "best.pth") == description


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(raw=json_edits.edited(to_json(DESCRIPTION)))
def test_after_any_edit_a_description_is_read_as_it_stands_or_refused(raw: dict[str, Any]) -> None:
    said = ""
    try:
        description = parse_description(raw, SPECS, "best.pth")
    except ManifestError as error:
        said = str(error)
    if said:
        assert said.startswith("best.pth")
        assert said.isprintable()
        return
    assert json_edits.says(to_json(description), raw)
    assert 1 <= description.preprocess.crop <= description.preprocess.resize <= 2048
    assert min(description.preprocess.std) > 0


def change(*path: str, to: Any) -> Callable[[StateDict], StateDict]:
    def changed(content: StateDict) -> StateDict:
        if len(path) == 1:
            return {**content, path[0]: to}
        return {**content, path[0]: {**content[path[0]], path[1]: to}}

    return changed


ROW_41 = fault(
    41, "checkpoint metadata: resize 100000, labels with terminal escapes, wrong count",
    "the manifest's own validation: CheckpointError names the field",
)  # fmt: skip


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        pytest.param(spoil, message, id=name, marks=ROW_41)
        for name, spoil, message in (
            ("resize", change("preprocess", "resize", to=100_000), "'resize' must be from 1 to 2048, got 100000"),
            ("resize-0", change("preprocess", "resize", to=0), "'resize' must be from 1 to 2048, got 0"),
            ("crop", change("preprocess", "crop", to=73), "'crop' must be at most resize, 72, got 73"),
            ("crop-bool", change("preprocess", "crop", to=True), "'crop' must be a int, got True"),
            ("interpolation", change("preprocess", "interpolation", to="none"), "'interpolation' must be 'bilinear'"),
            ("mean-nan", change("preprocess", "mean", to=[0.1, float("nan"), 0.1]), "'mean' must be three finite"),
            ("mean-huge", change("preprocess", "mean", to=[10**400, 0.1, 0.1]), "'mean' must be three finite"),
            ("acc-huge", change("metrics", "acc@1", to=10**400), "'acc@1' must be a float"),
            ("std-0", change("preprocess", "std", to=[0.1, 0.0, 0.1]), "'std' must be three numbers above 0"),
            ("escape", change("categories", to=["cat", "\x1b[31mdog", "tea"]), "label must be 1 to 200 printable"),
            ("newline", change("categories", to=["cat", "dog\nrm", "tea"]), "label must be 1 to 200 printable"),
            ("right-to-left", change("categories", to=["cat", "\u202edog", "tea"]), "label must be 1 to 200 printable"),
            ("long", change("categories", to=["cat", "d" * 201, "tea"]), "label must be 1 to 200 printable"),
            ("empty-label", change("categories", to=["cat", "", "tea"]), "label must be 1 to 200 printable"),
            ("count", change("categories", to=["cat", "dog"]), "describes 2 categories .* its tensors are for 3"),
            ("no-categories", change("categories", to=[]), "'categories' must be a list of labels"),
            ("numbers", change("categories", to=[1, 2, 3]), "'categories' must be a list of labels"),
            ("channels", change("in_channels", to=1), "and 1 channels, but its tensors are for 3 and 3"),
            ("channels-0", change("in_channels", to=0), "'in_channels' must be from 1 to 1024"),
            ("arch", change("arch", to="resnet18"), "'arch' must be one of"),
            ("metrics", change("metrics", to="good"), "'metrics' must be a dict"),
            ("accuracy", change("metrics", "acc@1", to=101.0), "'acc@1' must be at least 0"),
            ("author", change("metrics", "measured_by", to="\x1b]0;owned\x07"), "label must be 1 to 200 printable"),
            ("version", change("schema_version", to=2), "has schema_version 2, this code reads 1; upgrade"),
            ("tensors", change("state_dict", to=[1]), "holds a list, expected a state dict"),
        )
    ],
)
def test_a_spoilt_description(
    spoil: Callable[[StateDict], StateDict], message: str, described: StateDict, tmp_path: Path
) -> None:
    path = tmp_path / "best.pth"
    torch.save(spoil(described), path)
    with pytest.raises(CheckpointError, match=message) as caught:
        entrypoints.shufflenet_v2_x0_5(weights=path)
    assert str(caught.value).startswith(str(path))
    assert str(caught.value).isprintable()


class TestAFileOfOnesOwn:
    def test_it_is_logged_as_unverified(
        self, described: StateDict, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        path = tmp_path / "best.pth"
        torch.save(described, path)
        with caplog.at_level(logging.INFO, "shufflenetv2"):
            entrypoints.shufflenet_v2_x0_5(weights=path)
        assert f"{path} is not in the manifest: its bytes were not verified" in caplog.messages

    def test_memory_mapping_by_default_is_for_other_files(self, described: StateDict, tmp_path: Path) -> None:
        torch.save(described, tmp_path / "best.pth")
        with config.patch({"load.mmap": True}):
            for weights, classes in ((tmp_path / "best.pth", 3), ("cifar10", 10)):
                model: Any = entrypoints.shufflenet_v2_x0_5(weights=weights)
                assert model.fc.out_features == classes

    @pytest.mark.parametrize("made", [str, Path])
    @pytest.mark.parametrize("scheme", ["https", "file"])
    def test_an_address_is_no_file(self, scheme: str, made: Callable[[str], str | Path]) -> None:
        with pytest.raises(CheckpointError, match=rf"and {scheme}://\.\.\. is an address; download it first") as caught:
            entrypoints.shufflenet_v2_x0_5(weights=made(f"{scheme}://u:SECRET@host/x.pth?sig=SECRET"))
        assert "SECRET" not in str(caught.value)
        with pytest.raises(CheckpointError, match=r"is an address; download it first") as caught:
            entrypoints.categories(weights=made(f"{scheme}://u:SECRET@host/x.onnx"))
        assert "SECRET" not in str(caught.value)

    @pytest.mark.parametrize(
        ("given", "name"),
        [
            (Path("cifar10"), "cifar10"),
            ("cifar10.pth", "cifar10"),
            ("shufflenet_v2_x1.0", "shufflenet_v2_x1_0"),
            ("shufflenetv2_x0_5/cifar10", "shufflenet_v2_x0_5/cifar10_v2"),
        ],
    )
    def test_a_path_that_is_nearly_a_name(self, given: str | Path, name: str) -> None:
        with pytest.raises(CheckpointError, match=rf"there is no such file; did you mean '{name}'\? That is a name of"):
            entrypoints.classifier(weights=given)
        with pytest.raises(CheckpointError, match=r"mine\.pth cannot be read: No such file or directory$"):
            entrypoints.classifier(weights="runs/mine.pth")

    def test_a_directory_without_a_best_checkpoint(self, tmp_path: Path) -> None:
        (tmp_path / "last.pth").touch()
        with pytest.raises(CheckpointError, match=r"is a directory, expected a regular file; it holds no file best"):
            entrypoints.shufflenet_v2_x0_5(weights=tmp_path)

    @needs_posix
    def test_a_fifo_is_not_waited_for(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "best.pth")
        with pytest.raises(CheckpointError, match="cannot be read: is a pipe, a socket or a device"):
            entrypoints.shufflenet_v2_x0_5(weights=tmp_path / "best.pth")

    def test_a_device_without_end_is_not_read(self) -> None:
        with pytest.raises(CheckpointError, match="cannot be read: is a pipe, a socket or a device"):
            entrypoints.shufflenet_v2_x0_5(weights="/dev/zero")

    def test_an_enormous_file_is_refused(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(checkpoints, "MAX_BYTES", 1000)
        (tmp_path / "best.pth").write_bytes(b"x" * 1001)
        with pytest.raises(CheckpointError, match="is larger than 1,000 bytes"):
            entrypoints.shufflenet_v2_x0_5(weights=tmp_path / "best.pth")
        (tmp_path / "best.pth").write_bytes(b"x" * 1000)
        with pytest.raises(CheckpointError, match="cannot be loaded as a checkpoint"):
            entrypoints.shufflenet_v2_x0_5(weights=tmp_path / "best.pth")

    @pytest.mark.parametrize("version", ["2.5.1", "1.13.0+cu117"])
    def test_an_old_torch_refuses_it(
        self, version: str, described: StateDict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        torch.save(described, tmp_path / "best.pth")
        monkeypatch.setattr(torch, "__version__", version)
        with pytest.raises(CheckpointError, match=r"CVE-2025-32434\); upgrade to torch 2.6"):
            entrypoints.shufflenet_v2_x0_5(weights=tmp_path / "best.pth")


def mutants(data: bytes, count: int, seed: int) -> "list[bytes]":
    """Cut, flipped and overwritten copies; half of the damage is near the ends, where the structure is."""
    chance = random.Random(seed)
    found = []
    for _ in range(count):
        mutant = bytearray(data)
        if chance.random() < 0.2:
            del mutant[chance.randrange(len(mutant)) :]
        for _ in range(chance.choice((1, 1, 2, 8))):
            if mutant:
                near = min(len(mutant), 20_000)
                position = chance.choice(
                    (chance.randrange(near), -1 - chance.randrange(near), chance.randrange(len(mutant)))
                )
                mutant[position] = chance.choice((mutant[position] ^ (1 << chance.randrange(8)), chance.randrange(256)))
        found.append(bytes(mutant))
    return found


@fault(37, "damaged bytes in a file of one's own", "CheckpointError or values that were checked, never anything else")
@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.slow
def test_mutants_of_a_checkpoint(legacy: bool, model: ShuffleNetV2, good: StateDict) -> None:
    data = checkpoint_bytes(good, legacy)
    refused = 0
    for mutant in mutants(data, 400, seed=legacy):
        before = snapshot(model)
        try:
            load(model, parse_checkpoint(mutant, "mutant.pth", SPECS))
        except CheckpointError:
            refused += 1
            after = snapshot(model)
            assert all(torch.equal(before[key][1], after[key][1]) for key in before)
        else:
            assert all(bool(torch.isfinite(tensor).all()) for tensor in model.state_dict().values())
    assert refused > 100


@fault(37, "damaged bytes in a cached file", "torch would load them: the hash is the only guard, and it is asked")
def test_a_flipped_bit_that_torch_does_not_notice(good: StateDict) -> None:
    data = checkpoint_bytes(good)
    flipped = bytearray(data)
    position = data.index(good["fc.weight"].numpy().tobytes())
    flipped[position] ^= 1
    loaded = torch.load(io.BytesIO(bytes(flipped)), weights_only=True)
    assert not torch.equal(
        loaded["fc.weight"], good["fc.weight"]
    )  # so the fault is real; test_store.py shows the guard
