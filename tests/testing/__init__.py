"""Tests of gradsurgery/testing."""
