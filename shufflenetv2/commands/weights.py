"""``weights``: list, fetch, verify and locate the files of the manifest."""

import argparse
import json
import sys
from collections.abc import Callable

from ..errors import ShuffleNetError
from ..weights import store
from ..weights.manifest import Entry, find_entry, load_manifest, matching
from .options import add_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, (purpose, _) in ACTIONS.items():
        action = actions.add_parser(name, help=purpose, description=purpose[0].upper() + purpose[1:] + ".")
        action.add_argument(
            "names",
            nargs="*",
            metavar="WEIGHTS",
            help="an architecture, a weights name, or ARCH/NAME (default: all)",
        )
        add_json(action, "one JSON object a line")


def run(arguments: argparse.Namespace) -> int:
    entries = select(arguments.names)
    act = ACTIONS[arguments.action][1]
    failed = 0
    for entry in entries:
        try:
            row = act(entry)
        except ShuffleNetError as error:
            failed += 1
            print(f"shufflenetv2: error: {error}", file=sys.stderr)
            row = {"weights": str(entry), "error": str(error)}
            if not arguments.json:
                continue
        print(json.dumps(row) if arguments.json else "  ".join(str(value) for value in row.values()))
    return 1 if failed else 0


def select(names: list[str]) -> list[Entry]:
    """The manifest's entries that any of ``names`` means; all of them without names.

    Raises:
        ValueError: a name means none.
    """
    chosen: list[Entry] = []
    for name in names:
        means = matching(name) or [find_entry(None, name)]  # which says what there is
        chosen += [each for each in means if each not in chosen]
    return chosen if names else list(load_manifest())


Row = dict[str, object]


def _list(entry: Entry) -> Row:
    return {
        "weights": str(entry),
        "size": f"{entry.size / 1e6:.1f} MB",
        "acc@1": f"{entry.metrics.acc1:.2f} %",
        "dataset": entry.metrics.dataset,
        "where": "bundled" if entry.path else "cached" if store.local_path(entry).is_file() else "not fetched",
    }


def _fetch(entry: Entry) -> Row:
    return {"path": str(store.fetch_to_cache(entry)), "sha256": entry.sha256}


def _verify(entry: Entry) -> Row:
    return {"weights": str(entry), "verified": "ok", "path": str(store.verify(entry))}


def _path(entry: Entry) -> Row:
    return {"path": str(store.local_path(entry))}


ACTIONS: dict[str, tuple[str, Callable[[Entry], Row]]] = {
    "list": ("list the weights there are, and where", _list),
    "fetch": ("fetch weights into the cache, for later or for a machine without network", _fetch),
    "verify": ("check the size and sha256 of files in the cache; nothing is fetched", _verify),
    "path": ("print where files are, or would be, in the cache", _path),
}
