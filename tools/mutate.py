"""Break the library in small ways, one at a time, and count how many of them the tests notice.

python tools/mutate.py --room geometry --sample 100 --seed 0
python tools/mutate.py --room metrics --only metrics/overlap.py#12 metrics/surface.py#197

A mutant is one small change of one file: `<` for `<=`, `+` for `-`, a number one larger, a branch
taken the other way, a call left out. The unit and property tests that import a module of the rooms
run once as they are, which shows who runs which line. Each mutant of the sample then meets the
tests that run its line and the rest of their files, the fastest first, until one fails or --seconds
of tests have passed. All happens in temporary copies of the working tree.

    killed       a test failed
    timed out    the tests took several times as long as without the change; counts as noticed
    not reached  none of those tests runs the line and --otherwise has none; counts as missed
    survived     every test passed: look whether the change matters
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import copy
import functools
import importlib
import itertools
import json
import multiprocessing
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LIBRARY = Path("workflow/scripts/cardiform")
PYTEST = ["-q", "-p", "no:cacheprovider", "-p", "no:cov", "-p", "no:xdist"]
PYTEST += ["-m", "not slow and not gpu"]
ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
# Imported once and inherited by the process of each mutant, which then starts in no time.
HEAVY = ("coverage", "hypothesis", "numpy", "pytest", "scipy.ndimage", "scipy.spatial", "torch")

UNKNOWN_SECONDS = 100.0  # of a test file that was not measured

COMPARISONS = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
OPERATORS = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult, ast.Pow: ast.Mult, ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}  # fmt: skip
REMOVABLE = (ast.Expr, ast.AugAssign, ast.Raise, ast.Break, ast.Continue)


@dataclass(frozen=True)
class Mutant:
    file: str  # below the library, as metrics/overlap.py
    number: int  # among the mutants of its file
    line: int
    start: int  # bytes from the start of the file
    end: int
    before: str
    after: str

    @property
    def name(self) -> str:
        return f"{self.file}#{self.number}"

    def __str__(self) -> str:
        before, after = (" ".join(text.split()) for text in (self.before, self.after))
        return f"{self.name} line {self.line}: {before[:70]}  ->  {after[:70]}"

    def applied(self, source: bytes) -> bytes:
        return source[: self.start] + self.after.encode() + source[self.end :]


@dataclass(frozen=True)
class Reach:
    """What the unchanged tests do."""

    seconds: dict[str, float]  # of each test
    tests: dict[str, dict[int, list[str]]]  # of each file and line

    def plan(self, mutant: Mutant, seconds: float) -> list[str]:
        """The tests that run the line, then the rest of their files, each the fastest first, as
        many as pass within so many seconds."""
        lines = self.tests.get(mutant.file, {})
        direct = set(lines.get(mutant.line, ()))
        if "" in direct:  # runs at import: a constant, a default
            direct = {test for line in lines.values() for test in line}
        direct.discard("")
        files = {test.split("::")[0] for test in direct}
        rest = {test for test in self.seconds if test.split("::")[0] in files} - direct
        cost = self.seconds.__getitem__
        ordered = [*sorted(direct, key=cost), *sorted(rest, key=cost)]
        totals = itertools.accumulate(map(cost, ordered))
        return [test for test, total in zip(ordered, totals) if total <= seconds] or ordered[:1]


def main() -> int:
    args = arguments()
    os.environ.update(dict.fromkeys(ONE_THREAD, "1"))
    sys.dont_write_bytecode = True  # compiled files of equal age and size would hide a change
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    for name in HEAVY:
        importlib.import_module(name)
    mutants = chosen(args)
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        trees = [copied_tree(Path(folder) / str(number)) for number in range(args.processes)]
        fork = multiprocessing.get_context("fork")
        free = fork.Queue()
        for tree in trees:
            free.put(tree)
        # Its processes may start some of their own, as tests do; those of multiprocessing.Pool not.
        with ProcessPoolExecutor(args.processes, fork, take_tree, (free,)) as pool:
            reach = reach_of(pool, args)
            print(f"{len(reach.seconds)} tests, {sum(reach.seconds.values()):.0f} s", flush=True)
            plans = [reach.plan(mutant, args.seconds) or args.otherwise for mutant in mutants]
            limits = [
                30 + 4 * sum(reach.seconds.get(test, UNKNOWN_SECONDS) for test in plan)
                for plan in plans
            ]
            verdicts = []
            for mutant, verdict in zip(mutants, pool.map(tried, mutants, plans, limits)):
                verdicts.append((mutant, verdict))
                if verdict in ("survived", "not reached") or args.only:
                    print(f"{verdict:11}  {mutant}", flush=True)
    report(args.room, verdicts)
    return 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--room", nargs="+", required=True, help="folders of the library")
    parser.add_argument("--sample", type=int, default=100, help="mutants of each room")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", help="these mutants, as metrics/overlap.py#12")
    parser.add_argument("--tests", nargs="+", help="test files; else those that import the rooms")
    parser.add_argument(
        "--otherwise",
        nargs="+",
        default=[],
        help="test files for lines that no test reaches, as "
        "those that start the scripts as programs do",
    )
    parser.add_argument("--seconds", type=float, default=40, help="of tests for each mutant")
    parser.add_argument("--reach", type=Path, help="keep here who runs which line, for other runs")
    parser.add_argument("--processes", type=int, default=2)
    return parser.parse_args()


def chosen(args: argparse.Namespace) -> list[Mutant]:
    sample = []
    for room in args.room:
        files = sorted((ROOT / LIBRARY / room).glob("*.py"))
        mutants = [mutant for file in files for mutant in mutants_of(file)]
        if args.only:
            sample += [mutant for mutant in mutants if mutant.name in args.only]
        else:
            draw = random.Random(args.seed)
            picked = draw.sample(range(len(mutants)), min(args.sample, len(mutants)))
            sample += [mutants[index] for index in sorted(picked)]
        print(f"{room}: {len(mutants)} mutants", flush=True)
    return sample


# Mutants -----------------------------------------------------------------------------------------


def mutants_of(path: Path) -> list[Mutant]:
    source = path.read_bytes()
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    found: list[Mutant] = []
    for node, after in changes(ast.parse(source)):
        start = starts[node.lineno - 1] + node.col_offset
        end = starts[node.end_lineno - 1] + node.end_col_offset
        before = source[start:end].decode()
        name = path.relative_to(ROOT / LIBRARY).as_posix()
        found.append(Mutant(name, len(found), node.lineno, start, end, before, after))
    return found


def changes(tree: ast.AST) -> Iterator[tuple[ast.expr | ast.stmt, str]]:
    """Nodes and the text to put in their places."""
    for node in code(tree):
        if isinstance(node, ast.If | ast.While | ast.IfExp):
            # comparisons and "not" have mutants of their own
            if not isinstance(node.test, ast.Compare | ast.UnaryOp):
                yield node.test, f"(not ({ast.unparse(node.test)}))"
        elif isinstance(node, ast.expr | ast.stmt):
            for changed in altered(node):
                text = ast.unparse(changed)
                if text != ast.unparse(node):
                    yield node, f"({text})" if isinstance(node, ast.expr) else text


def code(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes that compute: no annotations, decorators, docstrings, messages of errors."""
    yield node
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list"):
            continue
        for child in value if isinstance(value, list) else [value]:
            docstring = isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant)
            message = isinstance(node, ast.Raise) or isinstance(child, ast.JoinedStr)
            if isinstance(child, ast.AST) and not docstring and not message:
                yield from code(child)


def altered(node: ast.AST) -> Iterator[ast.AST]:
    """The ways to break one node."""
    match node:
        case ast.Compare(ops=ops):
            for index, operator in enumerate(ops):
                changed = [*ops]
                changed[index] = COMPARISONS[type(operator)]()
                yield with_fields(node, ops=changed)
        case ast.BinOp(op=operator) if type(operator) in OPERATORS:
            yield with_fields(node, op=OPERATORS[type(operator)]())
        case ast.BoolOp(op=operator):
            yield with_fields(node, op=ast.Or() if isinstance(operator, ast.And) else ast.And())
        case ast.UnaryOp(op=ast.USub() | ast.Not(), operand=operand):
            yield operand
        case ast.Constant(value=bool(value)):
            yield ast.Constant(not value)
        case ast.Constant(value=int(value)):
            yield from (ast.Constant(value + 1), ast.Constant(value - 1))
        case ast.Constant(value=float(value)):
            yield ast.Constant(value * 2 if value else 1.0)
        case ast.Return(value=ast.expr() as value) if not is_none(value):
            yield ast.Return(ast.Constant(None))
        case ast.Call():
            yield from altered_calls(node)
        case _ if isinstance(node, REMOVABLE):
            yield ast.Pass()


def altered_calls(node: ast.Call) -> Iterator[ast.AST]:
    """The first two arguments swapped; each keyword argument left to its default."""
    first = node.args[:2]
    if len(first) == 2 and not any(isinstance(argument, ast.Starred) for argument in first):
        yield with_fields(node, args=[first[1], first[0], *node.args[2:]])
    for index, keyword in enumerate(node.keywords):
        if keyword.arg:
            rest = node.keywords[:index] + node.keywords[index + 1 :]
            yield with_fields(node, keywords=rest)


def with_fields(node: ast.AST, **fields: object) -> ast.AST:
    changed = copy.copy(node)
    for name, value in fields.items():
        setattr(changed, name, value)
    return changed


def is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


# Tests -------------------------------------------------------------------------------------------


def copied_tree(folder: Path) -> Path:
    """A copy of the files that git knows or would add, as they lie in the working tree."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    return folder


def tests_of(rooms: list[str]) -> list[str]:
    """The files of unit and property tests that import a module of the rooms."""
    imports = re.compile(rf"(from|import) cardiform\.({'|'.join(rooms)})\b")
    folders = [ROOT / "tests" / kind for kind in ("unit", "properties")]
    files = sorted(path for folder in folders for path in folder.glob("test_*.py"))
    chosen = [path for path in files if imports.search(path.read_text())]
    return [path.relative_to(ROOT).as_posix() for path in chosen]


def reach_of(pool: ProcessPoolExecutor, args: argparse.Namespace) -> Reach:
    """What the tests reach, read from --reach where an earlier call has measured it."""
    if args.reach and args.reach.exists():
        parts = json.loads(args.reach.read_text())
    else:
        files = args.tests or tests_of(args.room)
        groups = [files[start::8] for start in range(min(8, len(files)))]
        parts = list(pool.map(functools.partial(measured, args.room), groups))
        if args.reach:
            args.reach.write_text(json.dumps(parts))
    seconds: dict[str, float] = {}
    tests: dict[str, dict[int, list[str]]] = defaultdict(lambda: defaultdict(list))
    for part in parts:
        for test in part["failed"]:
            print(f"left out, for it fails without a change: {test}", flush=True)
        seconds |= part["passed"]
        for file, lines in part["tests"].items():
            for line, names in lines.items():
                tests[file][int(line)] += [n for n in names if n in part["passed"] or not n]
    return Reach(seconds, tests)


def measured(rooms: list[str], tests: list[str]) -> dict:
    """Run the tests once, unchanged: the seconds of those that pass, and who runs which line."""
    kept = TREE[0] / "reach.json"
    kept.unlink(missing_ok=True)
    in_child(TREE[0], functools.partial(measure, rooms, tests, kept), timeout=3600)
    if not kept.exists():
        raise RuntimeError(f"pytest did not end:\n{(TREE[0] / 'output.txt').read_text()}")
    return json.loads(kept.read_text())


def measure(rooms: list[str], tests: list[str], kept: Path) -> int:
    import coverage
    import pytest

    library = Path.cwd() / LIBRARY
    cov = coverage.Coverage(
        data_file=None, source=[str(library / room) for room in rooms], config_file=False
    )
    seconds: Counter[str] = Counter()
    failed = set()

    class Watch:
        def pytest_runtest_logstart(self, nodeid):
            cov.switch_context(nodeid)

        def pytest_runtest_logreport(self, report):
            seconds[report.nodeid] += report.duration
            if report.failed:
                failed.add(report.nodeid)

    cov.start()
    status = pytest.main([*PYTEST, *tests], plugins=[Watch()])
    cov.stop()
    data = cov.get_data()
    reached = {
        Path(file).relative_to(library).as_posix(): data.contexts_by_lineno(file)
        for file in data.measured_files()
    }
    passed = {test: spent for test, spent in seconds.items() if test not in failed}
    kept.write_text(json.dumps({"passed": passed, "failed": [*failed], "tests": reached}))
    return int(status)


TREE: list[Path] = []  # of this process of the pool


def take_tree(free: multiprocessing.Queue) -> None:
    TREE.append(free.get())


def tried(mutant: Mutant, tests: list[str], timeout: float) -> str:
    if not tests:
        return "not reached"
    path = TREE[0] / LIBRARY / mutant.file
    source = path.read_bytes()
    path.write_bytes(mutant.applied(source))
    try:
        status = in_child(TREE[0], functools.partial(run_tests, tests), timeout)
    finally:
        path.write_bytes(source)
    return {0: "survived", None: "timed out"}.get(status, "killed")


def run_tests(tests: list[str]) -> int:
    import pytest

    return int(pytest.main(["-x", *PYTEST, *tests]))


def in_child(tree: Path, work, timeout: float) -> int | None:
    """The exit status of `work` in a process of its own, in `tree`; None past the timeout (s)."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        status = 70
        try:
            os.setsid()
            os.chdir(tree)
            output = os.open("output.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            for stream in (1, 2):
                os.dup2(output, stream)
            status = work()
            sys.stdout.flush()
        finally:
            os._exit(status)
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def report(rooms: list[str], verdicts: list[tuple[Mutant, str]]) -> None:
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for mutant, verdict in verdicts:
        counts[mutant.file.split("/")[0]][verdict] += 1
    print("\n| room | mutants | killed | timed out | survived | not reached | score |")
    print("|---|---|---|---|---|---|---|")
    for room in rooms:
        seen = counts[room]
        noticed = seen["killed"] + seen["timed out"]
        figures = [seen.total(), seen["killed"], seen["timed out"]]
        figures += [seen["survived"], seen["not reached"]]
        score = f"{noticed / max(seen.total(), 1):.0%}"
        print(f"| {room} | {' | '.join(map(str, figures))} | {score} |")


if __name__ == "__main__":
    sys.exit(main())
