"""The command line: ``python -m shufflenetv2 COMMAND``, after ``pip install`` also ``shufflenetv2 COMMAND``.

Results go to stdout, progress and logs to stderr. The exit status is 0 only if everything asked for was done, 1 if not,
2 for a call that cannot be understood.
"""

import argparse
import importlib
import logging
import os
import sys
import warnings
from collections.abc import Sequence

from . import __version__
from .errors import ShuffleNetError
from .package import REVISION

# Each command is a module with add_arguments(parser) and run(arguments) -> exit status, imported only when asked for.
COMMANDS = {
    "classify": "print the most likely labels of photos",
    "evaluate": "measure top-1 and top-5 accuracy on a folder of labelled photos",
    "train": "train or fine-tune on a folder of labelled photos",
    "export": "write a model for other runtimes: ONNX, torch.export, TorchScript",
    "benchmark": "measure speed beside torchvision",
    "weights": "list, fetch, verify or locate the weights files",
    "demo": "serve a web page that classifies photos",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    argv = sys.argv[1:] if argv is None else list(argv)
    # torch says so on import; nothing here needs NumPy.
    warnings.filterwarnings("ignore", message="Failed to initialize NumPy")
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(levelname)s: %(message)s")
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it warns that its first use takes a moment
    parser = argparse.ArgumentParser(
        prog="shufflenetv2", description="ShuffleNet V2: verified weights, fast inference."
    )
    version = __version__ + (f" ({REVISION})" if REVISION else "")
    parser.add_argument("--version", action="version", version=f"shufflenetv2 {version}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    asked = next((argument for argument in argv if not argument.startswith("-")), None)
    try:
        for name, purpose in COMMANDS.items():
            command = commands.add_parser(name, help=purpose, description=purpose[0].upper() + purpose[1:] + ".")
            if name == asked:
                module = importlib.import_module(f".commands.{name}", __package__)
                module.add_arguments(command)
        arguments = parser.parse_args(argv)
        status: int = module.run(arguments)
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader, `head` for one, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (ShuffleNetError, ValueError, ImportError, OSError) as error:
        print(f"shufflenetv2: error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
