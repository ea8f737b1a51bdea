"""What is no answer of a plain function."""

from gradsurgery.errors import StrategyError


class UnusableAnswer(StrategyError):
    """A plain function returned what is no weights and no direction; the message says what."""
