"""Imitation baselines: policies that learn from rollouts of another one (Scaffolds, appendix E.2)."""
