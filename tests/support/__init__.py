"""What the tests share: models, losses, loops, and comparisons."""
