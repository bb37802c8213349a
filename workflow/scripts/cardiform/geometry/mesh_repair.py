"""Meshes of any origin -> closed, consistently wound ones; what cannot become one is refused."""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from ..errors import InputError, problem
from ..volumes.extent import size_doubt
from .mesh_files import read_mesh
from .surface import Mesh, face_vectors, signed_volume, surface_area

# Beyond this share of the surface a hole is no flaw: nobody knows what was there.
HOLE_SHARE = 0.1
# And below this one it is none.
NO_HOLE = 1e-6
# Corners closer than this share of the extent are one: ASCII files round them.
WELD = 1e-5
# Less thickness than this share of the extent is rounding.
FLAT = 1e-6
LARGEST_MM = 1e7  # micrometres would do, damaged numbers do not
# A turned minority below this share of the area is a minority; above it the volume decides.
CLEAR_MINORITY = 0.4
CLOSE_IT = "close it, for example with the make-manifold or hole-filling tool of a mesh editor"


def repaired(mesh: Mesh, where: str) -> tuple[Mesh, list[str]]:
    """The mesh with every edge run through as often one way as the other, and what was changed.

    Vertices that no face uses are dropped, faces that occur twice are dropped once (with a wall
    of both sides between two closed parts, both), a turned minority of the faces and turned
    parts are turned back, and holes of up to a tenth of the surface are closed. So every point
    has a whole winding number. A sound mesh is returned as it is.

    where : the file, for messages.

    Raises
    ------
    InputError
        No extent, flat, wide open, one-sided, or without any volume.
    """
    done: list[str] = []
    mesh = _without_stray(mesh, done)
    _check_extent(mesh, where)
    corners = _welded(mesh)
    mesh, corners = _without_copies(mesh, corners, done)
    if not len(mesh.faces):
        raise InputError(problem(where, "has no triangle with an area", "export the mesh again"))
    mesh = _without_stray(mesh, [])
    mesh, corners = _wound(mesh, corners, where, done)
    mesh, corners = _parts_turned(mesh, corners, done)
    mesh = _closed(mesh, corners, where, done)
    thickness = abs(signed_volume(mesh)) / surface_area(mesh)
    if thickness <= FLAT * np.ptp(mesh.vertices, axis=0).max():
        fact = "encloses no volume: its inside is not defined"
        raise InputError(problem(where, fact, "export the closed surface of the structure"))
    return mesh, done


def look_at_mesh(path: str, inside: bool) -> list[str]:
    """What is doubtful about a mesh file.

    inside : whether it is to be voxelized, so that its inside must be defined.

    Raises
    ------
    InputError
        It cannot be read, or its inside is needed and not defined.
    """
    mesh = read_mesh(path)
    if inside:
        mesh, _ = repaired(mesh, path)
    doubt = size_doubt("a mesh", float(np.ptp(mesh.vertices, axis=0).max()))
    return [doubt] if doubt else []


def library():
    """libigl; InputError where it is not installed."""
    try:
        import igl
    except ImportError:
        raise InputError("libigl is not installed; run: pip install libigl") from None
    return igl


def _without_stray(mesh: Mesh, done: list[str]) -> Mesh:
    used = np.unique(mesh.faces)
    if len(used) == len(mesh.vertices):
        return mesh
    done.append(f"dropped vertices that no face uses: {len(mesh.vertices) - len(used)}")
    faces = np.searchsorted(used, mesh.faces).astype(np.int32)
    return Mesh(mesh.vertices[used], faces)


def _check_extent(mesh: Mesh, where: str) -> None:
    vertices = mesh.vertices.astype(np.float64)
    middle = vertices.mean(axis=0)
    extent = np.ptp(vertices, axis=0).max()
    if not extent > 0:
        remedy = "export the mesh again"
        raise InputError(problem(where, "has no extent: all of its corners are equal", remedy))
    if extent > LARGEST_MM:
        remedy = "export it again, in millimetres"
        raise InputError(problem(where, f"is {extent:.3g} mm in size", remedy))
    # float32 has 24 bits
    if np.abs(vertices).max() * 2.0**-24 > 1e-4 * extent:
        fact = f"lies {np.abs(middle).max():.3g} mm from the origin, {extent:.3g} mm in size"
        raise InputError(problem(where, fact, "move it nearer: its corners are indistinguishable"))
    spread = np.linalg.svd(vertices - middle, full_matrices=False, compute_uv=False)
    if spread[2] <= FLAT * spread[0]:
        raise InputError(problem(where, "is flat: it has no inside", "export a closed surface"))


def _welded(mesh: Mesh) -> np.ndarray:
    """(F, 3) int64 numbers of the faces' corners; corners in one place have one number."""
    _, number = np.unique(mesh.vertices, axis=0, return_inverse=True)
    number = number.reshape(-1).astype(np.int64)
    corners = number[mesh.faces]
    ends, edge, _ = _edges(corners)
    rim = np.unique(ends[np.bincount(edge) % 2 == 1])
    if not len(rim):
        return corners
    # an open edge may be one of two whose ends were rounded differently
    place = np.empty((number.max() + 1, 3))
    place[number] = mesh.vertices
    reach = WELD * np.ptp(place, axis=0).max()
    pairs = cKDTree(place[rim]).query_pairs(reach, output_type="ndarray")
    if not len(pairs):
        return corners
    size = len(place)
    a, b = rim[pairs].T
    graph = coo_matrix((np.ones(len(a)), (a, b)), shape=(size, size))
    _, group = connected_components(graph, directed=False)
    return group.astype(np.int64)[corners]


def _edges(corners: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The edges of faces.

    Returns
    -------
    (E, 2) ends, the smaller number first; (3 F,) the edge of each side 0-1, 1-2, 2-0 of each
    face; (E,) how much oftener it is run through from the smaller end than from the larger.
    """
    sides = np.stack([corners, np.roll(corners, -1, axis=1)], axis=-1).reshape(-1, 2)
    size = int(corners.max(initial=0)) + 1
    low, high = sides.min(axis=1), sides.max(axis=1)
    keys, edge = np.unique(low * size + high, return_inverse=True)
    edge = edge.reshape(-1)
    forward = np.where(sides[:, 0] == low, 1, -1) * (low != high)
    net = np.bincount(edge, weights=forward, minlength=len(keys)).astype(np.int64)
    return np.stack([keys // size, keys % size], axis=1), edge, net


def _is_even(corners: np.ndarray) -> bool:
    """Whether an even number of faces meets at every edge: closed, however wound."""
    _, edge, _ = _edges(corners)
    return bool(len(edge)) and bool((np.bincount(edge) % 2 == 0).all())


def _without_copies(mesh: Mesh, corners: np.ndarray, done: list[str]) -> tuple[Mesh, np.ndarray]:
    """Without faces of fewer than three corners, and with one of those that occur twice."""
    real = np.flatnonzero((corners != np.roll(corners, 1, axis=1)).all(axis=1))
    if len(real) < len(corners):
        done.append(f"dropped faces without an area: {len(corners) - len(real)}")
    triples, group = np.unique(np.sort(corners[real], axis=1), axis=0, return_inverse=True)
    group = group.reshape(-1)
    if len(triples) == len(real):
        return _chosen(mesh, corners, real)
    sign = _parity(corners[real])
    net = np.bincount(group, weights=sign, minlength=len(triples))
    # of each triple a face that is wound like most of its copies
    order = np.lexsort((np.arange(len(real)), sign * np.sign(net[group]) < 0, group))
    first = order[np.searchsorted(group[order], np.arange(len(triples)))]
    walls_gone, one_of_each = real[np.sort(first[net != 0])], real[np.sort(first)]
    kept = walls_gone if _is_even(corners[walls_gone]) else one_of_each
    done.append(f"dropped faces that occur twice: {len(real) - len(kept)}")
    return _chosen(mesh, corners, kept)


def _parity(corners: np.ndarray) -> np.ndarray:
    """(F,) 1 where the corners come in rising order, but for a rotation; else -1."""
    a, b, c = corners.T
    return np.where(((a < b) ^ (b < c)) ^ (a < c), 1, -1)


def _chosen(mesh: Mesh, corners: np.ndarray, rows: np.ndarray) -> tuple[Mesh, np.ndarray]:
    if len(rows) == len(corners):
        return mesh, corners
    return Mesh(mesh.vertices, mesh.faces[rows]), corners[rows]


def _turned(mesh: Mesh, corners: np.ndarray, rows: np.ndarray) -> tuple[Mesh, np.ndarray]:
    """With some faces (a mask) seen from the other side."""
    faces = np.where(rows[:, None], mesh.faces[:, ::-1], mesh.faces)
    return Mesh(mesh.vertices, faces), np.where(rows[:, None], corners[:, ::-1], corners)


def _wound(mesh: Mesh, corners: np.ndarray, where: str, done: list[str]) -> tuple[Mesh, np.ndarray]:
    """With faces that meet at an edge wound alike: of each part the smaller share is turned.

    Each face is a node twice, as it is and turned. What fits together is joined, so the two
    windings of a part are two components.
    """
    count = len(corners)
    one, other, alike = _neighbours(corners)
    if alike.all():
        return mesh, corners
    there = np.where(alike, other, other + count)
    a, b = (
        np.concatenate([one, one + count]),
        np.concatenate([there, (there + count) % (2 * count)]),
    )
    graph = coo_matrix((np.ones(len(a)), (a, b)), shape=(2 * count, 2 * count))
    _, winding = connected_components(graph, directed=False)
    as_is, turned = winding[:count], winding[count:]
    if (as_is == turned).any():
        fact = "is one-sided, like a Moebius strip: it has no inside"
        raise InputError(problem(where, fact, "repair it in a mesh editor"))
    part = np.unique(np.minimum(as_is, turned), return_inverse=True)[1].reshape(-1)
    minority = as_is > turned
    area = np.linalg.norm(face_vectors(mesh), axis=1)
    whole = np.bincount(part, weights=area)
    share = np.bincount(part, weights=area * minority) / np.where(whole > 0, whole, 1)
    # where no side has a clear majority, the outside of the part is its outside
    trial, _ = _turned(mesh, corners, minority)
    inward = _volumes(trial, part) < 0
    clear = np.minimum(share, 1 - share) < CLEAR_MINORITY
    other_way = np.where(clear, share > 0.5, inward)
    mixed = (share > 0) & (share < 1)
    rows = (minority ^ other_way[part]) & mixed[part]
    done.append(f"turned faces that were wound against the others: {rows.sum()} of {count}")
    return _turned(mesh, corners, rows)


def _neighbours(corners: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Faces beside each other at an edge of just two, and whether they are wound alike."""
    _, edge, net = _edges(corners)
    order = np.argsort(edge, kind="stable")
    start = np.searchsorted(edge[order], np.arange(len(net)))
    pairs = np.flatnonzero(np.bincount(edge, minlength=len(net)) == 2)
    one, other = order[start[pairs]] // 3, order[start[pairs] + 1] // 3
    return one, other, net[pairs] == 0


def _volumes(mesh: Mesh, part: np.ndarray) -> np.ndarray:
    """(P,) signed volumes of parts, mm^3, each about its own middle.

    part : (F,) the part of each face, 0 to P - 1.
    """
    places = mesh.vertices.astype(np.float64)[mesh.faces]
    middle = np.stack([np.bincount(part, weights=w) for w in places.mean(axis=1).T], axis=1)
    places -= (middle / np.bincount(part)[:, None])[part, None]
    a, b, c = places.transpose(1, 0, 2)
    return np.bincount(part, weights=np.einsum("ij,ij->i", a, np.cross(b, c)) / 6)


def _parts_turned(mesh: Mesh, corners: np.ndarray, done: list[str]) -> tuple[Mesh, np.ndarray]:
    """With parts that face inward turned outward, but for cavities: those lie within others."""
    one, other, _ = _neighbours(corners)
    graph = coo_matrix((np.ones(len(one)), (one, other)), shape=(len(corners),) * 2)
    parts, part = connected_components(graph, directed=False)
    if parts == 1:
        return mesh, corners
    volume = _volumes(mesh, part)
    sign = 1 if volume.sum() >= 0 else -1
    area = np.linalg.norm(face_vectors(mesh), axis=1)
    against = np.flatnonzero(volume * sign < 0)
    if not len(against):
        return mesh, corners
    # its largest face, seen from both sides: the part itself counts for one half, less
    order = np.lexsort((-area, part))
    face = order[np.searchsorted(part[order], against)]
    vertices = mesh.vertices.astype(np.float64)
    middle = vertices[mesh.faces[face]].mean(axis=1)
    normal = face_vectors(mesh)[face]
    step = normal / np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-300)
    step *= 1e-3 * np.sqrt(np.maximum(area[face], 1e-300))[:, None]
    points = np.concatenate([middle + step, middle - step])
    winding = library().fast_winding_number(vertices, mesh.faces.astype(np.int64), points) * sign
    of_others = winding.reshape(2, -1).mean(axis=0) + 0.5
    wrong = np.isin(part, against[of_others < 0.5])
    if not wrong.any():
        return mesh, corners
    done.append(f"turned parts that faced inward: {(of_others < 0.5).sum()} of {parts}")
    return _turned(mesh, corners, wrong)


def _closed(mesh: Mesh, corners: np.ndarray, where: str, done: list[str]) -> Mesh:
    """With every hole closed: by a triangle, or by a fan about its middle."""
    ends, _, net = _edges(corners)
    open_edges = np.repeat(np.flatnonzero(net), np.abs(net[net != 0]))
    if not len(open_edges):
        return mesh
    place = np.empty(int(corners.max()) + 1, np.int64)
    place[corners.ravel()] = mesh.faces.ravel()  # some vertex in that place
    a, b = place[ends[open_edges]].T
    missing = np.where(net[open_edges] > 0, (b, a), (a, b))
    holes = _loops(missing.T.tolist(), mesh.vertices)
    faces: list[tuple[int, ...]] = []
    middles: list[np.ndarray] = []
    for hole in holes:
        if len(hole) > 3:
            tip = len(mesh.vertices) + len(middles)
            middles.append(mesh.vertices[hole].mean(axis=0))
            faces += [(hole[i - 1], hole[i], tip) for i in range(len(hole))]
        else:
            faces.append(tuple(hole))
    vertices = np.concatenate([mesh.vertices, np.reshape(middles, (-1, 3)).astype(np.float32)])
    lids = np.array(faces, np.int32)
    share = surface_area(Mesh(vertices, lids)) / surface_area(mesh)
    if share > HOLE_SHARE:
        fact = f"is open: closing it takes {share:.0%} of its surface"
        raise InputError(problem(where, fact, CLOSE_IT))
    if share < NO_HOLE:  # corners that lie on another face's edge
        return mesh
    done.append(f"closed holes: {len(holes)} ({share:.2%} of the surface)")
    return Mesh(vertices, np.concatenate([mesh.faces, lids]))


def _loops(edges: list[list[int]], vertices: np.ndarray) -> list[list[int]]:
    """Directed edges that enter each vertex as often as they leave it, as closed loops.

    Where the way forks, the nearest vertex to the start of the loop is next: a seam whose sides
    have different corners falls into slivers, not into one loop around all of it.
    """
    leaving: dict[int, list[int]] = {}
    for a, b in edges:
        leaving.setdefault(a, []).append(b)
    loops = []
    for start in leaving:
        while leaving[start]:
            walk, at = [start], {start: 0}
            while True:
                ways = leaving[walk[-1]]
                if len(ways) > 1:
                    away = np.linalg.norm(vertices[ways] - vertices[walk[0]], axis=1)
                    following = ways.pop(int(away.argmin()))
                else:
                    following = ways.pop()
                if following in at:
                    loops.append(walk[at[following] :])
                    del walk[at[following] + 1 :]
                    at = {vertex: i for i, vertex in enumerate(walk)}
                    if len(walk) == 1:
                        break
                else:
                    at[following] = len(walk)
                    walk.append(following)
    return loops
