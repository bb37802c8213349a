"""Output folders: nothing but our own files in them is written over, moved or deleted."""

from .guard import (
    HERE,
    Places,
    absolute,
    enlist,
    enter,
    is_above,
    is_listed,
    is_ours,
    move,
    problems_of,
    protect,
    reading,
    register,
    register_command,
    remove,
)
from .lists import maker_of

__all__ = [
    "HERE",
    "Places",
    "absolute",
    "enlist",
    "enter",
    "is_above",
    "is_listed",
    "is_ours",
    "maker_of",
    "move",
    "problems_of",
    "protect",
    "reading",
    "register",
    "register_command",
    "remove",
]
