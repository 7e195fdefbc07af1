"""How a policy is evaluated: episodes on unseen initial states, baselines, failure classes, a report."""
