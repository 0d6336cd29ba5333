"""The errors a caller can meet, and nothing else.

OmnifillError
├── UserError            the caller's input is wrong; the command line exits with status 2
│   ├── DataError        a file, row, column or value
│   │   └── ValueRefused one value that its field cannot hold
│   ├── RecipeError      a setting: unknown, out of range, or at odds with another
│   ├── RequestError     a request to a trained model: an unknown field, an impossible combination
│   └── RunError         a run folder: missing, damaged, in use, a newer version, a full disk
├── TrainingStopped      training cannot go on (a loss that is not finite); exits with status 1
└── Interrupted          the user or the system asked to stop; the state is saved; status 130

A message says what is wrong, where, what is allowed and what to do.
"""

from collections.abc import Iterable
from difflib import get_close_matches


class OmnifillError(Exception):
    """Base of every error that this package raises on purpose."""


class UserError(OmnifillError):
    """The input is wrong; the message is complete and needs no traceback."""


class DataError(UserError):
    """Something about a file, a row, a column or a value."""


class ValueRefused(DataError):
    """One value that its field cannot hold; the caller adds where it stands."""


class RecipeError(UserError):
    """A setting is unknown, out of range or at odds with another."""


class RequestError(UserError):
    """A request that this model cannot serve."""


class RunError(UserError):
    """A run folder is missing, damaged, in use, or written by a newer version."""


class TrainingStopped(OmnifillError):
    """Training cannot go on; the last good checkpoint stands."""


class Interrupted(OmnifillError):
    """Asked to stop (Ctrl-C, SIGTERM); everything up to here is saved."""


def check_kind(name: str, value: object, kinds: type | tuple[type, ...], allowed: str) -> None:
    """RequestError unless the value is of one of the kinds; True and False are no numbers here."""
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in _all(kinds)):
        what = type(value).__name__
        shown = f" = {value!r}" if isinstance(value, (str, int, float)) else ""
        raise RequestError(f"{name}{shown}: is a {what}, and must be {allowed}")


def _all(kinds: type | tuple[type, ...]) -> tuple[type, ...]:
    return kinds if isinstance(kinds, tuple) else (kinds,)


def unknown_name(kind: str, name: str, known: Iterable[str]) -> str:
    """The sentence for a name that does not exist, with the nearest one that does."""
    names = sorted(known)
    near = get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(names) or 'none'}"
    return f"no {kind} called {name!r}; {hint}"
