"""All recognisers: ours, and those that a facility's packages bring by entry point."""

from functools import cache, lru_cache
from importlib.metadata import entry_points

from vitriflow.acquisition.recognisers.base import FileKind, Recognised, Recogniser
from vitriflow.acquisition.recognisers.epu import EPU
from vitriflow.acquisition.recognisers.plain import PLAIN, TEMPORARY
from vitriflow.acquisition.recognisers.serialem import SERIALEM
from vitriflow.acquisition.recognisers.tomo5 import TOMO5
from vitriflow.errors import BadConfig

GROUP = "vitriflow.recognisers"
_UNKNOWN = Recognised(FileKind.UNKNOWN, "")


@cache
def recognisers() -> tuple[Recogniser, ...]:
    """Every recogniser in the order in which they're asked: temporary names, the facility's own, ours, plain.

    Raises
    ------
    BadConfig
        When an installed one can't be loaded or used, naming it.
    """
    return (TEMPORARY, *_installed(), TOMO5, EPU, SERIALEM, PLAIN)


def _installed() -> list[Recogniser]:
    found = []
    for point in sorted(entry_points(group=GROUP), key=lambda point: point.name):
        where = f"recogniser '{point.name}' ({point.value})"
        remedy = "Correct or remove the package that announces it under 'vitriflow.recognisers'."
        try:
            recogniser = point.load()
        except Exception as error:  # a facility's own module may fail in any way
            raise BadConfig(
                where, "a module that can be loaded", f"{type(error).__name__}: {error}", remedy
            ) from error
        if not isinstance(recogniser, Recogniser):
            kind = type(recogniser).__name__
            raise BadConfig(where, "an instance of vitriflow.acquisition.Recogniser", f"a {kind}", remedy)
        recogniser.check()
        found.append(recogniser)
    return found


@lru_cache(maxsize=131_072)  # a session's keys are asked for at every look
def recognise(key: str) -> Recognised:
    """Say what a file is from its path below the source folder (with forward slashes).

    Raises
    ------
    BadConfig
        When a facility's recogniser fails, naming it and its rule.
    """
    for recogniser in recognisers():
        found = recogniser.recognise(key)
        if found is not None:
            return found
    return _UNKNOWN
