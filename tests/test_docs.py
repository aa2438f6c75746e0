"""The examples in the pages of docs/ run, and what the pages and those beside them link to is there."""

import doctest
import re

import pytest
from helpers import ROOT

PAGES = sorted((ROOT / "docs").glob("*.md"))
BESIDE = "README CONTRIBUTING CHANGELOG RELEASING SECURITY CODE_OF_CONDUCT bench/README".split()
OTHERS = [ROOT / f"{name}.md" for name in BESIDE]
ADAPTERS = {"torch"}  # pages of modules that need another library, of the same name
pytestmark = pytest.mark.skipif(not PAGES, reason="there is no docs/ beside an installed test suite")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_examples(page):
    if page.stem in ADAPTERS:
        pytest.importorskip(page.stem)
    flags = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    result = doctest.testfile(str(page), module_relative=False, optionflags=flags, encoding="utf-8")
    assert result.failed == 0
    assert result.attempted > 0 or "```python\n>>>" not in page.read_text(encoding="utf-8")


@pytest.mark.parametrize("page", [*PAGES, *OTHERS], ids=lambda page: str(page.relative_to(ROOT)))
def test_links(page):
    for target in re.findall(r"\]\(([^)#:]+)[#)]", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target
