"""Text and pages from Jinja templates that lie beside the modules that fill them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Environment


def templates(package: str, folder: str = ".", *, html: bool = True) -> Environment:
    """The templates in a folder of a package; a value that a template names and does not get is an error.

    Args:
        package: Package, e.g. ``scaffoldlab.evaluation``.
        folder: Folder below it.
        html: Whether values are escaped for a page.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader(package, folder),
        undefined=StrictUndefined,
        autoescape=html,
        trim_blocks=True,
        lstrip_blocks=True,
    )
