"""``python -m xent``: print how xent was built and what it uses here."""

from ._config import show_config

show_config()
