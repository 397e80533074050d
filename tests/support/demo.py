"""The web demo in a process of its own, and a headless Chromium that visits it."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from playwright.sync_api import Page, expect, sync_playwright

from .processes import ROOT, started
from .stand_in import StandIn

CHROMIUM = shutil.which("chromium")
PATIENCE = 60_000  # milliseconds; a loaded machine may take its time
QUIET = ("--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync")


@dataclass(frozen=True)
class Demo:
    """A running demo."""

    process: "subprocess.Popen[str]"
    address: str


@contextmanager
def serve_demo(stand_in: StandIn, home: Path, **environment: str) -> Iterator[Demo]:
    """Run the demo of ``stand_in`` until the block ends."""
    shutil.copytree(ROOT / "images", stand_in.repository / "images", dirs_exist_ok=True)
    command = (sys.executable, "-m", "shufflenetv2", "demo")
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with started(*command, cwd=stand_in.repository, env=stand_in.environment(home, **environment), **pipes) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.fullmatch(r"(http://127\.0\.0\.1:\d+/) \(Ctrl-C stops it\)\n", line)
        if not found:
            process.kill()
            raise AssertionError(f"{line!r}\n{process.communicate()[1]}")
        yield Demo(process, found[1])


@contextmanager
def browse(address: str, profile: Path, asked: list[str] | None = None) -> Iterator[Page]:
    """The page at ``address`` in a browser of its own; ``asked`` takes the addresses that it asks for."""
    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            profile,
            executable_path=CHROMIUM,
            headless=True,
            args=["--no-sandbox", "--disable-gpu", "--disable-quic", *QUIET],
            viewport={"width": 1000, "height": 760},
            timeout=3 * PATIENCE,
        )
        context.set_default_timeout(PATIENCE)
        if asked is not None:
            context.on("request", lambda request: asked.append(request.url))
        page = context.new_page()
        page.goto(address)
        expect(page.locator("#photo input[type=file]")).to_be_attached(timeout=PATIENCE)
        yield page
        context.close()


def answer_to(page: Page, photo: Path) -> str:
    """Upload ``photo``, wait for the answer, and return its first label."""
    page.locator("#photo input[type=file]").set_input_files(photo)
    expect(page.locator("#duration")).to_contain_text(" ms ", timeout=PATIENCE)
    return page.get_by_test_id("label-output-value").inner_text()
