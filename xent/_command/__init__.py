"""The command ``python -m xent evaluate`` and ``compare``: options, errors, and how it ends.

arrays.py reads files; pieces.py cuts them, reads ahead and adds up; commands.py computes and prints;
details.py has what plots need of each position; report.py draws them. Public functions of xent alone are
called, and ``import xent`` imports none of this.
"""

import argparse
import contextlib
import logging
import math
import os
import re
import sys
import warnings

import xent

from .arrays import InputError
from .commands import Compare, Evaluate, run

# Exit statuses of what was ended by Ctrl-C, or as nobody reads on: 128 and the numbers of SIGINT and SIGPIPE.
INTERRUPTED, UNREAD = 130, 141

FILES = """
LOGITS, LABELS and other FILEs are .npy, .npz, .safetensors, zarr (.zarr), HDF5 (.h5, .hdf5), or a folder or
quoted glob of shards, which are joined along the first axis in natural order (shard2 before shard10). Where a
file holds several arrays, FILE:NAME says which. Labels and other small arrays may be text (.txt, .csv), or -
for the standard input. The exit status is 0, 2 for what cannot be read, computed or written, 130 after
Ctrl-C.
"""


def main(argv=None):
    """Run the command, and return its exit status."""
    options = _parser().parse_args(argv)
    try:
        with contextlib.ExitStack() as files:
            complete = run(options.command(options, files))
    except InputError as error:
        print(f"xent: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("xent: interrupted before there was a result", file=sys.stderr)
        return INTERRUPTED
    return 0 if complete else INTERRUPTED


def run_as_process(printing=main):
    """Run the command, or what else prints, as all that this process does, and return its exit status."""
    try:
        status = _status(printing)
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as error:
        status = _failed(error)
    if status and "zarr" in sys.modules:
        # what zarr has begun, on a loop of its own, ends with the process: no pages about each task
        logging.getLogger("asyncio").disabled = True
        sys.unraisablehook = lambda _: None
        warnings.simplefilter("ignore")
    return status


def _status(printing):
    try:
        return printing()
    except SystemExit as end:  # by argparse, which has printed too
        return end.code


def _failed(error):
    """Return the exit status where a folder cannot be read, or the standard output takes nothing more."""
    if error.filename is None:
        # Python writes what is left at its end, which must not fail again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if isinstance(error, BrokenPipeError):
        return UNREAD
    what = f"{error.filename} cannot be read"
    what = "the standard output cannot be written" if error.filename is None else what
    print(f"xent: error: {what}: {error.strerror}", file=sys.stderr)
    return 2


def _parser():
    parser = argparse.ArgumentParser(
        prog="python -m xent",
        description="Without arguments: how xent was built and what it uses here.",
    )
    parser.add_argument("--version", action="version", version=f"xent {xent.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    evaluate = _command(
        commands, Evaluate, "evaluate", "how well logits predict labels: loss, accuracy, calibration"
    )
    evaluate.add_argument(
        "logits", metavar="LOGITS", help="(..., classes), float64, float32, float16 or bfloat16"
    )
    evaluate.add_argument(
        "labels", metavar="LABELS", help="integers, of the shape of the logits without classes"
    )
    evaluate.add_argument("--top-k", type=int, action="append", metavar="K", help="several times; 1 and 5")
    evaluate.add_argument("--calibration-bins", type=int, default=15, metavar="N", help="15 unless given")
    evaluate.add_argument("--sample-weight", metavar="FILE", help="a factor for each position")
    evaluate.add_argument(
        "--prior", metavar="FILE", help="a frequency for each class, whose logarithm is added"
    )
    evaluate.add_argument(
        "--groups", metavar="FILE", help="the number of the sequence that each position is of"
    )
    evaluate.add_argument(
        "--bytes", type=_above_zero, metavar="N", help="bytes of the text, for bits per byte"
    )
    evaluate.add_argument(
        "--per-class", action="store_true", help="precision and recall of each class, in --json"
    )
    evaluate.add_argument("--confusion", action="store_true", help="the confusion matrix, in --json")

    compare = _command(
        commands, Compare, "compare", "how far predictions B, of a quantised model, are from A"
    )
    compare.add_argument("logits_a", metavar="A", help="logits of the model that is measured by")
    compare.add_argument("logits_b", metavar="B", help="logits of the other, of the same shape")
    compare.add_argument(
        "--labels", metavar="L", help="labels, for losses and changes of their probabilities"
    )
    return parser


def _command(commands, command, name, purpose):
    """Return the parser of a command, with the options that both have."""
    parser = commands.add_parser(
        name, help=purpose, description=purpose[0].upper() + purpose[1:] + ".", epilog=FILES
    )
    parser.set_defaults(command=command)
    add = parser.add_argument
    add("--axis", type=int, default=-1, metavar="N", help="axis of the classes; the last")
    add(
        "--ignore-index",
        type=int,
        action="append",
        metavar="N",
        help="several times; a label to ignore, -100",
    )
    add("--base", type=float, metavar="B", help="2 for bits, 10 for dits; nats unless given")
    add("--temperature", type=float, default=1.0, metavar="T", help="logits are divided by it")
    add("--bfloat16", action="store_true", help="integers of 16 bits are the bits of bfloat16")
    add(
        "--memory",
        type=_bytes,
        default="512M",
        metavar="SIZE",
        help="limit of what is read, as 64M or 2G; 512M",
    )
    add("--json", action="store_true", help="print JSON, not a table")
    add("--report", metavar="FILE", help="write a page with plots, one .html that needs nothing else")
    return parser


def _above_zero(text):
    """Return a number that may be divided by."""
    with contextlib.suppress(ValueError):
        number = float(text)
        if 0.0 < number < math.inf:
            return number
    raise argparse.ArgumentTypeError(f"{text!r} is no number greater than 0")


def _bytes(text):
    """Return the number of bytes that are meant by 1000, 64M, 64MiB or 1.5G."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([kmgt]?)(i?b)?", text.strip().lower())
    if not match:
        raise argparse.ArgumentTypeError(f"{text!r} is no size: give it as 64M or 2G")
    return int(float(match[1]) * 1024 ** " kmgt".index(match[2] or " "))
