"""Writes meshes as scanners and exporters do, in every format that a scan may come in."""

import zipfile
from pathlib import Path
from typing import Literal

import numpy as np
import trimesh
from PIL import Image
from pxr import Gf, Sdf, Usd, UsdGeom, UsdShade, UsdUtils, Vt

Y_UP = trimesh.transformations.rotation_matrix(-np.pi / 2, (1, 0, 0))
"""Turns z to y."""
TILES = 4


def atlas_textured(mesh: trimesh.Trimesh) -> trimesh.Trimesh:
    """The mesh with a picture in six charts, one for each side that faces point to, of large tiles."""
    rng = np.random.default_rng(5)
    image = Image.fromarray(rng.integers(0, 255, (2 * TILES, 3 * TILES, 3), dtype=np.uint8))
    image = image.resize((768, 512), Image.Resampling.NEAREST)
    axis = np.abs(mesh.face_normals).argmax(1)
    side = 2 * axis + (mesh.face_normals[np.arange(len(axis)), axis] < 0)
    unit = (mesh.triangles - mesh.bounds[0]) / np.ptp(mesh.bounds, axis=0).max()
    others = np.array([(1, 2), (0, 2), (0, 1)])[axis]
    within = np.take_along_axis(unit, others[:, None, :].repeat(3, 1), 2) * 0.98 + 0.01
    uv = (within + np.stack((axis, side % 2), -1)[:, None]) / (3, 2)
    visual = trimesh.visual.TextureVisuals(uv=uv.reshape(-1, 2), image=image)
    flat = trimesh.Trimesh(
        mesh.triangles.reshape(-1, 3), np.arange(3 * len(mesh.faces)).reshape(-1, 3), visual=visual, process=False
    )
    flat.merge_vertices(merge_norm=True)
    return flat


def export(mesh: trimesh.Trimesh, path: Path) -> Path:
    """Writes the mesh as it is; an obj brings its mtl and png."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix in (".usda", ".usdc", ".usdz"):
        return write_usd(mesh, path)
    if path.suffix == ".gltf":
        for name, data in trimesh.exchange.gltf.export_gltf(trimesh.Scene(mesh)).items():
            (path.parent / name.replace("model", path.stem)).write_bytes(data)
        return path
    if path.suffix == ".obj":
        mesh.export(path, mtl_name=f"{path.stem}.mtl")
        return path
    mesh.export(path)
    return path


def write_usd(
    mesh: trimesh.Trimesh, path: Path, *, unit: float = 1.0, up: Literal["Y", "Z"] = "Z", scale: float = 1.0
) -> Path:
    """Writes a stage whose mesh hangs below a scaled Xform, with a UsdPreviewSurface if the mesh has a picture."""
    packed = path.suffix == ".usdz"
    target = path.with_suffix(".usdc") if packed else path
    stage = Usd.Stage.CreateNew(str(target))
    UsdGeom.SetStageMetersPerUnit(stage, unit)
    UsdGeom.SetStageUpAxis(stage, {"Y": UsdGeom.Tokens.y, "Z": UsdGeom.Tokens.z}[up])
    root = UsdGeom.Xform.Define(stage, "/thing")
    root.AddScaleOp().Set(Gf.Vec3f(scale))
    stage.SetDefaultPrim(root.GetPrim())
    geometry = UsdGeom.Mesh.Define(stage, "/thing/mesh")
    geometry.CreatePointsAttr(Vt.Vec3fArray.FromNumpy(np.asarray(mesh.vertices / scale, np.float32)))
    geometry.CreateFaceVertexCountsAttr(Vt.IntArray([3] * len(mesh.faces)))
    geometry.CreateFaceVertexIndicesAttr(Vt.IntArray.FromNumpy(mesh.faces.astype(np.int32).reshape(-1)))
    if isinstance(mesh.visual, trimesh.visual.TextureVisuals):
        picture = path.with_suffix(".png")
        mesh.visual.material.image.save(picture)
        primvar = UsdGeom.PrimvarsAPI(geometry).CreatePrimvar(
            "st", Sdf.ValueTypeNames.TexCoord2fArray, UsdGeom.Tokens.faceVarying
        )
        primvar.Set(Vt.Vec2fArray.FromNumpy(np.asarray(mesh.visual.uv[mesh.faces].reshape(-1, 2), np.float32)))
        material = UsdShade.Material.Define(stage, "/thing/look")
        shader, image = (UsdShade.Shader.Define(stage, f"/thing/look/{n}") for n in ("surface", "image"))
        shader.CreateIdAttr("UsdPreviewSurface")
        image.CreateIdAttr("UsdUVTexture")
        image.CreateInput("file", Sdf.ValueTypeNames.Asset).Set(f"./{picture.name}")
        colour = image.CreateOutput("rgb", Sdf.ValueTypeNames.Float3)
        shader.CreateInput("diffuseColor", Sdf.ValueTypeNames.Color3f).ConnectToSource(colour)
        material.CreateSurfaceOutput().ConnectToSource(shader.CreateOutput("surface", Sdf.ValueTypeNames.Token))
        UsdShade.MaterialBindingAPI.Apply(geometry.GetPrim()).Bind(material)
    stage.GetRootLayer().Save()
    if packed:
        assert UsdUtils.CreateNewUsdzPackage(Sdf.AssetPath(str(target)), str(path))
        for extra in (target, path.with_suffix(".png")):
            extra.unlink(missing_ok=True)
    return path


def write_reference(path: Path, asset: str) -> Path:
    """Writes a stage that holds nothing but a reference to another."""
    path.parent.mkdir(parents=True, exist_ok=True)
    stage = Usd.Stage.CreateNew(str(path))
    UsdGeom.SetStageMetersPerUnit(stage, 1.0)
    stage.DefinePrim("/root").GetReferences().AddReference(asset)
    stage.GetRootLayer().Save()
    return path


def write_zip(path: Path, entries: dict[str, bytes], *, compressed: bool = False) -> Path:
    """Writes a zip with entries of any name."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED) as package:
        for name, data in entries.items():
            package.writestr(name, data)
    return path


def colours(mesh: trimesh.Trimesh, points: np.ndarray) -> np.ndarray:
    """Colours that a textured mesh shows at the points of it that are nearest to some points, shape (P, 3), uint8."""
    nearest, _, faces = trimesh.proximity.closest_point(mesh, points)
    weights = trimesh.triangles.points_to_barycentric(mesh.triangles[faces], nearest)
    uv = (weights[:, :, None] * mesh.visual.uv[mesh.faces[faces]]).sum(1)
    material = mesh.visual.material
    image = material.image if hasattr(material, "image") else material.baseColorTexture
    pixels = np.asarray(image.convert("RGB"))
    size = np.array(pixels.shape[1::-1])
    column, row = np.clip(((uv * (1, -1) + (0, 1)) * size).astype(int), 0, size - 1).T
    return pixels[row, column]
