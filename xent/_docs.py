"""Docstrings that share parameters: each stands once, and is filled in where a docstring names it."""


def documented(**parts):
    """Return a decorator that replaces ``<name>`` in a docstring by the part of that name."""

    def fill(function):
        if function.__doc__:  # None under python -OO
            for name, text in parts.items():
                function.__doc__ = function.__doc__.replace(f"<{name}>", text)
        return function

    return fill
