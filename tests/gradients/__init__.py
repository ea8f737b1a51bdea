"""Tests of gradsurgery/gradients."""
