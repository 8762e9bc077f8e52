"""Checks of option values, in the words of the command line. Loads nothing."""

from typing import Any


def at_least(config: Any, limits: dict[str, float]) -> None:
    """`ValueError` for the first option below its limit; options by their dotted names."""
    for name, least in limits.items():
        if (value := lookup(config, name)) < least:
            raise ValueError(f"{name}={value} must be at least {least}")


def one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    """`ValueError` unless `value` is one of the known ones."""
    if value not in known:
        raise ValueError(f"{name}={value!r} must be one of {', '.join(known)}")


def lookup(config: Any, name: str) -> Any:
    """The value of an option by its dotted name."""
    for part in name.split("."):
        config = getattr(config, part)
    return config
