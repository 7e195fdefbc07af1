"""Writing USD assets: bodies, colliders, visuals, materials and joints, without Omniverse Kit."""
