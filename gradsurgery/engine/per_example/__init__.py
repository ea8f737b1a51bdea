"""Objectives that are mixtures of per-example losses: what was given, the pass, and its checks."""
