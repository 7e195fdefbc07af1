"""Experiments as data: a YAML file names rows, the grid runs and caches their artefacts, the tables compare them."""
