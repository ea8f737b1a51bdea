"""Options with few values: all of them can be checked."""

import types
from typing import Annotated, Any, Literal, Union, get_args, get_origin


def finite_values(annotation: Any, default: Any) -> list[Any]:
    """The values of an option that is True or False, or one of a `Literal`; none for other options.

    Args:
        annotation: as the signature has it; without one a default of True or False tells.
        default: the option's default.
    """
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if get_origin(annotation) in (Union, types.UnionType):
        found = [value for part in get_args(annotation) for value in finite_values(part, None)]
        return [*found, None] if found and type(None) in get_args(annotation) else found
    if get_origin(annotation) is Literal:
        return list(get_args(annotation))
    return [False, True] if annotation is bool or isinstance(default, bool) else []
