"""A trained policy on a robot: the exported policy, the devices, and the loop between them (docs/deployment.md)."""
