"""Expressions over results, as people write them: read into a tree of known parts, nothing is executed.

Numbers, names of values, comparisons, ``and or not``, ``+ - * / % **`` and a few functions: no
attributes, no subscripts, no other calls, bounded in size. So a text from a form can't do anything
but compare numbers.
"""

import ast
import math
from collections.abc import Callable, Mapping
from typing import Any

_MOST_CHARACTERS = 2000
_MOST_NODES = 300
_MOST_DEPTH = 40
_BINARY = (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.Mod, ast.Pow)
_COMPARE = (ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.Eq, ast.NotEq)
FUNCTIONS = ("abs", "sqrt", "log", "exp", "min", "max", "known")
Evaluated = Any  # a float or bool, or an array of them


class Expression:
    """A condition over named values, true or false for one item or for many.

    Parameters
    ----------
    text
        For example ``fit_resolution_A < 6 and abs(tilt_deg) < 5``. ``known(x)`` says whether x has a value;
        every other comparison with a value that isn't there is false.

    Raises
    ------
    ValueError
        With a sentence that says what isn't allowed, and where.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        if len(text) > _MOST_CHARACTERS:
            raise ValueError(f"an expression has {_MOST_CHARACTERS} characters at most; this has {len(text)}")
        try:
            tree = ast.parse(text.strip(), mode="eval")
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            where = f" at character {error.offset}" if isinstance(error, SyntaxError) and error.offset else ""
            raise ValueError(f"not an expression{where}: {getattr(error, 'msg', error)}") from error
        if sum(1 for _ in ast.walk(tree)) > _MOST_NODES:
            raise ValueError(f"an expression has {_MOST_NODES} parts at most")
        self.names: tuple[str, ...] = ()
        _check(tree.body, 0)
        called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
        self.names = tuple(
            dict.fromkeys(
                node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and id(node) not in called
            )
        )
        if not _is_condition(tree.body):
            raise ValueError("expected a condition, such as 'fit_resolution_A < 6'; this gives a number")
        self._body = tree.body

    def over(self, columns: Mapping[str, Any], count: int) -> Any:
        """Whether it's true for each of ``count`` items.

        Parameters
        ----------
        columns
            Arrays of numbers, (count,), NaN where there is none. A name that isn't there is unknown to all.

        Returns
        -------
        (count,) booleans.
        """
        import numpy as np

        missing = np.full(count, np.nan)
        with np.errstate(all="ignore"):
            found = _evaluate(self._body, lambda name: columns.get(name, missing), np)
        return np.broadcast_to(np.asarray(found, dtype=bool), (count,))

    def of(self, values: Mapping[str, Any]) -> bool:
        """Whether it's true for one item."""
        import numpy as np

        columns = {name: np.array([_float(values.get(name))]) for name in self.names}
        return bool(self.over(columns, 1)[0])


def _float(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else math.nan


def _check(node: ast.AST, depth: int) -> None:
    """Refuse everything that isn't known to be harmless."""
    if depth > _MOST_DEPTH:
        raise ValueError(f"an expression is {_MOST_DEPTH} levels deep at most")
    match node:
        case ast.BoolOp(values=values):
            parts: list[ast.expr] = list(values)
        case ast.UnaryOp(op=ast.Not() | ast.USub() | ast.UAdd(), operand=operand):
            parts = [operand]
        case ast.BinOp(left=left, op=op, right=right) if isinstance(op, _BINARY):
            parts = [left, right]
        case ast.Compare(left=left, ops=ops, comparators=others) if all(isinstance(o, _COMPARE) for o in ops):
            parts = [left, *others]
        case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if name in FUNCTIONS:
            wanted = (2, 8) if name in ("min", "max") else (1, 1)
            if not wanted[0] <= len(args) <= wanted[1]:
                raise ValueError(f"{name}() takes {'two or more values' if wanted[0] == 2 else 'one value'}")
            if name == "known" and not isinstance(args[0], ast.Name):
                raise ValueError("known() takes the name of a value")
            parts = list(args)
        case ast.Name():
            return
        case ast.Constant(value=bool()):
            raise ValueError("True and False can't stand in an expression: leave the comparison out")
        case ast.Constant(value=int() | float() as value):
            if not abs(value) <= 1e300:
                raise ValueError("a number in it is too large")
            return
        case _:
            raise ValueError(f"'{ast.unparse(node)[:60]}' isn't allowed here: {_ALLOWED}")
    for part in parts:
        _check(part, depth + 1)
    _check_sorts(node, parts)


_ALLOWED = "only numbers, names of values, comparisons, and, or, not, + - * / % **, and " + ", ".join(
    FUNCTIONS
)


def _check_sorts(node: ast.AST, parts: list[ast.expr]) -> None:
    """Conditions are joined by and, or, not; numbers are what the rest works on."""
    logical = isinstance(node, ast.BoolOp) or (isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not))
    for part in parts:
        if _is_condition(part) != logical:
            wanted = "a condition" if logical else "a number"
            raise ValueError(f"'{ast.unparse(part)[:60]}' should be {wanted}")


def _is_condition(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.BoolOp | ast.Compare)
        or (isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not))
        or (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "known")
    )


def _evaluate(node: ast.AST, look_up: Callable[[str], Any], np: Any) -> Evaluated:
    match node:
        case ast.Constant(value=number):
            return float(number)  # type: ignore[arg-type]  # checked: an int or a float
        case ast.Name(id=name):
            return look_up(name)
        case ast.BoolOp(op=op, values=values):
            join = np.logical_and if isinstance(op, ast.And) else np.logical_or
            found = _evaluate(values[0], look_up, np)
            for part in values[1:]:
                found = join(found, _evaluate(part, look_up, np))
            return found
        case ast.UnaryOp(op=sign, operand=operand):
            value = _evaluate(operand, look_up, np)
            if isinstance(sign, ast.Not):
                return np.logical_not(value)
            return -value if isinstance(sign, ast.USub) else value
        case ast.BinOp(left=left, op=op, right=right):
            work = _ARITHMETIC[type(op)]
            return getattr(np, work)(_evaluate(left, look_up, np), _evaluate(right, look_up, np))
        case ast.Compare(left=left, ops=ops, comparators=others):
            return _compared(left, ops, others, look_up, np)
        case ast.Call(func=ast.Name(id=name), args=args):
            inner = [_evaluate(one, look_up, np) for one in args]
            if name == "known":
                return np.isfinite(inner[0])
            found = inner[0]
            if name in ("min", "max"):
                for one in inner[1:]:
                    found = (np.minimum if name == "min" else np.maximum)(found, one)
                return found
            return getattr(np, name)(found)
    raise AssertionError("checked before")


_ARITHMETIC: dict[type[ast.operator], str] = {
    ast.Add: "add",
    ast.Sub: "subtract",
    ast.Mult: "multiply",
    ast.Div: "divide",
    ast.Mod: "mod",
    ast.Pow: "float_power",
}
_COMPARED: dict[type[ast.cmpop], str] = {
    ast.Lt: "less",
    ast.LtE: "less_equal",
    ast.Gt: "greater",
    ast.GtE: "greater_equal",
    ast.Eq: "equal",
    ast.NotEq: "not_equal",
}


def _compared(
    left: ast.expr, ops: list[ast.cmpop], others: list[ast.expr], look_up: Callable[[str], Any], np: Any
) -> Evaluated:
    """A chain of comparisons; one with a value that isn't known is false, ``!=`` too."""
    before = _evaluate(left, look_up, np)
    found: Any = True
    for op, other in zip(ops, others, strict=True):
        after = _evaluate(other, look_up, np)
        there = np.logical_and(np.logical_not(np.isnan(before)), np.logical_not(np.isnan(after)))
        found = np.logical_and(found, np.logical_and(there, getattr(np, _COMPARED[type(op)])(before, after)))
        before = after
    return found
