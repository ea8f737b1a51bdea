"""Objectives that are mixtures of per-example losses."""
