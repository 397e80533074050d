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
