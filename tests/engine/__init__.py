"""Tests of gradsurgery/engine."""
