"""One test for many values: it looks at all of them, and reports each that fails."""

from __future__ import annotations

from functools import wraps
from inspect import signature
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["every"]

_T = TypeVar("_T")


def every(argument: str, values: Iterable[_T], name: Callable[[_T], str] = str) -> Callable[[Any], Any]:
    """Decorate a test to run for each value of an argument within one case.

    A case of pytest costs a millisecond in each worker that collects it, which for a rule over a thousand queries is
    more than the rule.

    Args:
        argument: The argument of the test that gets a value.
        values: The values; there must be some.
        name: What a failure calls a value.
    """
    found = list(values)

    def decorate(test: Callable[..., None]) -> Callable[..., None]:
        @wraps(test)
        def whole(**fixtures: Any) -> None:
            failures = []
            for value in found:
                try:
                    test(**{argument: value}, **fixtures)
                except AssertionError as error:
                    failures.append(f"{name(value)}: {error}")
            assert found, f"there is no {argument} to look at"
            assert not failures, "\n".join(failures)

        own = signature(test)
        rest = [parameter for parameter in own.parameters.values() if parameter.name != argument]
        whole.__signature__ = own.replace(parameters=rest)  # type: ignore[attr-defined] # what pytest reads fixtures from
        return whole

    return decorate
