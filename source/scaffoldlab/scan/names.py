"""Names of scanned things: what USD prims and file systems take."""

import re

from scaffoldlab.errors import ScaffoldError


def good_name(text: str) -> str:
    """The usable name that is nearest to a text."""
    good = re.sub(r"\W+", "_", text, flags=re.ASCII).strip("_") or "object"
    return (f"_{good}" if good[0].isdigit() else good)[:64]


def refuse_name(name: str, where: str = "--name") -> None:
    """Stops at a name that USD and file systems do not take.

    Raises:
        ScaffoldError: With ``where`` it was given, and a name that would do.
    """
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,63}", name):
        raise ScaffoldError(
            f"{where} {name!r}: allowed: letters, digits and underscores, not first a digit; {good_name(name)!r} would "
            "do."
        )
