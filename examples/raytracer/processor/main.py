"""Trace the rays of one strip: spheres and a chessboard plane, shadows, reflections, several rays a pixel.

Source: Whitted, "An improved illumination model for shaded display", 1980.
"""

from math import inf, radians, sqrt, tan
from typing import Any

MAX_BOUNCES = 4
NEAR = 1e-6  # a ray that starts on a surface must not meet that surface again

Vector = tuple[float, float, float]


def process(fragment: dict[str, Any]) -> dict[str, Any]:
    """Return {"top", "pixels"}: three bytes a pixel, row by row."""
    scene = Scene(fragment["scene"])
    width, height, samples = fragment["width"], fragment["height"], fragment["samples"]
    pixels = bytearray()
    weight = 255.0 / (samples * samples)
    offsets = [(k + 0.5) / samples for k in range(samples)]
    for y in range(fragment["top"], fragment["end"]):
        for x in range(width):
            red = green = blue = 0.0
            for dy in offsets:
                for dx in offsets:
                    r, g, b = scene.trace(scene.eye, scene.direction((x + dx) / width, (y + dy) / height, width / height), MAX_BOUNCES)
                    red += r if r < 1.0 else 1.0
                    green += g if g < 1.0 else 1.0
                    blue += b if b < 1.0 else 1.0
            pixels += bytes((int(red * weight + 0.5), int(green * weight + 0.5), int(blue * weight + 0.5)))
    return {"top": fragment["top"], "pixels": bytes(pixels)}


def unit(v: Vector) -> Vector:
    """``v`` with length 1."""
    k = 1.0 / sqrt(v[0] * v[0] + v[1] * v[1] + v[2] * v[2])
    return v[0] * k, v[1] * k, v[2] * k


def cross(a: Vector, b: Vector) -> Vector:
    """A vector at right angles to both."""
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]


class Scene:
    """What is to be seen, and from where."""

    def __init__(self, description: dict[str, Any]) -> None:
        camera = description["camera"]
        self.eye: Vector = tuple(camera["at"])
        look = camera["look_at"]
        self.forward = unit((look[0] - self.eye[0], look[1] - self.eye[1], look[2] - self.eye[2]))
        self.right = unit(cross((0.0, 1.0, 0.0), self.forward))
        self.up = cross(self.forward, self.right)
        self.zoom = tan(radians(camera["field_of_view_deg"]) / 2)
        self.light: Vector = tuple(description["light"]["at"])
        self.ambient: float = description["light"]["ambient"]
        self.sky_low, self.sky_high = description["sky"]["low"], description["sky"]["high"]
        self.plane = description["plane"]
        self.spheres = [(*s["at"], s["radius"] ** 2, s) for s in description["spheres"]]

    def direction(self, across: float, down: float, aspect: float) -> Vector:
        """Where the ray through a point of the image goes; both coordinates in 0..1."""
        a = (2 * across - 1) * self.zoom * aspect
        b = (1 - 2 * down) * self.zoom
        f, r, u = self.forward, self.right, self.up
        return unit((f[0] + a * r[0] + b * u[0], f[1] + a * r[1] + b * u[1], f[2] + a * r[2] + b * u[2]))

    def nearest(self, o: Vector, d: Vector) -> tuple[float, Any]:
        """Distance and sphere that a ray meets first; nil for none."""
        ox, oy, oz = o
        dx, dy, dz = d
        best, found = inf, None
        for cx, cy, cz, radius2, sphere in self.spheres:
            px, py, pz = cx - ox, cy - oy, cz - oz
            along = px * dx + py * dy + pz * dz
            inside = radius2 - (px * px + py * py + pz * pz) + along * along
            if inside > 0.0:
                half = sqrt(inside)
                distance = along - half if along - half > NEAR else along + half
                if NEAR < distance < best:
                    best, found = distance, (cx, cy, cz, sphere)
        return best, found

    def is_lit(self, p: Vector, towards: Vector, distance: float) -> bool:
        """Whether nothing stands between a point and the light."""
        return self.nearest(p, towards)[0] >= distance

    def trace(self, o: Vector, d: Vector, bounces: int) -> Vector:
        """The colour that comes back along a ray."""
        distance, found = self.nearest(o, d)
        floor = -o[1] / d[1] if d[1] < 0.0 else inf
        if floor > NEAR and floor < distance:
            return self.shade_floor((o[0] + d[0] * floor, 0.0, o[2] + d[2] * floor), d, floor, bounces)
        if found is None:
            return self.sky(d)
        cx, cy, cz, sphere = found
        p = (o[0] + d[0] * distance, o[1] + d[1] * distance, o[2] + d[2] * distance)
        normal = unit((p[0] - cx, p[1] - cy, p[2] - cz))
        return self.shade(p, d, normal, sphere["colour"], sphere["reflect"], sphere["shine"], bounces)

    def sky(self, d: Vector) -> Vector:
        """A gradient from the horizon up."""
        k = sqrt(max(0.0, d[1]))
        low, high = self.sky_low, self.sky_high
        return low[0] + (high[0] - low[0]) * k, low[1] + (high[1] - low[1]) * k, low[2] + (high[2] - low[2]) * k

    def shade_floor(self, p: Vector, d: Vector, distance: float, bounces: int) -> Vector:
        """The chessboard, fading into the sky far away."""
        colour = self.plane["colours"][int(p[0] // 1 + p[2] // 1) % 2]
        r, g, b = self.shade(p, d, (0.0, 1.0, 0.0), colour, self.plane["reflect"], 0, bounces)
        far = min(1.0, distance / 60.0)
        low = self.sky_low
        return r + (low[0] - r) * far, g + (low[1] - g) * far, b + (low[2] - b) * far

    def shade(self, p: Vector, d: Vector, n: Vector, colour: list[float], reflect: float, shine: int, bounces: int) -> Vector:
        """Diffuse light, a highlight, and what the surface mirrors."""
        to_light = (self.light[0] - p[0], self.light[1] - p[1], self.light[2] - p[2])
        light_distance = sqrt(to_light[0] ** 2 + to_light[1] ** 2 + to_light[2] ** 2)
        l = unit(to_light)  # noqa: E741 - the usual letter
        facing = n[0] * l[0] + n[1] * l[1] + n[2] * l[2]
        k = 2 * (d[0] * n[0] + d[1] * n[1] + d[2] * n[2])
        mirrored = (d[0] - k * n[0], d[1] - k * n[1], d[2] - k * n[2])
        diffuse, highlight = self.ambient, 0.0
        if facing > 0.0 and self.is_lit(p, l, light_distance):
            diffuse += 0.86 * facing
            glint = mirrored[0] * l[0] + mirrored[1] * l[1] + mirrored[2] * l[2]
            if shine and glint > 0.0:
                highlight = 0.8 * glint**shine
        r, g, b = colour[0] * diffuse, colour[1] * diffuse, colour[2] * diffuse
        if reflect and bounces:
            mr, mg, mb = self.trace(p, mirrored, bounces - 1)
            r, g, b = r + (mr - r) * reflect, g + (mg - g) * reflect, b + (mb - b) * reflect
        return r + highlight, g + highlight, b + highlight
