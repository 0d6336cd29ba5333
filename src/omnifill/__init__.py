"""Omnifill: generative models of your own records.

The names below are the whole public API; `import omnifill` alone imports nothing heavy.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from omnifill.uncollected import uncollected

if TYPE_CHECKING:
    from omnifill.api import Model, import_checkpoint, inspect, load, train
    from omnifill.types import Partial, Sound

__version__ = "0.1.0"
__all__ = ["Model", "Partial", "Sound", "__version__", "import_checkpoint", "inspect", "load",
           "train"]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Import the API on first use, so that the command line's help needs no torch."""
    if name in ("Model", "api", "import_checkpoint", "inspect", "load", "train"):
        with uncollected():
            api = import_module("omnifill.api")
        return api if name == "api" else getattr(api, name)
    if name in ("Partial", "Sound"):
        return getattr(import_module("omnifill.types"), name)
    raise AttributeError(f"module 'omnifill' has no attribute {name!r}")
