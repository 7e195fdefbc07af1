"""Keypoints: what one is, how a pixel becomes one, and how far the tracked ones are from the plan."""
