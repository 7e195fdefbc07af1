"""RGB-D captures: reading them, and what may be wrong with them."""
