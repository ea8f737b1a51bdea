"""A strategy and a task for gradsurgery, in a package of their own."""
