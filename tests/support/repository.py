"""This repository, as a checkout, as copies, and as the archive that GitHub makes of it."""

import hashlib
import io
import json
import shutil
import zipfile
from pathlib import Path

from .processes import ROOT, run

# What torch.hub gets to see of a checkout; tests, figures and documents make no difference to it.
HUB_FILES = ("hubconf.py", "weights.json", "shufflenetv2")


def copy_repository(target: Path, replaced: dict[str, bytes] | None = None) -> Path:
    """Copy what torch.hub sees; in weights.json alone, the ImageNet entries are rewritten for ``replaced``."""
    for name in HUB_FILES:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, target / name, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
        else:
            target.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target / name)
    if replaced:
        manifest = json.loads((target / "weights.json").read_text())
        for entry in manifest["entries"]:
            data = replaced.get(entry["arch"])
            if data is not None and entry["name"] == "imagenet1k_v1":
                entry.update(size=len(data), sha256=hashlib.sha256(data).hexdigest())
        (target / "weights.json").write_text(json.dumps(manifest))
    return target


def archive(prefix: str = "org-repo-0123456/") -> bytes:
    """The zip file that GitHub serves for HEAD; for a copy without history, the same of its files."""
    if (ROOT / ".git").exists():
        command = ("git", "archive", "--format=zip", "--worktree-attributes", f"--prefix={prefix}", "HEAD")
        return bytes(run(*command, text=False).stdout)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.mkdir(prefix)
        for path in sorted(ROOT.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                file.write(path, prefix + str(path.relative_to(ROOT)))
    return buffer.getvalue()


def unpacked_archive(target: Path) -> Path:
    """Where the archive's files lie once it is unpacked at ``target``."""
    with zipfile.ZipFile(io.BytesIO(archive("repository/"))) as file:
        file.extractall(target)
    return target / "repository"
