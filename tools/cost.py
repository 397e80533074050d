"""What hashing and checking add to loading a cached x2.0 file.

Every load is the first in a process of its own, after `import torch`; loads with and without the checks take turns. The
file is like the real one: torch's zip format, 30 MB, random values.
"""

import json
import statistics
import tempfile
from pathlib import Path

from support.processes import importing, run_python

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
from shufflenetv2 import builder
from shufflenetv2.weights import checkpoint, manifest
arch, path, sha256, checked = sys.argv[1:]
entry = manifest.default_entry(arch)
entry = replace(entry, file=Path(path).name, sha256=sha256, size=Path(path).stat().st_size)
if checked == "no":
    manifest.Entry.difference = lambda self, data: None
    checkpoint._check_kind = checkpoint._check_values = lambda *arguments: None
started = time.perf_counter()
model = builder.build(arch, builder.from_entry(entry))
print(time.perf_counter() - started)
assert not model.training
"""


def cost(rounds: int) -> None:
    """Print the medians and quartiles of loads with and without the checks."""
    with tempfile.TemporaryDirectory() as home:
        environment = {**importing(), "TORCH_HOME": home, "SHUFFLENETV2_OFFLINE": "1"}
        path = Path(home, "hub", "checkpoints", "weights.pth")
        path.parent.mkdir(parents=True)
        sha256 = run_python(WRITE, ARCH, path, env=environment).stdout.strip()
        seconds: dict[str, list[float]] = {"yes": [], "no": []}
        for _ in range(rounds):
            for checked, times in seconds.items():
                times.append(float(run_python(LOAD, ARCH, path, sha256, checked, env=environment).stdout))
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
