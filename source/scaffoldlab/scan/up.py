"""How users say which way is up in what they have scanned."""

import numpy as np

from scaffoldlab.errors import ScaffoldError

AXES = {"x": (1, 0, 0), "y": (0, 1, 0), "z": (0, 0, 1), "-x": (-1, 0, 0), "-y": (0, -1, 0), "-z": (0, 0, -1)}


def up_direction(text: str) -> np.ndarray | None:
    """The direction against gravity that ``--up`` means, a unit vector, shape (3,); None for ``auto``.

    Args:
        text: ``auto``, an axis such as ``-y``, or three numbers such as ``0,-0.8,0.6``.

    Raises:
        ScaffoldError: It is none of these.
    """
    if text == "auto":
        return None
    try:
        vector = np.array(AXES[text] if text in AXES else [float(part) for part in text.split(",")], float)
    except ValueError:
        vector = np.zeros(0)
    if vector.shape != (3,) or not np.isfinite(vector).all() or not np.linalg.norm(vector) > 0:
        raise ScaffoldError(
            f"--up is {text!r}; allowed: auto, {', '.join(AXES)}, or three numbers such as 0,-0.8,0.6, not all 0. "
            "Write --up=-y, with an equals sign, where it begins with a minus."
        )
    return vector / np.linalg.norm(vector)
