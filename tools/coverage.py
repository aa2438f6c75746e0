"""Which lines of the C ran in the tests, and which decisions went both ways, as gcov counted.

    python tools/coverage.py build/coverage-objects [--missing]

A line of a header counts once, however many types and instruction sets compile it, and however often it is
inlined: it ran if it did for one of these. A line that decides went both ways if at one of these the jump was
taken, and at one it was not. With --missing, lines follow that never ran, or always went the same way.
"""

import argparse
import json
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
C = "xent/csrc/"
BRACES = ("{", "}", "};")  # which gcov counts as lines, as if the end of a function had to run


def reports(folder):
    """Yield what gcov says of each object file of which something ran."""
    for data in sorted(Path(folder).resolve().rglob("*.gcda")):
        done = subprocess.run(
            ["gcov", "-j", "-t", "-b", str(data)], capture_output=True, cwd=ROOT, check=True
        )
        for line in done.stdout.splitlines():
            yield json.loads(line)


def merged(folder):
    """Return {file: {line: [count, {whether it is the way without a jump: count}]}}, the largest of all."""
    files = defaultdict(lambda: defaultdict(lambda: [0, defaultdict(int)]))
    for report in reports(folder):
        for file in report["files"]:
            name = file["file"]
            name = str(Path(name).relative_to(ROOT)) if name.startswith(str(ROOT)) else name
            if not name.startswith(C):
                continue
            text = (ROOT / name).read_text(encoding="utf-8").splitlines()
            for line in file["lines"]:
                if text[line["line_number"] - 1].strip() in BRACES:
                    continue
                found = files[name][line["line_number"]]
                found[0] = max(found[0], line["count"])
                for branch in line["branches"]:
                    way = branch["fallthrough"]
                    found[1][way] = max(found[1][way], branch["count"])
    return files


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
        never = [n for n, (count, _) in lines.items() if count == 0]
        deciding = [n for n, (_, ways) in lines.items() if ways]
        one_way = [n for n in deciding if lines[n][0] > 0 and not all(lines[n][1].values())]
        both = len(deciding) - len(one_way) - sum(n in deciding for n in never)
        found = len(lines) - len(never), len(lines), both, len(deciding)
        totals = [a + b for a, b in zip(totals, found, strict=True)]
        print("{:44} lines {:4} of {:4}  both ways {:4} of {:4}".format(name, *found))
        if given.missing:
            print(f"    never: {ranges(sorted(never))}\n    one way: {ranges(sorted(one_way))}")
    ran, lines, both, deciding = totals
    print(f"lines {ran} of {lines}, {ran / lines:.1%}; both ways {both} of {deciding}, {both / deciding:.1%}")


if __name__ == "__main__":
    main()
