"""Tests of gradsurgery/tasks."""
