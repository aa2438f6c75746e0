"""Modules that take another library, where that is not installed: their public names as they are written.

A skeleton has the signatures and docstrings of a module, and no code: all that a reference needs.
"""

import ast
import importlib
import sys
import types

import api_pages

from xent._docs import documented

DECORATORS = {"property", "classmethod", "staticmethod", "documented"}


class Written:
    """A default that is no literal, shown as it is written."""

    def __init__(self, text):
        self.text = text

    def __repr__(self):
        return self.text


class _Bones(ast.NodeTransformer):
    """Leave signatures and docstrings; neither annotations nor bases, which may be the library's."""

    def visit_FunctionDef(self, node):
        arguments = node.args
        for argument in ast.walk(arguments):
            if isinstance(argument, ast.arg):
                argument.annotation = None
        arguments.defaults = [_default(value) for value in arguments.defaults]
        arguments.kw_defaults = [value and _default(value) for value in arguments.kw_defaults]
        node.returns = None
        node.decorator_list = [d for d in node.decorator_list if ast.unparse(d) in DECORATORS]
        node.body = node.body[:1] if ast.get_docstring(node) else [ast.Pass()]
        return node

    def visit_ClassDef(self, node):
        methods = [self.visit(part) for part in node.body if isinstance(part, ast.FunctionDef)]
        node.body = [*(node.body[:1] if ast.get_docstring(node) else [ast.Pass()]), *methods]
        node.bases, node.keywords, node.decorator_list = [], [], []
        return node


def _default(value):
    try:
        ast.literal_eval(value)
    except ValueError:
        return ast.Call(ast.Name("Written", ast.Load()), [ast.Constant(ast.unparse(value))], [])
    return value


def skeleton(name):
    """Return a module of that name with the functions and classes of its __all__."""
    tree, names = api_pages.tree(name), api_pages.modules()[name]
    kept = [node for node in tree.body if getattr(node, "name", None) in names]
    body = [ast.fix_missing_locations(_Bones().visit(node)) for node in kept]
    module = types.ModuleType(name, ast.get_docstring(tree))
    vars(module).update(Written=Written, documented=documented, __all__=names)
    exec(compile(ast.Module(body, []), f"<{name}>", "exec"), vars(module))
    return module


def stand_in():
    """Have every module of the reference that cannot be imported here replaced by its skeleton."""
    for name in api_pages.modules():
        try:
            importlib.import_module(name)
        except ImportError:
            sys.modules[name] = skeleton(name)
            setattr(sys.modules["xent"], name.rpartition(".")[2], sys.modules[name])
