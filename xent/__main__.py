"""``python -m xent``: print how xent was built and what it uses here; with arguments, a command on files."""

import sys

from ._command import main, run_as_process
from ._config import show_config

if __name__ == "__main__":
    sys.exit(run_as_process(show_config if len(sys.argv) == 1 else main))
