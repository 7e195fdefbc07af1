"""What an examination of scanned data has found: how bad it is, what was seen, what to do."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from scaffoldlab.errors import ScaffoldError


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One line of ``scaffoldlab scan doctor``.

    Attributes:
        check: What was looked at, e.g. ``units`` or ``depth scale``.
        severity: ``ok`` needs nothing; a ``warning`` may spoil the result; with an ``error`` nothing can be made.
        seen: What was seen, with numbers and units.
        fix: What to do about it; empty for ``ok``.
        fixed_by: True if ``--fix`` (and every scan) does it by itself.
    """

    check: str
    severity: Literal["ok", "warning", "error"]
    seen: str
    fix: str = ""
    fixed_by: bool = False


def refuse_errors(what: str, findings: Sequence[Finding]) -> None:
    """Stops at findings that nothing can be made from.

    Raises:
        ScaffoldError: There is an error that is not mended by itself, with what was seen and what to do.
    """
    wrong = [f for f in findings if f.severity == "error" and not f.fixed_by]
    if wrong:
        raise ScaffoldError(f"{what}: " + " ".join(f"{f.check}: {f.seen}. {f.fix}." for f in wrong))


def some_of(names: Sequence[str]) -> str:
    """At most three names of a list, and how many more there are."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
