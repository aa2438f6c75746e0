"""What the site needs beside its pages: formulas, links from docstrings, and pages as the site shows them.

conf.py hands this to Sphinx. The pages are written to be read in the repository, without any of it.
"""

import functools
import re
from pathlib import Path

import api_pages
from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx import addnodes
from sphinx.util.docutils import SphinxRole

# ---- names in docstrings -----------------------------------------------------------------------------------


class Name(SphinxRole):
    """What stands in single backticks: a link if it is a public name, else code."""

    def run(self):
        code = nodes.literal(self.text, self.text)
        around = self.env.ref_context.get("py:module")
        for target in (f"{around}.{self.text}", f"xent.{self.text}", self.text):
            if target in public_names():
                where = {"refdomain": "py", "reftype": "obj", "reftarget": target, "refexplicit": True}
                return [addnodes.pending_xref("", code, refdoc=self.env.docname, refwarn=True, **where)], []
        return [code], []


@functools.cache
def public_names():
    """The public names of all modules, and the modules."""
    found = api_pages.modules()
    return {f"{module}.{name}" for module, names in found.items() for name in names} | set(found)


# ---- formulas: MathML, which browsers draw without a script or a network -----------------------------------


def mathml(formula, as_block=False):
    """MathML of a formula, with the space after names of functions that LaTeX puts there."""
    space = '<mspace width="0.17em"></mspace>'
    text = tex2mathml(formula, as_block=as_block)
    return re.sub(r"(?<=<mo>&ApplyFunction;</mo>)(?!\s*<mo[^>]*>\()", space, text)


def inline_math(writer, node):
    writer.body.append(mathml(node.astext()))
    raise nodes.SkipNode


def block_math(writer, node):
    formula = mathml(node.astext(), as_block=True)
    writer.body.append(f'<div class="formula" tabindex="0">{formula}</div>\n')
    raise nodes.SkipNode


# ---- examples ----------------------------------------------------------------------------------------------


def arguments(gallery, script):
    """The command line of an example that the gallery runs."""
    given = {
        "demo.py": ["--out-dir", str(Path(__file__).parents[1] / "build" / "demo")],
        "softmax_regression.py": ["--repeats", "1", "--splits", "2"],
    }
    return given.get(Path(script["src_file"]).name, [])


# ---- pages as the site shows them --------------------------------------------------------------------------


def read_page(app, page, source):
    """Before a page is parsed: the sections of the guide, one title for each page, no blank last lines."""
    source[0] = source[0].replace("\n\n```\n", "\n```\n")  # which doctest wants
    if page == "README":
        source[0] += sections(source[0])
    source[0] = one_title(source[0]) if page == "performance" else source[0]


def sections(text):
    """Hidden tables of contents of the pages in the tables of docs/README.md, under their headings."""
    found = ""
    for heading, rows in re.findall(r"^\| (.*?) \| \|\n\| --- \| --- \|\n((?:\|.*\n)+)", text, re.M):
        pages = re.findall(r"^\| \[.*?\]\((\w+)\.md\)", rows, re.M)
        if pages:
            names = "\n".join(pages)
            found += f"\n```{{toctree}}\n:hidden:\n:caption: {heading}\n\n{names}\n```\n"
    return found


def one_title(text):
    """The second and later titles of a page, as its sections, and their sections below them."""
    first, *parts = re.split(r"^(?=# )", text.removeprefix("# "), flags=re.M)
    return "# " + first + "".join(re.sub(r"^(#{1,2}) ", r"#\1 ", part, flags=re.M) for part in parts)


def fold_tables(app, doctree, page):
    """Long tables of measurements are opened by a click."""
    if page != "performance":
        return
    for table in list(doctree.findall(nodes.table)):
        if len(list(table.findall(nodes.row))) > 4:
            place, count = table.parent.index(table), len(list(table.findall(nodes.row))) - 1
            before = f'<details class="folded"><summary>The table: {count} rows</summary>'
            table.parent.insert(place + 1, nodes.raw("", "</details>", format="html"))
            table.parent.insert(place, nodes.raw("", before, format="html"))
