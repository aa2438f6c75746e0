"""Stand-ins for libraries that are not installed where the site is built: modules that use them can be read.

Every name in a stand-in is a class, of which subclasses, calls and attributes may be had.
"""

import importlib.machinery
import importlib.util
import sys
import types


class _Anything(type):
    """What stands for a class, a function, a decorator or a number of an absent library."""

    def __getattr__(cls, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return _Anything(name, (), {})

    def __call__(cls, *args, **options):
        """A public function keeps its signature and docstring under a decorator."""
        first = args[0] if args else None
        is_public = isinstance(first, types.FunctionType) and not first.__name__.startswith("_")
        return first if is_public else cls


class _Finder:
    def __init__(self, libraries):
        self.libraries = libraries

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.libraries:
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec):
        module = types.ModuleType(spec.name)
        module.__getattr__ = lambda name: getattr(_Anything(name, (), {}), name)
        return module

    def exec_module(self, module):
        pass


def stand_in(*libraries):
    """Have those of the libraries that are not installed imported as stand-ins from now on."""
    absent = {name for name in libraries if importlib.util.find_spec(name) is None}
    if absent:
        sys.meta_path.append(_Finder(absent))
