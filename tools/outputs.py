"""The blocks of code in README.md, and what they print when a reader types them."""

import re
import shlex
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from support.processes import run
from support.stand_in import StandIn, serve_stand_in

from shufflenetv2 import __version__
from shufflenetv2.package import CHECKOUT

from .environments import environment, fetch_backend, make_environment

NO_NUMPY = "UserWarning: Failed to initialize NumPy"  # torch's own on being imported; neither it nor this needs NumPy
HUB = ("torch", "requests", "pillow")  # what README.md says that the hub needs
_BLOCK = re.compile(
    r"(?:<!-- ci: (?P<ci>\w+) -->\n)?```(?P<language>\w+)\n(?P<code>.*?)```\n(?:```text\n(?P<output>.*?)```\n)?",
    re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """A block of code, and the block of text after it: what it prints."""

    language: str
    code: str
    output: str | None
    ci: str | None
    line: int


@dataclass(frozen=True)
class Reader:
    """Where a reader stands: a checkout, with the folders of photos that the text speaks of."""

    checkout: Path
    environment: dict[str, str]
    wheels: Path  # of what builds the package


def read_blocks(text: str) -> list[Block]:
    return [Block(**found.groupdict(), line=text[: found.start("code")].count("\n") + 1) for found in _matches(text)]


def _matches(text: str) -> Iterator[re.Match[str]]:
    return (found for found in _BLOCK.finditer(text) if found["language"] in ("python", "sh"))


def prepare_reader(stand_in: StandIn, directory: Path) -> Reader:
    """Give a reader a checkout in ``directory``, and a home where torch.hub has the release."""
    checkout = directory / "checkout"
    images = CHECKOUT / "images"
    shutil.copytree(stand_in.repository, checkout)
    shutil.copytree(images, checkout / "images", dirs_exist_ok=True)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(CHECKOUT / name, checkout)
    for name, wordnet_id in (("cat", "n02123159"), ("coffee", "n07930864")):  # tiger cat, cup
        training, validation = checkout / "photos" / name, checkout / "imagenet/val" / wordnet_id
        training.mkdir(parents=True)
        validation.mkdir(parents=True)
        shutil.copy(images / f"{name}.jpg", validation)
        with Image.open(images / f"{name}.jpg") as image:
            for index in range(8):
                part = image.crop((5 * index, 3 * index, 256 + 5 * index, 256 + 3 * index))
                part.save(training / f"{index}.jpg")
    stand_in.cached_by_hub(directory / "home", f"v{__version__}")
    fetch_backend(directory / "wheels")
    return Reader(checkout, stand_in.environment(directory / "home"), directory / "wheels")


def named(block: Block) -> tuple[str, ...]:
    """What a block has pip install, in Python's in a comment; the gate's blocks are typed where that was done."""
    words = shlex.split(block.code.splitlines()[0].removeprefix("# "))
    if block.language == "python":
        return (*HUB, *words[2:]) if words[:2] == ["pip", "install"] else HUB
    if block.ci or words[:2] != ["pip", "install"]:
        return ("shufflenetv2",)
    return tuple(re.sub(r"^\.", "shufflenetv2", word) for word in words[2:] if not word.startswith("-"))


def printed(block: Block, reader: Reader) -> str:
    """What ``block`` prints in an environment of its own with what it names; of the gate's, its last command.

    Raises:
        AssertionError: it fails, or warns.
        PackageNotFoundError: what it names is not installed here.
    """
    code = block.code
    if block.language == "sh" and not code.startswith("pip install"):
        code = "pip install -q .\n" + (code.rpartition(" && ")[2].replace(".venv/bin/", "") if block.ci else code)
    with tempfile.TemporaryDirectory() as directory:
        programs = make_environment(Path(directory, "environment"), named(block))
        command = ("bash", "-euo", "pipefail", "-c") if block.language == "sh" else (programs / "python", "-c")
        result = run(
            *command,
            code,
            cwd=reader.checkout,
            env=reader.environment | environment(programs, reader.wheels),
            timeout=300,
        )
    said = result.stderr.replace(NO_NUMPY, "")
    assert not re.search("warning|traceback", said, re.IGNORECASE), said
    return str(result.stdout)


def rewritten(text: str) -> str:
    """``text`` with what its blocks print today, where that differs by more than CPUs do."""
    with tempfile.TemporaryDirectory() as directory, serve_stand_in(Path(directory, "stand-in")) as stand_in:
        reader = prepare_reader(stand_in, Path(directory))
        for block, found in zip(reversed(read_blocks(text)), reversed([*_matches(text)]), strict=True):
            if block.output is not None and not same(output := printed(block, reader), block.output):
                text = text[: found.start("output")] + output + text[found.end("output") :]
    return text


def same(output: str, shown: str) -> bool:
    """Equal, but for the last digits of percentages, in which CPUs differ."""
    ours, theirs = output.split(), shown.split()
    return len(ours) == len(theirs) and all(
        a == b or (a[-1] == b[-1] == "%" and abs(float(a[:-1]) - float(b[:-1])) < 0.5)
        for a, b in zip(ours, theirs, strict=True)
    )
