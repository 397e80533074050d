"""The page says what report.json says, from which each number follows; names in it are text; it needs no network."""

import errno
import html
import json
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pytest
import torch
from PIL import Image
from support.skips import needs

from shufflenetv2.__main__ import main
from shufflenetv2.builder import resolve
from shufflenetv2.commands.evaluate import LISTED
from shufflenetv2.description import Description, Preprocess
from shufflenetv2.evaluation.counting import mcnemar, paired_interval, wilson
from shufflenetv2.evaluation.figures import draw_all
from shufflenetv2.evaluation.report import verdict
from shufflenetv2.network.model import SPECS, ShuffleNetV2
from shufflenetv2.training.history import curves
from shufflenetv2.weights.checkpoint import write_checkpoint

pytestmark = [pytest.mark.usefixtures("one_thread"), needs("matplotlib", "jinja2")]
NASTY = ("<script>alert(1)<|script>", "$x^2$ & $\\foo$", "猫 &amp; {{ 7*7 }}", "plain", "never shown")
PREPROCESS = Preprocess(64, 64, "bilinear", (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))


def network(path: Path, names: tuple[str, ...], seed: int) -> Path:
    torch.manual_seed(seed)
    model = ShuffleNetV2(SPECS["shufflenet_v2_x0_5"], len(names))
    model.train()
    for _ in range(20):
        model(torch.randn(16, 3, 64, 64) + torch.randn(16, 3, 1, 1))
    torch.nn.init.normal_(model.fc.weight, std=1.0)
    write_checkpoint(path, model.state_dict(), Description("shufflenet_v2_x0_5", 3, names, PREPROCESS))
    return path


def photos(root: Path, names: tuple[str, ...], count: int) -> Path:
    generator = torch.Generator().manual_seed(7)
    for name in names:
        (root / name).mkdir(parents=True)
        for index in range(count):
            coarse = torch.rand(1, 3, 3, 3, generator=generator)
            pixels = torch.nn.functional.interpolate(coarse, (40, 50), mode="bicubic").clamp(0, 1).mul(255).byte()
            values = bytes(pixels[0].permute(1, 2, 0).flatten().tolist())
            Image.frombytes("RGB", (50, 40), values).save(root / name / f"{index}.png")
    return root


class Page(HTMLParser):
    """The text of a page, its tags, and what they refer to."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.addresses: list[str] = []
        self.text = ""
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.addresses += [str(value) for name, value in attrs if name in ("src", "href", "srcset", "action")]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_a_second_network_that_does_not_say_its_labels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ("a", "b", "c")
    first = network(tmp_path / "first.pth", names, 1)
    torch.save(torch.load(first, weights_only=True)["state_dict"], tmp_path / "bare.pth")
    data = photos(tmp_path / "data", names, 2)
    (tmp_path / "labels.txt").write_text("a\nb\nc\n")
    command = ["evaluate", str(data), "--weights", str(tmp_path / "bare.pth"), "--against", str(tmp_path / "bare.pth")]
    assert main(command) == 1
    assert main([*command, "--categories", str(tmp_path / "labels.txt"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["against"]["differing"] == []


def test_what_compares_works_in_one_process(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    data, weights = photos(tmp_path / "data", ("a", "b"), 1), network(tmp_path / "first.pth", ("a", "b"), 1)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["evaluate", str(data), "--weights", str(weights), "--report", str(tmp_path / "out")]) == 1
    assert "work in one process; start it without torchrun" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_the_text_lists_the_first_photos_on_which_two_differ(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ("a", "b", "c", "d", "e")
    first, second = (str(network(tmp_path / f"{seed}.pth", names, seed)) for seed in (1, 2))
    data = photos(tmp_path / "data", names, 9)
    command = ["evaluate", str(data), "--weights", first, "--against", second]
    assert main([*command, "--json"]) == 0
    count = len(json.loads(capsys.readouterr().out)["against"]["differing"])
    assert count > LISTED
    assert main(command) == 0
    text = capsys.readouterr().out
    assert len(re.findall(r"^  [a-e]: first [a-e], second [a-e]  .*png$", text, re.MULTILINE)) == LISTED
    assert f"and {count - LISTED} more; --json or --report tells all" in text
    few = photos(tmp_path / "few", names, 1)
    assert main(["evaluate", str(few), "--weights", first, "--against", second]) == 0
    assert "more; --json" not in capsys.readouterr().out


def test_numbers_are_told_though_the_report_cannot_be_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    data, weights = photos(tmp_path / "data", ("a", "b"), 2), network(tmp_path / "first.pth", ("a", "b"), 1)
    command = ["evaluate", str(data), "--weights", str(weights), "--json"]
    assert main(command) == 0
    plain = json.loads(capsys.readouterr().out)
    monkeypatch.setattr("shufflenetv2.evaluation.report.write_report", full)
    assert main([*command, "--report", str(tmp_path / "out")]) == 1
    told = capsys.readouterr()
    assert json.loads(told.out)["top1"] == plain["top1"]
    assert "No space left on device" in told.err
    monkeypatch.setattr("shufflenetv2.commands.evaluate.check_folder", full)
    assert main([*command, "--report", str(tmp_path / "other")]) == 1
    assert capsys.readouterr().out == ""  # it was told before the work


def test_a_report_among_the_photos_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = photos(tmp_path / "data", ("a", "b"), 1)
    weights = network(tmp_path / "first.pth", ("a", "b"), 1)
    assert main(["evaluate", str(data), "--weights", str(weights), "--report", str(data / "report")]) == 1
    assert "is among the photos" in capsys.readouterr().err
    assert not (data / "report").exists()


def test_a_report_is_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = photos(tmp_path / "data", ("a", "b"), 1)
    weights, mine = network(tmp_path / "first.pth", ("a", "b"), 1), tmp_path / "mine"
    mine.write_text("untouched")
    for report in (mine, mine / "report"):
        assert main(["evaluate", str(data), "--weights", str(weights), "--report", str(report)]) == 1
        assert f"--report {report} cannot be a folder: {mine} is a file; name another" in capsys.readouterr().err
    assert mine.read_text() == "untouched"


@pytest.mark.parametrize(
    ("alone", "other", "better"),
    [
        (0, 5, "neither is shown to be better"),  # the interval is above 0, and p is 0.0625
        (2, 9, "neither is shown to be better"),
        (0, 6, "the second is better"),
        (6, 0, "the first is better"),
        (3, 4, "neither is shown to be better"),
    ],
)
def test_better_is_said_where_interval_and_test_say_it(alone: int, other: int, better: str) -> None:
    interval, p = paired_interval(alone, other, 60), mcnemar(alone, other)
    against = {"difference": 0, "interval": interval, "p": p, "only_first": alone, "only_second": other}
    first, second, _ = verdict({**against, "differing": [], "photos": 60})
    assert first.endswith(f": {better}")
    assert second.endswith(f"p = {p:.3g}")
    assert (interval[0] > 0) == (other > alone + 4)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], Page]:
    root = tmp_path_factory.mktemp("report")
    first, second = (network(root / f"{seed}.pth", NASTY, seed) for seed in (1, 2))
    data = photos(root / "data & <b>", NASTY[:4], 6)
    command = ["evaluate", str(data), "--weights", str(first), "--against", str(second)]
    assert main([*command, "--report", str(root / "out")]) == 0
    content = json.loads((root / "out/report.json").read_text(encoding="utf-8"))
    return root / "out", content, Page((root / "out/report.html").read_text(encoding="utf-8"))


@pytest.mark.slow
def test_every_number_follows_from_the_answers(made: tuple[Path, dict[str, Any], Page]) -> None:
    _, content, _ = made
    rows = content["answers"]
    right = [row["label"] == row["answer"] for row in rows]
    assert (content["photos"], len(rows)) == (24, 24)
    assert content["top1"]["hits"] == sum(right)
    assert content["top1"]["percent"] == pytest.approx(100 * sum(right) / 24)
    assert content["top1"]["interval"] == pytest.approx(wilson(sum(right), 24))
    error = 0.0
    for each in content["reliability"]:
        here = [index for index, row in enumerate(rows) if each["from"] < row["probability"] <= each["to"]]
        assert len(here) == each["photos"]
        assert each["said"] == pytest.approx(sum(rows[index]["probability"] for index in here) / len(here))
        assert each["right"] == pytest.approx(sum(right[index] for index in here) / len(here))
        error += len(here) / 24 * abs(each["said"] - each["right"])
    assert content["expected_calibration_error"] == pytest.approx(error)
    for each in content["coverage"]:
        kept = [hit for hit, row in zip(right, rows, strict=True) if row["probability"] >= each["min_probability"]]
        assert each["answered"] == pytest.approx(len(kept) / 24)
        assert each["accuracy"] == (pytest.approx(sum(kept) / len(kept)) if kept else None)
    pairs = Counter((row["label"], row["answer"]) for row in rows)
    assert {(NASTY[one], NASTY[two]): count for one, two, count in content["confusion"]} == pairs
    for row in content["classes"]:
        shown = sum(count for pair, count in pairs.items() if pair[0] == row["label"])
        said = sum(count for pair, count in pairs.items() if pair[1] == row["label"])
        hits = pairs[row["label"], row["label"]]
        assert (row["photos"], row["answers"], row["hits"]) == (shown, said, hits)
        assert row["precision"] == (pytest.approx(hits / said) if said else None)
        assert row["recall"] == (pytest.approx(hits / shown) if shown else None)
    wrong = [index for index, hit in enumerate(right) if not hit]
    assert content["mistakes"] == sorted(wrong, key=lambda index: -rows[index]["probability"])[:24]


@pytest.mark.slow
def test_the_comparison_follows_too(made: tuple[Path, dict[str, Any], Page]) -> None:
    _, content, page = made
    against, rows = content["against"], {row["photo"]: row for row in content["answers"]}
    differing = against["differing"]
    assert all(rows[row["photo"]]["answer"] == row["first"] != row["second"] for row in differing)
    alone = sum(row["first"] == row["label"] for row in differing)
    other = sum(row["second"] == row["label"] for row in differing)
    assert (against["only_first"], against["only_second"]) == (alone, other)
    assert against["top1"]["hits"] == content["top1"]["hits"] - alone + other
    assert against["difference"] == pytest.approx(100 * (other - alone) / 24)
    assert against["interval"] == pytest.approx(paired_interval(alone, other, 24))
    assert against["p"] == mcnemar(alone, other)
    assert differing
    assert f"differently on {len(differing)} of 24" in page.text


@pytest.mark.slow
def test_a_users_settings_of_matplotlib_do_not_matter(made: tuple[Path, dict[str, Any], Page]) -> None:
    with mpl.rc_context({"text.usetex": True}):
        assert all(data.startswith(b"\x89PNG") for data in draw_all(made[1]).values())
        assert curves([{"epoch": 1, "loss": 1.0, "accuracy": 0.5}]).startswith(b"\x89PNG")


@pytest.mark.slow
def test_the_page_says_the_same(made: tuple[Path, dict[str, Any], Page]) -> None:
    _, content, page = made
    for row in (content["top1"], content["top5"]):
        assert f"{row['percent']:.2f} %" in page.text
        assert f"{row['hits']} of 24; 95 % interval {row['interval'][0]:.2f} to {row['interval'][1]:.2f} %" in page.text
    assert f"{100 * content['expected_calibration_error']:.2f} %" in page.text
    for index in content["mistakes"]:
        assert f", {100 * content['answers'][index]['probability']:.2f} %" in page.text


@pytest.mark.slow
def test_names_are_text_and_nothing_is_fetched(made: tuple[Path, dict[str, Any], Page]) -> None:
    folder, _, page = made
    assert page.tags["script"] == 0
    assert page.tags["b"] > 0
    for name in NASTY[:4]:
        assert name in page.text
    assert "data & <b>" in page.text
    assert "49" not in re.sub(r"\d[\d.]+", "", page.text)
    assert page.addresses
    assert all(re.match(r"data:image/(png|jpeg);base64,[A-Za-z0-9+/=]+$", each) for each in page.addresses)
    source = (folder / "report.html").read_text(encoding="utf-8")
    assert "http://" not in source
    assert "https://" not in source
    for name in ("reliability", "coverage", "confusion"):
        for theme in ("", "-dark"):
            with Image.open(folder / f"{name}{theme}.png") as image:
                assert image.size == (800, 672)
    assert html.escape(NASTY[0]) in source


@pytest.mark.slow
def test_many_classes_are_told_by_pairs(tmp_path: Path) -> None:
    names = tuple(f"class {index:02}" for index in range(40))
    weights = network(tmp_path / "w.pth", names, 1)
    data = photos(tmp_path / "data", names, 1)
    (tmp_path / "out").mkdir()
    (tmp_path / "out/confusion.png").write_bytes(b"of an earlier report")
    assert main(["evaluate", str(data), "--weights", str(weights), "--report", str(tmp_path / "out")]) == 0
    assert not (tmp_path / "out/confusion.png").exists()
    page = Page((tmp_path / "out/report.html").read_text(encoding="utf-8"))
    content = json.loads((tmp_path / "out/report.json").read_text(encoding="utf-8"))
    assert len(content["confused"]) == 30
    assert "The most confused" in page.text
    assert content["top5"]["hits"] >= content["top1"]["hits"]


@pytest.mark.slow
def test_a_file_of_onnx_against_its_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnxruntime", reason="not installed: onnxruntime")
    names = NASTY[3:]
    weights = network(tmp_path / "w.pth", names, 1)
    data = photos(tmp_path / "data", names, 5)
    file = tmp_path / "w.onnx"
    assert main(["export", "--format", "onnx", "--weights", str(weights), "-o", str(file)]) == 0
    capsys.readouterr()
    for one, two in ((weights, file), (file, weights)):
        command = ["evaluate", str(data), "--weights", str(one), "--against", str(two), "--json"]
        assert main([*command, "--report", str(tmp_path / "out")]) == 0
        told = json.loads(capsys.readouterr().out)["against"]
        assert (told["photos"], told["difference"], told["differing"]) == (10, 0, [])
    assert main(["evaluate", str(data), "--weights", str(file), "--calibrate", "-o", str(tmp_path / "c.pth")]) == 1
    assert "exported file" in capsys.readouterr().err


@pytest.mark.slow
def test_plain_against_deploy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = network(tmp_path / "w.pth", NASTY[3:], 1)
    data = photos(tmp_path / "data", NASTY[3:], 3)
    assert main(["evaluate", str(data), "--weights", str(weights), "--plain", "--against", str(weights)]) == 0
    assert "they answer differently on 0 of 6 photos" in capsys.readouterr().out


@pytest.mark.slow
def test_bad_photos_are_left_out_of_both(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = network(tmp_path / "w.pth", NASTY[3:], 1)
    data = photos(tmp_path / "data", NASTY[3:], 3)
    (data / "plain" / "1.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    command = [
        "evaluate",
        str(data),
        "--weights",
        str(weights),
        "--against",
        str(weights),
        "--report",
        str(tmp_path / "o"),
    ]
    assert main(command) == 1
    assert not (tmp_path / "o").exists()
    capsys.readouterr()
    assert main([*command, "--skip-bad", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["photos"], told["skipped"], told["against"]["photos"]) == (5, 1, 5)
    assert "1 that could not be used" in Page((tmp_path / "o/report.html").read_text(encoding="utf-8")).text


def test_against_weights_of_other_classes_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = network(tmp_path / "w.pth", NASTY[3:], 1)
    data = photos(tmp_path / "data", NASTY[3:], 2)
    assert main(["evaluate", str(data), "--weights", str(weights), "--against", "cifar10"]) == 1
    error = capsys.readouterr().err
    assert f"--against shufflenet_v2_x0_5/cifar10_v2: {data} has folders that are no class" in error
    assert resolve(None, str(weights)).labels == list(NASTY[3:])
