"""A hand and what carries it, the same in simulation and on a robot: kinematics, wrist, averaged joint targets."""
