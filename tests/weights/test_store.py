"""Whatever becomes of the cache, the bytes that are loaded are the bytes that were verified."""

import errno
import os
import random
import shutil
import signal
import stat
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import PIPE
from typing import Any

import pytest
from support.fault_rows import fault
from support.fault_server import Exchange, FaultServer, Handler, answer, head, until
from support.processes import importing, run, run_python, started
from support.skips import needs_posix, needs_root

from shufflenetv2 import package
from shufflenetv2.__main__ import main
from shufflenetv2.errors import CacheError, DownloadError, IntegrityError
from shufflenetv2.weights import download, store
from shufflenetv2.weights.manifest import Entry, load_manifest
from shufflenetv2.weights.store import Action, Flaw, decide, fetch, fetch_to_cache, local_path

BODY = random.Random(0).randbytes(100_000)
FLIPPED = BODY[:50_000] + bytes([BODY[50_000] ^ 1]) + BODY[50_001:]
NOBODY = 65534
MakeEntry = Callable[..., Entry]


@pytest.fixture
def home(own_network: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The torch home, empty; the limits are short."""
    monkeypatch.setattr(download, "BACKOFF_SECONDS", 0.02)
    return own_network


@pytest.fixture
def server(tls) -> Iterator[FaultServer]:
    with FaultServer([answer(BODY)], tls) as running:
        yield running


@pytest.fixture
def entry(make_entry: MakeEntry, server: FaultServer, home: Path) -> Entry:
    return make_entry(BODY, server.url())


@pytest.mark.parametrize(
    ("flaw", "bundled", "offline", "action"),
    [
        (None, False, False, Action.USE),
        (None, True, True, Action.USE),
        (FileNotFoundError(), False, False, Action.FETCH),
        (IntegrityError(), False, False, Action.REPLACE),
        (CacheError(), False, False, Action.REPLACE),
        (FileNotFoundError(), False, True, Action.REFUSE),
        (IntegrityError(), False, True, Action.REFUSE),
        (FileNotFoundError(), True, False, Action.REFUSE),
        (IntegrityError(), True, False, Action.REFUSE),
    ],
)
def test_the_decision(flaw: Flaw | None, bundled: bool, offline: bool, action: Action) -> None:
    assert decide(flaw, bundled=bundled, offline=offline) is action


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]


def listing(directory: Path) -> list[str]:
    return sorted(each.name for each in directory.iterdir())


def loads_with_one_warning(entry: Entry, caplog: pytest.LogCaptureFixture, *words: str) -> None:
    """``fetch`` warns once and returns the bytes; ``fetch_to_cache`` fails for the same reason."""
    assert fetch(entry, progress=False) == BODY
    (warning,) = warnings(caplog)
    for word in (*words, str(local_path(entry)), "Set TORCH_HOME", "loaded from memory"):
        assert word in warning
    with pytest.raises(CacheError) as caught:
        fetch_to_cache(entry, progress=False)
    assert all(word in str(caught.value) for word in words)


HOME_LIKE_BEFORE = "the verified bytes load all the same, one warning; `weights fetch`: CacheError"


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@needs_posix
@fault(19, "file size limit", HOME_LIKE_BEFORE)
def test_a_file_size_limit(entry: Entry, caplog: pytest.LogCaptureFixture) -> None:
    with file_size_limit(50_000):
        loads_with_one_warning(entry, caplog, os.strerror(errno.EFBIG), "100000 bytes needed")
    assert listing(local_path(entry).parent) == []


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 kB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = run("mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", place, check=False)
    if mounted.returncode != 0:
        pytest.skip(f"needs the right to mount: {mounted.stderr.strip()}")
    yield place
    run("umount", place)


@needs_root
@fault(19, "disk full", HOME_LIKE_BEFORE + ", with the bytes needed and free")
def test_a_full_disk(
    full_disk: Path, entry: Entry, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(full_disk))
    loads_with_one_warning(entry, caplog, os.strerror(errno.ENOSPC), "100000 bytes needed", "65536 free")
    assert listing(local_path(entry).parent) == []


@pytest.fixture
def as_nobody(ca_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """Call it to go on as a user whom mode bits bind, with a torch home of that user's own."""
    place = Path(tempfile.mkdtemp())  # tmp_path is closed to others
    shutil.copy(ca_bundle, place / "ca.pem")
    for each in (place, place / "ca.pem"):
        os.chown(each, NOBODY, NOBODY)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(place / "ca.pem"))
    monkeypatch.setenv("TORCH_HOME", str(place))
    yield lambda: os.seteuid(NOBODY)
    os.seteuid(0)
    shutil.rmtree(place)


@needs_root
@fault(20, "cache not writable, file absent", HOME_LIKE_BEFORE)
def test_a_cache_that_cannot_be_written(
    entry: Entry, as_nobody: Callable[[], None], caplog: pytest.LogCaptureFixture
) -> None:
    directory = local_path(entry).parent
    directory.mkdir(parents=True)
    directory.chmod(0o555)
    as_nobody()
    loads_with_one_warning(entry, caplog, os.strerror(errno.EACCES))
    assert listing(directory) == []


READ_ONLY = """
import os, sys
from shufflenetv2.description import Metrics, Preprocess
from shufflenetv2.weights.manifest import Entry
from shufflenetv2.weights.store import fetch
os.setgid({nobody})
os.setuid({nobody})
seen = []
def hook(event, arguments):
    writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    if writes or event.startswith(("fcntl.", "socket.", "os.")):
        seen.append((event, arguments))
sys.addaudithook(hook)
data = fetch({entry!r})
seen = list(seen)
assert len(data) == 100000
assert not seen, seen
assert "requests" not in sys.modules
print("read")
"""


def run_strictly(code: str) -> Any:
    """A warning is an error, as in the tests themselves."""
    return run(sys.executable, "-W", "error", "-c", code, env=importing(), cwd=Path("/"), check=False)


@pytest.mark.slow
@needs_root
@fault(21, "read-only cache, file present", "loads; writes nothing, locks nothing, asks no network")
def test_a_hit_in_a_read_only_cache(entry: Entry, as_nobody: Callable[[], None], server: FaultServer) -> None:
    path = local_path(entry)
    path.parent.mkdir(parents=True)
    path.write_bytes(BODY)
    path.parent.chmod(0o555)
    ran = run_strictly(READ_ONLY.format(nobody=NOBODY, entry=entry))
    assert (ran.stdout, ran.stderr) == ("read\n", "")
    assert server.connections == 0
    assert listing(path.parent) == ["weights.pth"]


@fault(22, "cache path is a file", HOME_LIKE_BEFORE)
def test_a_cache_path_that_is_a_file(entry: Entry, home: Path, caplog: pytest.LogCaptureFixture) -> None:
    home.write_text("not a directory")
    loads_with_one_warning(entry, caplog)
    assert home.read_text() == "not a directory"


HOMELESS = """
import os, sys
from shufflenetv2.description import Metrics, Preprocess
from shufflenetv2.weights.manifest import Entry
from shufflenetv2.weights import download  # as root, who can read it
from shufflenetv2.weights.store import fetch
for name in ("HOME", "TORCH_HOME", "XDG_CACHE_HOME"):
    os.environ.pop(name, None)
os.chdir({place!r})
os.setuid({unknown})
print(os.path.expanduser("~"), len(fetch({entry!r}, progress=False)), os.listdir())
"""


@pytest.mark.slow
@needs_root
@fault(22, "HOME unset, user unknown", HOME_LIKE_BEFORE + "; no directory called ~ is made")
def test_a_user_without_a_home(entry: Entry, as_nobody: Callable[[], None]) -> None:
    place = Path(os.environ["TORCH_HOME"])
    place.chmod(0o777)
    ran = run_strictly(HOMELESS.format(place=str(place), unknown=54_321, entry=entry))
    assert ran.stdout == "~ 100000 ['ca.pem']\n"
    assert ran.stderr.count("no home directory is known") == 1


@needs_posix
@fault(22, "HOME unset, user unknown", HOME_LIKE_BEFORE, evidence="order observed")
def test_no_home(
    entry: Entry, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(uid: int) -> None:
        raise KeyError(uid)

    for name in ("HOME", "TORCH_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", unknown)
    monkeypatch.chdir(tmp_path)
    assert str(local_path(entry)).startswith("~")
    loads_with_one_warning(entry, caplog, "no home directory is known")
    assert listing(tmp_path) == []


FETCH = """
import os, time
from shufflenetv2.description import Metrics, Preprocess
from shufflenetv2.weights.manifest import Entry
from shufflenetv2.weights.store import fetch
flush = os.fsync
def slow_flush(descriptor):
    print("writing", flush=True)
    time.sleep(60)
if {slow_flush}:
    os.fsync = slow_flush
fetch({entry!r}, progress=False)
"""


def child(code: str) -> Any:
    return started(sys.executable, "-c", code, env=importing(), stdout=PIPE)


def half(sent: threading.Event) -> Handler:
    """Half of the body, told to ``sent``, then silence."""

    def handler(exchange: Exchange) -> None:
        exchange.read_request()
        exchange.send(head(headers=[("Content-Length", len(BODY))]) + BODY[:50_000])
        sent.set()
        if exchange.wait_for_the_other_side():
            exchange.happened()

    return handler


@pytest.mark.slow
@needs_posix
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=fault(23, f"{name} in mid-download", "leaves nothing; the next call works"))
        for name in ("SIGKILL", "SIGTERM")
    ],
)
def test_killed_in_mid_download(name: str, make_entry: MakeEntry, home: Path, tls) -> None:
    number = signal.Signals[name]
    half_sent = threading.Event()

    with FaultServer([half(half_sent), answer(BODY)], tls) as server:
        entry = make_entry(BODY, server.url())
        with child(FETCH.format(slow_flush=False, entry=entry)) as process:
            assert half_sent.wait(30)
            process.send_signal(number)
            assert process.wait() == -number
        assert not local_path(entry).parent.exists()
        assert fetch(entry, progress=False) == BODY
        until(lambda: server.faults == 2)
    assert listing(local_path(entry).parent) == ["weights.pth"]


@pytest.mark.slow
@needs_posix
@fault(23, "SIGKILL in mid-write", "the next call works; our temporary files are swept when a day old, no one else's")
def test_killed_in_mid_write(entry: Entry) -> None:
    directory = local_path(entry).parent
    with child(FETCH.format(slow_flush=True, entry=entry)) as process:
        assert process.stdout
        assert process.stdout.readline() == "writing\n"
        process.kill()
        assert process.wait() == -signal.SIGKILL
    (left,) = listing(directory)
    assert left.endswith(".shufflenetv2-partial")

    assert fetch(entry, progress=False) == BODY
    assert listing(directory) == [left, "weights.pth"]  # it could belong to a process that is still writing

    two_days_ago = time.time() - 2 * 24 * 60 * 60
    foreign = {"weights.pth.0123456789abcdef0123456789abcdef.partial", ".someone.shufflenetv2-partial", "old.pth"}
    for name in foreign:
        (directory / name).write_bytes(b"not ours")
    (directory / left.replace("weights", "a.directory")).mkdir()  # as an export leaves one
    for name in listing(directory):
        os.utime(directory / name, (two_days_ago, two_days_ago))
    local_path(entry).unlink()
    assert fetch(entry, progress=False) == BODY
    assert set(listing(directory)) == {*foreign, "weights.pth"}


@needs_posix
@pytest.mark.parametrize("hours", [23, 25])
@pytest.mark.parametrize("owner", ["ours", "another's"])
def test_temporary_files_of_ours_are_swept_when_a_day_old(
    hours: int, owner: str, entry: Entry, monkeypatch: pytest.MonkeyPatch
) -> None:
    if owner != "ours":
        someone = os.getuid() + 1
        monkeypatch.setattr(os, "getuid", lambda: someone)
    directory = local_path(entry).parent
    directory.mkdir(parents=True)
    left = directory / f".weights.pth.{'0' * 32}.shufflenetv2-partial"
    left.write_bytes(b"half")
    os.utime(left, (time.time() - hours * 3600,) * 2)
    assert fetch(entry, progress=False) == BODY
    assert left.exists() == (hours < 24 or owner != "ours")


def test_fetching_into_the_cache_sweeps_it_on_a_hit_too(entry: Entry) -> None:
    assert fetch_to_cache(entry, progress=False) == local_path(entry)
    left = local_path(entry).with_name(f".weights.pth.{'0' * 32}.shufflenetv2-partial")
    left.write_bytes(b"half")
    os.utime(left, (time.time() - 25 * 3600,) * 2)
    assert fetch(entry) == BODY
    assert left.exists()  # a load writes nothing
    assert fetch_to_cache(entry) == local_path(entry)
    assert listing(left.parent) == ["weights.pth"]


# In a process of its own: Ctrl-C reaches the main thread, which in a worker of pytest-xdist runs no test.
INTERRUPTED = """
import os, signal
from shufflenetv2.description import Metrics, Preprocess
from shufflenetv2.weights.manifest import Entry
from shufflenetv2.weights.store import fetch, local_path
entry = {entry!r}
def interrupted(descriptor):
    print(len(os.listdir(local_path(entry).parent)))
    signal.raise_signal(signal.SIGINT)
os.fsync = interrupted
try:
    fetch(entry, progress=False)
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


@pytest.mark.slow
@needs_posix
@fault(24, "Ctrl-C in mid-download", "KeyboardInterrupt at once; nothing stays behind")
def test_interrupted_in_mid_download(make_entry: MakeEntry, home: Path, tls) -> None:
    half_sent = threading.Event()

    with FaultServer([half(half_sent)], tls) as server:
        with child(INTERRUPTED.format(entry=make_entry(BODY, server.url()))) as process:
            assert half_sent.wait(30)
            began = time.monotonic()
            process.send_signal(signal.SIGINT)
            assert process.communicate()[0].splitlines() == ["interrupted"]
            assert time.monotonic() - began < 5  # not the 10 s of the progress timeout
            assert process.returncode == 0
        until(lambda: server.faults == 1)  # the connection does not stay open
    assert not home.exists()


@needs_posix
@fault(24, "Ctrl-C in mid-write", "the temporary file is removed")
@pytest.mark.slow
def test_interrupted_in_mid_write(entry: Entry) -> None:
    ran = run_python(INTERRUPTED.format(entry=entry), env=importing())
    assert ran.stdout.splitlines() == ["1", "interrupted"]
    assert listing(local_path(entry).parent) == []


@needs_posix
@fault(
    25, "power loss", "file flushed, then renamed, then the directory flushed; re-hashed on every load",
    evidence="order observed",
)  # fmt: skip
def test_the_order_of_writing(entry: Entry, monkeypatch: pytest.MonkeyPatch) -> None:
    path = local_path(entry)
    calls: list[object] = []
    flush, replace = os.fsync, os.replace

    def fsync(descriptor: int) -> None:
        status = os.fstat(descriptor)
        calls.append("flush directory" if stat.S_ISDIR(status.st_mode) else f"flush {status.st_size} bytes")
        flush(descriptor)

    def rename(source: str, target: str) -> None:
        assert Path(source).parent == Path(target).parent
        calls.append(f"rename to {Path(target).name}")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", rename)
    fetch(entry, progress=False)
    assert calls == ["flush 100000 bytes", "rename to weights.pth", "flush directory"]
    assert path.read_bytes() == BODY


@needs_posix
@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077, 0o002])
def test_the_umask_decides_who_may_read(umask: int, entry: Entry) -> None:
    before = os.umask(umask)
    try:
        fetch(entry, progress=False)
    finally:
        os.umask(before)
    assert stat.S_IMODE(local_path(entry).stat().st_mode) == 0o666 & ~umask


CROWD = """
import os, sys, traceback
from shufflenetv2.description import Metrics, Preprocess
from shufflenetv2.weights.manifest import Entry
from shufflenetv2.weights import download
from shufflenetv2.weights.store import fetch
wait, go = os.pipe()
children = []
for number in range(16):
    child = os.fork()
    if child == 0:
        os.close(go)
        os.read(wait, 1)
        status = 1
        try:
            status = 0 if len(fetch({entry!r}, progress=False)) == {entry.size} else 2
        except BaseException:
            traceback.print_exc()
        os._exit(status)
    children.append(child)
os.close(wait)
os.close(go)
print([os.waitpid(child, 0)[1] for child in children])
"""


@pytest.mark.slow
@needs_posix
@fault(26, "16 processes on a cold cache", "all load; one file stays; no lock is needed")
def test_a_crowd_on_a_cold_cache(make_entry: MakeEntry, home: Path, tls) -> None:
    all_are_here = threading.Barrier(16)

    def handler(exchange: Exchange) -> None:
        exchange.read_request()
        all_are_here.wait(30)
        exchange.happened()
        exchange.send(head(headers=[("Content-Length", len(BODY))]) + BODY)

    with FaultServer([handler], tls) as server:
        entry = make_entry(BODY, server.url())
        ran = run_strictly(CROWD.format(entry=entry))
        assert (ran.stdout, ran.stderr) == (f"{[0] * 16}\n", "")
        assert server.faults == 16
    assert listing(local_path(entry).parent) == ["weights.pth"]
    assert local_path(entry).read_bytes() == BODY


def put_file(data: bytes) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(data) and None


def put_link_to_a_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def put_dangling_link(path: Path) -> None:
    path.symlink_to(path.with_name("gone"))


def put_fifo(path: Path) -> None:
    os.mkfifo(path)


@pytest.mark.parametrize(
    ("put", "what"),
    [
        pytest.param(put_file(FLIPPED), "expected sha256", id="flipped-bit",
                     marks=fault(27, "cached file tampered with", "fetched anew; offline: IntegrityError names it")),
        pytest.param(put_file(b""), "expected 100000 bytes, got 0", id="empty",
                     marks=fault(28, "cached file empty", "fetched anew; offline: IntegrityError names it")),
        pytest.param(put_file(BODY[:70_000]), "expected 100000 bytes, got 70000", id="cut",
                     marks=fault(28, "cached file cut", "fetched anew; offline: IntegrityError names it")),
        pytest.param(put_file(BODY + b"x"), "expected 100000 bytes, got more", id="longer",
                     marks=fault(28, "cached file too long", "fetched anew; offline: IntegrityError names it")),
        pytest.param(put_fifo, "is a pipe, a socket or a device", id="fifo",
                     marks=[needs_posix,
                            fault(29, "target is a FIFO", "never waited for; replaced; offline: IntegrityError")]),
        pytest.param(put_link_to_a_device, "is a pipe, a socket or a device", id="device",
                     marks=[needs_posix,
                            fault(29, "target is a device", "never read; replaced; offline: IntegrityError")]),
    ],
)  # fmt: skip
def test_something_else_in_the_cache(
    put: Callable[[Path], None], what: str, entry: Entry, server: FaultServer, make_entry: MakeEntry,
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    path = local_path(entry)
    path.parent.mkdir(parents=True)
    put(path)
    before = os.lstat(path)

    with monkeypatch.context() as offline:
        offline.setenv("SHUFFLENETV2_OFFLINE", "1")
        with pytest.raises(IntegrityError, match=what) as caught:
            fetch(entry)
        assert str(path) in str(caught.value)
        assert entry.sha256 in str(caught.value)
    with FaultServer([answer(b"", 404)], server.tls) as without, pytest.raises(IntegrityError, match=what) as caught:
        fetch(make_entry(BODY, without.url()))
    assert "could not be replaced" in str(caught.value)
    assert "HTTP status 404" in str(caught.value)
    after = os.lstat(path)
    assert (before.st_ino, before.st_mtime_ns, before.st_size) == (after.st_ino, after.st_mtime_ns, after.st_size)
    assert server.connections == 0

    caplog.clear()
    assert fetch(entry, progress=False) == BODY
    assert [what in each for each in warnings(caplog)] == [True]
    assert path.read_bytes() == BODY
    assert not path.is_symlink()
    assert fetch(entry, progress=False) == BODY
    assert server.connections == 1
    assert listing(path.parent) == ["weights.pth"]


@fault(29, "target is a directory", "left alone; loads, one warning; `weights fetch`: CacheError")
def test_a_directory_in_the_cache(
    entry: Entry, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    local_path(entry).mkdir(parents=True)
    assert fetch(entry, progress=False) == BODY
    assert "is a directory" in warnings(caplog)[0]
    assert "could not be written" in warnings(caplog)[1]
    with pytest.raises(CacheError, match=os.strerror(errno.EISDIR)):
        fetch_to_cache(entry, progress=False)
    monkeypatch.setenv("SHUFFLENETV2_OFFLINE", "1")
    with pytest.raises(IntegrityError, match="is a directory"):
        fetch(entry)
    assert listing(local_path(entry).parent) == ["weights.pth"]
    assert local_path(entry).is_dir()


@fault(29, "target is a link", "followed: shared caches use them, and the hash decides; a dangling one is replaced")
def test_a_link_in_the_cache(entry: Entry, server: FaultServer, tmp_path: Path) -> None:
    path = local_path(entry)
    path.parent.mkdir(parents=True)
    put_dangling_link(path)
    assert fetch(entry, progress=False) == BODY
    assert not path.is_symlink()
    shared = tmp_path / "shared.pth"
    path.rename(shared)
    path.symlink_to(shared)
    assert fetch(entry, progress=False) == BODY
    assert path.is_symlink()
    assert server.connections == 1


@needs_root
def test_an_unreadable_file_is_fetched_anew(
    entry: Entry, as_nobody: Callable[[], None], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = local_path(entry)
    path.parent.mkdir(parents=True)
    path.write_bytes(BODY)
    path.chmod(0)
    os.chown(path.parent, NOBODY, NOBODY)
    as_nobody()
    monkeypatch.setenv("SHUFFLENETV2_OFFLINE", "1")
    with pytest.raises(CacheError, match="cannot be read: Permission denied"):
        fetch(entry)
    monkeypatch.delenv("SHUFFLENETV2_OFFLINE")
    assert fetch(entry, progress=False) == BODY
    assert ["cannot be read" in each for each in warnings(caplog)] == [True]
    assert path.read_bytes() == BODY


@needs_root
def test_weights_are_listed_from_a_cache_that_may_not_be_entered(
    entry: Entry, as_nobody: Callable[[], None], capsys: pytest.CaptureFixture[str]
) -> None:
    local_path(entry).parent.mkdir(parents=True)
    local_path(entry).parent.chmod(0)
    as_nobody()
    assert main(["weights", "list"]) == 0
    rows = capsys.readouterr().out.splitlines()[1:]
    bundled = [bool(each.path) for each in load_manifest()]
    assert [("not fetched" in row, "bundled" in row) for row in rows] == [(not each, each) for each in bundled]
    assert {*bundled} == {True, False}


@needs_posix
@fault(33, "flock unsupported, a no-op, or its file not writable", "no lock is ever taken", evidence="order observed")
def test_no_lock_is_taken(entry: Entry, monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl

    calls: list[str] = []
    for name in ("flock", "lockf", "fcntl"):
        monkeypatch.setattr(fcntl, name, lambda *_, name=name: calls.append(name))
    assert fetch(entry, progress=False) == BODY
    assert fetch(entry, progress=False) == BODY
    assert calls == []


@fault(34, "offline", "a hit loads; a miss is a DownloadError at once that says what to copy where")
def test_offline(entry: Entry, server: FaultServer, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHUFFLENETV2_OFFLINE", "1")
    started = time.monotonic()
    with pytest.raises(DownloadError) as caught:
        fetch(entry)
    assert time.monotonic() - started < 5
    for word in ("SHUFFLENETV2_OFFLINE", "weights.pth", entry.sha256, "100000 bytes", str(local_path(entry).parent)):
        assert word in str(caught.value)
    assert not home.exists()
    local_path(entry).parent.mkdir(parents=True)
    local_path(entry).write_bytes(BODY)  # as the message said
    assert fetch(entry) == BODY
    assert fetch_to_cache(entry) == local_path(entry)
    assert server.connections == 0


@pytest.mark.parametrize("value", ["", "0", "false", "No"])
def test_offline_can_be_switched_off(value: str, entry: Entry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHUFFLENETV2_OFFLINE", value)
    assert fetch(entry, progress=False) == BODY


@pytest.mark.parametrize(("version", "enough"), [("2.32.0", True), ("2.31.0", False)])
def test_the_requests_that_there_is(version: str, enough: bool, entry: Entry, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the hub no one resolves versions: what has all that is needed will do."""
    monkeypatch.setattr(package, "installed_version", lambda name: version)
    if enough:
        assert fetch(entry, progress=False) == BODY
    else:
        with pytest.raises(ImportError, match=r"requests>=2\.32 \(version 2\.31\.0 is installed\)"):
            fetch(entry)


class TestATargetThatIsOpenOnWindows:
    """There ``os.replace`` fails with PermissionError while another process has the target open."""

    @staticmethod
    def deny(monkeypatch: pytest.MonkeyPatch, times: int, meanwhile: Callable[[], object] = lambda: None) -> list[int]:
        replace, calls = os.replace, []

        def denied(source: str, target: str) -> None:
            calls.append(len(calls))
            if len(calls) <= times:
                meanwhile()
                raise PermissionError(errno.EACCES, "The process cannot access the file")
            replace(source, target)

        monkeypatch.setattr(os, "replace", denied)
        monkeypatch.setattr(store, "REPLACE_SECONDS", 0.001)
        return calls

    @fault(36, "Windows: target open", "replaced again after a moment", evidence="order observed")
    def test_it_is_tried_again(
        self, entry: Entry, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        calls = self.deny(monkeypatch, times=2)
        assert fetch(entry, progress=False) == BODY
        assert len(calls) == 3
        assert warnings(caplog) == []
        assert listing(local_path(entry).parent) == ["weights.pth"]

    @fault(36, "Windows: target open, with the same bytes", "verified and accepted", evidence="order observed")
    def test_what_another_process_wrote_is_accepted(
        self, entry: Entry, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        calls = self.deny(monkeypatch, times=99, meanwhile=lambda: local_path(entry).write_bytes(BODY))
        assert fetch(entry, progress=False) == BODY
        assert len(calls) == 1
        assert warnings(caplog) == []
        assert listing(local_path(entry).parent) == ["weights.pth"]

    @fault(36, "Windows: target open for good", HOME_LIKE_BEFORE, evidence="order observed")
    def test_after_some_tries_it_is_an_unwritable_cache(
        self, entry: Entry, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        calls = self.deny(monkeypatch, times=99)
        loads_with_one_warning(entry, caplog, "The process cannot access the file")
        assert len(calls) == 2 * store.REPLACE_TRIES
        assert listing(local_path(entry).parent) == []


class TestBundled:
    @pytest.fixture
    def bundled(self, make_entry: MakeEntry, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Entry:
        monkeypatch.setattr(store, "BUNDLED", tmp_path)
        (tmp_path / "small.pth").write_bytes(BODY)
        return make_entry(BODY, path="small.pth")

    def test_it_is_read_from_the_package(self, bundled: Entry, home: Path, tmp_path: Path) -> None:
        assert fetch(bundled) == BODY
        assert fetch_to_cache(bundled) == tmp_path / "small.pth"
        assert not home.exists()

    def test_it_is_verified_like_any_other(self, bundled: Entry, tmp_path: Path) -> None:
        (tmp_path / "small.pth").write_bytes(FLIPPED)
        with pytest.raises(IntegrityError, match=r"small.pth is not the file .* install it again"):
            fetch(bundled)

    def test_it_is_missing(self, bundled: Entry, tmp_path: Path) -> None:
        (tmp_path / "small.pth").unlink()
        with pytest.raises(CacheError, match=r"small.pth is missing, although .* install it again"):
            fetch(bundled)
