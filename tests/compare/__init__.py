"""Tests of gradsurgery/compare."""
