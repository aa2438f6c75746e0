"""Every implementation of every operator that is measured: xent, and its peers.

- libraries.py imports the libraries, and gives each as many threads as xent has.
- base.py says what a peer is, and makes the calls that are timed.
- adapters.py says how each library is used at its best: one class each.
- One file for each family of operators says how each library spells them, and has the table `PEERS`.

To add an operator: its name in `OPERATORS` of a bench_*.py, and a method in each class of the family's file.
To add a library: a class in adapters.py, and a class in the file of each family that it has.
"""

from . import libraries as libraries  # before any library that it sets up

# isort: split
from .base import names as names
from .base import prepare as prepare
