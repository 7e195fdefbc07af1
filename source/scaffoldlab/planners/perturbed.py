"""The perturbed oracle: right plans made wrong on purpose, with the errors that a vision-language model makes."""

import zlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from scaffoldlab.errors import ScaffoldError, unknown_name
from scaffoldlab.geometry import pose_apply, pose_apply_inverse
from scaffoldlab.keypoints.keypoint import Keypoint
from scaffoldlab.planners.base import Check, OraclePart, Planner, PlanRequest, Waypoints, medoid
from scaffoldlab.planners.scripted import ScriptedPlanner
from scaffoldlab.plans.validation import AXIS_FLIPS
from scaffoldlab.specs.bodies import body_surfaces
from scaffoldlab.specs.initial_state import body_poses, sample_initial_state
from scaffoldlab.specs.models import Composition

_STREAM = 0x7065727475726265  # "perturbe": keeps these draws apart from others that are seeded with (seed, index)

_Probability = Annotated[float, Field(ge=0, le=1)]
_Deviation = Annotated[float, Field(ge=0)]


class Perturbation(BaseModel):
    """The error model. Its defaults are assumptions, except where a source is named: no model was measured."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    pixel_px: _Deviation = 8.0
    """Standard deviation of a keypoint's u and v in the picture of the task's camera [px]. One percent of 800 px: as
    much as a point that is written in whole percent is off, and about 1 cm at a distance of 1 m."""
    wrong_object: _Probability = 0.05
    """Probability that one keypoint of a plan sits on another body. 5 % of the paper's episodes fail because of wrong
    keypoints (Scaffolds, section 4.3)."""
    axis_flip: _Probability = 0.05
    """Probability that the motion has two axes swapped or one mirrored (Scaffolds, section 3.2)."""
    waypoint_m: _Deviation = 0.01
    """Standard deviation of every coordinate of every waypoint but the first [m] (appendix E.3)."""
    hand_m: _Deviation = 0.0
    """Standard deviation of every coordinate of one offset of the hand's whole path [m]: where the hand grasps is
    misjudged. Nothing of it averages out over the waypoints, as that of ``waypoint_m`` does."""
    no_dwell: _Probability = 0.1
    """Probability that the hand never waits, e.g. for the fingers to close."""

    def with_oracle(self, part: OraclePart) -> Self:
        """The same without the errors of what the oracle does.

        Raises:
            ScaffoldError: One of them was asked for.
        """
        wrong_keypoints = ("pixel_px", "wrong_object")
        names = [name for name in type(self).model_fields if (name in wrong_keypoints) == (part == "keypoints")]
        for name in self.model_fields_set.intersection(names):
            if getattr(self, name):
                raise ScaffoldError(
                    f"perturbation: {name}={getattr(self, name):g}, but the oracle does the {part}; allowed: errors of "
                    "the other part. Leave one of --perturb and --oracle out."
                )
        return self.model_copy(update=dict.fromkeys(names, 0.0))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads ``name=value,name=value``; what is not named keeps its default.

        Raises:
            ScaffoldError: No such form, an unknown name, or a value that is not allowed.
        """
        values: dict[str, str] = {}
        for part in filter(None, (p.strip() for p in text.split(","))):
            name, equals, value = (p.strip() for p in part.partition("="))
            if not equals:
                raise ScaffoldError(f"perturbation: got {part!r}; allowed: name=value,name=value, e.g. pixel_px=8.")
            if name not in cls.model_fields:
                raise unknown_name("perturbation", name, cls.model_fields)
            values[name] = value
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            detail = error.errors(include_url=False)[0]
            message = detail["msg"][0].lower() + detail["msg"][1:]
            raise ScaffoldError(f"perturbation: {detail['loc'][0]}={detail['input']}: {message}.") from None


class PerturbedPlanner(Planner):
    """The scripted oracle with a model's errors; the same request is always perturbed in the same way.

    A keypoint's error is one in the picture: its true position is projected into the task's camera, moved by some
    pixels, and lifted again at its own depth. It stays on its body, off the true point by as much. A keypoint on the
    wrong object sits at a random point of that object's surface which the camera has in its picture.

    As a model is, it is told once what validation finds, and then draws all its errors anew.

    Args:
        composition: The task.
        perturbation: The error model.
        check: Reasons why waypoints are no plan.
        repairs: Times that it draws anew when there are reasons.
        votes: Answers drawn for each plan; the one nearest to all others is taken.
        orientation: The hand turns as the oracle's does, whatever its errors; else it keeps its orientation.
    """

    name = "perturbed"
    needs_image = False

    def __init__(
        self,
        composition: Composition,
        perturbation: Perturbation | None = None,
        *,
        check: Check | None = None,
        repairs: int = 1,
        votes: int = 1,
        orientation: bool = False,
    ) -> None:
        if votes < 1:
            raise ScaffoldError(f"perturbed planner: votes is {votes}; allowed: at least 1.")
        self.perturbation = perturbation or Perturbation()
        self._composition, self._check, self._repairs, self._votes = composition, check, repairs, votes
        self._orientation = orientation
        self.camera = composition.scene.camera.camera()

    @property
    def header(self) -> dict[str, Any]:
        """The error model, for the header of a library."""
        options = {"votes": self._votes} if self._votes > 1 else {}
        options |= {"orientation": True} if self._orientation else {}
        return {"perturbation": self.perturbation.model_dump()} | options

    def plan(self, request: PlanRequest) -> Waypoints:
        """The oracle's waypoints with errors, and what the errors were in their provenance; of several votes the
        one that is nearest to all.

        Raises:
            ScaffoldError: There are reasons against every draw.
        """
        # A plan from the middle of an episode has errors of its own: those of its state.
        state = zlib.crc32(request.hand_e.tobytes()) if request.state else 0
        rng = np.random.default_rng((request.seed, request.index, _STREAM, state))
        votes: list[Waypoints] = []
        reasons: list[str] = []
        for _ in range(self._votes):
            for repairs in range(self._repairs + 1):
                waypoints = self._draw(request, rng, repairs)
                reasons = self._check(request, waypoints) if self._check else []
                if not reasons:
                    votes.append(waypoints)
                    break
        if votes:
            return votes[medoid(votes)]
        raise ScaffoldError(
            f"{request.task}, plan {request.index}: refused {self._votes * (self._repairs + 1)} times, as a model's "
            f"would be. The last one: {' '.join(reasons)}"
        )

    def _draw(self, request: PlanRequest, rng: np.random.Generator, repairs: int) -> Waypoints:
        model, errors = self.perturbation, {}
        poses = body_poses(self._composition, request.state or self._initial(request))
        located_e, pixels = self._point(request, rng)
        # Every draw is made whether it is used or not, so that one setting leaves the errors of the others as they are.
        wrong, flipped, hurried = rng.random(3) < (model.wrong_object, model.axis_flip, model.no_dwell)
        bodies = [k.body for k in request.keypoints]
        victim, flip = int(rng.integers(len(bodies))), list(AXIS_FLIPS)[rng.integers(len(AXIS_FLIPS))]
        noise = rng.normal(size=(max(request.waypoint_count - 1, 0), len(bodies) + 1, 3))
        offset = rng.normal(size=3)
        if wrong:
            body, point_e = self._elsewhere(bodies[victim], poses, rng)
            errors["wrong_object"] = {request.keypoints[victim].name: body}
            bodies[victim], located_e[victim] = body, point_e
            pixels[victim] = self.camera.project(point_e)
        if hurried:
            errors["no_dwell"] = True
        waypoints = self._oracle(replace(request, keypoints_e=located_e), dwell=not hurried)
        keypoints_e, hand_e = waypoints.keypoints_e.copy(), waypoints.hand_e.copy()
        if flipped:
            errors["axis_flip"] = flip
            keypoints_e, hand_e = (p[0] + (p - p[0]) @ AXIS_FLIPS[flip].T for p in (keypoints_e, hand_e))
        keypoints_e[1:] += model.waypoint_m * noise[:, 1:]
        hand_e[1:] += model.waypoint_m * noise[:, 0] + model.hand_m * offset
        points_b = [pose_apply_inverse(poses[b], p).tolist() for b, p in zip(bodies, located_e, strict=True)]
        return replace(
            waypoints,
            keypoints_e=keypoints_e,
            hand_e=hand_e,
            located_e=located_e,
            pixels=pixels,
            keypoints=tuple(
                Keypoint(k.name, b, (x, y, z))
                for k, b, (x, y, z) in zip(request.keypoints, bodies, points_b, strict=True)
            ),
            source={"planner": self.name, "perturbation": model.model_dump(), "errors": errors, "repairs": repairs},
        )

    def _point(self, request: PlanRequest, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Where the keypoints seem to be [m], shape (K, 3), and their pixels, shape (K, 2)."""
        camera, shift = self.camera, self.perturbation.pixel_px * rng.normal(size=(len(request.keypoints), 2))
        depth = (request.keypoints_e - camera.pose_ec[:3, 3]) @ camera.pose_ec[:3, 2]
        offset_c = np.column_stack((shift / camera.intrinsics[[0, 1], [0, 1]] * depth[:, None], np.zeros(len(shift))))
        return request.keypoints_e + offset_c @ camera.pose_ec[:3, :3].T, camera.project(request.keypoints_e) + shift

    def _elsewhere(
        self, body: str, poses: Mapping[str, np.ndarray], rng: np.random.Generator
    ) -> tuple[str, np.ndarray]:
        """Another body and a point on it that is in the picture and in the workspace [m], shape (3,)."""
        lower, upper = np.asarray(self._composition.scene.workspace)
        size = self.camera.width, self.camera.height
        seen: dict[str, np.ndarray] = {}
        for name, samples_b in body_surfaces(self._composition).items():
            points_e = pose_apply(poses[name], samples_b)
            pixels = self.camera.project(points_e)
            inside = ((pixels >= 0) & (pixels <= size)).all(-1) & np.all((points_e >= lower) & (points_e <= upper), -1)
            if name != body and inside.any():
                seen[name] = points_e[inside]
        if not seen:
            raise ScaffoldError(
                f"task {self._composition.task.name!r}: there is no body but {body!r} in view of the camera and in the "
                "workspace to mistake it for; set wrong_object=0."
            )
        name = list(seen)[rng.integers(len(seen))]
        return name, seen[name][rng.integers(len(seen[name]))]

    def _oracle(self, request: PlanRequest, *, dwell: bool) -> Waypoints:
        stages = [stage for stage in self._composition.task.oracle if dwell or stage.hand is not None]
        return ScriptedPlanner(stages, orientation=self._orientation).plan(request)

    def _initial(self, request: PlanRequest) -> dict[str, np.ndarray]:
        return sample_initial_state(self._composition, seed=request.seed, index=request.index)
