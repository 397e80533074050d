"""Every shell completes commands, options, choices, names of weights and files; the script needs no torch."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support.processes import ROOT, run, run_module, run_python
from support.skips import needs_posix

pytest.importorskip("shtab", reason="not installed: shtab")

CASES = [
    ("cl", "classify"),
    ("classify --to", "--top"),
    ("weights fe", "fetch"),
    ("weights fetch cif", "cifar10_v2"),
    ("train --decay co", "cosine"),
    ("classify ca", "cat.jpg"),
    ("classify --weights cat.", "cat.jpg"),
]

BASH = """
source {script}
COMP_WORDS=(shufflenetv2 {words}); COMP_CWORD=$(( ${{#COMP_WORDS[@]}} - 1 )); COMPREPLY=()
$(complete -p shufflenetv2 | sed 's/.*-F \\([^ ]*\\).*/\\1/') shufflenetv2 "${{COMP_WORDS[-1]}}" "${{COMP_WORDS[-2]}}"
echo "${{COMPREPLY[@]}}"
"""
FISH = "source {script}; complete -C 'shufflenetv2 {words}'"


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    folder = tmp_path_factory.mktemp("completion")

    def write(shell: str) -> Path:
        path = folder / shell
        if not path.exists():
            path.write_text(run_module("shufflenetv2", "completion", shell).stdout)
        return path

    return write


@needs_posix
@pytest.mark.parametrize(("shell", "program"), [("bash", BASH), ("fish", FISH)], ids=["bash", "fish"])
@pytest.mark.parametrize(("words", "completed"), CASES)
def test_words_are_completed(
    words: str, completed: str, shell: str, program: str, script: Callable[[str], Path]
) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"needs the shell {shell}")
    given = run(shell, "-c", program.format(script=script(shell), words=words), cwd=ROOT / "images").stdout
    assert completed in given.replace("\t", " ").split()


@needs_posix
def test_zsh_reads_the_script(script: Callable[[str], Path]) -> None:
    if shutil.which("zsh") is None:
        pytest.skip("needs the shell zsh")
    text = script("zsh").read_text()
    assert text.startswith("#compdef shufflenetv2")
    assert "cifar10_v2" in text
    run("zsh", "-n", script("zsh"))


def test_the_script_does_not_wait_for_torch() -> None:
    program = "import sys; from shufflenetv2.__main__ import main; main(['completion', 'bash']); print(*sys.modules)"
    assert "torch" not in run_python(program, cwd=ROOT).stdout.splitlines()[-1].split()


def test_another_shell_is_refused_and_help_says_where_the_script_goes() -> None:
    refused = run_module("shufflenetv2", "completion", "csh", check=False)
    assert refused.returncode == 2
    assert "must be one of bash, zsh, fish, got 'csh'" in refused.stderr
    assert (
        'eval "$(shufflenetv2 completion bash)"'
        in run(sys.executable, "-m", "shufflenetv2", "help", "completion").stdout
    )
