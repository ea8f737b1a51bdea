"""Several processes that act as one: what they exchange in a step, and how."""
