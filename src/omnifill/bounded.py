"""What a process of its own may take that works on somebody else's data.

Windows knows no such limits, macOS none of memory: there is only the time that its parent waits.
"""

from __future__ import annotations

import math
import subprocess
import sys
import time
from contextlib import suppress
from typing import Any

APART: dict[str, Any]
if sys.platform == "win32":
    APART = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
else:
    APART = {"start_new_session": True}
"""How it is started, so that Ctrl-C at a terminal is its parent's alone."""


def limit(memory: int) -> None:
    """Have the system stop this process when it takes more bytes."""
    with suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))


def allow(seconds: int) -> None:
    """Have the system stop this process when it takes that many more seconds of the processor."""
    with suppress(ImportError, ValueError, OSError):
        import resource

        _, most = resource.getrlimit(resource.RLIMIT_CPU)
        resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(time.process_time()) + seconds, most))
