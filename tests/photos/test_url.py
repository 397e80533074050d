"""A photo's address costs no more than a file: bounded in bytes, time and redirects, and no credential is shown."""

import gzip
import re
import ssl
import sys
import time
from pathlib import Path

import pytest
import torch
from support.fault_server import (
    FaultServer,
    Handler,
    answer,
    drip_body,
    drip_headers,
    redirect,
    reset_after,
    silence,
    stall,
)
from support.processes import ROOT, run
from support.skips import needs_posix

from shufflenetv2 import classifier, preprocess
from shufflenetv2.errors import ImageError
from shufflenetv2.photos import url
from shufflenetv2.photos.decode import open_photo
from shufflenetv2.photos.kinds import several

CAT = ROOT / "images/cat.jpg"
BODY = CAT.read_bytes()

pytestmark = pytest.mark.usefixtures("own_network")


def test_an_address_gives_what_the_file_gives(tls: ssl.SSLContext) -> None:
    with FaultServer([answer(BODY)], tls) as server:
        assert open_photo(server.url("cat.jpg")).tobytes() == open_photo(CAT).tobytes()
        transform, classify = preprocess(weights="cifar10"), classifier(weights="cifar10")
        assert torch.equal(transform(server.url()), transform(CAT))
        assert classify([server.url(), CAT]) == classify([CAT, CAT])
        assert server.requests[0].headers["accept-encoding"] == "identity"
        assert several(server.url()) is None


def test_redirects_are_followed_to_https_alone(tls: ssl.SSLContext) -> None:
    with FaultServer([answer(BODY)], tls) as server:
        for target, message in (
            (server.url(), None),
            ("http://localhost/cat.jpg", "refused to go to http://localhost/cat.jpg: only https"),
            ("file:///etc/passwd", "only https"),
        ):
            with FaultServer([redirect(target)], tls) as first:
                if message is None:
                    assert open_photo(first.url()).size == (451, 300)
                else:
                    with pytest.raises(ImageError, match=message):
                        open_photo(first.url())
    with FaultServer([redirect("/again")], tls) as loop:
        with pytest.raises(ImageError, match="more than 5 redirects"):
            open_photo(loop.url())
        assert loop.connections == 6


@pytest.mark.parametrize(
    ("handler", "message"),
    [
        (answer(b"", 404), "HTTP status 404"),
        (answer(b"", 503), "HTTP status 503"),
        (answer(b""), "is empty"),
        (answer(b"<html>", headers=[("Content-Type", "text/html; charset=x")]), "no image but text/html; give the"),
        (answer(b"{}", headers=[("Content-Type", "application/json")]), "no image but application/json"),
        (answer(b"hello"), "no image of a known format"),
        (answer(gzip.compress(BODY), headers=[("Content-Encoding", "gzip")]), "in the encoding gzip"),
        (answer(BODY[:5000], length=len(BODY)), "could not be fetched"),
        (answer(BODY[:5000]), "cannot be decoded"),
        (reset_after(BODY, 5000), "could not be fetched: "),
    ],
    ids=["404", "503", "empty", "page", "json", "text", "gzip", "short", "cut", "reset"],
)
def test_what_is_no_photo_is_an_image_error(handler: Handler, message: str, tls: ssl.SSLContext) -> None:
    with FaultServer([handler], tls) as server, pytest.raises(ImageError, match=message) as caught:
        open_photo(server.url("some/cat.jpg"))
    assert f"localhost:{server.port}/some/cat.jpg" in str(caught.value)


def test_too_many_bytes_are_never_taken(tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHUFFLENETV2_MAX_BYTES", "10000")
    with FaultServer([answer(BODY)], tls) as server, pytest.raises(ImageError, match="larger than the 10,000 bytes"):
        open_photo(server.url())


@pytest.mark.parametrize("handler", [silence, stall(BODY, 5000), drip_headers(0.02), drip_body(BODY, 0.02)],
                         ids=["silence", "stall", "headers", "body"])  # fmt: skip
@pytest.mark.slow
def test_it_ends_in_time_whatever_the_server_does(
    handler: Handler, tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHUFFLENETV2_TIMEOUT", "1")
    started = time.monotonic()
    with FaultServer([handler], tls) as server, pytest.raises(ImageError, match="SHUFFLENETV2_TIMEOUT sets"):
        open_photo(server.url())
    assert time.monotonic() - started < 6


def test_a_wrong_limit_is_no_fault_of_the_photo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHUFFLENETV2_TIMEOUT", "soon")
    with pytest.raises(ValueError, match="SHUFFLENETV2_TIMEOUT must be a number") as caught:
        open_photo("https://localhost:1/cat.jpg")
    assert not isinstance(caught.value, ImageError)


def test_offline_asks_no_one(tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHUFFLENETV2_OFFLINE", "1")
    with FaultServer([answer(BODY)], tls) as server:
        with pytest.raises(ImageError, match="SHUFFLENETV2_OFFLINE forbids it; unset it") as caught:
            open_photo(server.url())
        assert server.connections == 0
        monkeypatch.delenv("SHUFFLENETV2_OFFLINE")  # what the message says
        assert "unset it" in str(caught.value)
        assert open_photo(server.url()).size == (451, 300)


@pytest.mark.parametrize(
    "address", ["http://{}/a.jpg", "ftp://{}/a.jpg", "file:///etc/{}", "s3://{}/a", "HTTP://u:secret@{}/?q=secret"]
)
def test_only_https_is_taken(address: str) -> None:
    with pytest.raises(ImageError, match="only https:// is taken; download it and give its path") as caught:
        open_photo(address.format("localhost:1"))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "address",
    [
        "https://me:secret@localhost:1/cat.jpg?token=secret#secret",
        "https://me:secret@[bad/cat.jpg?token=secret",
        "https://localhost:99999/cat.jpg?secret",
        "https://",
        "https://?secret",
        "https://secret@/cat",
        "https://localhost:1/\x1b[31mcat.jpg?secret",
        "https://me:se?cret@localhost:1/secret",
        "https://" + "a" * 300 + "/secret",
    ],
)
def test_no_credential_is_shown_and_nothing_else_is_raised(address: str) -> None:
    with pytest.raises(ImageError, match=re.escape("https://")) as caught:
        open_photo(address)
    said = str(caught.value)
    assert "me:se" not in said
    assert "secret" not in said.replace("/secret", "")  # a path is no credential
    assert "\x1b" not in said
    assert len(said) < 700


def test_credentials_of_the_address_are_sent_and_no_others(
    tls: ssl.SSLContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".netrc").write_text("machine localhost login other password other\n")
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    with FaultServer([answer(BODY)], tls) as server:
        open_photo(server.url())
        open_photo(server.url().replace("https://", "https://me:word@"))
        assert [each.headers.get("authorization") for each in server.requests] == [None, "Basic bWU6d29yZA=="]


def test_an_address_as_a_path_is_told_from_a_missing_file() -> None:
    with pytest.raises(ImageError, match="an address is given as text, not as a Path"):
        open_photo(Path("https://localhost/cat.jpg"))


def test_names_that_are_no_addresses(tmp_path: Path) -> None:
    assert [each for each in ("https:/a", "a/b://c", "C:\\a", "~/a", "", b"https://a", Path("https://a"))
            if url.is_url(each)] == []  # fmt: skip


# Pipes that the shell opened.


@needs_posix
@pytest.mark.slow
def test_what_the_shell_opened_is_read() -> None:
    command = f'"{sys.executable}" -m shufflenetv2 classify --weights cifar10 --top 1 <(cat images/cat.jpg) /dev/stdin'
    ran = run("bash", "-c", f"{command} < images/coffee.jpg; {command} <(head -c 3000 images/cat.jpg) < images/cat.jpg",
              check=False)  # fmt: skip
    assert ran.returncode == 1
    assert [line.split()[-1] for line in ran.stdout.splitlines()][1::2][0] == "cat"
    assert ran.stdout.count("%") == 4
    assert ran.stderr.count("cannot be decoded") == 1


def test_a_pattern_is_told_from_a_missing_file() -> None:
    with pytest.raises(
        ImageError, match=r"patterns are for the command line: in Python give sorted\(glob.glob\(...\)\)"
    ):
        open_photo("images/*.jpg")
    with pytest.raises(ImageError, match=r"No such file or directory$"):
        open_photo("images/none.jpg")
