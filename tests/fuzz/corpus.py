"""What the guided fuzzer has found worth keeping, an input a line, in corpus.txt; and as a folder of files.

python tests/fuzz/corpus.py --unpack FOLDER
python tests/fuzz/corpus.py --pack FOLDER
"""

import argparse
from pathlib import Path

KEPT = Path(__file__).with_name("corpus.txt")


def unpack(folder):
    for number, line in enumerate(KEPT.read_text().split()):
        (folder / f"{number:05}").write_bytes(bytes.fromhex(line))


def pack(folder):
    inputs = sorted({path.read_bytes() for path in folder.iterdir()})
    KEPT.write_text("".join(f"{data.hex()}\n" for data in inputs if data))
    print(f"{len(inputs)} inputs, {KEPT.stat().st_size} bytes")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Put corpus.txt into a folder, or a folder into it.")
    way = parser.add_mutually_exclusive_group(required=True)
    way.add_argument("--unpack", type=Path, metavar="FOLDER")
    way.add_argument("--pack", type=Path, metavar="FOLDER")
    arguments = parser.parse_args()
    if arguments.unpack:
        arguments.unpack.mkdir(parents=True, exist_ok=True)
        unpack(arguments.unpack)
    else:
        pack(arguments.pack)
