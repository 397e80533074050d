"""What hashing and checking add to loading a cached x2.0 file: python tests/support/cost_of_checking.py [ROUNDS]

Every load is the first in a process of its own, after `import torch`; loads with and without the checks take turns. The
file is like the real one: torch's zip format, 30 MB, random values.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
ARCH = "shufflenet_v2_x2_0"

WRITE = """
import hashlib, sys, torch
from shufflenetv2.network.model import SPECS, ShuffleNetV2
torch.save(ShuffleNetV2(SPECS[sys.argv[1]]).state_dict(), sys.argv[2])
print(hashlib.sha256(open(sys.argv[2], "rb").read()).hexdigest())
"""
LOAD = """
import sys, time
from dataclasses import replace
from pathlib import Path
from shufflenetv2 import builder as building
from shufflenetv2.weights import store as cache
from shufflenetv2.weights import checkpoint
from shufflenetv2 import files
from shufflenetv2.weights import manifest
from shufflenetv2 import builder
arch, path, sha256, checked = sys.argv[1:]
entry = next(entry for entry in manifest.load_manifest() if entry.arch == arch and entry.default)
entry = replace(entry, file=Path(path).name, sha256=sha256, size=Path(path).stat().st_size)
if checked == "no":
    cache.read_and_hash = lambda path, limit: (files.read_regular(path, limit), "")
    cache.difference = lambda *arguments: None
    checkpoint._check_kind = checkpoint._check_values = lambda *arguments: None
started = time.perf_counter()
model = building.build(arch, sources.Source(arch, entry))
print(time.perf_counter() - started)
assert not model.training
"""


def run(program: str, *arguments: str, home: str) -> str:
    environment = {**os.environ, "TORCH_HOME": home, "PYTHONPATH": str(ROOT), "SHUFFLENETV2_OFFLINE": "1"}
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip()


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    with tempfile.TemporaryDirectory() as home:
        path = Path(home, "hub", "checkpoints", "weights.pth")
        path.parent.mkdir(parents=True)
        sha256 = run(WRITE, ARCH, str(path), home=home)
        seconds: dict[str, list[float]] = {"yes": [], "no": []}
        for _ in range(rounds):
            for checked, times in seconds.items():
                times.append(float(run(LOAD, ARCH, str(path), sha256, checked, home=home)))
    medians = {checked: statistics.median(times) for checked, times in seconds.items()}
    print(
        json.dumps(
            {
                "checked_ms": round(1000 * medians["yes"], 1),
                "unchecked_ms": round(1000 * medians["no"], 1),
                "added_percent": round(100 * (medians["yes"] / medians["no"] - 1), 1),
                "quartiles_ms": {
                    checked: [round(1000 * each, 1) for each in statistics.quantiles(times, n=4)]
                    for checked, times in seconds.items()
                },
                "rounds": rounds,
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
