"""Tests of gradsurgery/solvers."""
