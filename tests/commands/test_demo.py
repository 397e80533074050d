"""The web demo as its visitor sees it: a real headless Chromium, and not one request that leaves the machine."""

import functools
import html
import io
import json
import os
import re
import secrets
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
from PIL import Image
from playwright.sync_api import Page, expect
from support.demo import CHROMIUM, PATIENCE, browse, serve_demo
from support.processes import ROOT, run, run_module, run_python
from support.stand_in import StandIn

from shufflenetv2.__main__ import main
from shufflenetv2.builder import resolve
from shufflenetv2.commands import demo
from shufflenetv2.photos.reading import MAX_BYTES
from shufflenetv2.service import TOP, Classifiers, answer
from shufflenetv2.weights.manifest import load_manifest

expect.set_options(timeout=PATIENCE)
needs_chromium = pytest.mark.skipif(
    CHROMIUM is None and "CI" not in os.environ, reason="needs Chromium (Debian: apt-get install chromium)"
)
OTHER = "shufflenet_v2_x0_5/imagenet1k_v1"


@dataclass(eq=False)
class Visited:
    """A running demo, and what a visitor needs to know of it."""

    address: str
    uploads: Path
    stand_in: StandIn
    home: Path

    @functools.cache  # noqa: B019 -- lives as long as the module's tests
    def classify(self, photo: Path, weights: str) -> str:
        """What the command line says of the same photo."""
        arch, _, name = weights.partition("/")
        command = ("shufflenetv2", "classify", photo, "--arch", arch, "--weights", name, "--json")
        result = run_module(*command, cwd=self.stand_in.repository, env=self.stand_in.environment(self.home))
        return str(json.loads(result.stdout)["predictions"][0]["label"])


@pytest.fixture(scope="module")
def served(stand_in: StandIn, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Visited]:
    home = tmp_path_factory.mktemp("visited")
    elsewhere = socket.create_server(("127.0.0.1", 0))  # whatever the server wants of another machine arrives here
    elsewhere.setblocking(False)
    proxy = f"http://127.0.0.1:{elsewhere.getsockname()[1]}"
    temporary = tmp_path_factory.mktemp("temporary")
    fetch = ("shufflenetv2", "weights", "fetch", "shufflenet_v2_x1_0", OTHER)
    run_module(*fetch, cwd=stand_in.repository, env=stand_in.environment(home))
    environment = {"TMPDIR": str(temporary), "HTTP_PROXY": proxy, "HTTPS_PROXY": proxy, "NO_PROXY": "127.0.0.1"}
    with serve_demo(stand_in, home, **environment) as running:
        [uploads] = temporary.glob("shufflenetv2-demo-*")
        yield Visited(running.address, uploads, stand_in, home)
        with pytest.raises(BlockingIOError):
            elsewhere.accept()
        elsewhere.close()
        # SIGTERM ends it like Ctrl-C: the visitors' photos are gone, and nothing else was ever printed.
        running.process.send_signal(signal.SIGTERM)
        assert running.process.communicate(timeout=30) == ("", "")
        assert running.process.returncode == 0
        assert not uploads.exists()


@pytest.fixture
def page(served: Visited, tmp_path: Path) -> Iterator[Page]:
    """The demo in a browser of its own. Whatever the browser asks for comes from loopback."""
    asked: list[str] = []
    with browse(served.address, tmp_path / "profile", asked) as page:
        yield page
    assert asked
    assert {urlsplit(url).hostname for url in asked if not url.startswith(("data:", "blob:"))} == {"127.0.0.1"}


def choose(page: Page, weights: str) -> None:
    page.locator("#weights input").click()
    page.get_by_role("option", name=weights).click()


def upload(page: Page, photo: Path) -> None:
    page.locator("#photo input[type=file]").set_input_files(photo)


def expect_top(page: Page, label: str) -> None:
    expect(page.get_by_test_id("label-output-value")).to_have_text(label)


@pytest.mark.slow
@needs_chromium
def test_uploaded_cat_gets_the_label_of_the_command_line(page: Page, served: Visited) -> None:
    opening = page.locator("#weights input").input_value()
    bundled = [str(entry) for entry in load_manifest() if entry.path]
    assert opening == (bundled or ["shufflenet_v2_x1_0/imagenet1k_v1"])[0]

    cat = ROOT / "images/cat.jpg"
    upload(page, cat)
    expect_top(page, served.classify(cat, opening))
    expect(page.locator("#labels button.confidence-set")).to_have_count(TOP)
    expect(page.locator("#duration")).to_have_text(
        re.compile(r"^\s*\d+ ms on \w+: \d+ ms to read the photo, \d+ ms for the network\s*$")
    )

    choose(page, OTHER)
    expect_top(page, served.classify(cat, OTHER))


@pytest.mark.slow
@needs_chromium
def test_the_page_shows_where_it_looked(page: Page, served: Visited) -> None:
    upload(page, ROOT / "images/cat.jpg")
    expect(page.locator("#labels button.confidence-set")).to_have_count(TOP)
    picture = page.locator("#overlay img")
    expect(picture).to_have_count(0)
    page.get_by_label("Show where it looked").check()
    expect(picture).to_be_visible()
    assert picture.evaluate("image => [image.naturalWidth, image.naturalHeight]") == [451, 300]
    page.get_by_label("Show where it looked").uncheck()
    expect(picture).to_have_count(0)


@pytest.mark.slow
@needs_chromium
def test_sample_photos_are_a_click_away(page: Page, served: Visited) -> None:
    for index, photo in enumerate(demo.sample_photos()):
        page.locator("#samples button.gallery-item").nth(index).click()
        expect_top(page, served.classify(photo, page.locator("#weights input").input_value()))
    assert index == 1


@pytest.mark.slow
@needs_chromium
@pytest.mark.parametrize(
    ("content", "told"),
    [
        (
            b"<b>just text</b>",
            "the file is no image of a known format (JPEG, PNG, WEBP, GIF, BMP, TIFF, AVIF, HEIC); it beg",
        ),
        (b"", "the file is empty, expected an image"),
        ((ROOT / "images/cat.jpg").read_bytes()[:20_000], "is the file complete?"),
    ],
    ids=["text", "empty", "cut"],
)
def test_a_bad_file_shows_its_error_and_no_bars(page: Page, tmp_path: Path, content: bytes, told: str) -> None:
    upload(page, ROOT / "images/cat.jpg")
    expect(page.get_by_test_id("label-output-value")).to_be_visible()
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(content)
    upload(page, bad)
    expect(page.get_by_test_id("toast-body")).to_contain_text(told)
    if b"<b>" in content:
        expect(page.get_by_test_id("toast-body")).to_contain_text("<b>just text")
    expect(page.get_by_test_id("label-output-value")).to_have_count(0)
    expect(page.locator("#duration")).not_to_contain_text("ms")


@pytest.mark.slow
@needs_chromium
def test_a_file_over_the_limit_is_refused(page: Page, served: Visited, tmp_path: Path) -> None:
    big = tmp_path / "big.jpg"
    big.write_bytes((ROOT / "images/cat.jpg").read_bytes().ljust(MAX_BYTES + 1))
    upload(page, big)  # refused by the page itself
    expect(page.get_by_test_id("toast-body")).to_contain_text("exceed the maximum allowed size")
    assert send(served.address, big).status_code == 413  # refused by the server, whatever page it comes from
    assert all(path.stat().st_size < MAX_BYTES for path in served.uploads.rglob("*"))


def send(address: str, photo: Path) -> requests.Response:
    with photo.open("rb") as file:
        return requests.post(address + "gradio_api/upload", files={"files": file})


def ask(address: str, photo: object, weights: object) -> dict[str, Any]:
    """What a request that comes from no page is answered: the outcome of one event of Gradio's queue."""
    config = requests.get(address + "config").json()
    [event] = [each["id"] for each in config["dependencies"] if each["api_name"] == "classify"]
    session = {"session_hash": secrets.token_hex(8)}
    call = {"data": [photo, "", weights, 5, 0, False], "fn_index": event, **session}
    requests.post(address + "gradio_api/queue/join", json=call).raise_for_status()
    with requests.get(address + "gradio_api/queue/data", params=session, stream=True, timeout=30) as answers:
        for line in answers.iter_lines():
            message = json.loads(line.removeprefix(b"data: ") or b"{}")
            if message.get("msg") == "process_completed":
                return dict(message["output"])
    raise AssertionError("the queue gave no answer")


@pytest.mark.slow
@needs_chromium
def test_a_request_reads_nothing_but_uploads(served: Visited) -> None:
    """Gradio hands on any path that a request names: a photo elsewhere on the server must stay unread."""
    weights = "shufflenet_v2_x1_0/imagenet1k_v1"
    cat = ROOT / "images/cat.jpg"
    [uploaded] = send(served.address, cat).json()
    outcome = ask(served.address, {"path": uploaded}, weights)
    assert outcome["data"][0]["label"] == served.classify(cat, weights)
    linked = served.uploads / "link.jpg"
    linked.symlink_to(cat)
    for path in (str(cat), f"{served.uploads}/../cat.jpg", str(linked), "cat\0.jpg", ""):
        outcome = ask(served.address, {"path": path}, weights)
        assert outcome["error"] == "the photo was not uploaded through this page", path
    assert "there are no weights" in ask(served.address, {"path": uploaded}, "../../weights.pth")["error"]


@pytest.mark.slow
@needs_chromium
def test_visitors_at_the_same_time_get_their_own_labels(served: Visited) -> None:
    def visit(photo: Path) -> str:
        [uploaded] = send(served.address, photo).json()
        return str(ask(served.address, {"path": uploaded}, OTHER)["data"][0]["label"])

    photos = demo.sample_photos()
    with ThreadPoolExecutor(12) as visitors:
        labels = list(visitors.map(visit, photos * 6))
    assert labels == [served.classify(photo, OTHER) for photo in photos] * 6


@pytest.mark.slow
def test_without_gradio_the_pip_line_is_told(stand_in: StandIn, tmp_path: Path) -> None:
    program = (
        "import sys; sys.modules['gradio'] = None\nfrom shufflenetv2.__main__ import main; sys.exit(main(['demo']))"
    )
    result = run_python(program, cwd=stand_in.repository, env=stand_in.environment(tmp_path), check=False)
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr.endswith(
        "shufflenetv2: error: the demo needs gradio, which is not installed; type: pip install 'gradio>=6.31,<7'\n"
    )


# /classify, for programs.


def post(served: Visited, data: bytes = b"", **asked: object) -> requests.Response:
    return requests.post(served.address + "classify", data=data, params=asked, timeout=30)  # type: ignore[arg-type]


@pytest.mark.slow
@needs_chromium
def test_programs_get_json(served: Visited) -> None:
    cat = ROOT / "images/cat.jpg"
    given = post(served, cat.read_bytes(), weights=OTHER, top=3).json()
    assert given["weights"] == OTHER
    assert given["seconds"] > 0
    assert [[*each] for each in given["predictions"]] == [["label", "probability", "index"]] * 3
    assert given["predictions"][0]["label"] == served.classify(cat, OTHER)
    assert len(post(served, cat.read_bytes()).json()["predictions"]) == TOP
    assert post(served, cat.read_bytes(), threshold=1).json()["predictions"] == []
    command = [
        "curl",
        "-s",
        "--noproxy",
        "*",
        "--data-binary",
        f"@{cat}",
        f"{served.address}classify?top=1&weights={OTHER}",
    ]
    assert json.loads(run(*command).stdout)["predictions"] == given["predictions"][:1]


@pytest.mark.slow
@needs_chromium
@pytest.mark.parametrize(
    ("data", "asked", "status", "message"),
    [
        (b"", {}, 400, "no photo was sent: curl --data-binary @photo.jpg"),
        (b"text", {}, 400, "the photo is no image of a known format"),
        (b"x", {"weights": "none"}, 400, "there are no weights 'none'; there are: "),
        (b"x", {"top": "0"}, 400, "top must be a whole number from 1 to 20, got 0"),
        (b"x", {"top": "many"}, 400, "top must be a number, got 'many'"),
        (b"x", {"threshold": "2"}, 400, "threshold must be a number from 0 to 1"),
        (b"x", {"threshold": "nan"}, 400, "threshold must be a number from 0 to 1"),
        (b"x", {"file": "/etc/passwd"}, 400, "unknown: file; there are: weights, top, threshold, url"),
        (b"", {"url": "http://localhost/cat.jpg"}, 400, "of addresses only https:// is taken"),
        (b"", {"url": "/etc/passwd"}, 400, "must begin with https://"),
    ],
)
def test_what_programs_do_wrong_is_told(
    data: bytes, asked: dict[str, str], status: int, message: str, served: Visited
) -> None:
    given = post(served, data, **asked)
    assert given.status_code == status
    assert message in given.json()["error"]


@pytest.mark.slow
@needs_chromium
def test_a_form_is_no_photo(served: Visited) -> None:
    form = {"photo": (ROOT / "images/cat.jpg").read_bytes()}
    given = requests.post(served.address + "classify", files=form, timeout=30)
    assert (given.status_code, given.json()["error"]) == (
        415,
        "send the photo's bytes alone, not as a form: curl --data-binary @photo.jpg",
    )


@pytest.mark.slow
@needs_chromium
def test_programs_send_no_more_than_a_photo(served: Visited) -> None:
    given = post(served, bytes(MAX_BYTES + 1))
    assert given.status_code == 413
    assert "larger than the 32,000,000 bytes allowed" in given.json()["error"]
    assert requests.get(served.address + "classify", timeout=30).status_code in (404, 405)


@pytest.mark.slow
@needs_chromium
def test_programs_at_the_same_time_get_their_own_labels(served: Visited) -> None:
    photos = demo.sample_photos()
    with ThreadPoolExecutor(12) as visitors:
        given = visitors.map(lambda photo: post(served, photo.read_bytes(), weights=OTHER, top=1).json(), photos * 6)
        labels = [each["predictions"][0]["label"] for each in given]
    assert labels == [served.classify(photo, OTHER) for photo in photos] * 6


@pytest.mark.slow
@needs_chromium
def test_fewer_labels_and_less_likely_ones(page: Page, served: Visited) -> None:
    upload(page, ROOT / "images/cat.jpg")
    expect(page.locator("#labels button.confidence-set")).to_have_count(TOP)
    page.get_by_text("More").click()
    page.locator("#top input[type=number]").fill("2")
    page.locator("#top input[type=number]").press("Enter")
    expect(page.locator("#top input[type=range]")).to_have_value("2")  # it follows a moment later
    page.locator("#top input[type=range]").press("ArrowRight")
    expect(page.locator("#labels button.confidence-set")).to_have_count(3)


@pytest.mark.slow
@needs_chromium
def test_an_address_is_refused_or_told(page: Page) -> None:
    page.locator("#url textarea, #url input").fill("http://localhost/cat.jpg")
    page.locator("#url textarea, #url input").press("Enter")
    expect(page.get_by_test_id("toast-body")).to_contain_text("only https:// is taken")


@pytest.mark.slow
@needs_chromium
def test_the_page_fits_a_phone(page: Page) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    upload(page, ROOT / "images/cat.jpg")
    expect(page.locator("#labels button.confidence-set")).to_have_count(TOP)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_only_the_machine_itself_gives_addresses_unless_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [demo.is_loopback(host) for host in ("127.0.0.1", "::1", "localhost")] == [True] * 3
    assert [demo.is_loopback(host) for host in ("0.0.0.0", "::", "192.168.0.1", "example.org")] == [False] * 4
    monkeypatch.setenv("SPACE_ID", "me/space")
    assert demo.on_a_space()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_answer_is_that_of_classify_however_a_photo_lies(orientation: int) -> None:
    classifiers = Classifiers(resolve(None, "cifar10"), "cpu")
    with Image.open(ROOT / "images/cat.jpg") as image:
        exif = image.getexif()
        exif[0x0112] = orientation
        image.save(file := io.BytesIO(), "JPEG", exif=exif, quality=95)
    said = answer(classifiers, file.getvalue(), classifiers.opening, 5, explain=True)
    expected = classifiers[classifiers.opening](file.getvalue())[:5]
    assert [each.label for each in said.predictions] == [each.label for each in expected]
    assert said.predictions[0].probability == pytest.approx(expected[0].probability, abs=1e-6)
    assert said.overlay.startswith("data:image/jpeg")


def test_an_exported_file_answers_and_says_why_it_is_not_explained(tmp_path: Path) -> None:
    path = tmp_path / "cifar10.pt"
    assert main(["export", "--format", "torchscript", "--weights", "cifar10", "-o", str(path)]) == 0
    classifiers = Classifiers(resolve(None, str(path)), "cpu")
    said = answer(classifiers, ROOT / "images/cat.jpg", classifiers.opening, 5, explain=True)
    assert said.predictions[0].label == "cat"
    assert (said.overlay, "last layer" in said.unexplained or "linear layer" in said.unexplained) == ("", True)
    assert html.escape(said.unexplained) in demo.shown(said)[2]
