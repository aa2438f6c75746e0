"""Which lines and branches of the C a run of the tests went through: what gcov counted, a line for each file.

    python tools/coverage.py build/coverage-objects [--missing]

A line of a header counts once, however many types and instruction sets compile it: it ran if it did for one
of these, and so did each of its branches. With --missing, lines that never ran follow, and those of which a
branch was never taken.
"""

import argparse
import json
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
C = "xent/csrc/"


def reports(folder):
    """Yield what gcov says of each object file of which something ran."""
    for data in sorted(Path(folder).resolve().rglob("*.gcda")):
        done = subprocess.run(
            ["gcov", "-j", "-t", "-b", str(data)], capture_output=True, cwd=ROOT, check=True
        )
        for line in done.stdout.splitlines():
            yield json.loads(line)


def merged(folder):
    """Return {file: {line: [count, {branch: count}]}}, each the largest of all object files."""
    files = defaultdict(lambda: defaultdict(lambda: [0, defaultdict(int)]))
    for report in reports(folder):
        for file in report["files"]:
            name = file["file"]
            name = str(Path(name).relative_to(ROOT)) if name.startswith(str(ROOT)) else name
            if not name.startswith(C):
                continue
            for line in file["lines"]:
                found = files[name][line["line_number"]]
                found[0] = max(found[0], line["count"])
                own = [b for b in line["branches"] if not b["throw"]]
                for k, branch in enumerate(own):  # as many for all that compile the line alike
                    key = len(own), k
                    found[1][key] = max(found[1][key], branch["count"])
    return files


def taken(branches):
    """Return how many branches of a line were taken, and how many there are, where it compiles to most."""
    most = max((n for n, _ in branches), default=0)
    return sum(branches[most, k] > 0 for k in range(most)), most


def ranges(numbers):
    """Return numbers in order as text, neighbours as a range."""
    pieces = []
    for n in numbers:
        if pieces and n == pieces[-1][1] + 1:
            pieces[-1][1] = n
        else:
            pieces.append([n, n])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in pieces)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", help="with the object files and what ran of them")
    parser.add_argument("--missing", action="store_true", help="list lines and branches that never ran")
    given = parser.parse_args()
    totals = [0] * 4
    files = merged(given.folder)
    if not files:
        sys.exit(f"nothing has run that was compiled into {given.folder}")
    for name, lines in sorted(files.items()):
        ran = sum(count > 0 for count, _ in lines.values())
        pairs = {n: taken(branches) for n, (_, branches) in lines.items()}
        some, all_ = (sum(pair[k] for pair in pairs.values()) for k in (0, 1))
        totals = [a + b for a, b in zip(totals, (ran, len(lines), some, all_), strict=True)]
        print(f"{name:44} lines {ran:4} of {len(lines):4}  branches {some:4} of {all_:4}")
        if given.missing:
            never = sorted(n for n, (count, _) in lines.items() if count == 0)
            partly = sorted(n for n, (a, b) in pairs.items() if a < b and lines[n][0] > 0)
            print(f"    lines {ranges(never)}\n    branches {ranges(partly)}")
    ran, lines, some, branches = totals
    print(f"lines {ran} of {lines}, {ran / lines:.1%}; branches {some} of {branches}, {some / branches:.1%}")


if __name__ == "__main__":
    main()
