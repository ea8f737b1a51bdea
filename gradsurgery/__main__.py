"""`python -m gradsurgery` is the same as `gradsurgery`."""

from gradsurgery.cli import main

main()
