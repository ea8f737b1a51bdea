"""The tests: folders as in the package, support for what they share, regression for faults once
found.
"""
