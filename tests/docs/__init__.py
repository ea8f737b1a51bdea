"""Tests of the docs and the README."""
