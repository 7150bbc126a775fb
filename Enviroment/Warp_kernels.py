"""Warp kernels that turn what rays have met into frames."""

import warp as wp


@wp.func
def _written(level: float) -> wp.uint8:
    return wp.uint8(int(wp.clamp(wp.rint(level), 0.0, 255.0)))


@wp.kernel
def gray_frames(
    packed: wp.array2d[wp.uint32],
    gain: wp.array[float],
    offset: wp.array[float],
    noise: wp.array[float],
    seed: wp.array[int],
    out: wp.array3d[wp.uint8],
):
    """Write colours as gray frames [N, rows, columns], altered by each world's look."""
    world, pixel = wp.tid()
    value = packed[world, pixel]
    red, green = int((value >> wp.uint32(16)) & wp.uint32(255)), int((value >> wp.uint32(8)) & wp.uint32(255))
    blue = int(value & wp.uint32(255))
    luma = (red * 4899 + green * 9617 + blue * 1868 + 8192) >> 14  # ITU-R BT.601, as OpenCV rounds it
    random = wp.rand_init(seed[world], pixel)
    level = float(luma) * gain[world] + offset[world] + noise[world] * wp.randn(random)
    out[world, pixel // out.shape[2], pixel % out.shape[2]] = _written(level)


@wp.kernel
def rgb_frames(
    packed: wp.array2d[wp.uint32],
    gain: wp.array[float],
    offset: wp.array[float],
    noise: wp.array[float],
    seed: wp.array[int],
    out: wp.array4d[wp.uint8],
):
    """Write colours as frames [N, 3, rows, columns], altered by each world's look."""
    world, pixel = wp.tid()
    value = packed[world, pixel]
    random = wp.rand_init(seed[world], pixel)
    for channel in range(3):
        colour = int((value >> wp.uint32(16 - 8 * channel)) & wp.uint32(255))
        level = float(colour) * gain[world] + offset[world] + noise[world] * wp.randn(random)
        out[world, channel, pixel // out.shape[3], pixel % out.shape[3]] = _written(level)


@wp.kernel
def depth_frames(
    depths: wp.array2d[float],
    near: float,
    far: float,
    noise: wp.array[float],
    seed: wp.array[int],
    out: wp.array3d[wp.uint8],
):
    """Write depths in metres as frames [N, rows, columns], 0 at `near` and 255 at `far`, with each world's noise."""
    world, pixel = wp.tid()
    level = float(255.0)  # noqa: UP018  (a variable to Warp) where the ray meets nothing
    if depths[world, pixel] > 0.0:
        level = wp.clamp((depths[world, pixel] - near) * 255.0 / (far - near), 0.0, 255.0)
    random = wp.rand_init(seed[world], pixel)
    out[world, pixel // out.shape[2], pixel % out.shape[2]] = _written(wp.rint(level) + noise[world] * wp.randn(random))
