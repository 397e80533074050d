"""Where the package can be changed so that it goes on to look right: what a test should notice."""

import ast
import collections
import copy
import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

from shufflenetv2.package import PACKAGE

_PAIRS = "Lt LtE, Gt GtE, Eq NotEq, In NotIn, Is IsNot, And Or, Add Sub, Mult Div, BitOr BitAnd, FloorDiv Mod"
_OTHER = {a: b for pair in _PAIRS.split(", ") for a, b in itertools.permutations(getattr(ast, x) for x in pair.split())}


class Mutant(NamedTuple):
    key: str  # tells it from all others, wherever its line moves
    file: str  # below shufflenetv2/
    line: int
    new: str
    begin: int  # of what it replaces, in the file's bytes
    end: int


def changes(node: Any) -> Iterator[Any]:
    """What may stand in ``node``'s place."""

    def changed(**fields: object) -> Any:
        other = copy.copy(node)
        vars(other).update(fields)
        return other

    match node:
        case ast.Compare(ops=ops):
            yield from (changed(ops=[*ops[:at], _OTHER[type(op)](), *ops[at + 1 :]]) for at, op in enumerate(ops))
        case ast.BoolOp(op=op, values=values):
            yield changed(op=_OTHER[type(op)]())
            yield from (changed(values=[*one]) for one in itertools.combinations(values, len(values) - 1))
        case ast.Constant(value=bool() as value):
            yield changed(value=not value)
        case ast.Constant(value=int() | float() as value):
            yield changed(value=value + 1 if isinstance(value, int) else value * 2 or 1.0)
        case ast.UnaryOp(op=ast.Not()):
            yield node.operand
        case ast.BinOp(op=op) | ast.AugAssign(op=op) if type(op) in _OTHER:
            yield changed(op=_OTHER[type(op)]())
        case ast.If() | ast.While() | ast.IfExp():
            yield changed(test=ast.UnaryOp(ast.Not(), node.test))
        case ast.Return(value=ast.AST() as value) if ast.unparse(value) != "None":
            yield changed(value=ast.Constant(None))
        case ast.Raise() | ast.Expr(value=ast.Call()):
            yield ast.Pass()


def points(node: ast.AST) -> Iterator[Any]:
    """The nodes that may change: no annotations, and nothing in f-strings, whose places Python 3.11 does not know."""
    yield node
    fields = [value for name, value in ast.iter_fields(node) if name not in ("annotation", "returns")]
    for each in itertools.chain.from_iterable(value if isinstance(value, list) else [value] for value in fields):
        if isinstance(each, ast.AST) and not isinstance(each, ast.JoinedStr):
            yield from points(each)


def mutants(paths: str) -> Iterator[Mutant]:
    """All mutants of the files and folders in ``paths``, below shufflenetv2/."""
    times: dict[str, int] = collections.Counter()
    roots = [PACKAGE / each for each in paths.split()]
    for path in sorted(each for root in roots for each in (root.rglob("*.py") if root.is_dir() else [root])):
        data, file = path.read_bytes(), path.relative_to(PACKAGE).as_posix()
        starts = [0, *itertools.accumulate(len(line) for line in data.splitlines(keepends=True))]
        for node in points(ast.parse(data)):
            for other in changes(node):
                place, made = (each.test if isinstance(each, ast.If | ast.While) else each for each in (node, other))
                begin = starts[place.lineno - 1] + place.col_offset
                end = starts[place.end_lineno - 1] + place.end_col_offset  # type: ignore[operator]
                new = ast.unparse(made) if isinstance(place, ast.stmt) else f"({ast.unparse(made)})"
                key = f"{file}: {' '.join(data[begin:end].decode().split())} -> {new}"
                times[key] += 1
                yield Mutant(key + f" #{times[key]}" * (times[key] > 1), file, place.lineno, new, begin, end)
