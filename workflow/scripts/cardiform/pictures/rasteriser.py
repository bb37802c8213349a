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
    layers = []
    opaque = [m for m in meshes if m[3] >= 1]
    if opaque:
        layers.append(_layer(_merged(opaque), camera, pixels, 1.0))
    layers += [_layer(_merged([m]), camera, pixels, m[3]) for m in meshes if m[3] < 1]
    picture = _composite(layers, pixels)
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


def _layer(scene, camera: Camera, pixels: int, alpha: float):
    """Depth (pixels, pixels; inf where empty), colour and alpha of the nearest surface."""
    vertices, normals, faces, colors = scene
    projected = camera.project(vertices, pixels)
    depth = np.full(pixels * pixels, np.inf, np.float32)
    color = np.ones((pixels * pixels, 3), np.float32)
    hit = _nearest_triangles(projected, faces, pixels)
    seen = np.flatnonzero(hit >= 0)
    if seen.size:
        triangle = hit[seen]
        weights = _barycentric(projected, faces[triangle], seen % pixels, seen // pixels)
        weights = np.clip(weights, 0, 1)
        depth[seen] = np.einsum("nk,nk->n", weights, projected[faces[triangle], 2])
        normal = np.einsum("nk,nkd->nd", weights, normals[faces[triangle]]) @ camera.axes.T
        shade = _shade(normal, colors[triangle])
        color[seen] = shade * _occlusion(depth.reshape(pixels, pixels)).ravel()[seen, None]
    return depth.reshape(pixels, pixels), color.reshape(pixels, pixels, 3), alpha


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
    grain = 1 << np.maximum(np.log2(extent[drawable]).astype(np.int64) - 2, 0)
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
    wb = np.stack([dx * ac[:, 1] - dy * ac[:, 0], ac[:, 1], -ac[:, 0]]) * unit
    wc = np.stack([dy * ab[:, 0] - dx * ab[:, 1], -ab[:, 1], ab[:, 0]]) * unit
    column, row = np.arange(width), np.arange(height)[:, None]
    wb, wc = (
        first[:, None, None] + over[:, None, None] * column + down[:, None, None] * row
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


def _occlusion(depth: np.ndarray) -> np.ndarray:
    """Brightness factors below 1 where the surroundings stand before a surface."""
    from scipy.ndimage import gaussian_filter

    there = np.isfinite(depth)
    bright = np.ones_like(depth)
    if not there.any():
        return bright
    reach = _OCCLUSION_REACH * len(depth)
    rim = int(2.5 * reach) + 2  # further surroundings weigh nothing
    window = tuple(
        slice(max(found[0] - rim, 0), found[-1] + rim)
        for found in (np.flatnonzero(there.any(axis=axis)) for axis in (1, 0))
    )
    there, depth = there[window], depth[window]
    filled = np.where(there, depth, 0.0)
    weight = gaussian_filter(there.astype(np.float32), reach, truncate=2.5)
    around = gaussian_filter(filled, reach, truncate=2.5) / np.maximum(weight, 1e-6)
    behind = np.clip((filled - around) / (2 * reach), 0, 1)
    bright[window] = np.where(there, 1 - _OCCLUSION * behind, 1.0)
    return bright


def _composite(layers, pixels: int) -> np.ndarray:
    """(pixels, pixels, 3) in 0-1: the layers over the background, per pixel far to near."""
    picture = np.tile(BACKGROUND, (pixels * pixels, 1))
    if layers:
        depths = np.stack([depth.ravel() for depth, _, _ in layers])
        seen = np.flatnonzero(np.isfinite(depths).any(axis=0))
        depths, pixel = depths[:, seen], np.arange(len(seen))
        colors = np.stack([color.reshape(-1, 3)[seen] for _, color, _ in layers])
        alphas = np.array([alpha for _, _, alpha in layers])
        opaque = np.flatnonzero(alphas >= 1)
        limit = depths[opaque[0]] if len(opaque) else np.inf
        mixed = picture[seen]
        for layer in np.argsort(-depths, axis=0, kind="stable"):
            depth = depths[layer, pixel]
            shown = np.isfinite(depth) & (depth <= limit)
            share = np.where(shown, alphas[layer], 0.0)[:, None]
            mixed += share * (colors[layer, pixel] - mixed)
        picture[seen] = mixed
    return picture.reshape(pixels, pixels, 3)
