"""The examples in the pages of docs/ run, and what the pages and those beside them link to is there."""

import doctest
import re

import pytest
from helpers import ROOT

PAGES = sorted((ROOT / "docs").glob("*.md"))
OTHERS = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "bench/README.md")]
ADAPTERS = {"dask", "jax", "torch"}  # pages of modules that need another library, of the same name
pytestmark = pytest.mark.skipif(not PAGES, reason="there is no docs/ beside an installed test suite")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_examples(page):
    if page.stem in ADAPTERS:
        pytest.importorskip(page.stem)
    flags = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    result = doctest.testfile(str(page), module_relative=False, optionflags=flags, encoding="utf-8")
    assert result.failed == 0
    assert result.attempted > 0 or "```python\n>>>" not in page.read_text(encoding="utf-8")


OTHERS += [ROOT / name for name in ("RELEASING.md", "SECURITY.md", "CODE_OF_CONDUCT.md")]


@pytest.mark.parametrize("page", [*PAGES, *OTHERS], ids=lambda page: str(page.relative_to(ROOT)))
def test_links(page):
    for target in re.findall(r"\]\(([^)#:]+)[#)]", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target
