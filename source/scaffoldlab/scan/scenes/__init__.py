"""From a capture of a tabletop to a scene, and on to a task."""
