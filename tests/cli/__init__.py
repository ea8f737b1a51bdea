"""Tests of gradsurgery/cli.py."""
