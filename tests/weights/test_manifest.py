"""A malformed manifest is refused, by entry and field, before anything is read or fetched."""

import copy
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from support import json_edits
from support.fault_rows import fault
from support.processes import ROOT

from shufflenetv2 import package
from shufflenetv2.builder import resolve
from shufflenetv2.description import to_json
from shufflenetv2.errors import ManifestError
from shufflenetv2.network.model import SPECS
from shufflenetv2.package import CATEGORIES
from shufflenetv2.weights import manifest
from shufflenetv2.weights.manifest import load_manifest, parse_manifest, read_categories

TEXT = (ROOT / "weights.json").read_text(encoding="utf-8")
Edit = Callable[[dict[str, Any]], object]


def edited(edit: Edit) -> str:
    raw = copy.deepcopy(json.loads(TEXT))
    edit(raw["entries"][0])
    return json.dumps(raw)


def test_every_width_has_one_default_with_known_categories() -> None:
    entries = load_manifest()
    assert [entry.arch for entry in entries if entry.default] == list(SPECS)
    for entry in entries:
        assert len(read_categories(entry.categories)) == entry.num_classes


@pytest.mark.parametrize(
    ("left", "message"),
    [
        (None, r"cifar10.txt cannot be read \(.*No such file.*\); it ships with the package: install it again"),
        (9, r"cifar10.txt has 9 labels, and its weights 10 classes; install it again"),
    ],
)
def test_labels_that_are_not_whole(
    left: int | None, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy without its .txt files; one with a line less, by which all labels after it would be wrong."""
    lines = (CATEGORIES / "cifar10.txt").read_text().splitlines()
    if left:
        (tmp_path / "cifar10.txt").write_text("\n".join(lines[-left:]))
    monkeypatch.setattr(manifest, "CATEGORIES", tmp_path)
    read_categories.cache_clear()
    with pytest.raises(ManifestError, match=message):
        resolve(None, "cifar10")
    read_categories.cache_clear()


HOSTILE = [
    "../x", "/etc/x", "a/b", "a\\b", "C:x", "CON", "con.pth", "NUL", "nul.pth", "COM1", "LPT9.pth", "COM\u00b9",
    "a\x00b", "", ".", "..", ".hidden", "a b", "a\n", "\u202ex.pth", "x" * 201, "x.", "x.pth.",
]  # fmt: skip


@fault(
    30, "`file`, `path` or `categories` is ../x, absolute, with a backslash, CON, NUL", "ManifestError before any I/O"
)
@pytest.mark.parametrize("field", ["file", "path", "categories"])
@pytest.mark.parametrize("name", HOSTILE, ids=ascii)
def test_a_hostile_name(field: str, name: str) -> None:
    def edit(entry: dict[str, Any]) -> None:
        if field == "path":
            del entry["urls"]
        entry[field] = name

    with pytest.raises(ManifestError, match=f"imagenet1k_v1.*the field '{field}' must be a bare file name"):
        parse_manifest(edited(edit))


@fault(30, "the same in a manifest that is loaded", "ManifestError before any I/O", evidence="order observed")
def test_nothing_is_read_or_fetched_before_the_manifest_is_valid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from shufflenetv2 import entrypoints
    from shufflenetv2.weights import store

    (tmp_path / "weights.json").write_text(edited(lambda entry: entry.update(file="../x")))
    monkeypatch.setattr(package, "PACKAGE", tmp_path)
    asked: list[object] = []
    monkeypatch.setattr(store, "read_verified", lambda *arguments: asked.append(arguments))
    load_manifest.cache_clear()
    try:
        with pytest.raises(ManifestError, match="'file' must be a bare file name"):
            entrypoints.shufflenet_v2_x1_0(pretrained=True)
    finally:
        load_manifest.cache_clear()
    assert asked == []


def put(**fields: Any) -> Edit:
    return lambda entry: entry.update(fields)


def drop(field: str) -> Edit:
    return lambda entry: entry.pop(field)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        pytest.param(
            edit, message, id=name, marks=fault(31, "bad or missing sha256, bad size, wrong type", "ManifestError")
        )
        for name, edit, message in (
            ("no-sha", drop("sha256"), "the field 'sha256' is missing"),
            ("short-sha", put(sha256="f707e7126e"), "'sha256' must be 64 lower-case hexadecimal digits"),
            ("upper-sha", put(sha256="F" * 64), "'sha256' must be 64 lower-case"),
            ("sha-newline", put(sha256="f" * 64 + "\n"), "'sha256' must be 64 lower-case"),
            ("no-size", drop("size"), "the field 'size' is missing"),
            ("size-0", put(size=0), "'size' must be from 1"),
            ("negative-size", put(size=-5), "'size' must be from 1"),
            ("huge-size", put(size=10**30), "'size' must be from 1 to"),
            ("size-as-text", put(size="5538128"), "'size' must be a int, got '5538128'"),
            ("size-as-float", put(size=5538128.0), "'size' must be a int, got 5538128.0"),
            ("size-as-bool", put(size=True), "'size' must be a int, got True"),
            ("http", put(urls=["http://x.example/y"]), "'urls' must be a list of https addresses"),
            ("file-url", put(urls=["file:///etc/passwd"]), "'urls' must be a list of https addresses"),
            ("broken-url", put(urls=["https://[::1/x"]), "'urls' must be a list of https addresses"),
            ("url-with-newline", put(urls=["https://x.example/\ny"]), "'urls' must be a list of https addresses"),
            ("no-host", put(urls=["https:///x"]), "'urls' must be a list of https addresses"),
            ("no-urls", put(urls=[]), "'urls' must be a list of https addresses"),
            ("url-number", put(urls=[5]), "'urls' must be a list of https addresses"),
            ("neither", drop("urls"), "'urls' must be given, or 'path', but not both"),
            ("both", put(path="x.pth"), "'urls' must be given, or 'path', but not both"),
            ("name", put(name="ImageNet"), "'name' must be lower case"),
            ("classes", put(num_classes=0), "'num_classes' must be from 1"),
            ("resize", put(preprocess={"resize": 100_000}), "'resize' must be from 1 to 2048"),
            ("metrics", put(metrics=[]), "'metrics' must be a dict"),
        )
    ],
)
def test_a_malformed_entry(edit: Edit, message: str) -> None:
    with pytest.raises(ManifestError, match=rf"weights.json, entry 0 \(.*\).*{message}"):
        parse_manifest(edited(edit))


ROW_31 = fault(31, "duplicate key or entry", "ManifestError")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param(
            TEXT.replace('"size": ', '"size": 1, "size": ', 1), "the key 'size' stands twice", id="key", marks=ROW_31
        ),
        pytest.param(
            edited(put(arch="shufflenet_v2_x1_0", default=False)), "two entries have the arch/name", id="entry",
            marks=ROW_31,
        ),
        pytest.param(
            edited(put(file="SHUFFLENETV2_x1-5666bf0f80.pth")), "two entries have the file", id="file", marks=ROW_31
        ),
        pytest.param(edited(put(default=False)), "must have exactly one default entry", id="default", marks=ROW_31),
        pytest.param(TEXT[:-10], "weights.json is not JSON", id="cut"),
        pytest.param("", "weights.json is not JSON", id="empty"),
        pytest.param("[]", "must hold an object, got a list", id="list"),
        pytest.param("9" * 5000, "weights.json is not JSON", id="digits"),
        pytest.param("[" * 100_000, "weights.json is not JSON", id="deep"),
        pytest.param(TEXT.replace("60.552", "NaN"), "NaN is not a number", id="nan"),
        pytest.param('{"schema_version": 1}', "the field 'entries' is missing", id="no-entries"),
        pytest.param('{"schema_version": 1, "entries": [3]}', "entry 0: must be an object", id="no-object"),
    ],
)  # fmt: skip
def test_a_malformed_manifest(text: str, message: str) -> None:
    with pytest.raises(ManifestError, match=message):
        parse_manifest(text)


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(text=json_edits.edited(json.loads(TEXT)).map(json.dumps) | json_edits.edited_text(TEXT))
def test_after_any_edit_it_is_read_as_it_stands_or_refused(text: str) -> None:
    said = ""
    try:
        entries = parse_manifest(text)
    except ManifestError as error:
        said = str(error)
    if said:
        assert said.startswith("weights.json")
        assert said.isprintable()
        return
    raw = json.loads(text)["entries"]
    assert len(raw) == len(entries)
    for entry, object in zip(entries, raw, strict=True):
        assert json_edits.says(to_json(entry), object)
        assert re.fullmatch("[0-9a-f]{64}", entry.sha256)
        assert 1 <= entry.preprocess.crop <= entry.preprocess.resize <= 2048
        assert "/" not in entry.file + (entry.path or "") + entry.categories
        assert all(url.startswith("https://") for url in entry.urls)


@fault(32, "unknown field", "ignored")
def test_unknown_fields_are_ignored() -> None:
    assert parse_manifest(edited(put(colour="blue", urls_v2=["x"]))) == load_manifest()


@fault(32, "newer schema version", 'ManifestError says "upgrade"')
@pytest.mark.parametrize("version", [0, 2, 99])
def test_another_schema_version(version: int) -> None:
    text = json.dumps({"schema_version": version, "entries": "of another kind"})
    with pytest.raises(ManifestError, match=f"schema_version {version}, not 1; upgrade"):
        parse_manifest(text)


class TestWhereItIs:
    """Inside the package, or beside it in a checkout: nowhere else, whatever the environment says."""

    @pytest.fixture
    def place(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        place = tmp_path / "shufflenetv2"
        place.mkdir()
        monkeypatch.setattr(package, "PACKAGE", place)
        monkeypatch.setattr(package, "CHECKOUT", tmp_path)
        return place

    def test_beside_the_package_only_if_it_is_a_checkout(self, place: Path) -> None:
        (place.parent / "weights.json").write_text(TEXT)
        with pytest.raises(ManifestError, match=r"weights.json is missing: .* install again"):
            package.manifest_path()
        (place.parent / "hubconf.py").touch()
        assert package.manifest_path() == place.parent / "weights.json"

    def test_in_an_archive_that_is_not_unpacked(self, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (place.parent / "repository.zip").write_bytes(b"PK")
        monkeypatch.setattr(package, "PACKAGE", place.parent / "repository.zip/shufflenetv2")
        with pytest.raises(ManifestError, match="cannot be read within an archive: unpack it, and import"):
            package.manifest_path()

    def test_inside_the_package_first(self, place: Path) -> None:
        for directory in (place, place.parent):
            (directory / "weights.json").write_text(TEXT)
        (place.parent / "hubconf.py").touch()
        assert package.manifest_path() == place / "weights.json"
