"""Writes one simulation-ready USD asset with pxr: metres, kilograms, z up, one default prim."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import trimesh
from pxr import Gf, Sdf, Usd, UsdGeom, UsdPhysics, UsdShade, Vt

Vector = Sequence[float] | np.ndarray
POSITION_ITERATIONS, VELOCITY_ITERATIONS = 8, 0
"""Solver iterations of PhysX (Scaffolds, Table 2)."""
IDENTITY = (0.0, 0.0, 0.0, 1.0)


class UsdWriter:
    """Authors an asset prim by prim; paths are relative to the default prim.

    Colliders and visuals are separate prims: colliders have purpose ``guide`` and are what the engines
    see, visuals are meshes with a UsdPreviewSurface material and are what a camera sees.
    """

    def __init__(self, path: Path, *, license: str):
        self.path = path
        self.name = path.stem
        self.stage = Usd.Stage.CreateNew(str(path)) if not path.exists() else Usd.Stage.Open(str(path))
        self.stage.GetRootLayer().Clear()
        UsdGeom.SetStageUpAxis(self.stage, UsdGeom.Tokens.z)
        UsdGeom.SetStageMetersPerUnit(self.stage, 1.0)
        UsdPhysics.SetStageKilogramsPerUnit(self.stage, 1.0)
        self.stage.GetRootLayer().comment = license
        self.root = UsdGeom.Xform.Define(self.stage, f"/{self.name}")
        self.stage.SetDefaultPrim(self.root.GetPrim())

    def note(self, **facts: object) -> None:
        """Keeps facts about the asset's origin with it, as custom layer data."""
        layer = self.stage.GetRootLayer()
        layer.customLayerData = {**layer.customLayerData, **facts}

    def save(self) -> None:
        """Writes the layer to its path."""
        self.stage.GetRootLayer().Save()

    def articulation(self, root: str = "") -> None:
        """Marks the asset as one articulation without self-collision.

        Args:
            root: Body that the joints start from, when no joint ties the asset to the world; it must exist already.
                PhysX chooses one by itself otherwise.
        """
        prim = self.stage.GetPrimAtPath(self._full(root))
        UsdPhysics.ArticulationRootAPI.Apply(prim)
        prim.AddAppliedSchema("PhysxArticulationAPI")
        _attribute(prim, "physxArticulation:enabledSelfCollisions", Sdf.ValueTypeNames.Bool, False)
        _attribute(prim, "physxArticulation:solverPositionIterationCount", Sdf.ValueTypeNames.Int, POSITION_ITERATIONS)
        _attribute(prim, "physxArticulation:solverVelocityIterationCount", Sdf.ValueTypeNames.Int, VELOCITY_ITERATIONS)

    def body(
        self,
        path: str,
        *,
        mass: float,
        position: Vector = (0, 0, 0),
        quat_xyzw: Vector = IDENTITY,
        inertia: Vector | None = None,
        inertia_quat_xyzw: Vector = IDENTITY,
        gravity: bool = True,
        velocity_iterations: int = VELOCITY_ITERATIONS,
    ) -> str:
        """Adds a rigid body and returns its path; an empty path makes the default prim the body.

        Args:
            path: Path below the default prim.
            mass: Mass [kg]; the engines spread it over the colliders unless ``inertia`` is given.
            position: Position in the asset frame [m], shape (3,).
            quat_xyzw: Orientation in the asset frame, shape (4,).
            inertia: Principal moments about the body origin, which is then the centre of mass [kg m^2], shape (3,).
            inertia_quat_xyzw: Orientation of the principal axes in the body frame, shape (4,).
            gravity: False for a body that carries its own weight.
            velocity_iterations: Velocity iterations of PhysX.
        """
        prim = self._xform(path, position, quat_xyzw).GetPrim()
        UsdPhysics.RigidBodyAPI.Apply(prim)
        mass_api = UsdPhysics.MassAPI.Apply(prim)
        mass_api.CreateMassAttr(mass)
        if inertia is not None:
            mass_api.CreateCenterOfMassAttr(Gf.Vec3f(0, 0, 0))
            mass_api.CreateDiagonalInertiaAttr(Gf.Vec3f(*map(float, inertia)))
            mass_api.CreatePrincipalAxesAttr(_quatf(inertia_quat_xyzw))
        prim.AddAppliedSchema("PhysxRigidBodyAPI")
        _attribute(prim, "physxRigidBody:solverPositionIterationCount", Sdf.ValueTypeNames.Int, POSITION_ITERATIONS)
        _attribute(prim, "physxRigidBody:solverVelocityIterationCount", Sdf.ValueTypeNames.Int, velocity_iterations)
        if not gravity:
            _attribute(prim, "physxRigidBody:disableGravity", Sdf.ValueTypeNames.Bool, True)
            _attribute(prim, "mjc:gravcomp", Sdf.ValueTypeNames.Float, 1.0)  # MuJoCo-Warp does not read the other
        return path

    def collider(
        self,
        path: str,
        shape: Literal["box", "sphere", "capsule", "cylinder", "convex"],
        *,
        size: Vector | float = 0.0,
        length: float = 0.0,
        axis: Literal["X", "Y", "Z"] = "Z",
        mesh: trimesh.Trimesh | None = None,
        position: Vector = (0, 0, 0),
        quat_xyzw: Vector = IDENTITY,
        friction: str | None = None,
    ) -> None:
        """Adds a collider.

        Args:
            path: Path below the default prim; the nearest body above owns it, without one it is static.
            shape: Primitive, or the convex hull of ``mesh``.
            size: Edge lengths of a box [m], shape (3,), or a radius [m].
            length: Length of a cylinder, or of a capsule without its caps [m].
            axis: Axis of a cylinder or capsule.
            mesh: Mesh whose hull is meant.
            position: Position in the frame of the parent prim [m], shape (3,).
            quat_xyzw: Orientation in the frame of the parent prim, shape (4,).
            friction: Name of a material made by :meth:`friction`.
        """
        full = self._full(path)
        if shape == "box":
            # A unit cube with a scale is what both engines read as a box.
            geometry = UsdGeom.Cube.Define(self.stage, full)
            geometry.CreateSizeAttr(1.0)
            _place(geometry, position, quat_xyzw, scale=size)  # type: ignore[arg-type]
        elif shape == "convex":
            assert mesh is not None
            geometry = self._mesh(full, mesh)
            UsdPhysics.MeshCollisionAPI.Apply(geometry.GetPrim()).CreateApproximationAttr("convexHull")
            _place(geometry, position, quat_xyzw)
        else:
            define = {"sphere": UsdGeom.Sphere, "capsule": UsdGeom.Capsule, "cylinder": UsdGeom.Cylinder}[shape]
            geometry = define.Define(self.stage, full)
            geometry.CreateRadiusAttr(size)
            if shape != "sphere":
                geometry.CreateHeightAttr(length)
                geometry.CreateAxisAttr(axis)
            _place(geometry, position, quat_xyzw)
        geometry.CreatePurposeAttr(UsdGeom.Tokens.guide)
        UsdPhysics.CollisionAPI.Apply(geometry.GetPrim())
        if friction is not None:
            self._bind(geometry.GetPrim(), friction, purpose="physics")

    def visual(
        self,
        path: str,
        mesh: trimesh.Trimesh,
        *,
        surface: str,
        position: Vector = (0, 0, 0),
        quat_xyzw: Vector = IDENTITY,
    ) -> None:
        """Adds a mesh that only cameras see, smooth-shaded, with UVs when the mesh has them [m]."""
        geometry = self._mesh(self._full(path), mesh)
        _place(geometry, position, quat_xyzw)
        self._bind(geometry.GetPrim(), surface)

    def surface(
        self, name: str, *, color: Vector, roughness: float = 0.5, metallic: float = 0.0, texture: str | None = None
    ) -> str:
        """Adds a UsdPreviewSurface material and returns its name.

        Args:
            name: Name of the material.
            color: Linear RGB in 0..1, shape (3,); also the display colour of what binds it.
            roughness: 0 mirror .. 1 matt.
            metallic: 0 or 1.
            texture: Picture beside the asset that replaces the colour; the mesh needs UVs.
        """
        path = self._full(f"Looks/{name}")
        material = UsdShade.Material.Define(self.stage, path)
        shader = UsdShade.Shader.Define(self.stage, f"{path}/Surface")
        shader.CreateIdAttr("UsdPreviewSurface")
        shader.CreateInput("roughness", Sdf.ValueTypeNames.Float).Set(roughness)
        shader.CreateInput("metallic", Sdf.ValueTypeNames.Float).Set(metallic)
        diffuse = shader.CreateInput("diffuseColor", Sdf.ValueTypeNames.Color3f)
        diffuse.Set(Gf.Vec3f(*map(float, color)))
        if texture is not None:
            reader = UsdShade.Shader.Define(self.stage, f"{path}/Uv")
            reader.CreateIdAttr("UsdPrimvarReader_float2")
            reader.CreateInput("varname", Sdf.ValueTypeNames.String).Set("st")
            image = UsdShade.Shader.Define(self.stage, f"{path}/Texture")
            image.CreateIdAttr("UsdUVTexture")
            image.CreateInput("file", Sdf.ValueTypeNames.Asset).Set(texture)
            image.CreateInput("sourceColorSpace", Sdf.ValueTypeNames.Token).Set("sRGB")
            uv = reader.CreateOutput("result", Sdf.ValueTypeNames.Float2)
            image.CreateInput("st", Sdf.ValueTypeNames.Float2).ConnectToSource(uv)
            diffuse.ConnectToSource(image.CreateOutput("rgb", Sdf.ValueTypeNames.Float3))
        material.CreateSurfaceOutput().ConnectToSource(shader.CreateOutput("surface", Sdf.ValueTypeNames.Token))
        return name

    def friction(
        self,
        name: str,
        *,
        static: float,
        dynamic: float,
        combine: Literal["average", "max", "min", "multiply"],
        stiff: bool = False,
    ) -> str:
        """Adds a physics material without restitution and returns its name.

        Args:
            name: Name of the material.
            static: Static friction.
            dynamic: Dynamic friction.
            combine: How PhysX combines it with that of the other body.
            stiff: Eight times Newton's usual contact stiffness: a light body of several hulls sinks 1.3 mm into a table
                and rocks without it, 0.3 mm with it. PhysX has hard contacts anyway.
        """
        prim = UsdShade.Material.Define(self.stage, self._full(f"Looks/{name}")).GetPrim()
        material = UsdPhysics.MaterialAPI.Apply(prim)
        material.CreateStaticFrictionAttr(static)
        material.CreateDynamicFrictionAttr(dynamic)
        material.CreateRestitutionAttr(0.0)
        prim.AddAppliedSchema("PhysxMaterialAPI")
        _attribute(prim, "physxMaterial:frictionCombineMode", Sdf.ValueTypeNames.Token, combine)
        if stiff:
            _attribute(prim, "newton:contactStiffness", Sdf.ValueTypeNames.Float, 2e4)  # [N/m]
            _attribute(prim, "newton:contactDamping", Sdf.ValueTypeNames.Float, 200.0)  # [N s/m]
        return name

    def joint(
        self,
        name: str,
        kind: Literal["fixed", "revolute", "prismatic"],
        parent: str | None,
        child: str,
        *,
        axis: Literal["X", "Y", "Z"] = "X",
        limits: tuple[float, float] | None = None,
        position: Vector = (0, 0, 0),
        quat_xyzw: Vector = IDENTITY,
        child_quat_xyzw: Vector = IDENTITY,
    ) -> None:
        """Adds a joint whose frame is at the child's origin.

        Args:
            name: Name of the joint.
            kind: Type of the joint.
            parent: Parent body, or None for the world.
            child: Child body.
            axis: Axis in the joint frame.
            limits: Lower and upper limit [rad or m].
            position: Joint origin in the parent frame [m], shape (3,).
            quat_xyzw: Joint frame in the parent frame, shape (4,).
            child_quat_xyzw: Joint frame in the child frame, shape (4,).
        """
        define = {
            "fixed": UsdPhysics.FixedJoint,
            "revolute": UsdPhysics.RevoluteJoint,
            "prismatic": UsdPhysics.PrismaticJoint,
        }[kind]
        joint = define.Define(self.stage, self._full(f"joints/{name}"))
        if parent is not None:
            joint.CreateBody0Rel().SetTargets([self._full(parent)])
        joint.CreateBody1Rel().SetTargets([self._full(child)])
        joint.CreateLocalPos0Attr(Gf.Vec3f(*map(float, position)))
        joint.CreateLocalRot0Attr(_quatf(quat_xyzw))
        joint.CreateLocalPos1Attr(Gf.Vec3f(0, 0, 0))
        joint.CreateLocalRot1Attr(_quatf(child_quat_xyzw))
        if kind == "fixed":
            return
        joint.CreateAxisAttr(axis)
        if limits is not None:
            unit = np.degrees if kind == "revolute" else float
            joint.CreateLowerLimitAttr(float(unit(limits[0])))
            joint.CreateUpperLimitAttr(float(unit(limits[1])))
        # A drive must exist for the actuator configuration to set its gains.
        drive = UsdPhysics.DriveAPI.Apply(joint.GetPrim(), "angular" if kind == "revolute" else "linear")
        drive.CreateTypeAttr("force")
        drive.CreateStiffnessAttr(0.0)
        drive.CreateDampingAttr(0.0)

    def _full(self, path: str) -> str:
        return f"/{self.name}/{path}" if path else f"/{self.name}"

    def _xform(self, path: str, position: Vector, quat_xyzw: Vector) -> UsdGeom.Xform:
        xform = UsdGeom.Xform.Define(self.stage, self._full(path))
        _place(xform, position, quat_xyzw)
        return xform

    def _mesh(self, full: str, mesh: trimesh.Trimesh) -> UsdGeom.Mesh:
        geometry = UsdGeom.Mesh.Define(self.stage, full)
        geometry.CreatePointsAttr(Vt.Vec3fArray.FromNumpy(np.round(mesh.vertices, 6).astype(np.float32)))
        geometry.CreateFaceVertexCountsAttr(Vt.IntArray([3] * len(mesh.faces)))
        geometry.CreateFaceVertexIndicesAttr(Vt.IntArray.FromNumpy(mesh.faces.astype(np.int32).reshape(-1)))
        geometry.CreateSubdivisionSchemeAttr("none")
        geometry.CreateNormalsAttr(Vt.Vec3fArray.FromNumpy(np.round(mesh.vertex_normals, 4).astype(np.float32)))
        geometry.SetNormalsInterpolation("vertex")
        low, high = mesh.bounds
        geometry.CreateExtentAttr([Gf.Vec3f(*np.round(low, 6).tolist()), Gf.Vec3f(*np.round(high, 6).tolist())])
        uv = getattr(mesh.visual, "uv", None)
        if uv is not None:
            primvar = UsdGeom.PrimvarsAPI(geometry).CreatePrimvar(
                "st", Sdf.ValueTypeNames.TexCoord2fArray, UsdGeom.Tokens.vertex
            )
            primvar.Set(Vt.Vec2fArray.FromNumpy(np.round(uv, 5).astype(np.float32)))
        return geometry

    def _bind(self, prim: Usd.Prim, name: str, purpose: str = "") -> None:
        material = UsdShade.Material(self.stage.GetPrimAtPath(self._full(f"Looks/{name}")))
        binding = UsdShade.MaterialBindingAPI.Apply(prim)
        binding.Bind(material, UsdShade.Tokens.weakerThanDescendants, purpose or UsdShade.Tokens.allPurpose)


def _place(geometry: UsdGeom.Xformable, position: Vector, quat_xyzw: Vector, scale: Vector | None = None) -> None:
    geometry.AddTranslateOp(UsdGeom.XformOp.PrecisionDouble).Set(Gf.Vec3d(*map(float, position)))
    x, y, z, w = map(float, quat_xyzw)
    geometry.AddOrientOp(UsdGeom.XformOp.PrecisionDouble).Set(Gf.Quatd(w, x, y, z))
    geometry.AddScaleOp(UsdGeom.XformOp.PrecisionDouble).Set(
        Gf.Vec3d(*map(float, (1, 1, 1) if scale is None else scale))
    )


def _quatf(quat_xyzw: Vector) -> Gf.Quatf:
    x, y, z, w = map(float, quat_xyzw)
    return Gf.Quatf(w, x, y, z)


def _attribute(prim: Usd.Prim, name: str, type_name: Sdf.ValueTypeName, value: object) -> None:
    prim.CreateAttribute(name, type_name).Set(value)
