"""Off-screen pictures of surface meshes: a small rasteriser, and labelled figures.

The rasteriser is a z-buffer in numpy: exact occlusion for any number of triangles, smooth
shading from vertex normals, no window system. World coordinates are RAS millimetres; views
are (elevation, azimuth) in degrees as in matplotlib, so azimuth 90 looks from anterior with
the patient's right on the left of the picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# vertices (V, 3), faces (F, 3), "#rrggbb", alpha
PicturedMesh = tuple[np.ndarray, np.ndarray, str, float]

ANTERIOR = (8.0, 90.0)
POSTERIOR_LEFT = (12.0, 235.0)
BACKGROUND = np.ones(3)
# Pictures are drawn at this multiple of their size and averaged down.
SUPERSAMPLING = 2
# Pixel candidates that are tested at a time: so many stay in the processor's cache.
CHUNK_CANDIDATES = 1 << 17
EMPTY = np.iinfo(np.int64).max
# Of a triangle in the picture, pixels²: what is seen edge on, or is a line, covers nothing.
LEAST_AREA = 1e-200

# Light directions in the camera's axes (right, up, towards the eye) and their strengths.
_LIGHTS = ((np.array([-0.45, 0.6, 0.66]), 0.62), (np.array([0.7, 0.1, 0.7]), 0.22))
_AMBIENT = 0.3
_GLOSS, _SHININESS = 0.16, 28
# Darkening of surfaces that lie behind their surroundings, over this share of the picture.
_OCCLUSION, _OCCLUSION_REACH = 0.35, 0.02


@dataclass(frozen=True)
class Camera:
    """An orthographic view.

    axes : (3, 3) rows right, up, towards the eye. center : (3,) mm, in the middle of the
    picture. half_width : mm from the middle to the edge.
    """

    axes: np.ndarray
    center: np.ndarray
    half_width: float

    @classmethod
    def around(cls, vertices: np.ndarray, view: tuple[float, float]) -> Camera:
        """The camera that shows all (V, 3) vertices from ``view``, with a small rim."""
        elevation, azimuth = np.radians(view)
        level = np.cos(elevation)
        eye = np.array([level * np.cos(azimuth), level * np.sin(azimuth), np.sin(elevation)])
        right = np.array([-np.sin(azimuth), np.cos(azimuth), 0.0])
        axes = np.stack([right, np.cross(eye, right), eye])
        if not len(vertices):
            return cls(axes, np.zeros(3), 1.0)
        seen = vertices @ axes.T
        low, high = seen.min(axis=0), seen.max(axis=0)
        return cls(axes, (low + high) / 2 @ axes, float((high - low)[:2].max() / 2 * 1.04 + 1e-6))

    def project(self, vertices: np.ndarray, size: int) -> np.ndarray:
        """(V, 3) world to column, row and depth in pixels; smaller depths are nearer."""
        seen = (vertices - self.center) @ self.axes.T * (size / (2 * self.half_width))
        return np.stack([seen[:, 0] + size / 2, size / 2 - seen[:, 1], -seen[:, 2]], axis=1)


def render_meshes(
    meshes: Sequence[PicturedMesh],
    view: tuple[float, float] = ANTERIOR,
    size: int = 600,
    camera: Camera | None = None,
) -> np.ndarray:
    """A picture of meshes.

    meshes : (vertices (V, 3), faces (F, 3), "#rrggbb", alpha in 0-1) each.
    view : elevation and azimuth in degrees, unused where a camera is given.
    size : edge of the square picture, pixels.
    Returns (size, size, 3) uint8.
    """
    meshes = [m for m in meshes if len(m[1])]
    if camera is None:
        vertices = [np.asarray(m[0]) for m in meshes] or [np.empty((0, 3))]
        camera = Camera.around(np.concatenate(vertices), view)
    pixels = size * SUPERSAMPLING
    opaque = [m for m in meshes if m[3] >= 1]
    scenes = [opaque] * bool(opaque) + [[m] for m in meshes if m[3] < 1]
    layers = [_layer(_merged(scene), camera, pixels) for scene in scenes]
    picture = _composite(layers, [scene[0][3] for scene in scenes], pixels)
    picture = picture.reshape(size, SUPERSAMPLING, size, SUPERSAMPLING, 3).mean(axis=(1, 3))
    return np.rint(255 * np.clip(picture, 0, 1)).astype(np.uint8)


def _merged(meshes: Sequence[PicturedMesh]):
    """Vertices, unit vertex normals, faces and a colour per face of all meshes."""
    vertices, normals, faces, colors, start = [], [], [], [], 0
    for points, triangles, color, _ in meshes:
        points, triangles = np.asarray(points, np.float64), np.asarray(triangles, np.int64)
        vertices.append(points)
        normals.append(_vertex_normals(points, triangles))
        faces.append(triangles + start)
        rgb = [int(color[k : k + 2], 16) / 255 for k in (1, 3, 5)]
        colors.append(np.tile(np.array(rgb, np.float32), (len(triangles), 1)))
        start += len(points)
    return tuple(np.concatenate(x) for x in (vertices, normals, faces, colors))


def _vertex_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    face_normals = np.cross(b - a, c - a)  # length: twice the area, the weight wanted
    normals = np.empty_like(vertices)
    for axis in range(3):
        weights = np.repeat(face_normals[:, axis], 3)
        normals[:, axis] = np.bincount(faces.ravel(), weights, minlength=len(vertices))
    return normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)


def _layer(scene, camera: Camera, pixels: int):
    """The nearest surface: (N,) places in the picture, (N,) depths and (N, 3) colours there."""
    vertices, normals, faces, colors = scene
    projected = camera.project(vertices, pixels)
    hit = _nearest_triangles(projected, faces, pixels)
    seen = np.flatnonzero(hit >= 0)
    triangle = hit[seen]
    weights = _barycentric(projected, faces[triangle], seen % pixels, seen // pixels)
    weights = np.clip(weights, 0, 1)
    depth = np.einsum("nk,nk->n", weights, projected[faces[triangle], 2]).astype(np.float32)
    normal = np.einsum("nk,nkd->nd", weights, normals[faces[triangle]]) @ camera.axes.T
    shade = _shade(normal, colors[triangle])
    return seen, depth, shade * _occlusion(seen, depth, pixels)[:, None]


def _nearest_triangles(projected: np.ndarray, faces: np.ndarray, pixels: int) -> np.ndarray:
    """(pixels * pixels,) index of the nearest triangle at every pixel centre, -1: none."""
    low, high = _bounds(projected, faces)
    near, far = (low[:, 2].min(), high[:, 2].max()) if len(faces) else (0.0, 1.0)
    scale = ((1 << 30) - 1) / max(far - near, 1e-6)
    low = np.maximum(np.ceil(low[:, :2] - 0.5).astype(np.int64), 0)
    extent = np.minimum(np.floor(high[:, :2] - 0.5).astype(np.int64), pixels - 1) - low + 1
    buffer = np.full(pixels * pixels, EMPTY)
    solid = np.abs(_areas(projected, faces)) > LEAST_AREA
    drawable = np.flatnonzero((extent[:, 0] > 0) & (extent[:, 1] > 0) & solid)
    # Triangles of about the same extent are tested together, each on a rectangle of pixels.
    grain = 1 << np.maximum(np.log2(extent[drawable]).astype(np.int64) - 1, 0)
    rectangle = (-(-extent[drawable] // grain) * grain) @ [1 << 32, 1]
    drawable = drawable[np.argsort(rectangle, kind="stable")]
    kinds, numbers = np.unique(rectangle, return_counts=True)
    for kind, group in zip(kinds, np.split(drawable, np.cumsum(numbers)[:-1])):
        width, height = int(kind) >> 32, int(kind) & 0xFFFFFFFF
        step = max(1, CHUNK_CANDIDATES // (width * height))
        for start in range(0, len(group), step):
            part = group[start : start + step]
            corners = projected[faces[part]]
            place, triangle, depth = _covered(corners, low[part], width, height, pixels)
            # Depth above, triangle below: the smallest key is the nearest triangle.
            key = (((depth - near) * scale).astype(np.int64) << 32) | part[triangle]
            np.minimum.at(buffer, place, key)
    return np.where(buffer == EMPTY, -1, buffer & 0xFFFFFFFF)


def _areas(projected: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Twice the area (F,) of every triangle in the picture; negative from behind."""
    a, b, c = (projected[faces[:, k], :2] for k in range(3))
    return (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (b[:, 1] - a[:, 1]) * (c[:, 0] - a[:, 0])


def _bounds(points: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The smallest and the largest coordinates (F, 3) of every triangle."""
    a, b, c = (points[faces[:, k]] for k in range(3))
    return np.minimum(np.minimum(a, b), c), np.maximum(np.maximum(a, b), c)


def _covered(corners: np.ndarray, low: np.ndarray, width: int, height: int, pixels: int):
    """The pixel centres that lie in triangles, among rectangles of pixels.

    corners : (T, 3, 3) columns, rows and depths, of triangles that have an area.
    low : (T, 2) first pixel of each rectangle.

    Returns
    -------
    (N,) place in the picture, (N,) number of the triangle and (N,) depth there.
    """
    a, ab, ac = corners[:, 0], corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    dx, dy = (low + 0.5 - a[:, :2]).T
    unit = 1 / (ab[:, 0] * ac[:, 1] - ab[:, 1] * ac[:, 0])
    # weights of b and c at the first pixel, and their change from column to column, row to row
    wb = dx * ac[:, 1] - dy * ac[:, 0], ac[:, 1], -ac[:, 0]
    wc = dy * ab[:, 0] - dx * ab[:, 1], -ab[:, 1], ab[:, 0]
    column, row = np.arange(width), np.arange(height)[:, None]
    unit = unit[:, None, None]
    wb, wc = (
        first[:, None, None] * unit
        + over[:, None, None] * unit * column
        + down[:, None, None] * unit * row
        for first, over, down in (wb, wc)
    )
    inside = (wb >= -1e-9) & (wc >= -1e-9) & (wb + wc <= 1 + 1e-9)
    triangle, y, x = np.nonzero(inside)
    depth = a[triangle, 2] + wb[inside] * ab[triangle, 2] + wc[inside] * ac[triangle, 2]
    x, y = x + low[triangle, 0], y + low[triangle, 1]
    seen = (x < pixels) & (y < pixels)
    return (y * pixels + x)[seen], triangle[seen], depth[seen]


def _barycentric(projected, triangles, x, y) -> np.ndarray:
    """(N, 3) weights of the pixel centres (x, y) in their triangles, which have an area."""
    a, b, c = (projected[triangles[:, k], :2] for k in range(3))
    px, py = x + 0.5, y + 0.5
    area = _areas(projected, triangles)
    wb = ((px - a[:, 0]) * (c[:, 1] - a[:, 1]) - (py - a[:, 1]) * (c[:, 0] - a[:, 0])) / area
    wc = ((b[:, 0] - a[:, 0]) * (py - a[:, 1]) - (b[:, 1] - a[:, 1]) * (px - a[:, 0])) / area
    return np.stack([1 - wb - wc, wb, wc], axis=1)


def _shade(normal: np.ndarray, color: np.ndarray) -> np.ndarray:
    """Lambert with two lights, and a soft highlight; normals in camera axes, (N, 3)."""
    normal = normal / np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-12)
    # Both sides of a surface are lit: an open mesh shows its inside too.
    normal = normal * np.where(normal[:, 2:] < 0, -1.0, 1.0)
    light = np.full(len(normal), _AMBIENT)
    for direction, strength in _LIGHTS:
        light += strength * np.maximum(normal @ (direction / np.linalg.norm(direction)), 0)
    half = _LIGHTS[0][0] / np.linalg.norm(_LIGHTS[0][0]) + (0, 0, 1)
    gloss = _GLOSS * np.maximum(normal @ (half / np.linalg.norm(half)), 0) ** _SHININESS
    return (color * light[:, None] + gloss[:, None]).astype(np.float32)


def _occlusion(seen: np.ndarray, depth: np.ndarray, pixels: int) -> np.ndarray:
    """(N,) brightness: below 1 where the surroundings stand before a surface.

    The surroundings are averaged on pixels of the final picture: they are smooth.
    """
    from scipy.ndimage import gaussian_filter

    if not len(seen):
        return np.ones(0, np.float32)
    size = pixels // SUPERSAMPLING
    row, column = (k // SUPERSAMPLING for k in divmod(seen, pixels))
    reach = _OCCLUSION_REACH * size
    rim = int(2.5 * reach) + 2  # further surroundings weigh nothing
    top, left = max(row.min() - rim, 0), max(column.min() - rim, 0)
    width = min(column.max() + rim + 1, size) - left
    place = (row - top) * width + (column - left)
    shape = (min(row.max() + rim + 1, size) - top, width)
    sums = (np.bincount(place, values, minlength=shape[0] * width) for values in (None, depth))
    weight, around = (
        gaussian_filter(total.reshape(shape).astype(np.float32), reach, truncate=2.5).ravel()[place]
        for total in sums
    )
    behind = (depth - around / np.maximum(weight, 1e-6)) / (2 * SUPERSAMPLING * reach)
    return 1 - _OCCLUSION * np.clip(behind, 0, 1)


def _composite(layers, alphas: Sequence[float], pixels: int) -> np.ndarray:
    """(pixels, pixels, 3) in 0-1: the layers over the background, per pixel far to near."""
    picture = np.tile(BACKGROUND, (pixels * pixels, 1))
    if layers:
        place, depth, color = (np.concatenate(parts) for parts in zip(*layers))
        layer = np.repeat(np.arange(len(layers)), [len(seen) for seen, _, _ in layers])
        limit = np.full(pixels * pixels, np.inf, np.float32)
        if alphas[0] >= 1:
            limit[layers[0][0]] = layers[0][1]
        shown = np.flatnonzero(depth <= limit[place])
        # By place, then from far to near; at one depth the order of the layers, which a stable
        # sort keeps. The places of each layer rise already, so that it has little left to do.
        key = (place[shown] << 32) + _rising(-depth[shown])
        order = shown[np.argsort(key, kind="stable")]
        place, color, share = place[order], color[order], np.asarray(alphas)[layer[order], None]
        first = np.flatnonzero(np.diff(place, prepend=-1))
        turn = np.arange(len(place)) - np.repeat(first, np.diff(first, append=len(place)))
        for index in range(turn.max(initial=-1) + 1):  # the farthest of every pixel first
            now = np.flatnonzero(turn == index)
            below = picture[place[now]]
            picture[place[now]] = below + share[now] * (color[now] - below)
    return picture.reshape(pixels, pixels, 3)


def _rising(values: np.ndarray) -> np.ndarray:
    """(N,) int64 of 32 bits in the order of (N,) float32 values."""
    bits = (values + np.float32(0)).view(np.int32)  # of the two zeros there is one left
    return np.where(bits < 0, bits ^ np.int32(0x7FFFFFFF), bits).astype(np.int64)
