"""The faults, by what they hit. Each is a function whose docstring says what is done."""

from importlib import import_module

_MODULES = ("workers", "zombies", "drivers", "stops", "nodes", "answers", "outages", "rows")


def load_all() -> None:
    """Import every fault, so that ``fault.FAULTS`` holds them in the order of the modules."""
    for name in _MODULES:
        import_module(f"{__name__}.{name}")
