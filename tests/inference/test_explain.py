"""The map is the logit, exactly, and lies where a person sees the thing."""

import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageChops, ImageStat
from support.networks import randomise
from support.processes import ROOT, run_python
from torch import nn

from shufflenetv2.builder import resolve
from shufflenetv2.errors import ImageError
from shufflenetv2.inference.classifier import Classifier
from shufflenetv2.inference.explain import _palette, contributions, last_features
from shufflenetv2.inference.placing import placed
from shufflenetv2.inference.stream import Prediction
from shufflenetv2.network.deploy import deploy
from shufflenetv2.network.model import SPECS, ShuffleNetV2, spec_of
from shufflenetv2.photos.decode import _UPRIGHT, open_photo

CAT = ROOT / "images/cat.jpg"
SIZE = (451, 300)
pytestmark = pytest.mark.usefixtures("one_thread")
SIZES = ((33, 47), (64, 64), (97, 225))


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return Classifier(resolve(None, "cifar10"))


def model_of(arch: str, small_stem: bool = False) -> nn.Module:
    torch.manual_seed(3)
    model = ShuffleNetV2(spec_of(arch, small_stem), 11).double()
    randomise(model)
    return model.eval()


def check(model: nn.Module, images: torch.Tensor) -> None:
    with torch.inference_mode():
        expected = model(images)[0]
    features, logits, last = last_features(model, images)
    assert torch.equal(logits[0], expected)
    for index, logit in enumerate(expected.tolist()):
        map, bias = contributions(features, last, index, logit)
        assert map.dtype == torch.float64
        assert abs(float(map.mean()) + bias - logit) < 1e-10


@pytest.mark.parametrize("arch", SPECS)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.slow
def test_the_map_is_the_logit(arch: str, size: tuple[int, int]) -> None:
    images = torch.randn(1, 3, *size, dtype=torch.float64)
    model = model_of(arch)
    check(model, images)
    check(deploy(model), images)


def test_the_map_of_the_small_stem_is_the_logit() -> None:
    model = model_of("shufflenet_v2_x0_5", small_stem=True)
    for size in ((32, 32), (33, 47)):
        check(model, torch.randn(1, 3, *size, dtype=torch.float64))
        check(deploy(model), torch.randn(1, 3, *size, dtype=torch.float64))


@pytest.mark.parametrize("arch", SPECS)
@pytest.mark.slow
def test_the_map_of_torchvisions_is_the_logit(arch: str) -> None:
    models = pytest.importorskip("torchvision.models", reason="not installed: torchvision")
    model = getattr(models, arch)().double()
    randomise(model)
    for size in SIZES:
        check(model.eval(), torch.randn(1, 3, *size, dtype=torch.float64))
        check(deploy(model), torch.randn(1, 3, *size, dtype=torch.float64))


def test_a_classifier_in_float64_explains_exactly() -> None:
    for deployed in (True, False):
        classifier = Classifier(resolve(None, "cifar10"), deploy=deployed)
        classifier.model.double()
        for label in range(10):
            explanation = classifier.explain(CAT, label)
            assert abs(float(explanation.map.mean()) + explanation.bias - explanation.logit) < 1e-10


def test_a_network_that_ends_otherwise_is_refused() -> None:
    model = model_of("shufflenet_v2_x0_5")
    images = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    features, logits, last = last_features(model, images)
    with pytest.raises(ValueError, match="is not the logit"):
        contributions(features, last, 0, float(logits[0, 0]) + 1e-6)
    with pytest.raises(ValueError, match="ends in conv5, a mean and a linear layer"):
        last_features(torch.jit.trace(model, images), images)
    model.fc = nn.Sequential(nn.Linear(1024, 11))
    with pytest.raises(ValueError, match="ends in conv5, a mean and a linear layer"):
        last_features(model, images)


class Highest(ShuffleNetV2):
    """Another pooling than the mean."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.fc(self.forward_features(images)[3].amax([2, 3]))  # type: ignore[no-any-return]


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_another_pooling_is_refused_in_every_precision(precision: str) -> None:
    classifier = Classifier(resolve(None, "cifar10"), device="cpu", deploy=False, precision=precision)
    explanation = classifier.explain(CAT)
    assert float(explanation.map.float().mean()) + explanation.bias == pytest.approx(explanation.logit, abs=0.05)
    classifier.model.__class__ = Highest
    with pytest.raises(ValueError, match="is not the logit"):
        classifier.explain(CAT)


def test_products_in_a_coarser_arithmetic_are_explained() -> None:
    """As the user sets it; processors without instructions for it compute on as before."""
    torch.manual_seed(3)
    model = ShuffleNetV2(SPECS["shufflenet_v2_x0_5"]).eval()
    randomise(model)
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        features, logits, last = last_features(model, images)
        sizes = features.mean((2, 3)).abs() @ last.weight.detach().abs().T
        for index, logit in enumerate(logits[0].tolist()):
            map, bias = contributions(features, last, index, logit)
            assert float(map.mean()) + bias == pytest.approx(logit, abs=0.005 * float(sizes[0, index]))
    finally:
        torch.set_float32_matmul_precision(before)


def test_what_an_explanation_holds(classifier: Classifier) -> None:
    explanation = classifier.explain(CAT)
    assert explanation.predictions == classifier(CAT)
    first = explanation.predictions[0]
    assert (explanation.label, explanation.probability, explanation.index) == first
    assert float(explanation.map.mean()) + explanation.bias == pytest.approx(explanation.logit, abs=1e-5)
    width, height = SIZE
    assert explanation.heatmap.shape == explanation.seen.shape == (height, width)
    assert (explanation.heatmap.dtype, explanation.seen.dtype) == (torch.float32, torch.bool)
    assert bool(explanation.heatmap.isfinite().all())
    assert float(explanation.heatmap[~explanation.seen].abs().sum()) == 0
    left, top, right, bottom = explanation.frame  # the middle square, of all rows
    assert (top, bottom) == (0, height)
    assert int(explanation.seen.any(0).sum()) == pytest.approx(right - left, abs=1)
    assert bool(explanation.seen.any(1).all())
    inside = explanation.heatmap[explanation.seen]
    assert float(inside.max()) <= float(explanation.map.max()) + 1e-5
    assert float(inside.min()) >= float(explanation.map.min()) - 1e-5


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_is_explained_with_the_probabilities_of_a_call(precision: str) -> None:
    half = Classifier(resolve(None, "cifar10"), precision=precision, device="cpu")
    explanation = half.explain(CAT)
    assert explanation.predictions == half(CAT)
    assert explanation.probability == half(CAT)[0].probability


def test_the_map_is_a_tensor_like_any_other(classifier: Classifier) -> None:
    map = classifier.explain(CAT).map
    weight = torch.ones(1, requires_grad=True)
    (map * weight).sum().backward()
    assert weight.grad is not None
    assert float(weight.grad) == pytest.approx(float(map.sum()), rel=1e-5)
    assert float(map.sub_(map.min()).min()) == 0


def test_the_default_device_is_no_business_of_photos(classifier: Classifier) -> None:
    expected = classifier.explain(CAT)
    with torch.device("meta"):
        assert torch.equal(classifier.probabilities(CAT), classifier.probabilities([CAT]))
        assert classifier.features(CAT).device.type == "cpu"
        explanation = classifier.explain(CAT)
        assert torch.equal(explanation.heatmap, expected.heatmap)
        assert torch.equal(explanation.seen, expected.seen)
        _palette.cache_clear()
        assert explanation.overlay().tobytes() == expected.overlay().tobytes()


def test_the_label_may_be_named(classifier: Classifier) -> None:
    by_name, by_index = classifier.explain(CAT, "dog"), classifier.explain(CAT, 5)
    assert (by_name.label, by_name.index) == ("dog", 5)
    assert torch.equal(by_name.map, by_index.map)
    assert not torch.equal(by_name.map, classifier.explain(CAT).map)
    assert classifier.explain(CAT, Prediction("dog", 0.0, 5)).label == "dog"
    assert classifier.explain(CAT, torch.tensor(5)).label == "dog"  # type: ignore[arg-type]
    for wrong, error in (("dgo", ValueError), (10, ValueError), (-1, ValueError), (True, TypeError), (5.0, TypeError)):
        with pytest.raises(error, match="label"):
            classifier.explain(CAT, wrong)  # type: ignore[arg-type]
    with pytest.raises(ImageError, match=r"nowhere\.jpg"):
        classifier.explain("nowhere.jpg")
    with pytest.raises(TypeError, match="one photo"):
        classifier.explain([CAT])  # type: ignore[arg-type]


def corner(place: tuple[int, int]) -> Image.Image:
    """A cat in one corner of the crop, the middle square, of a dull photo."""
    photo = Image.new("RGB", (360, 240), (120, 125, 120))
    photo.paste(open_photo(CAT).resize((120, 120)), (60 + 120 * place[0], 120 * place[1]))
    return photo


def peak(heatmap: torch.Tensor) -> tuple[int, int]:
    """Which quarter of the photo holds the most."""
    row, column = divmod(int(heatmap.argmax()), heatmap.shape[1])
    return int(column >= heatmap.shape[1] / 2), int(row >= heatmap.shape[0] / 2)


@pytest.mark.parametrize("place", [(0, 0), (1, 0), (0, 1), (1, 1)])
def test_the_map_lies_where_the_thing_is(classifier: Classifier, place: tuple[int, int], tmp_path: Path) -> None:
    photo = corner(place)
    upright = classifier.explain(photo, "cat")
    assert peak(upright.heatmap) == place
    exif = Image.Exif()
    undo = {
        Image.Transpose.ROTATE_90: Image.Transpose.ROTATE_270,
        Image.Transpose.ROTATE_270: Image.Transpose.ROTATE_90,
    }
    for orientation in range(1, 9):
        exif[0x0112] = orientation
        turn = _UPRIGHT.get(orientation)
        stored = photo if turn is None else photo.transpose(undo.get(turn, turn))
        file = tmp_path / f"{orientation}.png"
        stored.save(file, exif=exif)
        explanation = classifier.explain(file, "cat")
        assert torch.equal(explanation.heatmap, upright.heatmap)
        assert explanation.overlay().size == photo.size
        assert explanation.overlay().tobytes() == upright.overlay().tobytes()


def test_positions_lie_where_the_network_looks() -> None:
    """Position k of a map of stride 32 looks around pixel 32 k, not around the middle of a tile of 32 pixels."""
    map = torch.zeros(7, 7)
    map[2, 3] = 1
    placing = placed(map, 224, (0, 0, 224, 224), (224, 224))
    heatmap, seen = placing.heatmap(map), placing.seen()
    assert bool(seen.all())
    assert divmod(int(heatmap.argmax()), 224) == (64, 96)
    assert float(heatmap.max()) == 1
    assert float(heatmap[64, 96 + 16]) == pytest.approx(0.5)
    assert float(heatmap[64, 128]) == 0
    placing = placed(map, 224, (100, 50, 324, 274), (400, 300))
    heatmap, seen = placing.heatmap(map), placing.seen()
    assert divmod(int(heatmap.argmax()), 400) == (50 + 64, 100 + 96)
    assert int(seen.sum()) == 224 * 224
    edges = [bool(seen[place]) for place in ((50, 100), (273, 323), (49, 100), (273, 324))]
    assert edges == [True, True, False, False]
    last = torch.zeros(7, 7)
    last[6, 6] = 1  # what is beyond the last position is like it
    assert float(placed(last, 224, (0, 0, 224, 224), (224, 224)).heatmap(last)[223, 223]) == 1


@pytest.mark.slow
def test_gradients_confirm_the_positions(classifier: Classifier) -> None:
    """Where the middle of the input that moves one position really is, away from the edges."""
    model = Classifier(resolve(None, "cifar10"), deploy=False).model
    images = torch.zeros(1, 3, 480, 480, requires_grad=True)
    features = model.forward_features(images)[3]  # type: ignore[operator]
    stride = 8  # of the small stem
    assert features.shape[-1] == 480 // stride
    (gradient,) = torch.autograd.grad(features[0, :, 30, 30].sum(), images)
    weight = gradient.abs().sum((0, 1, 2))
    centre = float((weight * torch.arange(480)).sum() / weight.sum())
    assert abs(centre - 30 * stride) < stride / 2


@pytest.mark.parametrize("size", [(32, 32), (1, 1), (3, 700), (700, 3), (4000, 1), (333, 331)])
def test_photos_of_any_size(classifier: Classifier, size: tuple[int, int]) -> None:
    photo = Image.new("RGB", size, "red")
    explanation = classifier.explain(photo)
    assert explanation.heatmap.shape == (size[1], size[0])
    assert explanation.overlay().size == size
    assert bool(explanation.heatmap.isfinite().all())
    assert bool(explanation.seen.any())


def test_a_tensor_is_explained_too(classifier: Classifier) -> None:
    pixels = torch.randint(0, 256, (3, 50, 70), dtype=torch.uint8)
    explanation = classifier.explain(pixels)
    assert explanation.overlay().size == (70, 50)
    assert explanation.photo.getpixel((7, 5)) == tuple(pixels[:, 5, 7].tolist())
    assert classifier.explain(pixels[:1]).photo.mode == "RGB"
    with pytest.raises(TypeError, match="one photo"):
        classifier.explain(pixels[None])


@pytest.mark.slow
def test_a_large_photo_keeps_its_size(classifier: Classifier) -> None:
    explanation = classifier.explain(Image.new("RGB", (8001, 6501)))  # halved as it is read
    assert explanation.photo.size != (8001, 6501)
    assert explanation.overlay().size == (8001, 6501)
    assert explanation.seen.shape == (6501, 8001)
    assert explanation.overlay(400).size == (400, 325)


def test_a_smaller_overlay_shows_the_same(classifier: Classifier) -> None:
    explanation = classifier.explain(CAT, "cat")
    whole, small = explanation.overlay(), explanation.overlay(225)
    assert (whole.size, small.size) == (SIZE, (225, 150))
    assert explanation.overlay(1000).size == SIZE
    reduced = whole.resize(small.size, Image.Resampling.BOX)
    difference = ImageStat.Stat(ImageChops.difference(reduced, small)).mean
    assert max(difference) < 8  # of 255


def test_a_band_after_the_other_is_the_whole(classifier: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    explanation = classifier.explain(CAT)
    whole = explanation.overlay()
    monkeypatch.setattr("shufflenetv2.inference.explain.BAND", 7)
    assert max(ImageStat.Stat(ImageChops.difference(explanation.overlay(), whole)).mean) < 0.01


def test_the_notebook_shows_a_png(classifier: Classifier) -> None:
    image = Image.open(io.BytesIO(classifier.explain(CAT)._repr_png_()))
    assert (image.format, image.size) == ("PNG", SIZE)
    wide = Image.open(io.BytesIO(classifier.explain(Image.new("RGB", (3000, 1500)))._repr_png_()))
    assert wide.size == (1024, 512)


def test_the_overlay_shows_where(classifier: Classifier) -> None:
    """Yellow in the corner with the cat, blue in the one across; grey outside the crop, which has a frame."""
    explanation = classifier.explain(corner((1, 0)), "cat")
    overlay = explanation.overlay()
    row, column = divmod(int(explanation.heatmap.argmax()), 360)
    red, green, blue = overlay.getpixel((column, row))  # type: ignore[misc]
    assert red > blue + 60
    assert green > blue + 60
    red, green, blue = overlay.getpixel((70, 230))  # type: ignore[misc]
    assert blue > green
    red, green, blue = overlay.getpixel((20, 100))  # type: ignore[misc]
    assert red == green == blue < 90
    assert overlay.getpixel((60, 100)) == overlay.getpixel((299, 100)) == (255, 255, 255)


@pytest.mark.slow
def test_threads_that_share_a_classifier_do_not_see_each_others_features(classifier: Classifier) -> None:
    photos = [torch.full((3, 40, 40), value, dtype=torch.uint8) for value in (0, 60, 120, 180, 240)]
    alone = [classifier.explain(photo).heatmap for photo in photos]

    def work(index: int) -> bool:
        classifier(photos[(index + 1) % 5])
        return torch.equal(classifier.explain(photos[index % 5]).heatmap, alone[index % 5])

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(200)))


@pytest.mark.slow
def test_who_does_not_ask_waits_for_none_of_it() -> None:
    code = """
import sys, torch
classify = torch.hub.load('.', 'classifier', source='local', weights='cifar10')
classify('images/cat.jpg')
late = ('explain', 'overlays', 'judging', 'report', 'figures')
print([name for name in sys.modules if name.split('.')[-1] in late and 'shufflenetv2' in name])
print([name for name in ('matplotlib', 'sklearn', 'scipy', 'jinja2') if name in sys.modules])
print(classify.explain('images/cat.jpg').label)
"""
    assert run_python(code).stdout.split("\n")[:3] == ["[]", "[]", "cat"]
