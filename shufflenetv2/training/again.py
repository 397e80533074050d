"""The command that began a run, kept beside it, so that ``train --resume RUN`` needs nothing else."""

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import TrainingError
from ..files import expanded, read_regular, shown, write_whole

FILE = "command.json"
MAX_BYTES = 1_000_000
UNREADABLE = (OSError, ValueError, LookupError, TypeError)


def remember(run: Path, arguments: Sequence[str]) -> None:
    """Keep ``arguments``, and the folder that their relative paths start from."""
    write_whole(run / FILE, json.dumps({"directory": os.getcwd(), "arguments": [*arguments]}).encode())


def recall(run: Path) -> list[str]:
    """The arguments by which the run in the folder ``run`` began.

    Raises:
        TrainingError: they are not there, or were given in another folder.
    """
    advice = "give the command that began it once more, with --resume at its end"
    try:
        directory, arguments = _said(run)
    except UNREADABLE as error:
        reason = f"there is no {FILE} that could be read in it"
        raise TrainingError(f"{shown(run)} does not say how its run began: {reason}; {advice}") from error
    if not isinstance(arguments, list) or not all(isinstance(each, str) for each in arguments):
        raise TrainingError(f"{shown(run)} does not say how its run began: {FILE} was changed; {advice}")
    if not isinstance(directory, str) or not _same(directory, os.getcwd()):
        raise TrainingError(
            f"the run in {shown(run)} began in the folder {shown(str(directory))}; go there, or {advice}"
        )
    return arguments


def is_foreign(run: Path) -> bool:
    """Whether ``run`` holds a file of that name which ``remember`` did not write."""
    try:
        _said(run)
    except UNREADABLE:
        return os.path.lexists(run / FILE)
    return False


def _said(run: Path) -> tuple[Any, Any]:
    said = json.loads(read_regular(run / FILE, MAX_BYTES))
    return said["directory"], said["arguments"]


def complete(arguments: argparse.Namespace) -> argparse.Namespace:
    """``arguments`` with those of the run's first command, where ``--resume RUN`` stands for them.

    Raises:
        TrainingError: no one says what to train on, or where the results go, or they would lie among the photos.
    """
    flagged = bool(arguments.resume and arguments.output)  # the flag, with DIR behind it
    if flagged:
        if arguments.data:
            raise TrainingError("--resume RUN and --output RUN both name the run; give --output RUN and --resume alone")
        if os.path.exists(os.path.join(expanded(arguments.resume), "last.pth")):
            raise TrainingError(
                f"--resume {shown(arguments.resume)} goes on in that folder; leave --output out, or, to go on in "
                "another, copy the folder and give the copy alone"
            )
        arguments.data, arguments.resume = arguments.resume, ""
    if arguments.resume:
        run = _run_folder(arguments)
        merged = [*recall(run), *_changes(arguments.argv)]
        whole: argparse.Namespace = arguments.parser.parse_args([*merged, "--resume"])
        # The folder that was named, which may be a copy; and what changes now is what the next resumption goes on with.
        whole.output, whole.began = run, merged
        return whole
    if not arguments.data or not arguments.output:
        raise TrainingError("give a folder of photos and --output RUN; to go on with a run, --resume RUN alone")
    for folder in filter(None, (arguments.data, arguments.val)):
        if Path(os.path.realpath(arguments.output)).is_relative_to(os.path.realpath(expanded(folder))):
            raise TrainingError(
                f"--output {shown(arguments.output)} is among the photos, in {shown(folder)}, where it would be a "
                "class; name another"
            )
    arguments.began = _began(arguments.argv, arguments.data, flagged)
    return arguments


def _run_folder(arguments: argparse.Namespace) -> Path:
    run = Path(expanded(arguments.resume))
    if arguments.data:
        raise TrainingError(
            f"--resume {shown(run)} goes on with the photos that its run began with; leave {shown(arguments.data)} "
            "out, or give the whole command that began it, with --resume alone at its end"
        )
    if not run.is_dir():
        wrong = f"is a file; give its folder, {shown(run.parent)}" if run.exists() else "is no folder that there is"
        raise TrainingError(f"--resume {shown(run)} {wrong}")
    return run


def _changes(argv: Sequence[str]) -> list[str]:
    """The command's options without ``train --resume RUN``."""
    command = next(index for index, each in enumerate(argv) if not each.startswith("-"))
    options, kept, skip = [*argv[:command], *argv[command + 1 :]], [], False
    for each in options:
        resume = each.startswith("--res")  # or what argparse takes for it
        if not skip and not resume:
            kept.append(each)
        skip = resume and "=" not in each
    return kept


def _began(argv: Sequence[str], folder: str, flagged: bool) -> list[str]:
    """The command without its ``--resume``.

    A folder of photos that stood behind it, or behind ``--``, goes before the options: one of them might take it for
    its own, and more options will follow.
    """
    options = _changes(argv) if flagged else [each for each in argv[1:] if not each.startswith("--res")]
    end = options.index("--") if "--" in options else len(options)
    first = [folder] if flagged or end < len(options) else []
    return [argv[0], *first, *options[:end]]


def _same(one: str, other: str) -> bool:
    return os.path.realpath(one) == os.path.realpath(other)
