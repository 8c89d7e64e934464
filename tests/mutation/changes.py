"""All single changes of a module that a test should notice: of operators, constants, conditions, returned values."""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator
from dataclasses import dataclass

OTHER_COMPARISON = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
OTHER_OPERATOR = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}
OTHER_FUNCTION = {"min": "max", "max": "min", "any": "all", "all": "any"}
# `strict` of zip only checks, `stacklevel` says where a warning points.
WITHOUT_RESULT = {"strict", "stacklevel"}


@dataclass(frozen=True, order=True)
class Change:
    """One change.

    Attributes:
        file: relative to the repository.
        line: the first one that it touches.
        place: name of the function and class around it, empty at a module's top.
        before, after: source of what is replaced.
        start, stop: what is replaced, in characters from the begin of the file.
    """

    file: str
    line: int
    place: str
    before: str
    after: str
    start: int
    stop: int

    def applied(self, source: str) -> str:
        """The module with the change."""
        return source[: self.start] + self.after + source[self.stop :]

    def __str__(self) -> str:
        before, after = (" ".join(text.split()) for text in (self.before, self.after))
        return f"{self.file}:{self.line} {self.place}: {before} -> {after}"


def changes_of(file: str, source: str) -> list[Change]:
    """All changes of a module, in the order of its lines."""
    lines = source.splitlines(keepends=True)
    # Columns of `ast` count bytes of UTF-8.
    starts = [sum(map(len, lines[:number])) for number in range(len(lines) + 1)]

    def offset(line: int, column: int) -> int:
        return starts[line - 1] + len(lines[line - 1].encode()[:column].decode())

    found: set[Change] = set()
    for node, place in visited(ast.parse(source), ""):
        for part, after in [*((node, text) for text in replacements(node)), *negated_conditions(node)]:
            start, stop = offset(part.lineno, part.col_offset), offset(part.end_lineno, part.end_col_offset)
            found.add(Change(file, part.lineno, place, source[start:stop], after, start, stop))
    return sorted(found)


def visited(node: ast.AST, place: str) -> Iterator[tuple[ast.AST, str]]:
    """What may be changed, with the name of the function around it."""
    for name, value in ast.iter_fields(node):
        if name in {"annotation", "returns", "decorator_list", "type_params"}:
            continue
        for child in value if isinstance(value, list) else [value]:
            if not isinstance(child, ast.AST) or is_left_out(child):
                continue
            inner = place
            if isinstance(child, (ast.FunctionDef, ast.ClassDef)):
                inner = f"{place}.{child.name}".lstrip(".")
            yield child, place
            yield from visited(child, inner)


def is_left_out(node: ast.AST) -> bool:
    """Error messages and other texts, assertions for type checkers, names that a package hands on."""
    if isinstance(node, ast.keyword):
        return node.arg in WITHOUT_RESULT
    if isinstance(node, ast.Assign):
        return any(isinstance(target, ast.Name) and target.id == "__all__" for target in node.targets)
    return isinstance(node, (ast.Raise, ast.Assert, ast.JoinedStr, ast.Import, ast.ImportFrom))


def replacements(node: ast.AST) -> Iterator[str]:
    """Sources to put in the node's place."""
    match node:
        case ast.Compare() | ast.BinOp() | ast.BoolOp() | ast.UnaryOp() | ast.AugAssign():
            yield from other_operators(node)
        case ast.Constant(value=bool()):
            yield str(not node.value)
        case ast.Constant(value=int()):
            yield str(node.value + 1)
        case ast.Constant(value=float()):
            yield repr(node.value * 10 if node.value else 1.0)
        case ast.Slice():
            ends = [end for end in ("lower", "upper", "step") if getattr(node, end) is not None]
            yield from (ast.unparse(with_fields(node, **{end: None})) for end in ends)
        case ast.Call(func=ast.Name(id=name)) if name in OTHER_FUNCTION:
            yield changed(node, func=ast.Name(OTHER_FUNCTION[name]))
        case ast.Expr(value=ast.Call()):
            yield "pass"
        case ast.Return(value=ast.expr()) if not (isinstance(node.value, ast.Constant) and node.value.value is None):
            yield "return None"


def other_operators(node: ast.AST) -> Iterator[str]:
    """The same operands with another operator, or in the other order."""
    match node:
        case ast.Compare():
            for index, operator in enumerate(node.ops):
                other = OTHER_COMPARISON[type(operator)]()
                yield changed(node, ops=[*node.ops[:index], other, *node.ops[index + 1 :]])
        case ast.BinOp(op=ast.MatMult()):
            yield changed(node, left=node.right, right=node.left)
        case ast.BinOp() if type(node.op) in OTHER_OPERATOR and not is_union_of_types(node):
            yield changed(node, op=OTHER_OPERATOR[type(node.op)]())
        case ast.AugAssign() if type(node.op) in OTHER_OPERATOR:
            yield ast.unparse(with_fields(node, op=OTHER_OPERATOR[type(node.op)]()))
        case ast.UnaryOp(op=ast.USub() | ast.Not() | ast.Invert()):
            yield f"({ast.unparse(node.operand)})"
        case ast.BoolOp():
            yield changed(node, op=ast.Or() if isinstance(node.op, ast.And) else ast.And())


def negated_conditions(node: ast.AST) -> Iterator[tuple[ast.expr, str]]:
    """Conditions that are no comparison, negation or junction, which are changed as those."""
    match node:
        case ast.If(test=test) | ast.While(test=test) | ast.IfExp(test=test):
            conditions = [test]
        case ast.comprehension(ifs=conditions):
            pass
        case _:
            conditions = []
    for condition in conditions:
        if not isinstance(condition, (ast.Compare, ast.UnaryOp, ast.BoolOp)):
            yield condition, f"(not {ast.unparse(condition)})"


def is_union_of_types(node: ast.BinOp) -> bool:
    """`A | B` between names that begin with a capital, `float | None`."""
    sides = (node.left, node.right)
    return isinstance(node.op, ast.BitOr) and any(
        (isinstance(side, ast.Constant) and side.value is None)
        or (isinstance(side, (ast.Name, ast.Attribute)) and ast.unparse(side).rpartition(".")[2][0].isupper())
        for side in sides
    )


def changed(node: ast.expr, **fields: object) -> str:
    """An expression with other fields, in parentheses."""
    return f"({ast.unparse(with_fields(node, **fields))})"


def with_fields(node: ast.AST, **fields: object) -> ast.AST:
    """A copy with other fields."""
    copied = copy.copy(node)
    for name, value in fields.items():
        setattr(copied, name, value)
    return copied
