"""Tasks, scenes and robots as data: the YAML files, checked, and what follows from them without a simulator."""
