"""What a process of its own may take that works on somebody else's data."""

from __future__ import annotations

from contextlib import suppress


def limit(memory: int, seconds: int | None = None) -> None:
    """Have the system stop this process when it takes more bytes, or more seconds of the processor.

    Windows knows neither, macOS not the first: there is only the time that its parent waits.
    """
    try:
        import resource
    except ImportError:
        return
    wishes = [(resource.RLIMIT_AS, memory)]
    if seconds is not None:
        wishes.append((resource.RLIMIT_CPU, seconds))
    for kind, most in wishes:
        with suppress(ValueError, OSError):
            resource.setrlimit(kind, (most, most))
