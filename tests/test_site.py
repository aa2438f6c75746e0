"""The site of docs/ is whole: every public name, page and example. `make site` checks what was built."""

import inspect
import re

import pytest
from helpers import ROOT

import xent

DOCS = ROOT / "docs"
pytestmark = pytest.mark.skipif(not DOCS.exists(), reason="there is no docs/ beside an installed test suite")


def test_reference_has_every_name(monkeypatch, tmp_path):
    """Each module of the package with public names, and each of these names."""
    monkeypatch.syspath_prepend(str(DOCS))
    import api_pages

    api_pages.write(tmp_path)
    found = api_pages.modules()
    texts = {path.stem: path.read_text(encoding="utf-8") for path in (ROOT / "xent").glob("[a-z]*.py")}
    adapters = {f"xent.{name}" for name, text in texts.items() if "\n__all__ = [" in text}
    assert set(found) == {"xent", "xent.reference"} | adapters
    assert set(found["xent"]) == set(xent.__all__) - {"reference"}
    assert set(found["xent.reference"]) == set(xent.reference.__all__)
    index = (tmp_path / "index.rst").read_text(encoding="utf-8")
    for module, names in found.items():
        page = (tmp_path / f"{module}.rst").read_text(encoding="utf-8")
        shown = re.findall(r"^(?:   |\.\. autofunction:: |\.\. data:: )(\w+)$", page, re.M)
        assert sorted(shown) == sorted(names)
        assert f"   {module}\n" in index


def test_skeleton(monkeypatch):
    """A module whose library is not there is shown by its signatures and docstrings."""
    monkeypatch.syspath_prepend(str(DOCS))
    import skeleton

    module = skeleton.skeleton("xent.torch")
    assert module.__doc__.startswith("Losses of xent for PyTorch")
    assert all(getattr(module, name).__doc__ for name in module.__all__)
    expected = "(student_logits, teacher_logits, *, dim=None, temperature=1.0, reduction='mean')"
    assert str(inspect.signature(module.distillation_loss)) == expected
    assert "student_logits : Tensor of float, shape (..., C, ...)\n" in module.distillation_loss.__doc__
    assert callable(module.CrossEntropyLoss.forward)


@pytest.mark.parametrize("name", ["xent.jax", "xent.torch"])
def test_parameters_of_adapters(name, monkeypatch):
    """Each is described, by an entry of _docs.py or here, in the words of the library."""
    monkeypatch.syspath_prepend(str(DOCS))
    import skeleton

    module = skeleton.skeleton(name)
    functions = [value for value in map(vars(module).get, module.__all__) if inspect.isfunction(value)]
    assert len(functions) >= 6
    for function in functions:
        text = inspect.getdoc(function)
        assert not re.search(r"^ *<[\w ,]+>$", text, re.M), "an entry that was not put in"
        assert ("Tensor" in text, "array_like" in text) == (name == "xent.torch", name == "xent.jax")
        described = re.search(r"\nParameters\n-+\n(.*?)\n\nReturns\n", text, re.S)[1]
        names = re.findall(r"^(\w[\w, ]*?)(?: : .*)?$", described, re.M)
        assert set(re.findall(r"\w+", " ".join(names))) == set(inspect.signature(function).parameters)


def test_guide_has_every_page():
    """The tables of docs/README.md are the navigation of the site."""
    text = (DOCS / "README.md").read_text(encoding="utf-8")
    linked = re.findall(r"^\| \[.*?\]\((\w+)\.md\)", text, re.M)
    pages = {path.stem for path in DOCS.glob("*.md")} - {"README", "index", "contributing"}
    assert set(linked) == pages
    assert len(linked) == len(pages)


@pytest.mark.parametrize("example", sorted((ROOT / "examples").glob("*.py")), ids=lambda path: path.name)
def test_example_has_a_title(example):
    """The gallery takes title and text from the docstring."""
    first, title, line = example.read_text(encoding="utf-8").split("\n")[:3]
    assert (first, line) == ('"""', "=" * len(title))
