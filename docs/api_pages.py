"""Writes the pages of the API reference: one for each module, of which autosummary makes one for each name.

A module is in the reference if it has an __all__: there is no list to keep.
"""

import ast
import re
from pathlib import Path

import xent

PACKAGE = Path(__file__).resolve().parents[1] / "xent"

# Families in the order in which they are read; others follow.
FAMILIES = [
    *("softmax", "sigmoid", "tokens", "cross_entropy", "nll", "second_order", "linear", "sampled"),
    *("sigmoid_cross_entropy", "probabilities", "divergence", "sparse_distillation", "squared_error"),
    *("evaluate", "conv", "pool"),
]
# Public classes that private modules define for a family.
BELONGS = {"_evaluation": "evaluate", "_prepared": "conv"}


def modules():
    """Return module -> its public names: xent, its reference, and every file of xent that has an __all__."""
    files = {"xent", "xent.reference", *(f"xent.{path.stem}" for path in PACKAGE.glob("[a-z]*.py"))}
    found = {name: _all_of(name) for name in sorted(files)}
    found = {name: names for name, names in found.items() if names}
    return {name: [k for k in names if f"{name}.{k}" not in found] for name, names in found.items()}


def tree(module):
    """A module as it is written: it is not imported, as that may take another library."""
    path = PACKAGE.parent / module.replace(".", "/")
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return ast.parse(path.read_text(encoding="utf-8"))


def _all_of(module):
    """The list __all__ of a module; None if it has none."""
    for node in tree(module).body:
        if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == ["__all__"]:
            return ast.literal_eval(node.value)
    return None


def write(folder):
    """Write the pages of the API reference; autosummary adds one for each name of a module."""
    folder.mkdir(exist_ok=True)
    pages = {"index": _index()}
    for module, names in modules().items():
        body = {"xent": _families, "xent.reference": _on_one_page}.get(module, _table)
        pages[module] = _page(module, body(module, names))
    for name, text in pages.items():
        path = folder / f"{name}.rst"
        if not path.exists() or path.read_text(encoding="utf-8") != text:  # else Sphinx reads it again
            path.write_text(text, encoding="utf-8")


def _title(text, line="="):
    return f"{text}\n{line * len(text)}\n\n"


def _index():
    entries = "".join(f"   {name}\n" for name in modules())
    intro = "Every public name, with its formula, parameters, errors, source and an example.\n\n"
    return _title("API reference") + intro + f".. toctree::\n   :maxdepth: 1\n\n{entries}"


def _page(module, body):
    summary = ast.get_docstring(tree(module)).splitlines()[0]
    return _title(module) + f".. module:: {module}\n\n{summary}\n\n{body}"


def _table(module, names):
    entries = "".join(f"   {name}\n" for name in names)
    return f".. autosummary::\n   :toctree:\n   :nosignatures:\n\n{entries}\n"


def _families(module, names):
    """Tables of what each file of the package defines, under what its docstring begins with."""
    groups = {name: [] for name in FAMILIES}
    rest = []
    for name in names:
        home = getattr(getattr(xent, name), "__module__", "_").rpartition(".")[2]
        home = BELONGS.get(home, home)
        (rest if home.startswith("_") else groups.setdefault(home, [])).append(name)
    rest.remove("__version__")
    text = ""
    for home, members in groups.items():
        summary = ast.get_docstring(tree(f"{module}.{home}"))
        text += _title(re.match(r"[^,.:(]*", summary)[0].strip(), "-") + _table(module, members)
    text += _title("Threads, memory, build", "-") + _table(module, rest)
    return text + ".. data:: __version__\n   :type: str\n\n   The version.\n"


def _on_one_page(module, names):
    rest = ast.get_docstring(tree(module)).partition("\n")[2]
    return rest + "\n\n" + "".join(f".. autofunction:: {name}\n" for name in names)
