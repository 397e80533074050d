"""The areas in which mutants are tried, and what came of them: build/mutants.jsonl, told in docs/mutants.md."""

import json
import re
from typing import Any

from shufflenetv2.package import CHECKOUT

RESULTS, DOCUMENT = CHECKOUT / "build" / "mutants.jsonl", CHECKOUT / "docs" / "mutants.md"
AREAS = {  # what is mutated in shufflenetv2/, and the tests in tests/ that must notice, besides test_details.py
    "weights": ("weights transport.py description.py files.py", "weights test_files.py test_entrypoints.py"),
    "builder": (
        "builder.py entrypoints.py package.py naming.py saving.py rebuilding.py network/origin.py",
        "test_builder.py test_entrypoints.py test_ways_in.py test_saving.py weights/test_manifest.py "
        "weights/test_checkpoint.py",
    ),
    "training": ("training commands/train.py devices.py", "training"),
    "network": (
        "network/model.py network/deploy.py network/deploy_form.py network/dissect.py",
        "network commands/test_export.py",
    ),
    "formats": ("network/formats exporting.py computing.py commands/export.py", "network commands/test_export.py"),
    "photos": (
        "photos/decode.py photos/formats.py photos/tiff.py photos/avif.py photos/colours.py photos/framing.py "
        "photos/transform.py photos/url.py",
        "photos test_entrypoints.py",
    ),
    "folders": (
        "photos/folders.py photos/listing.py photos/ahead.py tables",
        "photos tables commands/test_classify.py commands/test_evaluate.py test_entrypoints.py",
    ),
    "inference": (
        "inference evaluation commands/classify.py commands/evaluate.py commands/options.py",
        "test_entrypoints.py test_builder.py test_ways_in.py inference evaluation commands/test_classify.py "
        "commands/test_evaluate.py commands/test_sources.py commands/test_cli.py tables",
    ),
}


def results() -> dict[str, dict[str, Any]]:
    """By the mutants' keys; of one that was tried again, the last."""
    lines = RESULTS.read_text().splitlines() if RESULTS.exists() else []
    return {each["key"]: each for each in map(json.loads, lines)}


def write_page() -> None:
    """Bring docs/mutants.md up to date with the results; it keeps the reasons that it gives for survivors."""
    old, found = DOCUMENT.read_text(encoding="utf-8"), results().values()
    reasons = dict(re.findall(r"^- `` (.+?) ``: (?!to be looked at)(.*)$", old, re.MULTILINE))
    text = old[: old.index("| Area")]
    text += "| Area | Seed | Date | Mutants | Killed | | Change nothing |\n|---|---|---|---|---|---|---|\n"
    for area in AREAS:
        if ours := [each for each in found if each["area"] == area]:
            last, killed = ours[-1], sum(each["killed"] for each in ours)
            nothing = sum(not each["killed"] and each["key"] in reasons for each in ours)
            text += f"| {area} | {last['seed']} | {last['date']} | {len(ours)} | {killed} | "
            text += f"{killed / len(ours):.0%} | {nothing} |\n"
    text += "\n## Alive, and why\n\n"
    alive = sorted(each["key"] for each in found if not each["killed"])
    text += "".join(f"- `` {key} ``: {reasons.get(key, 'to be looked at')}\n" for key in alive)
    DOCUMENT.write_text(text, encoding="utf-8")
