"""Unknown keyword arguments of public functions: the message names the nearest argument."""

from __future__ import annotations

from functools import wraps
from inspect import Parameter, signature
from types import FunctionType
from typing import TYPE_CHECKING, Any, TypeVar

from ._checks import listed, nearest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import ParamSpec

    P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T", bound=type)


def check_keywords(function: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Raise TypeError if an argument does not exist. The message names the nearest one."""
    known = list(known)
    for name in given:
        if name not in known:
            close = listed(nearest(name, known, n=1, cutoff=0.6)) or listed(nearest(name, known))
            raise TypeError(f"{function}() has no argument {name!r}. Nearest: {close or 'none'}.")


def spelled(function: Callable[P, R]) -> Callable[P, R]:
    """The function, with a check of its keyword arguments by :func:`check_keywords`; unchanged if it takes any keywords.

    Examples
    --------
    >>> spelled(lambda dose_key=None: dose_key)(dose_ky="dose")
    Traceback (most recent call last):
    TypeError: <lambda>() has no argument 'dose_ky'. Nearest: 'dose_key'.
    """
    parameters = signature(function).parameters.values()
    if any(each.kind is Parameter.VAR_KEYWORD for each in parameters):
        return function
    known = [
        each.name
        for each in parameters
        if each.name not in {"self", "cls"} and each.kind is not Parameter.POSITIONAL_ONLY
    ]

    label = function.__qualname__.removesuffix(".__init__").rpartition(".")[2]

    @wraps(function)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        if not kwargs.keys() <= set(known):
            check_keywords(label, kwargs, known)
        return function(*args, **kwargs)

    return checked


def spell_functions(namespace: dict[str, Any], names: Iterable[str]) -> None:
    """Replace functions of a module by :func:`spelled` ones."""
    for name in names:
        if isinstance(namespace.get(name), FunctionType):
            namespace[name] = spelled(namespace[name])


def spell_methods(model: T) -> T:
    """Class decorator: public methods of the class and of its bases in scgim check their keyword arguments."""
    for base in model.__mro__:
        for name, member in list(vars(base).items()) if base.__module__.startswith("scgim.") else ():
            if name.startswith("_") and name != "__init__":
                continue
            if isinstance(member, FunctionType):
                setattr(base, name, spelled(member))
            elif isinstance(member, classmethod):
                setattr(base, name, classmethod(spelled(member.__func__)))
    return model
