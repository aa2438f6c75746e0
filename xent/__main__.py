"""``python -m xent``: print how xent was built and what it uses here; with arguments, a command on files."""

import sys

from ._config import show_config

if __name__ == "__main__":
    if len(sys.argv) == 1:
        show_config()
    else:
        from ._command import run_as_process

        sys.exit(run_as_process())
