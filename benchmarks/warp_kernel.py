"""The exact distance query of warp; a module of its own, because warp reads kernels' sources."""

import warp


@warp.kernel
def signed_distance(
    mesh: warp.uint64, points: warp.array(dtype=warp.vec3), result: warp.array(dtype=float)
):
    i = warp.tid()
    found = warp.mesh_query_point_sign_normal(mesh, points[i], 1.0e6)
    nearest = warp.mesh_eval_position(mesh, found.face, found.u, found.v)
    result[i] = found.sign * warp.length(points[i] - nearest)
