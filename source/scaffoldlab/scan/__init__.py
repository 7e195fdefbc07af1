"""From what a scanner left on disk to a simulation-ready object or scene."""
