"""Tests of gradsurgery/contract."""
