"""Isaac Lab terms: the plan as a command, observations, actions, rewards, terminations, curricula, events."""
