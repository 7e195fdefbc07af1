"""The one base error; every message says what, where, what was got, what is allowed and what to do next."""

import difflib
from collections.abc import Iterable


class ScaffoldError(Exception):
    """Base of every error that ScaffoldLab raises on purpose; the command line prints it without a traceback."""


def unknown_name(kind: str, got: str, allowed: Iterable[str], where: str = "") -> ScaffoldError:
    """Returns the error for a name outside a closed set, with the nearest allowed name.

    Args:
        kind: What the name names, e.g. ``"task"``.
        got: The name that was given.
        allowed: The names that exist.
        where: File or field in which it was found, may be empty.
    """
    names = sorted(allowed)
    near = difflib.get_close_matches(got, names, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    place = f"{where}: " if where else ""
    return ScaffoldError(f"{place}unknown {kind} {got!r}.{hint} Allowed: {', '.join(names) or 'none'}.")
