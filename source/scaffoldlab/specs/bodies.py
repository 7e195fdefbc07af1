"""Names of the bodies of a scene, and points on their surfaces."""

import numpy as np

from scaffoldlab.specs.models import Composition


def body_names(composition: Composition) -> list[str]:
    """Every body that a keypoint may sit on: assets, and ``asset/link`` for the links of articulations."""
    from scaffoldlab.usd.reader import body_names as links_of

    names = []
    for asset in composition.scene.assets:
        if asset.kind == "articulation":
            names += [f"{asset.name}/{link}" for link in links_of(composition.usd(asset.usd))]
        else:
            names.append(asset.name)
    return names


def body_surfaces(composition: Composition) -> dict[str, np.ndarray]:
    """10 000 points on the surface of every body, in its frame [m], shape (10000, 3) each."""
    from scaffoldlab.usd.reader import surface_points

    surfaces = {}
    for name in body_names(composition):
        asset_name, _, link = name.partition("/")
        asset = composition.scene.asset(asset_name, str(composition.source))
        surfaces[name] = surface_points(composition.usd(asset.usd), link)
    return surfaces
