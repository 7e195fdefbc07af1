"""Time and accuracy of ``scaffoldlab scan scene`` on a rendered desk, written as a table.

Rendering the pictures takes longer than the scan and is not counted.
"""

import argparse
import os
import platform
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.spatial.transform import Rotation

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from desks import PLACES, Desk, make_desk  # noqa: E402
from scaffoldlab.scan.captures.capture import read_capture  # noqa: E402
from scaffoldlab.scan.captures.checks import examine_capture  # noqa: E402
from scaffoldlab.scan.scenes.objects import find_objects  # noqa: E402
from scaffoldlab.scan.scenes.scene import scan_scene, write_scene  # noqa: E402
from scaffoldlab.scan.scenes.settle import settle_scene  # noqa: E402

WANTED = {"position [mm]": 3.0, "angle [deg]": 1.0, "outline [px]": 2.0}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=200)
    parser.add_argument("--width", type=int, default=640)
    parser.add_argument("--out", type=Path, default=ROOT / "docs/numbers/scan_scene.md")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        os.environ["XDG_CACHE_HOME"] = temporary  # nothing is kept from another run
        folder = Path(temporary) / "capture"
        size = args.width, args.width * 3 // 4
        desk = make_desk(count=args.frames, size=size, names=tuple(PLACES), noise=0.002, shelf=True,
                         pose_noise=(0.003, 1.0))  # fmt: skip
        write_capture(desk, folder)
        started = time.perf_counter()
        capture = read_capture(folder)
        checks = examine_capture(capture)
        examined = time.perf_counter()
        scene = scan_scene(capture, find_objects(list(desk.files.values())), checks=checks)
        scanned = time.perf_counter()
        scene = settle_scene(scene)
        settled = time.perf_counter()
        write_scene(scene, Path(temporary) / "assets/scenes/desk", name="desk", usd_folder="scenes/desk")
        written = time.perf_counter()
    lines = [
        f"# {args.frames} pictures of {size[0]} x {size[1]}, {len(desk.objects)} objects; {os.cpu_count()} cores, "
        f"{platform.machine()}; load {os.getloadavg()[0]:.1f}",
        "",
        "Depth with 2 mm of noise at 1 m, tracked poses with 3 mm and 1 deg.",
        "",
        f"Examined in {examined - started:.0f} s, scanned in {scanned - examined:.0f} s, settled in "
        f"{settled - scanned:.0f} s, files and report in {written - settled:.0f} s: {written - started:.0f} s in all.",
        "",
        *table(scene, desk),
    ]
    text = "\n".join(lines) + "\n"
    args.out.write_text(text)
    print(text)


def table(scene, desk: Desk) -> list[str]:
    """What was measured, line by line, beside what is wanted."""
    top = scene.table.pose_ew @ desk.desk
    height, tilt = 1000 * abs(top[2, 3] - scene.table.height), np.degrees(np.arccos(min(1, top[2, 2])))
    rows: list[tuple[str, ...]] = [("table", f"{height:.2f} mm high", f"{tilt:.3f} deg off", "")]
    for p in scene.placements:
        truth = scene.table.pose_ew @ desk.objects[p.name]
        angle = Rotation.from_matrix(p.pose[:3, :3] @ truth[:3, :3].T).magnitude()
        distance = np.linalg.norm(p.pose[:3, 3] - truth[:3, 3])
        contour = scene.reprojection[p.name].contour_px
        rows.append((p.name, f"{1000 * distance:.2f}", f"{np.degrees(angle):.2f}", f"{contour:.2f}"))
    rows.append(("wanted at most", *(f"{value:g}" for value in WANTED.values())))
    return ["| | " + " | ".join(WANTED) + " |", "|---|---|---|---|", *("| " + " | ".join(row) + " |" for row in rows)]


def write_capture(desk: Desk, folder: Path) -> None:
    """The desk as one moving camera's folder, with masks and FoundationPose's poses."""
    for frame in desk.frames:
        pictures = {"rgb": frame.rgbd.rgb, "depth": (1000 * frame.rgbd.depth).round().astype(np.uint16)}
        pictures |= {f"masks/{name}": 255 * mask.astype(np.uint8) for name, mask in frame.masks.items()}
        matrices = {"cam_in_world": frame.camera.pose_ec}
        matrices |= {f"ob_in_cam/{name}": pose for name, pose in frame.object_poses.items()}
        for place, pixels in pictures.items():
            (folder / place).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(folder / place / f"{frame.name}.png", compress_level=1)
        for place, matrix in matrices.items():
            (folder / place).mkdir(parents=True, exist_ok=True)
            np.savetxt(folder / place / f"{frame.name}.txt", matrix)
    intrinsics = desk.frames[0].camera.intrinsics.copy()
    intrinsics[:2, 2] -= 0.5  # OpenCV puts pixel centres at whole numbers
    np.savetxt(folder / "cam_K.txt", intrinsics)


if __name__ == "__main__":
    main()
