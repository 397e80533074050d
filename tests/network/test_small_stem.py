"""The small stem: the paper's layers for photos of some 32 pixels, through every door of the package."""

import json

import pytest
import torch
from support.networks import images, randomise, relative_error
from torch.utils.flop_counter import FlopCounterMode

from shufflenetv2.builder import build, resolve
from shufflenetv2.description import STANDARD, Description, parse_description, to_json
from shufflenetv2.entrypoints import classifier, shufflenet_v2_x0_5, shufflenet_v2_x1_0
from shufflenetv2.errors import CheckpointError, ManifestError
from shufflenetv2.network.deploy import deploy
from shufflenetv2.network.model import SPECS, ShuffleNetV2, Spec, spec_of
from shufflenetv2.weights.checkpoint import write_checkpoint

X0_5 = "shufflenet_v2_x0_5"


@pytest.fixture
def described(tmp_path):
    """Writes a checkpoint of either stem, and says where."""

    def write(small_stem):
        torch.manual_seed(0)
        model = randomise(ShuffleNetV2(spec_of(X0_5, small_stem), 3))
        preprocess = {**to_json(STANDARD), "resize": 32, "crop": 32}
        description = {"arch": X0_5, "in_channels": 3, "categories": ["a", "b", "c"], "preprocess": preprocess}
        path = tmp_path / f"{'small' if small_stem else 'paper'}.pth"
        said = parse_description({**description, "small_stem": small_stem}, SPECS, "test")
        write_checkpoint(path, model.state_dict(), said)
        return path, model

    return write


def test_it_costs_what_the_peer_states_at_32_pixels():
    # 10.90 M multiply-adds and 0.35 M parameters: github.com/chenyaofo/pytorch-cifar-models, cifar10_shufflenetv2_x0_5
    model = shufflenet_v2_x0_5(num_classes=10, small_stem=True).eval()
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        model(torch.zeros(1, 3, 32, 32))
    assert counter.get_total_flops() // 2 == 10_902_016
    assert sum(parameter.numel() for parameter in model.parameters()) == 352_042


def test_it_has_the_keys_and_the_random_numbers_of_the_papers_stem():
    torch.manual_seed(3)
    paper = shufflenet_v2_x1_0().state_dict()
    torch.manual_seed(3)
    small = shufflenet_v2_x1_0(small_stem=True).state_dict()
    assert small.keys() == paper.keys()
    assert all(torch.equal(small[key], paper[key]) for key in paper)


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (8, 8), (9, 64)], ids=str)
@pytest.mark.parametrize("arch", SPECS)
@torch.inference_mode()
@pytest.mark.slow
def test_features_and_the_deploy_form_in_float64(arch, size):
    spec = spec_of(arch, small_stem=True)
    model = randomise(ShuffleNetV2(spec, 7).double())
    photos = images(3, *size)
    deployed = deploy(model)
    assert relative_error(deployed(photos), model(photos)) < 1e-12
    assert spec.strides == (2, 4, 8, 8)
    for mine, theirs, stride in zip(
        model.forward_features(photos), deployed.forward_features(photos), spec.strides, strict=True
    ):
        assert mine.shape[2:] == tuple(-(-side // stride) for side in size)
        assert relative_error(theirs, mine) < 1e-12


@torch.inference_mode()
def test_a_large_batch_goes_through_in_pieces_a_quarter_as_large():
    model = deploy(randomise(ShuffleNetV2(spec_of(X0_5, small_stem=True), 2)))
    sizes = []
    model.conv1.register_forward_hook(lambda module, inputs, output: sizes.append(len(output)))
    model(torch.rand(400, 3, 32, 32))
    assert sizes == [134, 134, 132]  # 16 * 224**2 / 4 pixels are 196 photos of 32x32


@pytest.mark.parametrize("small", [True, False])
def test_a_file_says_which_stem_it_is_for_and_another_is_refused(described, small):
    path, model = described(small)
    weights = resolve(None, str(path))
    assert weights.small_stem is small
    photos = torch.rand(2, 3, 32, 32)
    with torch.inference_mode():
        expected = model(photos)
        for given in (None, small):
            assert torch.equal(shufflenet_v2_x0_5(weights=str(path), small_stem=given)(photos), expected)
        got = classifier(weights=str(path), device="cpu").model(photos)
    assert relative_error(got, expected) < 1e-5
    with pytest.raises(
        CheckpointError,
        match=rf"{path} is for the (paper's|small) stem .* leave out small_stem={not small} .--small-stem.",
    ):
        shufflenet_v2_x0_5(weights=str(path), small_stem=not small)


def test_a_file_that_does_not_say_is_for_the_stem_that_is_asked_for(tmp_path):
    model = randomise(ShuffleNetV2(spec_of(X0_5, small_stem=True), 1000))
    torch.save(model.state_dict(), tmp_path / "bare.pth")
    photos = torch.rand(2, 3, 32, 32)
    with torch.inference_mode():
        assert torch.equal(shufflenet_v2_x0_5(weights=tmp_path / "bare.pth", small_stem=True)(photos), model(photos))
        assert not torch.equal(shufflenet_v2_x0_5(weights=tmp_path / "bare.pth")(photos), model(photos))


def test_weights_of_the_manifest_refuse_the_other_stem():
    with pytest.raises(CheckpointError, match="shufflenet_v2_x0_5/cifar10_v2 is for the small stem"):
        shufflenet_v2_x0_5(weights="cifar10_v2", small_stem=False)


@pytest.mark.parametrize("given", [1, "yes", 0])
def test_other_than_true_false_or_none(given):
    with pytest.raises(TypeError, match="small_stem is True, False or None"):
        shufflenet_v2_x0_5(small_stem=given)


def test_the_description_round_trips_and_refuses_other_types():
    said = Description(X0_5, 3, ("a",), STANDARD, small_stem=True)
    raw = json.loads(json.dumps(to_json(said)))
    assert parse_description(raw, SPECS, "test") == said
    del raw["small_stem"]
    assert not parse_description(raw, SPECS, "test").small_stem  # files from before it
    with pytest.raises(ManifestError, match="'small_stem' must be a bool, got 1"):
        parse_description({**raw, "small_stem": 1}, SPECS, "test")


def test_a_stride_of_neither_one_nor_two():
    with pytest.raises(ValueError, match="stride of the stem is 1 or 2, got 3"):
        Spec(stage_channels=(48, 96, 192), head_channels=8, stem_stride=3)


def test_grey_images_keep_the_stem(described):
    path, _ = described(small_stem=True)
    model = build(X0_5, resolve(None, str(path)), in_channels=1)
    assert model.conv1[0].stride == (1, 1)
    assert model(torch.rand(1, 1, 32, 32)).shape == (1, 3)


@pytest.mark.slow
def test_export_at_the_size_of_its_photos(described, tmp_path, capsys):
    from shufflenetv2.__main__ import main

    path, model = described(small_stem=True)
    file = tmp_path / "small.pt2"
    assert main(["export", "--format", "torch-export", "--weights", str(path), "-o", str(file)]) == 0
    assert "(2, 3, 32, 32)" in capsys.readouterr().out
    photos = torch.rand(5, 3, 32, 32)
    with torch.inference_mode():
        assert relative_error(torch.export.load(file).module()(photos), model(photos)) < 1e-5
