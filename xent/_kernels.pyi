"""The compiled bridge is private: its functions are described in _kernels.pyx alone."""

from typing import Any

def __getattr__(name: str) -> Any: ...
