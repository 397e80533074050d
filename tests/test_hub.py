"""What a user of torch.hub sees. Each test runs in fresh processes with an empty home, but for the last few."""

import importlib
import os
import shutil
import sys
import threading
from pathlib import Path

import pytest
import torch
from support.checkpoints import ARCHS, reference_model
from support.processes import ROOT, run, run_python
from support.repository import copy_repository, unpacked_archive
from support.skips import needs_linux, needs_posix
from support.stand_in import StandIn

from shufflenetv2 import __version__

SEVEN = [*ARCHS, "categories", "classifier", "preprocess"]


@pytest.mark.slow
def test_all_widths_load_from_the_cached_repository_and_equal_torchvision(stand_in: StandIn, tmp_path: Path) -> None:
    stand_in.cached_by_hub(tmp_path, "v1")
    program = """
import sys, torch
before = set(sys.modules)
outputs = []
images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(3))
random_state = torch.get_rng_state()
for arch in sys.argv[2:]:
    model = torch.hub.load("org/repo:v1", arch, pretrained=True, trust_repo=True)
    assert not model.training
    assert not any(tensor.is_meta for tensor in model.state_dict().values())
    outputs.append(model(images))
assert torch.equal(torch.get_rng_state(), random_state)
new = {name.partition(".")[0] for name in set(sys.modules) - before}
assert not new & {"torchvision", "PIL", "numpy"}, new
torch.save(outputs, sys.argv[1])
"""
    environment = stand_in.environment(tmp_path)
    first = run_python(program, str(tmp_path / "out.pt"), *ARCHS, cwd=tmp_path, env=environment)
    assert first.stdout == ""
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(3))
    for arch, output in zip(ARCHS, torch.load(tmp_path / "out.pt"), strict=True):
        assert torch.equal(output, reference_model(arch)(images)), arch
    cached = {path.name: path.read_bytes() for path in (tmp_path / "torch/hub/checkpoints").iterdir()}
    assert cached == stand_in.files

    offline = {**environment, "SHUFFLENETV2_OFFLINE": "1"}
    second = run_python(program, str(tmp_path / "again.pt"), *ARCHS, cwd=tmp_path, env=offline)
    assert second.stdout == ""
    lines = [line for line in second.stderr.splitlines() if not line.startswith("Using cache found in")]
    assert lines == []  # no warning, no progress


@pytest.mark.slow
def test_cache_hit_does_not_import_requests(stand_in: StandIn, tmp_path: Path) -> None:
    program = (
        "import sys, torch\n"
        "model = torch.hub.load(sys.argv[1], 'shufflenet_v2_x0_5', pretrained=True, source='local', progress=False)\n"
        "print('requests' in sys.modules)"
    )
    environment = stand_in.environment(tmp_path)
    outputs = [run_python(program, str(stand_in.repository), cwd=tmp_path, env=environment) for _ in range(2)]
    assert [output.stdout for output in outputs] == ["True\n", "False\n"]


@pytest.mark.slow
def test_list_and_help(stand_in: StandIn, tmp_path: Path) -> None:
    stand_in.cached_by_hub(tmp_path, "v1")
    program = """
import torch
print(sorted(torch.hub.list("org/repo:v1", trust_repo=True, verbose=False)))
for name in torch.hub.list("org/repo:v1", trust_repo=True, verbose=False):
    text = torch.hub.help("org/repo:v1", name, trust_repo=True)
    print("\\n#", name, text, sep="\\n")
"""
    environment = stand_in.environment(tmp_path)
    plain = run_python(program, cwd=tmp_path, env=environment).stdout
    assert plain.splitlines()[0] == repr(sorted(SEVEN))
    for heading in ("Args:", "Returns:", "Raises:", "Example:"):
        assert plain.count(heading) == len(SEVEN)
    for fact in ("2.28 M parameters", "144.9 M multiply-adds", "top-1 69.36 %", "(N, num_classes)", "float32 tensor"):
        assert fact in plain
    assert run(sys.executable, "-OO", "-c", program, cwd=tmp_path, env=environment).stdout == plain


@pytest.mark.slow
def test_every_example_of_the_documentation_runs(stand_in: StandIn, tmp_path: Path) -> None:
    stand_in.cached_by_hub(tmp_path, f"v{__version__}")
    program = """
import doctest, sys, torch
for name in torch.hub.list(sys.argv[1], trust_repo=True, verbose=False):
    text = torch.hub.help(sys.argv[1], name, trust_repo=True)
    results = doctest.DocTestRunner().run(doctest.DocTestParser().get_doctest(text, {}, name, name, 0))
    print(name, results.failed, results.attempted >= 2)
"""
    environment = stand_in.environment(tmp_path)
    result = run_python(program, f"org/repo:v{__version__}", cwd=ROOT, env=environment)
    assert result.stdout == "".join(f"{name} 0 True\n" for name in sorted(SEVEN))


@pytest.mark.slow
def test_the_committed_archive_lists_and_loads(stand_in: StandIn, tmp_path: Path) -> None:
    cached = tmp_path / "torch/hub/org_repo_v1"
    cached.parent.mkdir(parents=True)
    unpacked_archive(tmp_path).rename(cached)
    program = (
        "import torch\n"
        "print(sorted(torch.hub.list('org/repo:v1', trust_repo=True, verbose=False)))\n"
        "model = torch.hub.load('org/repo:v1', 'shufflenet_v2_x0_5', trust_repo=True, verbose=False)\n"
        "print(model.training, tuple(model(torch.zeros(2, 3, 64, 64)).shape))"
    )
    result = run_python(program, cwd=tmp_path, env=stand_in.environment(tmp_path))
    assert result.stdout == f"{sorted(SEVEN)}\nTrue (2, 1000)\n"


def marked_copy(target: Path, mark: str) -> Path:
    """A revision whose network says which one it is."""
    copy_repository(target)
    with open(target / "shufflenetv2/network/model.py", "a") as file:
        file.write(f"\n\nShuffleNetV2.mark = {mark!r}\n")
    return target


@pytest.mark.slow
def test_two_revisions_in_one_process(stand_in: StandIn, tmp_path: Path) -> None:
    first, second = marked_copy(tmp_path / "a", "A"), marked_copy(tmp_path / "b", "B")
    program = (
        "import sys, torch\n"
        "load = lambda where: torch.hub.load(where, 'shufflenet_v2_x0_5', source='local').mark\n"
        "print(load(sys.argv[1]), load(sys.argv[2]), load(sys.argv[1]))"
    )
    result = run_python(program, str(first), str(second), cwd=tmp_path, env=stand_in.environment(tmp_path))
    assert result.stdout == "A B A\n"


@pytest.mark.slow
def test_changed_code_is_loaded_anew(stand_in: StandIn, tmp_path: Path) -> None:
    repository = marked_copy(tmp_path / "repository", "old")
    program = (
        "import sys, torch, pathlib\n"
        "load = lambda: torch.hub.load(sys.argv[1], 'shufflenet_v2_x0_5', source='local').mark\n"
        "print(load())\n"
        "file = pathlib.Path(sys.argv[1], 'shufflenetv2/network/model.py')\n"
        "file.write_text(file.read_text().replace(\"'old'\", \"'new'\"))\n"
        "print(load())"
    )
    environment = stand_in.environment(tmp_path)
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    result = run_python(program, str(repository), cwd=tmp_path, env=environment)
    assert result.stdout == "old\nnew\n"


@pytest.mark.slow
@pytest.mark.parametrize("order", ["own first", "hub first"])
def test_the_users_own_module_of_the_same_name(stand_in: StandIn, tmp_path: Path, order: str) -> None:
    (tmp_path / "shufflenetv2.py").write_text("owner = 'user'\n")
    own = "import shufflenetv2; assert shufflenetv2.owner == 'user'\n"
    hub = "torch.hub.load(sys.argv[1], 'shufflenet_v2_x0_5', source='local')\n"
    program = "import sys, torch\n" + (own + hub + own if order == "own first" else hub + own + hub) + "print('both')"
    result = run_python(program, str(stand_in.repository), cwd=tmp_path, env=stand_in.environment(tmp_path))
    assert result.stdout == "both\n"


@pytest.mark.slow
def test_transform_in_a_spawned_dataloader_worker(stand_in: StandIn, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import sys, pickle, torch\n"
        "class Photos(torch.utils.data.Dataset):\n"
        "    def __init__(self, transform, paths): self.transform, self.paths = transform, paths\n"
        "    def __len__(self): return len(self.paths)\n"
        "    def __getitem__(self, index): return self.transform(self.paths[index])[0]\n"
        "if __name__ == '__main__':\n"
        "    load = lambda *arguments, **more: torch.hub.load(sys.argv[1], *arguments, source='local', **more)\n"
        "    transform = load('preprocess', 'shufflenet_v2_x1_5', in_channels=1)\n"
        "    loader = torch.utils.data.DataLoader(Photos(transform, sys.argv[2:]), batch_size=2, num_workers=1,\n"
        "                                         multiprocessing_context='spawn')\n"
        "    [images] = list(loader)\n"
        "    assert torch.equal(images, transform(sys.argv[2:]))\n"
        "    classify = load('classifier', 'shufflenet_v2_x0_5', top=2)\n"
        "    [again] = pickle.loads(pickle.dumps([classify]))\n"
        "    print(tuple(images.shape), again(sys.argv[2]) == classify(sys.argv[2]), len(again(sys.argv[2])))\n"
    )
    photos = [str(ROOT / "images" / name) for name in ("cat.jpg", "coffee.jpg")]
    command = (sys.executable, script, stand_in.repository, *photos)
    result = run(*command, cwd=tmp_path, env=stand_in.environment(tmp_path))
    assert result.stdout == "(2, 1, 224, 224) True 2\n"


@pytest.mark.slow
def test_missing_pillow_is_explained_and_not_needed_by_models(stand_in: StandIn, tmp_path: Path) -> None:
    program = (
        "import sys, torch\n"
        "sys.modules['PIL'] = None\n"
        "load = lambda *names: torch.hub.load(sys.argv[1], *names, source='local')\n"
        "load('shufflenet_v2_x0_5'); print(len(load('categories')))\n"
        "try: load('preprocess')\n"
        "except ImportError as error: print(error)"
    )
    result = run_python(program, str(stand_in.repository), cwd=tmp_path, env=stand_in.environment(tmp_path))
    assert result.stdout.splitlines()[0] == "1000"
    assert "pip install 'pillow" in result.stdout.splitlines()[1]


@pytest.mark.slow
def test_hub_load_refuses_what_it_does_not_know(stand_in: StandIn, tmp_path: Path) -> None:
    program = (
        "import sys, torch\n"
        "for arguments in ({'wieghts': 'x'}, {'weights': 'nonsense'}, {'pretrained': 'imagenet'}):\n"
        "    try: torch.hub.load(sys.argv[1], 'shufflenet_v2_x0_5', source='local', **arguments)\n"
        "    except Exception as error: print(type(error).__name__, str(error)[:60])"
    )
    result = run_python(program, str(stand_in.repository), cwd=tmp_path, env=stand_in.environment(tmp_path))
    kinds = [line.split()[0] for line in result.stdout.splitlines()]
    assert kinds == ["TypeError", "ValueError", "TypeError"]


@pytest.mark.slow
@needs_posix
def test_peak_memory_of_a_cached_load(stand_in: StandIn, tmp_path: Path) -> None:
    program = (
        "import resource, sys, torch\n"
        "arch, before = 'shufflenet_v2_x2_0', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "model = torch.hub.load(sys.argv[1], arch, pretrained=True, source='local', progress=False)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    environment = stand_in.environment(tmp_path)
    grown = [run_python(program, str(stand_in.repository), cwd=tmp_path, env=environment).stdout for _ in range(2)][1]
    size = len(stand_in.files["shufflenetv2_x2_0-8be3c8ee.pth"])
    assert int(grown) * 1024 < 3 * size + 16e6  # kibibytes on Linux


# In this process: each copy is a package of its own.


def labels(repository: Path) -> list[str]:
    return torch.hub.load(repository, "categories", weights="cifar10", source="local")  # type: ignore[no-any-return]


def test_threads_that_load_at_once(tmp_path: Path) -> None:
    package = copy_repository(tmp_path) / "shufflenetv2/__init__.py"
    package.write_text("import time\ntime.sleep(0.1)\n" + package.read_text())
    given: list[int] = []
    threads = [threading.Thread(target=lambda: given.append(len(labels(tmp_path)))) for _ in range(6)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert given == [10] * 6


def test_what_threads_do_at_once_is_not_left_to_importlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its invalidate_caches forgets each directory that is gone, and a second thread does so after the first."""

    def beaten() -> None:
        raise KeyError("/usr/lib/python311.zip")

    copy_repository(tmp_path)
    labels(tmp_path)
    monkeypatch.setattr(importlib, "invalidate_caches", beaten)
    new = tmp_path / "shufflenetv2/new.py"
    new.write_text("from .entrypoints import categories\n")  # in a directory that was listed a moment ago
    with (tmp_path / "hubconf.py").open("a") as file:
        file.write("categories = _importlib.import_module(_module.__package__ + '.new').categories\n")
    assert labels(tmp_path)[3] == "cat"


@needs_posix
def test_a_directory_of_links_into_a_store(tmp_path: Path) -> None:
    """As huggingface_hub.snapshot_download makes it."""
    (tmp_path / "store").mkdir()
    snapshot = copy_repository(tmp_path / "snapshot")
    for number, file in enumerate([each for each in snapshot.rglob("*") if each.is_file()]):
        shutil.move(file, tmp_path / f"store/{number}")
        file.symlink_to(tmp_path / f"store/{number}")
    assert labels(snapshot)[3] == "cat"
    model = torch.hub.load(snapshot, "shufflenet_v2_x0_5", weights="cifar10", source="local")
    assert sum(parameter.numel() for parameter in model.parameters()) == 352_042


@needs_linux
def test_a_directory_whose_name_is_no_utf8(tmp_path: Path) -> None:
    assert labels(copy_repository(tmp_path / os.fsdecode(b"caf\xe9")))[3] == "cat"


@needs_posix
def test_an_editors_lock_is_no_part_of_the_package(tmp_path: Path) -> None:
    (copy_repository(tmp_path) / "shufflenetv2/.#files.py").symlink_to("someone@host.123:456")
    assert labels(tmp_path)[3] == "cat"


def test_a_copy_without_the_manifest_is_told_so(tmp_path: Path) -> None:
    (copy_repository(tmp_path) / "weights.json").unlink()
    with pytest.raises(ValueError, match=r"weights\.json is missing: expected .* beside hubconf\.py; install again"):
        labels(tmp_path)
