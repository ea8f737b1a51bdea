"""A strategy as it is written in text: its name, with its options in brackets."""

import ast
import re
from typing import Any

from gradsurgery.errors import StrategyError


def read_call(text: str) -> tuple[str, dict[str, Any]]:
    """The name and the options of "name(option=value, ...)"; values are Python literals.

    Raises:
        StrategyError: when the text cannot be read so.
    """
    match = re.fullmatch(r"\s*([^()\s]*)\s*(?:\((.*)\))?\s*", text, re.S)
    if match is None:
        raise StrategyError(
            f"strategy {text!r}: write a name, or a name with options as in cagrad(c=1.0)."
        )
    try:
        call = ast.parse(f"f({match[2] or ''})", mode="eval").body
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
            raise SyntaxError("brackets that end before the text does")
        if call.args or any(k.arg is None for k in call.keywords):
            raise StrategyError(
                f"strategy {text!r}: every option is given by name, as in cagrad(c=1.0)."
            )
        options = {}
        for keyword in call.keywords:
            if keyword.arg in options:
                raise StrategyError(
                    f"strategy {text!r}: the option {keyword.arg!r} is given twice."
                )
            try:
                options[str(keyword.arg)] = ast.literal_eval(keyword.value)
            except (ValueError, TypeError) as error:
                value = ast.unparse(keyword.value)
                raise StrategyError(
                    f"strategy {text!r}: {value} is no value; write a number or a quoted string, "
                    f"{keyword.arg}={value!r}."
                ) from error
    except SyntaxError as error:
        raise StrategyError(
            f"strategy {text!r}: {match[2]!r} are not options; "
            "write name=value, separated by commas."
        ) from error
    return match[1], options
