"""Draw the rooms of the library and what each imports: docs/images/house.png, docs/architecture.md.

    python tools/draw_house.py

The arrows are read from the imports. A test holds picture and page against them.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LIBRARY = ROOT / "workflow" / "scripts" / "cardiform"
SCRIPTS, RULES = ROOT / "workflow" / "scripts", ROOT / "workflow" / "rules"
PAGE = ROOT / "docs" / "architecture.md"
PICTURE = ROOT / "docs" / "images" / "house.png"

# The cellar: every room stands on these files, so no arrow is drawn to them.
CELLAR = ("errors", "labels", "files", "tables", "formats", "options", "outputs")
# room: left edge, floor (0 is the lowest), width, what is in it.
PLAN = {
    "volumes": (0.0, 0, 1.9, "label maps and\nimages in files"),
    "cohort": (2.3, 0, 1.9, "cases, split, work\non each case"),
    "geometry": (5.3, 0, 2.6, "surfaces, distances,\npoints, bands, meshes"),
    "anatomy": (8.2, 0, 1.6, "centrelines,\nrepair, noise"),
    "pictures": (10.0, 0, 1.8, "surfaces, slices,\ncurves"),
    "artefact": (12.2, 0, 1.8, "model.pt, read\nand written"),
    "sparse": (14.6, 0, 2.2, "sparse voxels and\ntheir operators"),
    "phantom": (3.4, 1, 1.9, "procedural hearts:\ndemo and truth"),
    "metrics": (5.5, 1, 1.8, "overlap, surface,\ntopology, records"),
    "training": (11.4, 1, 2.1, "loop, checkpoints,\nranks; a job"),
    "completion": (7.2, 2, 1.9, "missing classes:\nfiles, figures"),
    "held_out": (9.6, 2, 1.7, "figures and files\nof held-out cases"),
    "cli": (0.0, 3, 1.9, "flags and\nconfig"),
    "search": (4.4, 3, 1.9, "settings of trials,\nrungs, the best"),
    "launching": (2.3, 3, 1.8, "processes and\nGPUs of a job"),
    "fusion": (7.9, 3, 1.9, "one consistent\nlabel map of many"),
    "vecset": (10.2, 3, 1.9, "autoencoder of\nwhole hearts"),
    "vqvae": (12.3, 3, 1.9, "sparse VQ-VAE of\nsingle structures"),
    "ldm": (14.4, 3, 1.9, "latent diffusion\nof whole hearts"),
    "coronary": (16.5, 3, 1.9, "refinement of\nthin structures"),
    "measures": (9.0, 4, 2.1, "measures, norms,\ngroups"),
    "statistics": (6.7, 4, 2.1, "modes of variation,\nscores, paths"),
    "latent_statistics": (0.0, 4, 2.7, "modes of\nVecSet latents"),
    "set_diffusion": (4.2, 4, 2.3, "diffusion of\nVecSet latents"),
    "apply": (11.3, 4, 2.0, "trained models\non new cases"),
    "export": (13.6, 4, 2.1, "bundles of\ntrained models"),
    "report": (16.0, 4, 2.1, "one page about\na cohort"),
}
FLOORS = (0.0, 2.1, 3.65, 5.75, 7.75)  # lower edges of the rooms
HEIGHT, WIDTH, SCRIPTS_AT = 1.15, 18.4, 9.75
STONE, WATER, FIRE = "#ece7da", "#d8e6f0", "#f8ddc9"  # standard library, numpy, torch
INK, ROOF, WALL = "#2f3640", "#8c3b2f", "#fbfaf7"
ARROWS = ("#33658a", "#b5533c", "#4f7942", "#7a5195", "#a07800", "#008080")


def main() -> None:
    edges = imports_of_rooms()
    PAGE.write_text(with_block(PAGE.read_text(encoding="utf-8"), block(edges)), encoding="utf-8")
    draw(edges)
    print(PAGE.relative_to(ROOT), PICTURE.relative_to(ROOT), sep="\n")


def imports_of_rooms() -> dict[str, set[str]]:
    """Room or loose file -> those that its files import."""
    rooms: dict[str, set[str]] = {}
    for path in sorted(LIBRARY.rglob("*.py")):
        folders = path.relative_to(LIBRARY).parts[:-1]
        own = folders[0] if folders else path.stem
        if own != "__init__":
            rooms.setdefault(own, set()).update(_imported(path, ("cardiform", *folders)))
    return {own: {room for room in found if room in rooms} - {own} for own, found in rooms.items()}


def _imported(path: Path, package: tuple[str, ...]) -> set[str]:
    """The rooms that a file imports anywhere, also within a function."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            stem = ".".join([*base, *([node.module] if node.module else [])])
            names = [f"{stem}.{alias.name}" for alias in node.names]
        found.update(name.split(".")[1] for name in names if name.startswith("cardiform."))
    return found


def block(edges: dict[str, set[str]]) -> str:
    """The imports as lines of text, the files of the cellar left out where all use them."""
    lines = []
    for room in [*CELLAR, *PLAN]:
        used = sorted(edges[room] - ({*CELLAR} if room in PLAN else set()))
        lines.append(f"{room:<10} {' '.join(used) or '-'}")
    return "\n".join(lines)


def with_block(page: str, text: str) -> str:
    """The page with the block between its marks replaced."""
    marked = re.compile(r"(<!-- tools/draw_house.py -->\n```text\n).*?(```\n)", re.S)
    assert marked.search(page), "the page has lost its marks"
    return marked.sub(lambda match: f"{match[1]}{text}\n{match[2]}", page)


def reduced(edges: dict[str, set[str]]) -> dict[str, set[str]]:
    """The arrows that are drawn: between rooms of the plan, none that follows from others."""
    plain = {room: edges[room] & PLAN.keys() for room in PLAN}

    def below(room: str) -> set[str]:
        return plain[room].union(*(below(other) for other in plain[room]))

    return {
        room: {x for x in used if not any(x in below(other) for other in used)}
        for room, used in plain.items()
    }


def draw(edges: dict[str, set[str]]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams["font.family"] = "DejaVu Sans"
    figure, axes = plt.subplots(figsize=(14, 11.1))
    axes.set(xlim=(-1.1, WIDTH + 1.1), ylim=(-2.1, 13.9))
    axes.set_aspect("equal")
    axes.axis("off")
    _walls(axes, edges)
    _arrows(axes, reduced(edges))
    for room, (left, floor, width, words) in PLAN.items():
        _box(axes, left, FLOORS[floor], width, HEIGHT, _colour(room), room, words)
    figure.subplots_adjust(0, 0, 1, 1)
    # the picture carries its arrows as text, for the test that compares them with the code
    figure.savefig(PICTURE, dpi=110, metadata={"Software": None, "Description": block(edges)})
    plt.close(figure)


def _colour(room: str) -> str:
    """By the libraries that the files of a room import."""
    folder = LIBRARY / room
    files = folder.rglob("*.py") if folder.is_dir() else [folder.with_suffix(".py")]
    text = "\n".join(path.read_text(encoding="utf-8") for path in files)
    libraries = set(re.findall(r"^ *(?:import|from) (torch|numpy)\b", text, re.M))
    return FIRE if "torch" in libraries else WATER if libraries else STONE


def _walls(axes, edges: dict[str, set[str]]) -> None:
    """The house around the rooms: roof, scripts, walls, cellar, and what the colours mean."""
    top = SCRIPTS_AT + 1.3
    axes.fill([-0.45, WIDTH + 0.45, WIDTH + 0.45, -0.45], [top, top, -1.9, -1.9], WALL, zorder=0)
    for x in (-0.45, WIDTH + 0.45):
        axes.plot([x, x], [-1.9, top], color=ROOF, linewidth=4, zorder=1)
    axes.fill([-1.1, WIDTH / 2, WIDTH + 1.1], [top, 13.8, top], color=ROOF, zorder=1)
    rules = len(list(RULES.glob("*.smk")))
    axes.text(WIDTH / 2, top + 1.05, "rules", color="white", **_bold(17))
    words = f"Snakefile and {rules} files of rules: what runs when"
    axes.text(WIDTH / 2, top + 0.5, words, color="white", **_plain(11))
    number = len(list(SCRIPTS.glob("*.py")))
    words = f"{number} command lines: options, main, guard; argparse ends here"
    _box(axes, 0, SCRIPTS_AT, WIDTH, 0.95, "white", "scripts", words)
    words = "input errors, the label table, atomic files, tables, versions of formats, every option"
    _box(axes, 0, -1.65, WIDTH, 0.95, STONE, "   ·   ".join(CELLAR), words)
    called = set().union(*(_imported(path, ()) for path in SCRIPTS.glob("*.py")))
    between = set().union(*edges.values())  # these are reached through a room
    for room in sorted((called & PLAN.keys()) - between):
        x = PLAN[room][0] + PLAN[room][2] / 2
        _arrow(axes, (x, SCRIPTS_AT), (x, FLOORS[PLAN[room][1]] + HEIGHT), INK)
    for y, colour, words in ((13.4, STONE, "standard library"), (12.9, WATER, "numpy"),
                             (12.4, FIRE, "torch")):  # fmt: skip
        axes.add_patch(_rectangle(-0.6, y - 0.13, 0.38, 0.26, colour))
        axes.text(-0.05, y, words, color=INK, **{**_plain(10), "ha": "left"})


def _arrows(axes, edges: dict[str, set[str]]) -> None:
    """Curves from room to room; where several meet an edge, they share it from left to right."""
    middle = {room: left + width / 2 for room, (left, _, width, _) in PLAN.items()}
    users: dict[str, list[str]] = {room: [] for room in PLAN}
    for room in sorted(edges):
        for used in edges[room]:
            if PLAN[room][1] > PLAN[used][1]:
                users[used].append(room)
    for number, room in enumerate(PLAN):
        colour = ARROWS[number % len(ARROWS)]
        left, floor, width, _ = PLAN[room]
        down = sorted((x for x in edges[room] if PLAN[x][1] < floor), key=lambda x: middle[x])
        for used in down:
            others = sorted(users[used], key=lambda x: middle[x])
            start = left + width * (down.index(used) + 1) / (len(down) + 1)
            end = PLAN[used][0] + PLAN[used][2] * (others.index(room) + 1) / (len(others) + 1)
            bottom, top = FLOORS[floor], FLOORS[PLAN[used][1]] + HEIGHT
            _arrow(axes, (start, bottom), (end, top), colour)
        for used in sorted(edges[room] - set(down)):  # on the same floor
            y = FLOORS[floor] + HEIGHT / 2
            from_left = middle[used] > middle[room]
            start = left + width if from_left else left
            end = PLAN[used][0] if from_left else PLAN[used][0] + PLAN[used][2]
            _arrow(axes, (start, y), (end, y), colour)


def _arrow(axes, start, end, colour) -> None:
    """Straight down first, then over to its end: so it keeps clear of the rooms on its way."""
    from matplotlib.patches import FancyArrowPatch
    from matplotlib.path import Path as Curve

    drop = start[1] - end[1]
    points = [start, (start[0], end[1] + 0.2 * drop), (end[0], end[1] + 0.28 * drop), end]
    curve = Curve(points, [Curve.MOVETO, Curve.CURVE4, Curve.CURVE4, Curve.CURVE4])
    if not drop:
        curve = Curve([start, end])
    axes.add_patch(
        FancyArrowPatch(
            path=curve, arrowstyle="-|>", mutation_scale=13, linewidth=1.6, color=colour, zorder=2
        )
    )


def _rectangle(left, low, width, height, colour):
    from matplotlib.patches import FancyBboxPatch

    style = "round,pad=0,rounding_size=0.09"
    return FancyBboxPatch(
        (left, low), width, height, boxstyle=style, facecolor=colour, edgecolor=INK, zorder=3
    )


def _box(axes, left, low, width, height, colour, title, words) -> None:
    axes.add_patch(_rectangle(left, low, width, height, colour))
    x, lines = left + width / 2, words.count("\n") + 1
    axes.text(x, low + height - 0.27, title, color=INK, zorder=4, **_bold(12.5))
    y = low + (height - 0.42) / 2 + (0 if lines > 1 else 0.02)
    axes.text(x, y, words, color=INK, zorder=4, linespacing=1.25, **_plain(8.8))


def _bold(size: float) -> dict:
    return {"ha": "center", "va": "center", "fontsize": size, "fontweight": "bold"}


def _plain(size: float) -> dict:
    return {"ha": "center", "va": "center", "fontsize": size}


if __name__ == "__main__":
    main()
