"""How long a textured mesh takes to become a checked object: scripts/run python benchmarks/scan_object.py

A vase of 200 000 faces that no cache knows, and once again; writes docs/numbers/scan_object.md. The engines' kernels
are compiled by then, as they are after the first scan on a machine.
"""

import os
import random
import resource
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import shapes  # the truth that the tests use

FACES = 200_000


def main() -> None:
    from scaffoldlab.scan.objects.object import scan_object

    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "vase.obj"
        mesh = shapes.vase(FACES).apply_scale(1 + 1e-3 * random.random())  # another one in each run
        shapes.textured(mesh).export(source)
        rows = []
        for run in ("first", "cached"):
            started = time.monotonic()
            report = scan_object(source, "vase", Path(folder) / "vase")
            rows.append(f"| {run} | {time.monotonic() - started:.1f} s |")
        usage = [resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    cores = len(os.sched_getaffinity(0))
    text = (
        f"`scripts/run python benchmarks/scan_object.py`: a textured vase of {len(mesh.faces):,} faces to a checked "
        f"object ({report['hulls']} hulls, volume of the colliders {100 * report['volume_error']:+.1f} %, dropped on "
        "ovphysx and "
        f"newton_mjwarp on the CPU), {cores} cores; largest process {max(usage) / 2**20:.1f} GB.\n\n"
        "| run | time |\n|---|---|\n" + "\n".join(rows) + "\n"
    )
    path = Path(__file__).parents[1] / "docs/numbers/scan_object.md"
    path.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
