"""What is said of two cameras, against another pinhole camera: where one sees the other, and its vanishing point."""

import math

import numpy as np
import pytest

from data_prep.sources import poses

LENS = {"w": 1600, "h": 900, "fl_x": 1000, "fl_y": 1010, "cx": 790, "cy": 455}
K = np.array([[1000, 0, 790], [0, 1010, 455], [0, 0, 1.0]])
UP = np.array([0, 0, 1.0])


@pytest.fixture
def rng():
    return np.random.default_rng(5)


def look(eye, target, up=UP):
    """A camera-to-world pose by the look-at construction."""
    back = np.subtract(eye, target) / np.linalg.norm(np.subtract(eye, target))
    right = np.cross(up, back)
    right = right / np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3, :4] = np.stack([right, np.cross(back, right), back, eye], axis=1)
    return pose


def flat_camera(azimuth, eye=(0, 0, 0)):
    """A level camera; `azimuth` in degrees, clockwise as seen from above."""
    angle = math.radians(azimuth)
    return look(eye, np.add(eye, (math.sin(angle), math.cos(angle), 0)))


def pixel(pose, point):
    """(u, v, depth) of a world point in OpenCV's convention: +z forward, y down."""
    opencv = pose @ np.diag([1, -1, -1, 1])
    u, v, depth = K @ (np.linalg.inv(opencv) @ [*point, 1])[:3]
    return u / depth, v / depth, depth


def any_rotation(rng):
    turned, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    return turned * np.sign(np.linalg.det(turned))


def moved_world(pose, rotation, shift, scale):
    out = pose.copy()
    out[:3, :3], out[:3, 3] = rotation @ pose[:3, :3], scale * rotation @ pose[:3, 3] + shift
    return out


def test_the_direction_of_a_motion_is_where_the_first_camera_sees_the_second(rng):
    seen = set()
    for _ in range(300):
        first, second = (flat_camera(rng.uniform(-180, 180), (*rng.uniform(-3, 3, 2), 0)) for _ in range(2))
        number = poses.sector(poses.heading(poses.relative(first, second)), 8, 4.0)
        if number is None:
            continue
        word = poses.direction_word(number, 8)
        u, _, depth = pixel(first, second[:3, 3])
        sideways = (u - 790) / 1000 * depth / math.hypot(depth, (u - 790) / 1000 * depth)
        assert ("forward" in word) == (depth > 0 and abs(sideways) < math.sin(math.radians(67.5)))
        assert ("backward" in word) == (depth < 0 and abs(sideways) < math.sin(math.radians(67.5)))
        assert ("right" in word) == (sideways > math.sin(math.radians(22.5)))
        assert ("left" in word) == (-sideways > math.sin(math.radians(22.5)))
        seen.add(word)
    assert len(seen) == 8


def test_the_turn_is_where_the_first_camera_sees_the_second_ones_vanishing_point(rng):
    for _ in range(200):
        turned = rng.uniform(-80, 80)
        first = flat_camera(rng.uniform(-180, 180), rng.uniform(-3, 3, 3))
        azimuth = math.degrees(math.atan2(-first[0, 2], -first[1, 2]))
        second = flat_camera(azimuth + turned, rng.uniform(-3, 3, 3))
        u, _, depth = pixel(first, second[:3, 3] - 1e9 * second[:3, 2])
        angle = poses.yaw(poses.relative(first, second))
        assert depth > 0
        assert (u > 790) == (angle > 0)
        assert angle == pytest.approx(math.degrees(math.atan((u - 790) / 1000)), abs=1e-4)


def test_a_turn_on_the_spot_changes_its_side_when_the_cameras_are_swapped(rng):
    for _ in range(100):
        rotation, turned = any_rotation(rng), rng.uniform(-179, 179)
        cameras = [moved_world(flat_camera(azimuth), rotation, rng.normal(size=3), 1) for azimuth in (0, turned)]
        there, back = poses.relative(*cameras), poses.relative(*cameras[::-1])
        assert poses.yaw(there) == pytest.approx(turned, abs=1e-6)
        assert poses.yaw(back) == pytest.approx(-turned, abs=1e-6)


def random_cameras(rng, count=12):
    eyes = rng.uniform(-2, 2, (count, 3)) * (1, 1, 0.3)
    return np.stack([look(eye, eye + rng.normal(size=3) * (1, 1, 0.2)) for eye in eyes])


def test_a_motion_does_not_depend_on_where_the_world_lies_how_it_is_turned_and_how_large_it_is(rng):
    lens = poses.Lens.from_pixels(LENS)
    for _ in range(20):
        cameras, rotation, shift, scale = (
            random_cameras(rng),
            any_rotation(rng),
            rng.normal(size=3),
            rng.uniform(0.01, 50),
        )
        others = np.stack([moved_world(pose, rotation, shift, scale) for pose in cameras])
        facts = []
        for path in (cameras, others):
            extent = poses.path_extent(path)
            motion = poses.motion_between(path[0], path[1], poses.vertical(path), extent)
            pose = poses.relative(path[0], path[1])
            facts.append((*vars(motion).values(), poses.shared_view(pose, lens, 0.2 * extent, 2 * extent)))
        assert facts[0] == pytest.approx(facts[1], abs=1e-6)
        assert poses.path_extent(others) == pytest.approx(scale * poses.path_extent(cameras))


def test_a_mirrored_world_swaps_left_and_right(rng):
    flip = np.diag([-1.0, 1, 1, 1])
    for _ in range(50):
        one, two = random_cameras(rng, 2)
        motion = poses.motion_between(one, two, UP, 1.0)
        other = poses.motion_between(flip @ one @ flip, flip @ two @ flip, UP, 1.0)
        assert (other.heading, other.yaw) == pytest.approx((-motion.heading, -motion.yaw))
        assert (other.slope, other.baseline) == pytest.approx((motion.slope, motion.baseline))


def test_cameras_that_look_down_are_levelled_to_their_azimuth():
    # On a circle, all looking 30 degrees down at its centre: seen from above, the turn is the arc.
    arcs = np.arange(0, 360, 15)
    eyes = [(math.cos(math.radians(arc)), math.sin(math.radians(arc)), math.tan(math.radians(30))) for arc in arcs]
    circle = np.stack([look(eye, (0, 0, 0)) for eye in eyes])
    up = poses.vertical(circle)
    assert up == pytest.approx(UP)
    assert poses.tilts(circle, up) == pytest.approx(30)
    assert poses.path_extent(circle) == pytest.approx(2)
    motion = poses.motion_between(circle[0], circle[4], up, 2.0)  # 60 degrees on, counter-clockwise
    assert (motion.yaw, motion.heading) == pytest.approx((-60, 60))
    assert (motion.slope, motion.baseline) == pytest.approx((0, 0.5))
    with pytest.raises(ValueError, match="no heading"):
        poses.levelled(look((0, 0, 1), (0, 0, 0), np.array([0, 1.0, 0])), up)
    with pytest.raises(ValueError, match="no common up"):
        poses.vertical(np.stack([np.diag([1.0, 1, 1, 1]), np.diag([1.0, -1, -1, 1])]))


def test_a_climb_is_a_slope():
    assert poses.slope(poses.relative(flat_camera(0), flat_camera(0, (0, 1, 1)))) == pytest.approx(45)
    assert poses.slope(poses.relative(flat_camera(70), flat_camera(9, (0, 0, -1)))) == pytest.approx(-90)


@pytest.mark.parametrize(("angle", "eight", "four"), [
    (0, 0, 0), (-14, 0, 0), (20, None, 0), (31, 1, 0), (44, 1, None), (90, 2, 1), (-90, 6, 3), (-180, 4, 2),
    (180, 4, 2), (-158, None, 2), (-45, 7, None), (126, 3, 1),
])  # fmt: skip
def test_angles_near_a_border_have_no_direction(angle, eight, four):
    assert poses.sector(angle, 8, 7) == eight
    assert poses.sector(angle, 4, 7) == four


def test_a_small_turn_is_none_and_a_middling_one_is_left_out():
    assert [poses.turn(angle, 5, 10) for angle in (-50, -9, -4, 0, 5, 7, 10)] == [
        "left", None, "straight", "straight", "straight", None, "right",
    ]  # fmt: skip


def test_shared_view_is_the_share_of_points_that_both_see(rng):
    lens = poses.Lens.from_pixels(LENS)
    first = flat_camera(0)
    cases = [flat_camera(turned, eye) for turned, eye in [(25, (0, 0, 0)), (-20, (1, 0.5, 0)), (10, (0, 2, 0.2))]]
    for second in cases:
        shares = []
        for one, other in ((first, second), (second, first)):
            uv = rng.uniform(0, 1, (2000, 2)) * (1600, 900)
            depth = np.exp(rng.uniform(math.log(1), math.log(8), 2000))
            rays = np.linalg.inv(K) @ [*uv.T, np.ones(2000)]
            points = one @ np.diag([1, -1, -1, 1]) @ [*rays * depth, np.ones(2000)]
            seen = np.array([pixel(other, point) for point in points[:3].T])
            inside = (seen >= 0).all(1) & (seen[:, 0] <= 1600) & (seen[:, 1] <= 900)
            shares.append(inside.mean())
        assert poses.shared_view(poses.relative(first, second), lens, 1, 8) == pytest.approx(min(shares), abs=0.06)
    assert poses.shared_view(np.eye(4), lens, 1, 8) == 1
    assert poses.shared_view(poses.relative(first, flat_camera(180)), lens, 1, 8) == 0


GOOD = np.eye(4).tolist()


def changed(row, column, value):
    out = np.eye(4).tolist()
    out[row][column] = value
    return out


@pytest.mark.parametrize(("value", "words"), [
    (None, "4x4"), ({}, "4x4"), ("eye", "4x4"), (GOOD[:3], "4x4"),
    ([row[:3] for row in GOOD], "4x4"), ([1, 2, 3, 4], "4x4"),
    (changed(0, 0, math.nan), "an entry"), (changed(0, 3, math.inf), "an entry"), (changed(0, 3, 10**400), "an entry"),
    (changed(1, 1, "1"), "number, got str"), (changed(1, 1, True), "got bool"), (changed(1, 1, [1]), "got list"),
    (changed(3, 3, 2), "last row"), (changed(3, 0, 1), "last row"),
    (changed(0, 0, 1.01), "no rotation"), (changed(0, 0, -1), "mirrored"), (changed(0, 1, 0.5), "no rotation"),
    (np.diag([0, 0, 0, 1]).tolist(), "no rotation"),
])  # fmt: skip
def test_what_is_no_pose_is_refused(value, words):
    with pytest.raises(ValueError, match=words):
        poses.checked_pose(value)


def test_a_pose_is_taken_as_it_is():
    pose = look((1, 2, 3), (0, 1, 5))
    assert np.array_equal(poses.checked_pose(pose.tolist()), pose)


@pytest.mark.parametrize("change", [
    {"w": 0}, {"h": None}, {"fl_x": math.nan}, {"fl_x": 0}, {"fl_y": -10}, {"cx": 5000}, {"cy": "450"}, {"w": 1e300},
])  # fmt: skip
def test_what_is_no_lens_is_refused(change):
    with pytest.raises(ValueError, match=f"^{next(iter(change))} must"):
        poses.Lens.from_pixels(LENS | change)


def test_a_lens_is_the_same_at_every_size_of_the_picture():
    assert poses.Lens.from_pixels({name: value / 4 for name, value in LENS.items()}) == poses.Lens.from_pixels(LENS)
