"""``completion``: print the script by which a shell completes commands, options and names of weights."""

import argparse
from collections.abc import Iterator

from ..package import require
from ..weights.manifest import load_manifest

# Where each shell looks for such a script.
SHELLS = {
    "bash": 'eval "$(shufflenetv2 completion bash)"  # in ~/.bashrc',
    "zsh": 'shufflenetv2 completion zsh > "${fpath[1]}/_shufflenetv2"  # then start a new shell',
    "fish": "shufflenetv2 completion fish > ~/.config/fish/completions/shufflenetv2.fish",
}
FILES = (
    "FILE",
    "DIR",
    "RUN",
    "PHOTO_OR_FOLDER",
    "SOURCE",
    "TABLE",
)  # metavars of what is completed by the names of files


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=SHELLS)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = "set it up once:\n" + "".join(f"  {shell:5} {line}\n" for shell, line in SHELLS.items())


def run(arguments: argparse.Namespace) -> int:
    require("completion", "shtab>=1.13")
    import shtab

    for action in _actions(arguments.parser):
        if action.choices is not None and not isinstance(action, argparse._SubParsersAction):
            action.choices = [*action.choices]  # shtab takes any mapping for subcommands
        if action.dest == "weights" or action.metavar in FILES:
            action.complete = shtab.FILE  # type: ignore[attr-defined]
        elif action.dest == "names":
            action.choices = sorted({name for each in load_manifest() for name in (each.name, each.arch, str(each))})
    print(shtab.complete(arguments.parser, arguments.shell))
    return 0


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                yield from _actions(inner)
