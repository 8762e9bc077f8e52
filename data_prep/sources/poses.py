"""What can be said of two cameras from their poses alone: directions, turns, ratios of distances, shared views.

A pose is an OpenGL (Blender) camera-to-world matrix, 4x4: the camera looks along its -z, +x is right, +y is up. Poses
of structure from motion have neither a true scale nor a true vertical. So distances are given as shares of the extent
of the camera's path, and the vertical is the mean of the cameras' own up vectors, as in nerfstudio. Angles are in
degrees, seen from above: 0 is forward, 90 right, -90 left.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from etchr.rows import text

Array = NDArray[np.float64]

TOLERANCE = 1e-3  # of a rotation's orthonormality; JSON keeps all digits, so this is generous
MAX_VALUE = 1e9  # of an entry; larger ones are no pose and overflow later
MAX_JSON = 64 * 2**20  # bytes of a transforms.json; real ones have about 300 kB
MAX_FRAMES = 10_000  # of a video; real ones have 200 to 400
DEPTHS = 9  # at which the contents of a picture are assumed to lie, from near to far
GRID = 8  # points of a fan per side of the picture
MOVES = (
    "forward", "forward and to the right", "to the right", "backward and to the right",
    "backward", "backward and to the left", "to the left", "forward and to the left",
)  # fmt: skip


def checked_pose(value: Any) -> Array:
    """The 4x4 matrix in a JSON value; `ValueError` unless it is a rotation and a translation of finite numbers."""
    if not isinstance(value, list) or len(value) != 4:
        raise ValueError("a pose must be a 4x4 list of numbers")
    for row in value:
        if not isinstance(row, list) or len(row) != 4:
            raise ValueError("a pose must be a 4x4 list of numbers")
        for entry in row:
            checked_number(entry, "an entry of a pose", -MAX_VALUE, MAX_VALUE)
    pose = np.array(value, np.float64)
    rotation = pose[:3, :3]
    if not np.allclose(pose[3], (0, 0, 0, 1), atol=TOLERANCE):
        raise ValueError(f"the last row of a pose must be 0, 0, 0, 1; it is {pose[3].tolist()}")
    if not np.allclose(rotation.T @ rotation, np.eye(3), atol=TOLERANCE) or np.linalg.det(rotation) < 0:
        raise ValueError("the upper left 3x3 of a pose is no rotation: not orthonormal, or mirrored")
    return pose


def checked_number(value: Any, name: str, low: float, high: float) -> float:
    """A JSON number from `low` to `high`; `ValueError` for anything else, such as NaN, a text or a boolean."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{name} must be a number, got {type(value).__name__}")
    if not low <= value <= high:  # false for NaN, and exact for integers that no float holds
        raise ValueError(f"{name} must lie from {low:g} to {high:g}, got {str(value)[:40]}")
    return float(value)


def relative(first: Array, second: Array) -> Array:
    """The second camera in the frame of the first: inv(first) @ second."""
    turned = first[:3, :3].T
    pose = np.eye(4)
    pose[:3, :3] = turned @ second[:3, :3]
    pose[:3, 3] = turned @ (second[:3, 3] - first[:3, 3])
    return pose


# --------------------------------------------------------------------------------------------- the cameras of a video


def vertical(poses: Array) -> Array:
    """The up direction (3) of a video, estimated from its poses (n, 4, 4): the mean of the cameras' up vectors.

    `ValueError` if they do not agree on one.
    """
    mean = poses[:, :3, 1].mean(0)
    length = float(np.linalg.norm(mean))
    if length < 0.5:
        raise ValueError("the cameras have no common up direction")
    return mean / length


def tilts(poses: Array, up: Array) -> Array:
    """How far each camera is pitched or rolled: the angle (n) between its own up vector and `up`."""
    return np.degrees(np.arccos(np.clip(poses[:, :3, 1] @ up, -1, 1)))


def levelled(pose: Array, up: Array) -> Array:
    """The camera at the same place without pitch and roll, so that its ground plane is that of the scene.

    `ValueError` if it looks straight up or down, where it has no heading.
    """
    back = pose[:3, 2] - pose[:3, 2] @ up * up
    length = float(np.linalg.norm(back))
    if length < 0.1:
        raise ValueError("a camera that looks straight up or down has no heading")
    back = back / length
    flat = pose.copy()
    flat[:3, :3] = np.stack([np.cross(up, back), up, back], axis=1)
    return flat


def path_extent(poses: Array) -> float:
    """The size of a camera path, in its own unit: twice the median distance of the cameras from their centroid.

    The diameter of a circle, half the length of a straight walk. The median keeps a few failed poses from deciding.
    """
    centres = poses[:, :3, 3]
    return 2 * float(np.median(np.linalg.norm(centres - centres.mean(0), axis=1)))


@dataclass(frozen=True)
class Video:
    """The frames of a video that can be used: those whose camera is not tilted too far."""

    names: list[str]  # of the picture files
    cameras: Array  # (n, 4, 4) poses
    up: Array  # (3)
    extent: float  # of the path, in the unit of the poses
    lens: "Lens"
    aspect: float  # width over height


def read_video(path: Path, max_tilt: float) -> Video:
    """The video in a file transforms.json; see `video_from`."""
    if path.stat().st_size > MAX_JSON:
        raise ValueError(f"transforms.json has {path.stat().st_size:,} bytes; at most {MAX_JSON:,} are read")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except RecursionError:
        raise ValueError("transforms.json is nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"transforms.json is not readable as JSON ({error})") from None
    return video_from(values, max_tilt)


def video_from(values: Any, max_tilt: float) -> Video:
    """The video in a parsed transforms.json (nerfstudio's format), which is not trusted.

    Frames that are tilted by more than `max_tilt` degrees are left out; `ValueError` if anything in it is bad.
    """
    frames = values.get("frames") if isinstance(values, dict) else None
    if not isinstance(frames, list) or not 2 <= len(frames) <= MAX_FRAMES:
        raise ValueError(f"transforms.json must be an object with 2 to {MAX_FRAMES:,} frames")
    lens = Lens.from_pixels(values)
    names, cameras = [], np.empty((len(frames), 4, 4))
    for number, frame in enumerate(frames):
        try:
            if not isinstance(frame, dict):
                raise ValueError("it is no object")
            names.append(_file_name(frame.get("file_path")))
            cameras[number] = checked_pose(frame.get("transform_matrix"))
        except ValueError as error:
            raise ValueError(f"frame {number} of transforms.json: {error}") from None
    extent, up = path_extent(cameras), vertical(cameras)
    if extent < 1e-6:
        raise ValueError("the camera does not move")
    kept = np.flatnonzero(tilts(cameras, up) <= max_tilt)
    if len(kept) < 2:
        raise ValueError(f"the camera is tilted by more than {max_tilt:g} degrees in all but {len(kept)} frames")
    return Video([names[number] for number in kept], cameras[kept], up, extent, lens, values["w"] / values["h"])


def _file_name(label: Any) -> str:
    """The file name in a frame's `file_path`, whose folder is that of another resolution."""
    path = PurePosixPath(text(label, "file_path", 1_000))
    if path.is_absolute() or ".." in path.parts or not path.name:
        raise ValueError(f"file_path {str(path)[:200]!r} leads out of the scene's folder")
    return path.name


# ------------------------------------------------------------------------------------------------- two cameras in words


def heading(pose: Array) -> float:
    """The direction in the ground plane in which a relative pose's camera lies, from -180 to 180."""
    return float(np.degrees(np.arctan2(pose[0, 3], -pose[2, 3])))


def slope(pose: Array) -> float:
    """How steeply a relative pose's camera lies above (90) or below (-90) the first one."""
    return float(np.degrees(np.arctan2(pose[1, 3], np.hypot(pose[0, 3], pose[2, 3]))))


def yaw(pose: Array) -> float:
    """How far a relative pose's camera is turned to the right (to the left: negative), from -180 to 180."""
    forward = -pose[:3, 2]
    return float(np.degrees(np.arctan2(forward[0], -forward[2])))


def sector(angle: float, count: int, margin: float) -> int | None:
    """Which of `count` equal sectors an angle lies in: 0 is forward, then clockwise as seen from above.

    None within `margin` degrees of a border, where two people would use different words.
    """
    width = 360 / count
    number = round(angle / width)
    return None if abs(angle - number * width) > width / 2 - margin else number % count


def turn(angle: float, straight: float, clear: float) -> str | None:
    """A yaw as "left", "right", or "straight" up to the angle `straight`; None between that and `clear`."""
    if abs(angle) <= straight:
        return "straight"
    return None if abs(angle) < clear else "right" if angle > 0 else "left"


def direction_word(number: int, count: int) -> str:
    """The word for one of `count` (4 or 8) sectors."""
    return MOVES[number * (8 // count)]


@dataclass(frozen=True)
class Motion:
    """How a camera gets from one pose to another, in the ground plane; angles in degrees, positive to the right."""

    heading: float  # the direction in which it moves
    yaw: float  # how far it turns
    slope: float  # how steeply it rises
    baseline: float  # the distance of the two, as a share of the path's extent


def motion_between(first: Array, second: Array, up: Array, extent: float) -> Motion:
    """The motion from the pose `first` to `second` in a video with this vertical and this extent of its path."""
    flat = relative(levelled(first, up), levelled(second, up))
    return Motion(heading(flat), yaw(flat), slope(flat), float(np.linalg.norm(flat[:3, 3])) / extent)


# --------------------------------------------------------------------------------------------------------- what is seen


@dataclass(frozen=True)
class Lens:
    """A pinhole in shares of the picture's width and height, so that it holds for the picture at any size.

    Lens distortion is left out: what it is used for are estimates.
    """

    focal_x: float
    focal_y: float
    centre_x: float
    centre_y: float

    @classmethod
    def from_pixels(cls, values: dict[str, Any]) -> "Lens":
        """From `w, h, fl_x, fl_y, cx, cy` in px of one picture size; `ValueError` if they describe no camera."""
        width, height = (checked_number(values.get(name), name, 1, 1e6) for name in ("w", "h"))
        return cls(
            checked_number(values.get("fl_x"), "fl_x", width / 20, width * 20) / width,
            checked_number(values.get("fl_y"), "fl_y", height / 20, height * 20) / height,
            checked_number(values.get("cx"), "cx", 0, width) / width,
            checked_number(values.get("cy"), "cy", 0, height) / height,
        )

    def rays(self, places: Array) -> Array:
        """The points (n, 3) at depth 1 that are seen at `places` (n, 2), from (0, 0), top left, to (1, 1)."""
        x, y = (places[:, 0] - self.centre_x) / self.focal_x, (self.centre_y - places[:, 1]) / self.focal_y
        return np.stack([x, y, -np.ones_like(x)], axis=1)

    def project(self, points: Array) -> Array:
        """Where points (n, 3) in the camera's frame are seen: (n, 2), NaN behind the camera."""
        depth = np.where(points[:, 2] < -1e-9, -points[:, 2], np.nan)
        x, y = points[:, 0] / depth, points[:, 1] / depth
        return np.stack([self.centre_x + self.focal_x * x, self.centre_y - self.focal_y * y], axis=1)


def _seen(pose: Array, lens: Lens, places: Array, depths: Sequence[float] | Array) -> Array:
    """Where the second camera sees what the first sees at `places`, if it lies at each of the depths: (d * n, 2)."""
    points = (np.asarray(depths)[:, None, None] * lens.rays(places)).reshape(-1, 3)
    return lens.project((points - pose[:3, 3]) @ pose[:3, :3])


def shared_view(pose: Array, lens: Lens, near: float, far: float) -> float:
    """The share of what one camera sees that the other sees too, the smaller of both ways round: an estimate.

    A fan of points through the whole picture is laid at depths from `near` to `far` (in the unit of the pose, evenly
    in their logarithm) and seen from the other camera. What hides what is not known from poses and left out.
    """
    side = (np.arange(GRID) + 0.5) / GRID
    places = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
    back = relative(pose, np.eye(4))
    shares = []
    for way in (pose, back):
        seen = _seen(way, lens, places, np.geomspace(near, far, DEPTHS))
        shares.append(float(((seen >= 0) & (seen <= 1)).all(1).mean()))  # NaN is never inside
    return min(shares)
