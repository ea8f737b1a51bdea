"""Tests of gradsurgery.diagnostics."""
