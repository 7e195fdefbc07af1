"""The part of a scene that does not move, as points with normals and colours, and as a coloured mesh."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Background:
    """What stays when the objects are taken away.

    Attributes:
        points: Points on its surface [m], shape (P, 3).
        normals: Unit normals, towards where it was seen from, shape (P, 3).
        colors: RGB in 0..1, shape (P, 3).
        faces: Points of each triangle, shape (F, 3); none if it came as points.
    """

    points: np.ndarray
    normals: np.ndarray
    colors: np.ndarray
    faces: np.ndarray

    def moved(self, pose: np.ndarray) -> "Background":
        """The same in another frame: ``pose`` maps this one to it, shape (4, 4)."""
        rotation = pose[:3, :3].T
        return Background(self.points @ rotation + pose[:3, 3], self.normals @ rotation, self.colors, self.faces)

    def part(self, keep: np.ndarray) -> "Background":
        """Only some points, and the triangles between them; shape (P,), bool."""
        index = np.cumsum(keep) - 1
        faces = index[self.faces[keep[self.faces].all(-1)]] if len(self.faces) else self.faces
        return Background(self.points[keep], self.normals[keep], self.colors[keep], faces)
