"""A test is only left out for a reason that CONTRIBUTING.md lists."""

import pytest

pytest_plugins = ["pytester"]


def test_a_skip_without_permission_fails(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        "import pytest\n"
        "def test_permitted(): pytest.skip('needs root')\n"
        "def test_not_permitted(): pytest.skip('no time')\n"
        "@pytest.mark.skip(reason='later')\n"
        "def test_marked(): pass\n"
    )
    result = pytester.runpytest_inprocess("-p", "conftest", "-p", "no:cacheprovider")
    result.assert_outcomes(failed=1, skipped=1, errors=1)
    result.stdout.fnmatch_lines(["*not permitted: no time*"])


@pytest.mark.parametrize("in_ci", [False, True])
def test_what_is_not_installed_is_skipped_outside_ci(
    in_ci: bool, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether a file imports it or a test needs it."""
    monkeypatch.setattr("conftest.PERMITTED_SKIPS", ("not installed: ",) * (not in_ci))
    pytester.makepyfile(
        test_importing="import no_such_package\n",
        test_needing="from support.skips import needs\n@needs('no_such_package')\ndef test_it(): pass\n",
    )
    result = pytester.runpytest_inprocess(
        "-p", "conftest", "-p", "no:cacheprovider", "-rs", "--continue-on-collection-errors"
    )
    if in_ci:
        result.assert_outcomes(errors=2)
    else:
        result.assert_outcomes(skipped=2)
        result.stdout.fnmatch_lines(["*test_importing.py*not installed: no_such_package"])
