"""Reads the mesh of an object from what scanners leave on disk: one file, or the out folder of BundleSDF."""

from __future__ import annotations

import io
import logging
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast
from urllib.parse import unquote

import numpy as np
import trimesh
import yaml
from PIL import Image

from scaffoldlab.errors import ScaffoldError
from scaffoldlab.scan.archives import open_archive
from scaffoldlab.scan.captures.images import BROKEN

if TYPE_CHECKING:
    from pxr import Usd

FORMATS = (".obj", ".glb", ".gltf", ".usdz", ".usda", ".usdc", ".usd", ".ply", ".stl")
BUNDLESDF_METRIC = ("textured_mesh.obj", "mesh/mesh_real_scale.obj")
BUNDLESDF_NORMALISED = (
    "mesh_cleaned.obj",
    "mesh/mesh_biggest_component_smoothed.obj",
    "mesh/mesh_biggest_component.obj",
)
BUNDLESDF_CONFIG = "final/nerf/config.yml"
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tga", ".tif", ".tiff")
MOST_BYTES, MOST_FACES = 2 * 1024**3, 20_000_000
METRES = {"m": 1.0, "dm": 0.1, "cm": 0.01, "mm": 0.001, "inch": 0.0254, "foot": 0.3048}
SPELLINGS = {"meter": "m", "metre": "m", "centimeter": "cm", "centimetre": "cm", "millimeter": "mm", "millimetre": "mm",
             "decimeter": "dm", "in": "inch", "inches": "inch", "feet": "foot", "ft": "foot"}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Scan:
    """A mesh as it was found.

    Attributes:
        mesh: Vertices in units and axes of the file, one for each pair of position and UV.
        path: File that it was read from.
        unit: What the file or its format says a length of 1 means [m]; None if it says nothing.
        unit_evidence: Where that is written.
        up: Axis that points up by format or metadata; None if nothing says so.
        missing: Pictures and materials that the file names and that are not there, or no pictures.
        capture: Folder with pictures and masks, which may show the object, when there is one.
    """

    mesh: trimesh.Trimesh
    path: Path
    unit: float | None = None
    unit_evidence: str = ""
    up: Literal["y", "z"] | None = None
    missing: list[str] = field(default_factory=list)
    capture: Path | None = None

    @property
    def texture(self) -> Image.Image | None:
        """The picture of the surface, or None."""
        material = getattr(self.mesh.visual, "material", None)
        image = getattr(material, "baseColorTexture", None) or getattr(material, "image", None)
        return image if getattr(self.mesh.visual, "uv", None) is not None else None


def read_scan(path: Path) -> Scan:
    """Reads a mesh file, or the right mesh of a folder.

    Raises:
        ScaffoldError: There is none, it cannot be read, is too large, or names files outside its folder.
    """
    if path.is_dir():
        return _read_folder(path)
    if not path.is_file():
        raise ScaffoldError(
            f"{path}: no such file or folder. Give a mesh ({', '.join(FORMATS)}) or a BundleSDF folder."
        )
    kind = path.suffix.lower()
    if kind not in FORMATS:
        raise ScaffoldError(
            f"{path}: got a {kind or 'nameless'} file; allowed: {', '.join(FORMATS)}. Export it as .obj."
        )
    if (known := _file_of_bundlesdf(path)) is not None:
        return known
    return _read_file(path)


def _read_file(path: Path) -> Scan:
    kind, size = path.suffix.lower(), path.stat().st_size
    if not 0 < size <= MOST_BYTES:
        raise ScaffoldError(
            f"{path}: it holds {size} bytes; allowed: 1 byte to {MOST_BYTES >> 30} GB. Export it again."
        )
    scan = _read_usd(path) if kind.startswith(".usd") else _read_mesh(path)
    faces = len(scan.mesh.faces)
    if not 0 < faces <= MOST_FACES:
        raise ScaffoldError(
            f"{path}: the mesh has {faces} faces; allowed: 1 to {MOST_FACES}. "
            f"{'Export it with its surface, not as points.' if not faces else 'Decimate it when you export it.'}"
        )
    return replace(scan, capture=path.parent) if (path.parent / "depth").is_dir() else scan


def _read_folder(folder: Path) -> Scan:
    """A BundleSDF out folder, or a folder with one mesh in it."""
    for name in (*BUNDLESDF_METRIC, *BUNDLESDF_NORMALISED):
        if (folder / name).is_file():
            return _read_bundlesdf(folder, name)
    meshes = sorted(p for p in folder.iterdir() if p.suffix.lower() in FORMATS)
    if len(meshes) != 1:
        got = ", ".join(p.name for p in meshes[:5]) or "none"
        raise ScaffoldError(
            f"{folder}: expected the out folder of BundleSDF ({', '.join(BUNDLESDF_METRIC)}) or one mesh; got {got}. "
            "Give the file that you mean."
        )
    return read_scan(meshes[0])


def _file_of_bundlesdf(path: Path) -> Scan | None:
    """The mesh of a file that lies in an out folder of BundleSDF under one of its names, else None."""
    for name in (*BUNDLESDF_METRIC, *BUNDLESDF_NORMALISED):
        folder = path.parents[1] if "/" in name and len(path.parents) > 1 else path.parent
        if path == folder / name and (folder / BUNDLESDF_CONFIG).is_file():
            return _read_bundlesdf(folder, name)
    return None


def _read_bundlesdf(folder: Path, name: str) -> Scan:
    capture = folder if (folder / "ob_in_cam").is_dir() else None
    config = folder / BUNDLESDF_CONFIG
    if name in BUNDLESDF_METRIC:
        scan = _read_file(folder / name)
        return replace(scan, unit=1.0, unit_evidence=f"BundleSDF writes {name} in metres", capture=capture)
    if not config.is_file():
        raise ScaffoldError(
            f"{folder}: {name} is normalised by BundleSDF, and {BUNDLESDF_CONFIG}, which says how, is missing. "
            f"Copy it from the run, or give {name} itself with --units or --size."
        )
    factor, translation = _normalisation(config)
    scan = _read_file(folder / name)
    mesh = scan.mesh.copy()
    mesh.vertices = mesh.vertices / factor - translation
    evidence = f"{name} is normalised; undone with sc_factor {factor:g} of {BUNDLESDF_CONFIG}"
    return replace(scan, mesh=mesh, unit=1.0, unit_evidence=evidence, capture=capture)


def _normalisation(config: Path) -> tuple[float, np.ndarray]:
    """``sc_factor`` and ``translation`` of a BundleSDF run: normalised = (real + translation) * sc_factor."""
    try:
        # Its numpy values are written with Python tags, which a safe loader refuses: only the numbers are wanted.
        text = re.sub(r"!!python\S*", "", config.read_text())
        data = yaml.safe_load(text)
        factor, translation = float(data["sc_factor"]), np.array(data["translation"], float).reshape(3)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise ScaffoldError(f"{config}: expected sc_factor (a number) and translation (three); {error}.") from error
    if not (np.isfinite(factor) and factor > 0 and np.isfinite(translation).all()):
        raise ScaffoldError(f"{config}: sc_factor is {factor} and translation {translation}; allowed: finite, above 0.")
    return factor, translation


class _Beside(trimesh.resolvers.FilePathResolver):
    """Opens what a mesh names, in its folder and nowhere else."""

    def __init__(self, source: Path):
        super().__init__(str(source))
        self.folder, self.missing, self.outside = source.resolve().parent, [], []
        self.pictures = 0

    def get(self, name: str) -> bytes:
        path = (self.folder / unquote(name.strip()).replace("\\", "/")).resolve()
        if not path.is_relative_to(self.folder):
            self.outside.append(name)
            raise PermissionError(name)
        try:
            data = path.read_bytes()
            if path.suffix.lower() in PICTURES:
                Image.open(io.BytesIO(data)).verify()
                self.pictures += 1
        except Exception:  # Pillow raises whatever its parsers run into
            self.missing.append(name)
            raise
        return data

    def refuse_outside(self, path: Path) -> None:
        """Stops at a file outside; the parsers of trimesh swallow what is raised while they read a material."""
        if self.outside:
            raise ScaffoldError(
                f"{path}: it names {self.outside[0]!r}, outside its folder. Refused; put it beside the mesh."
            )


def _read_mesh(path: Path) -> Scan:
    kind = path.suffix.lower()
    _refuse_text(path)
    resolver = _Beside(path)
    resolver.file_path = str(path)
    logging.getLogger("trimesh").setLevel(logging.CRITICAL)  # it logs a missing picture; we report it
    try:
        with path.open("rb") as file:
            scene = trimesh.load_scene(file, file_type=kind[1:], resolver=resolver, process=False)
        meshes = [m for m in scene.dump() if isinstance(m, trimesh.Trimesh) and len(m.faces)]
    except MemoryError:
        raise ScaffoldError(f"{path}: too large for this machine's memory. Decimate it when you export it.") from None
    except Exception as error:  # trimesh raises whatever its parsers run into
        resolver.refuse_outside(path)
        words = " ".join(str(error).split())[:200]
        raise ScaffoldError(
            f"{path}: no readable {kind} mesh ({type(error).__name__}: {words}). Export it again."
        ) from error
    resolver.refuse_outside(path)
    if not meshes:
        raise ScaffoldError(
            f"{path}: the mesh has no faces; allowed: a surface of triangles. Points alone cannot be made solid."
        )
    mesh = _joined(meshes)
    if kind in (".glb", ".gltf"):
        return Scan(mesh, path, 1.0, "glTF is in metres by its specification", "y", resolver.missing)
    if kind == ".ply" and not resolver.pictures:  # UVs without a picture, which trimesh makes up
        mesh.visual = trimesh.visual.ColorVisuals(mesh)
    unit, evidence = _written_unit(path)
    return Scan(mesh, path, unit, evidence, missing=resolver.missing)


def _joined(meshes: list[trimesh.Trimesh]) -> trimesh.Trimesh:
    return meshes[0] if len(meshes) == 1 else cast(trimesh.Trimesh, trimesh.util.concatenate(meshes))


def _refuse_text(path: Path) -> None:
    """A page of a web server, saved as a mesh, is told from a mesh."""
    with path.open("rb") as file:
        start = file.read(256).lstrip().lower()
    if start.startswith((b"<!doctype html", b"<html")):
        raise ScaffoldError(f"{path}: this is a web page, no mesh. Download the file itself.")


def _written_unit(path: Path) -> tuple[float | None, str]:
    """A unit that a comment or header of obj, ply or stl names."""
    with path.open("rb") as file:
        text = file.read(4096).decode("ascii", "ignore")
    pattern = r"\bunits?[ \t]*[:=]?[ \t]*(?:(?:is|are)[ \t]+)?(?:in[ \t]+)?([a-z]+)"
    for found in re.finditer(pattern, text, re.IGNORECASE):
        word = found[1].lower()
        name = SPELLINGS.get(word, SPELLINGS.get(word.rstrip("s"), word))
        if name in METRES:
            return METRES[name], f"its header says {found[0]!r}"
    return None, ""


# --- USD ------------------------------------------------------------------------------------------------------------


def _read_usd(path: Path) -> Scan:
    from pxr import Tf, Usd, UsdGeom

    if path.suffix.lower() == ".usdz":
        open_archive(path, "usdz package", most_bytes=MOST_BYTES).close()
    try:
        stage = Usd.Stage.Open(str(path))
    except Tf.ErrorException as error:
        raise ScaffoldError(f"{path}: no readable USD stage. Export it again.") from error
    for layer in stage.GetUsedLayers():
        if not layer.anonymous:
            _refuse_outside(layer.realPath or layer.identifier, layer.identifier, path)
    parts, missing = [], []
    for prim in stage.Traverse(Usd.TraverseInstanceProxies()):
        if prim.IsA(UsdGeom.Mesh) and UsdGeom.Imageable(prim).ComputePurpose() != UsdGeom.Tokens.guide:
            part = _usd_mesh(UsdGeom.Mesh(prim), path, missing)
            if part is not None:
                parts.append(part)
    if not parts:
        raise ScaffoldError(f"{path}: the stage holds no mesh that can be seen. Export the object's surface with it.")
    mesh = _joined(parts)
    unit = UsdGeom.GetStageMetersPerUnit(stage)
    up = "y" if UsdGeom.GetStageUpAxis(stage) == UsdGeom.Tokens.y else "z"
    said = "" if UsdGeom.StageHasAuthoredMetersPerUnit(stage) else " (nothing is written; the default of USD)"
    return Scan(mesh, path, unit, f"metersPerUnit is {unit:g}{said}", up, missing)


def _usd_mesh(geometry, path: Path, missing: list[str]) -> trimesh.Trimesh | None:
    """A mesh prim in stage axes, triangulated, with the picture of its diffuse colour."""
    from pxr import Usd, UsdGeom

    points, counts, corners = (
        np.array(attribute.Get() or [])
        for attribute in (
            geometry.GetPointsAttr(), geometry.GetFaceVertexCountsAttr(), geometry.GetFaceVertexIndicesAttr()
        )
    )  # fmt: skip
    if not len(points) or not len(corners):
        return None
    if counts.min() < 3 or counts.sum() != len(corners) or corners.min() < 0 or corners.max() >= len(points):
        raise ScaffoldError(
            f"{path}: the faces of {geometry.GetPath()} name points that are not there. Export it again."
        )
    to_world = np.array(geometry.ComputeLocalToWorldTransform(Usd.TimeCode.Default())).T
    # Fans: corner 0, i, i + 1 of each face, as indices into the list of corners.
    fans = counts - 2
    first = np.repeat(np.cumsum(counts) - counts, fans)
    turn = np.arange(fans.sum()) - np.repeat(np.cumsum(fans) - fans, fans)
    triangles = np.stack([first, first + turn + 1, first + turn + 2], -1)
    if geometry.GetOrientationAttr().Get() == UsdGeom.Tokens.leftHanded:
        triangles = triangles[:, ::-1]
    primvars = UsdGeom.PrimvarsAPI(geometry)
    st = next((p for name in ("st", "UVMap", "st0") if (p := primvars.GetPrimvar(name)).HasValue()), None)
    image = _usd_picture(geometry.GetPrim(), path, missing)
    if st is None or image is None:
        return trimesh.Trimesh(points, corners[triangles], process=False).apply_transform(to_world)
    flat = np.array(st.ComputeFlattened())
    per_corner = flat if st.GetInterpolation() == UsdGeom.Tokens.faceVarying else flat[corners]
    visual = trimesh.visual.TextureVisuals(uv=per_corner, image=image)
    mesh = trimesh.Trimesh(points[corners], triangles, visual=visual, process=False)
    mesh.merge_vertices(merge_norm=True)
    return mesh.apply_transform(to_world)


def _usd_picture(prim: Usd.Prim, path: Path, missing: list[str]) -> Image.Image | None:
    """The picture that the bound material's diffuse colour is read from, also out of a usdz package."""
    from pxr import Ar, UsdShade

    material = cast(Any, UsdShade.MaterialBindingAPI(prim).ComputeBoundMaterial())[0]
    source = material.ComputeSurfaceSource()[0] if material else None
    diffuse = source.GetInput("diffuseColor") if source else None
    if not diffuse or not diffuse.HasConnectedSource():
        return None
    texture = UsdShade.Shader(diffuse.GetConnectedSources()[0][0].source.GetPrim())
    asset = texture.GetInput("file").Get() if texture.GetInput("file") else None
    if asset is None:
        return None
    resolved = asset.resolvedPath
    if not resolved:
        missing.append(asset.path)
        return None
    _refuse_outside(resolved, asset.path, path)
    opened = Ar.GetResolver().OpenAsset(Ar.ResolvedPath(resolved))
    try:
        return Image.open(io.BytesIO(opened.GetBuffer())).convert("RGB")
    except BROKEN:
        missing.append(asset.path)
        return None


def _refuse_outside(resolved: str, name: str, path: Path) -> None:
    """Stops at a file that is neither in the folder of a stage, nor packed in a file that is."""
    from pxr import Ar

    file = Path(cast(Any, Ar.SplitPackageRelativePathOuter(resolved))[0])
    if not file.resolve().is_relative_to(path.resolve().parent):
        raise ScaffoldError(f"{path}: it names {name!r}, outside its folder. Refused; put it beside the stage.")
