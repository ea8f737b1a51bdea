"""Faults once found, by subject: what holds now."""
