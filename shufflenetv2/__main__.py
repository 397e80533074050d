"""The command line: ``python -m shufflenetv2 COMMAND``, after ``pip install`` also ``shufflenetv2 COMMAND``.

Results go to stdout, progress and logs to stderr. The exit status is 0 only if everything asked for was done, 1 if not,
2 for a call that cannot be understood. Whoever closes the pipe, as ``head`` does, has seen enough: that is success.
"""

import argparse
import contextlib
import importlib
import io
import logging
import os
import re
import signal
import sys
import threading
import time
import warnings
from collections.abc import Sequence
from typing import Any, NoReturn, TextIO

from . import __version__
from .errors import ShuffleNetError
from .files import shown
from .package import REVISION, guess

# Each command is a module with add_arguments(parser) and run(arguments) -> exit status, imported only when asked for.
COMMANDS = {
    "classify": "print the most likely labels of photos",
    "evaluate": "measure top-1 and top-5 accuracy on a folder of labelled photos",
    "train": "train or fine-tune on a folder of labelled photos",
    "export": "write a model for other runtimes and devices, in float or int8",
    "benchmark": "measure speed beside torchvision",
    "weights": "list, fetch, verify or locate the weights files",
    "demo": "serve a web page that classifies photos",
    "completion": "print the script by which bash, zsh or fish completes all of this",
}


_NO_MEMORY = re.compile("out of memory|allocate memory|not enough memory")  # how torch says it


UNDER_TORCHRUN = "TORCHELASTIC_RUN_ID" in os.environ
LEADS = not UNDER_TORCHRUN or os.environ["RANK"] == "0"  # of its processes, the one that says what is wrong with a call
SECONDS_TO_SPEAK = 10.0
SECONDS_TO_CLEAR_UP = 2.0


class Formatter(argparse.HelpFormatter):
    """Commands are indented once more than argparse reckons with: the longest would have a line to itself."""

    def add_argument(self, action: argparse.Action) -> None:
        super().add_argument(action)
        self._action_max_length += 2 * isinstance(action, argparse._SubParsersAction)


class Parser(argparse.ArgumentParser):
    """Below another parser too, it refuses what it does not know itself: with its own usage, and the nearest name."""

    def error(self, message: str) -> NoReturn:
        super().error(shown(message))

    def _print_message(self, message: str, file: Any = None) -> None:
        if LEADS:
            super()._print_message(message, file)

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        if status and not LEADS:
            time.sleep(SECONDS_TO_SPEAK)  # torchrun ends all processes as soon as one has failed
        super().exit(status, message)

    def parse_known_args(self, *args: Any, **kwargs: Any) -> Any:
        namespace, unknown = super().parse_known_args(*args, **kwargs)
        if unknown:
            near = guess(unknown[0].partition("=")[0], self._option_string_actions)
            if not any(each.startswith("-") for each in unknown):
                near = "; name all of them together, before the options or after them"
            self.error(f"unrecognized arguments: {' '.join(unknown)}{near}")
        return namespace, unknown

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            names = [*action.choices, *["help"] * (action.dest == "command")]
            said = f"must be one of {', '.join(action.choices)}, got {value!r:.80}{guess(value, names)}"
            raise argparse.ArgumentError(action, said)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    _prepare_streams()
    # torch says so on import; nothing here needs NumPy.
    warnings.filterwarnings("ignore", message="Failed to initialize NumPy")
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(levelname)s: %(message)s")
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it warns that its first use takes a moment
    interrupts = _hear_interrupts()
    try:
        try:
            return _run(sys.argv[1:] if argv is None else list(argv))
        finally:
            sys.stdout.flush()  # here, where it is known what to do about a reader who has gone
    except BrokenPipeError:
        _drop_output(sys.stdout, sys.stderr)
        return 0
    except (KeyboardInterrupt, Exception) as error:
        if interrupts or isinstance(error, KeyboardInterrupt):
            with contextlib.suppress(OSError):  # of a terminal that was closed
                print("interrupted", file=sys.stderr)
            return 130
        return _told(error)


def _hear_interrupts() -> list[float]:
    """The signals that come from now on, each of which is a ``KeyboardInterrupt``, so that what is half written goes.

    A library that is imported meanwhile may turn that into an error of its own: then the list tells. torchrun's
    processes may wait for each other, and must go. A second signal soon after the first (`timeout` sends two, and
    people press twice) must not end the clearing up.

    Returns:
        When they came.
    """
    heard: list[float] = []

    def interrupt(number: int, frame: object) -> None:
        if not heard or time.monotonic() - heard[0] > SECONDS_TO_CLEAR_UP:
            heard.append(time.monotonic())
            raise KeyboardInterrupt

    if threading.current_thread() is threading.main_thread() and not UNDER_TORCHRUN:
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):  # the last of a terminal that is closed; not on Windows
            number = getattr(signal, name, None)
            if number and signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, interrupt)
    return heard


def _told(error: Exception) -> int:
    """The exit status of what went wrong, in a line or a few on stderr."""
    said = str(error)
    if not isinstance(error, (ShuffleNetError, ValueError, ImportError, OSError)):
        no_memory = isinstance(error, RuntimeError) and _NO_MEMORY.search(said)
        if not isinstance(error, MemoryError) and not no_memory:
            raise error  # a fault of ours, whose traceback helps to mend it
        said = "out of memory; give smaller batches or a smaller size"
    print("shufflenetv2: error:", "\n".join(map(shown, said.split("\n"))), file=sys.stderr)
    try:
        sys.stdout.flush()
    except OSError:  # a full disk, which was told just now
        _drop_output(sys.stdout)
    return 1


def _run(argv: list[str]) -> int:
    parser = Parser(
        prog="shufflenetv2",
        description="ShuffleNet V2: verified weights, fast inference.",
        epilog="shufflenetv2 help COMMAND says more of one",
        formatter_class=Formatter,
    )
    version = __version__ + (f" ({REVISION})" if REVISION else "")
    parser.add_argument("--version", action="version", version=f"shufflenetv2 {version}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    if "" in argv:
        parser.error("an argument is empty; is a variable of the shell not set?")
    if argv[:1] == ["help"]:
        argv = [*(each for each in argv[1:] if each != "help"), "--help"]
    asked = next((argument for argument in argv if not argument.startswith("-")), None)
    for name, purpose in COMMANDS.items():
        command = commands.add_parser(name, help=purpose, description=purpose[0].upper() + purpose[1:] + ".")
        if asked in (name, "completion"):
            module = importlib.import_module(f".commands.{name}", __package__)
            module.add_arguments(command)
            command.set_defaults(run=module.run, parser=parser, argv=argv)
    arguments = parser.parse_args(argv)
    status: int = arguments.run(arguments)
    return status


def _prepare_streams() -> None:
    """What an encoding cannot take is escaped, and closed streams lead nowhere: neither ends a command."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115 -- it stays
        elif mode == "w" and isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _drop_output(*streams: TextIO) -> None:
    """Nothing more can be said; without this, Python would try again at its end, and complain."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in streams:
        os.dup2(nowhere, stream.fileno())


if __name__ == "__main__":
    sys.exit(main())
