"""Output folders: nothing but our own files in them is written over, moved or deleted."""

from .guard import (
    HERE,
    Places,
    absolute,
    enlist,
    enter,
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

__all__ = [
    "HERE",
    "Places",
    "absolute",
    "enlist",
    "enter",
    "is_listed",
    "is_ours",
    "move",
    "problems_of",
    "protect",
    "reading",
    "register",
    "register_command",
    "remove",
]
