"""Anything that may befall a file of JSON, for hypothesis: one edit of a value, a key or a letter."""

import copy
from typing import Any

from hypothesis import strategies as st

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3000) | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def places(value: object, place: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Keys and indices that lead to everything within ``value``."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path for key, each in inner for path in [(*place, key), *places(each, (*place, key))]]


@st.composite
def edited(draw: st.DrawFn, value: Any) -> Any:
    """``value`` with one part replaced, left out, doubled, or put under another key."""
    value = copy.deepcopy(value)
    *path, last = draw(st.sampled_from(places(value)))
    parent = value
    for key in path:
        parent = parent[key]
    kind = draw(st.sampled_from(["replace", "near", "drop", "double", "rename"]))
    old = parent[last]
    if kind == "near" and type(old) in (int, float):
        parent[last] = draw(st.sampled_from([-old, 0, old + 1, old * 1000, old / 3, str(old), bool(old), [old]]))
    elif kind == "drop":
        del parent[last]
    elif kind == "double" and isinstance(parent, list):
        parent.append(copy.deepcopy(old))
    elif kind == "rename" and isinstance(parent, dict):
        parent[draw(st.text(max_size=9))] = parent.pop(last)
    else:
        parent[last] = draw(VALUES)
    return value


@st.composite
def edited_text(draw: st.DrawFn, text: str) -> str:
    """``text`` with a few letters replaced, left out or put in."""
    start = draw(st.integers(0, len(text)))
    end = min(len(text), start + draw(st.integers(0, 3)))
    return (
        text[:start]
        + draw(st.text(st.sampled_from('{}[]",:.-+eE0123456789abcftrue _\n\\\x1b') | st.characters(), max_size=3))
        + text[end:]
    )


def says(parsed: Any, raw: Any) -> bool:
    """Whether all that was read stands in the JSON so; what is absent is nothing, false, or the temperature 1."""
    if isinstance(parsed, dict):
        return isinstance(raw, dict) and all(
            says(value, raw[key])
            if raw.get(key) is not None
            else value in (None, False, [], ()) or (key, value) == ("temperature", 1.0)
            for key, value in parsed.items()
        )
    if isinstance(parsed, list | tuple):
        return isinstance(raw, list) and len(parsed) == len(raw) and all(map(says, parsed, raw))
    alike = {float: (int, float)}.get(type(parsed), (type(parsed),))
    return type(raw) in alike and bool(parsed == raw)
