"""The command that began a run, kept beside it, so that ``train --resume RUN`` needs nothing else."""

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path

from ..errors import TrainingError
from ..files import expanded, read_regular, shown, write_whole

FILE = "command.json"
MAX_BYTES = 1_000_000


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
        said = json.loads(read_regular(run / FILE, MAX_BYTES))
        directory, arguments = said["directory"], said["arguments"]
    except (OSError, ValueError, LookupError, TypeError) as error:
        reason = f"there is no {FILE} that could be read in it"
        raise TrainingError(f"{shown(run)} does not say how its run began: {reason}; {advice}") from error
    if not isinstance(arguments, list) or not all(isinstance(each, str) for each in arguments):
        raise TrainingError(f"{shown(run)} does not say how its run began: {FILE} was changed; {advice}")
    if not isinstance(directory, str) or not _same(directory, os.getcwd()):
        raise TrainingError(
            f"the run in {shown(run)} began in the folder {shown(str(directory))}; go there, or {advice}"
        )
    return arguments


def complete(arguments: argparse.Namespace) -> argparse.Namespace:
    """``arguments`` with those of the run's first command, where ``--resume RUN`` stands for them.

    Raises:
        TrainingError: no one says what to train on, or where the results go.
    """
    if arguments.resume and arguments.output:  # the flag, with DIR behind it
        if arguments.data:
            raise TrainingError("--resume RUN and --output RUN both name the run; give --output RUN and --resume alone")
        arguments.data, arguments.resume = arguments.resume, ""
    if arguments.resume:
        began = recall(Path(expanded(arguments.resume)))
        merged = [*began, *_changes(arguments.argv)]
        whole: argparse.Namespace = arguments.parser.parse_args([*merged, "--resume"])
        # The folder that was named, which may be a copy; and what changes now is what the next resumption goes on with.
        whole.output, whole.began = Path(expanded(arguments.resume)), merged
        return whole
    if not arguments.data or not arguments.output:
        raise TrainingError("give a folder of photos and --output RUN; to go on with a run, --resume RUN alone")
    if os.path.realpath(arguments.output).startswith(os.path.realpath(expanded(arguments.data)) + os.sep):
        raise TrainingError(f"--output {arguments.output} is among the photos, where it would be a class; name another")
    arguments.began = _without_flag(arguments.argv)
    return arguments


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


def _without_flag(argv: Sequence[str]) -> list[str]:
    """The command without its ``--resume``, behind which there may be the folder of photos."""
    return [each for each in argv if not each.startswith("--res") or "=" in each]


def _same(one: str, other: str) -> bool:
    return os.path.realpath(one) == os.path.realpath(other)
