"""Tests of gradsurgery/strategies."""
