"""Builds every asset from the build.py beside it: scripts/run python scripts/build_assets.py [name ...]"""

import runpy
import sys
from pathlib import Path

ASSETS = Path(__file__).resolve().parents[1] / "assets"
LICENSE = "Made by ScaffoldLab's own code from published facts. BSD-3-Clause, see LICENSE beside this file."


def main(names: list[str]) -> None:
    for script in sorted(ASSETS.glob("*/*/build.py")):
        folder = script.parent
        if names and folder.name not in names:
            continue
        runpy.run_path(str(script))["build"](folder, LICENSE)
        (folder / "LICENSE").write_text((ASSETS.parent / "LICENSE").read_text())
        print(f"built {folder.relative_to(ASSETS.parent)}")


if __name__ == "__main__":
    main(sys.argv[1:])
