"""DL3DV-10K: questions against projections of their own, words that tell no answer, hostile scenes, exclusions."""

import json
import math
import random
import re
import shutil
from collections import Counter, defaultdict

import numpy as np
import pytest
from PIL import Image

from data_prep.sources.build import build, split_of
from data_prep.sources.dl3dv import DL3DV, DL3DVConfig
from etchr.families import TaskFamily
from etchr.mllm.answers import is_correct
from etchr.sample import read_parquet

LENS = {"w": 3840, "h": 2160, "fl_x": 2400.0, "fl_y": 2410.0, "cx": 1920.0, "cy": 1080.0}
LEVEL = np.eye(4).tolist()
SIDES = {"left": -1, "right": 1}
BANDS = ("left", "middle", "right")


def scene_hash(number):
    return f"{number:064x}"


def look(eye, target):
    """A camera-to-world pose by the look-at construction, +z of the world up."""
    back = np.subtract(eye, target) / np.linalg.norm(np.subtract(eye, target))
    right = np.cross((0, 0, 1), back)
    right = right / np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3, :4] = np.stack([right, np.cross(back, right), back, eye], axis=1)
    return pose


def circle(count=24):
    """Counter-clockwise round the origin, looking at it."""
    arcs = [2 * math.pi * number / count for number in range(count)]
    return [look((math.cos(arc), math.sin(arc), 0.4), (0, 0, 0.1)) for arc in arcs]


def walk(count=20):
    """Straight on along +y."""
    return [look((0.02 * (number % 2), number, 1), (0, number + 10, 1)) for number in range(count)]


def wander(count=40, seed=1, spread=25):
    """About a place, looking roughly along +y."""
    rng = np.random.default_rng(seed)
    eyes = rng.uniform(-1, 1, (count, 3)) * (1, 1, 0.05)
    turns = rng.uniform(-spread, spread, count)
    return [
        look(eye, np.add(eye, (math.sin(math.radians(turn)), math.cos(math.radians(turn)), -0.1)))
        for eye, turn in zip(eyes, turns, strict=True)
    ]


def painted(number, size=(48, 27)):
    """A frame whose red tells its number, with one third of it bright and one half bright."""
    picture = Image.new("RGB", size, (number, 20, 60))
    order = random.Random(number).sample(range(3), 3)
    for third, green in zip(order, (230, 120), strict=False):
        picture.paste((number, green, 60), (third * size[0] // 3, 0, (third + 1) * size[0] // 3, size[1]))
    return picture


def write_scene(folder, poses, *, images="images_4", size=(48, 27), lens=LENS, change=lambda values: values):
    """A scene in the published layout; see `painted` for the pictures."""
    (folder / images).mkdir(parents=True)
    frames = []
    for number, pose in enumerate(poses):
        name = f"frame_{number + 1:05d}.png"
        painted(number, size).save(folder / images / name)
        frames.append(
            {"file_path": f"images/{name}", "transform_matrix": np.asarray(pose).tolist(), "colmap_im_id": number}
        )
    values = {**lens, "k1": 0.01, "k2": 0.0, "p1": 0.0, "p2": 0.0, "camera_model": "OPENCV", "frames": frames}
    (folder / "transforms.json").write_text(json.dumps(change(values)), encoding="utf-8")


def source(root, **options):
    return DL3DV(DL3DVConfig(root=str(root), **{"exclude": "none", "frames_per_scene": 16, **options}))


def samples(root, seed=0, index=0, **options):
    return list(source(root, **options).samples(index, random.Random(seed)))


def said(sample):
    return sample.choices["ABCD".index(sample.answer)]


def frames(sample):
    return [int(name.removeprefix("frame_").removesuffix(".png")) - 1 for name in sample.meta["frames"]]


def seen(pose, point):
    """(column as a share of the width, depth) of a world point, in OpenCV's convention."""
    x, _, depth = (np.linalg.inv(pose @ np.diag([1, -1, -1, 1])) @ [*point, 1])[:3]
    return 0.5 + LENS["fl_x"] / LENS["w"] * x / depth, depth


def direction(pose, point):
    """How far to the right (-1 to 1) and to the front (-1 to 1) of a camera a point lies."""
    column, depth = seen(pose, point)
    sideways = (column - 0.5) * LENS["w"] / LENS["fl_x"] * depth
    return np.array([sideways, depth]) / math.hypot(sideways, depth)


def extent(poses):
    eyes = np.array([pose[:3, 3] for pose in poses])
    return 2 * np.median([math.dist(eye, eyes.mean(0)) for eye in eyes])


def check_word(word, sideways, ahead):
    """Whether a direction word is that of a unit vector, with eight sectors."""
    diagonal = math.sin(math.radians(22.5))
    assert ("right" in word) == (sideways > diagonal), word
    assert ("left" in word) == (sideways < -diagonal), word
    assert (("forward" in word.lower()) or ("in front" in word)) == (ahead > diagonal), word
    assert (("backward" in word.lower()) or ("behind" in word)) == (ahead < -diagonal), word


def brightest(picture):
    values = np.asarray(picture.convert("L"), float)
    return BANDS[int(np.argmax([part.mean() for part in np.split(values, 3, axis=1)]))]


def check(sample, poses):
    """Question and answer against the two cameras and pictures."""
    first, second = (poses[number] for number in frames(sample))
    far_ahead = second[:3, 3] - 1e9 * second[:3, 2]
    turned = math.degrees(math.atan((seen(first, far_ahead)[0] - 0.5) * LENS["w"] / LENS["fl_x"]))
    motion = direction(first, second[:3, 3])
    question, kind = sample.question, sample.meta["kind"]
    if told := re.search(r"about (\d+) degrees further to the (left|right)", question):
        assert turned == pytest.approx(int(told[1]) * SIDES[told[2]], abs=8)
    elif kind != "turn":
        assert "the same way" in question
        assert abs(turned) < 5.5
    if kind == "move":
        check_word(said(sample), *motion)
        return
    check_word(re.findall(r"moves (.*?) to a", question)[0], *motion)
    if kind == "turn":
        side = "To the right" if turned > 0 else "To the left"
        assert said(sample) == (side if abs(turned) > 14 else "It has not turned")
        assert abs(turned) > 14 or abs(turned) < 5.5
    else:
        assert said(sample) == f"In the {brightest(sample.edit_image)} third"
        assert brightest(sample.image) != brightest(sample.edit_image)


def test_answers_are_those_of_the_cameras_and_of_the_new_picture(tmp_path):
    poses = wander(40, spread=32)
    write_scene(tmp_path / "1K" / scene_hash(1), poses)
    found = samples(tmp_path, pairs_per_scene=24, frames_per_scene=32, min_shared=0.2)
    assert Counter(sample.meta["kind"] for sample in found).keys() == {"light", "move", "turn"}
    assert len({said(sample) for sample in found}) >= 10
    assert {sample.answer for sample in found} >= {"A", "B", "C"}
    for clue in ("further to the left", "further to the right", "the same way as here"):
        assert any(clue in sample.question for sample in found)
    for number, sample in enumerate(found):
        check(sample, poses)
        first, second = frames(sample)
        assert sample.image.getpixel((5, 5))[0] == first
        assert sample.edit_image.getpixel((5, 5))[0] == second
        assert is_correct(sample.answer, sample)
        assert len(set(sample.choices)) == len(sample.choices) >= 2
        assert (sample.id, sample.task, sample.family) == (f"dl3dv-0000000-{number}", "dl3dv", TaskFamily.VIEW3D)
        assert sample.meta["answer_type"] == "option"
        assert "non-commercial" in sample.meta["licence"]
        assert sample.meta["scene"] == scene_hash(1)
    assert len({frames(sample)[0] for sample in found}) == len(found) > 16


def words_alone(found):
    """How often the best reader of words and options alone is right: it knows all answers that they ever have."""
    answers: dict[tuple[str, frozenset[str]], Counter[str]] = defaultdict(Counter)
    for sample in found:
        answers[sample.question, frozenset(sample.choices)][said(sample)] += 1
    return sum(max(counts.values()) for counts in answers.values()) / len(found)


def against_the_turn(sample):
    """The guess of a reader who holds that people walk round things: a step to the left goes with a turn to the right.

    The first option where that names none.
    """
    told = re.findall(r"\b(left|right)\b", sample.question)
    wanted = {"left": "right", "right": "left"}[told[0]] if told and sample.meta["kind"] != "light" else "middle"
    return next((option for option in sample.choices if wanted in option), sample.choices[0])


def test_the_words_do_not_tell_the_answer(tmp_path):
    rng = np.random.default_rng(2)
    for number in range(3):
        write_scene(tmp_path / f"wander{number}", wander(24, seed=number, spread=32))
        ring = [pose.copy() for pose in circle(24)]  # people who walk round a thing, more or less
        for pose in ring:
            pose[:2, 3] *= rng.uniform(0.5, 1.5)
        write_scene(tmp_path / f"ring{number}", ring)
    write_scene(tmp_path / "walk", walk(24))
    all_scenes = source(tmp_path, pairs_per_scene=20, frames_per_scene=20, min_shared=0.1)
    found = [sample for index in range(7) for sample in all_scenes.samples(index, random.Random(index))]
    chance = sum(1 / len(sample.choices) for sample in found) / len(found)
    assert len(found) > 80
    assert chance < 0.45
    assert words_alone(found) == pytest.approx(chance)
    assert sum(against_the_turn(sample) == said(sample) for sample in found) / len(found) < chance + 0.1
    for sample in found:  # a set's options are its own answers, each once
        same = [other for other in found if other.meta["scene"] == sample.meta["scene"]]
        answers = [said(other) for other in same if other.meta["set"] == sample.meta["set"]]
        assert sorted(answers) == sorted(sample.choices)


def test_round_a_thing_the_camera_turns_against_its_way(tmp_path):
    # Here the turn tells the way and the way the turn, so the scene can only be asked about what the new view shows.
    write_scene(tmp_path / "scene", circle())
    found = samples(tmp_path, frames_per_scene=24)
    assert {sample.meta["kind"] for sample in found} == {"light"}
    for sample in found:
        first, second = frames(sample)
        onward = (second - first) % 24 < 12  # counter-clockwise: to the right as the camera sees it
        assert ("right to a new" if onward else "left to a new") in sample.question
        assert ("further to the left" if onward else "further to the right") in sample.question
        assert sample.meta["yaw"] == pytest.approx(-15 * ((second - first + 12) % 24 - 12), abs=0.01)
    with pytest.raises(ValueError, match="24 frames fit no question with two answers"):
        samples(tmp_path, kinds=["move", "turn"], frames_per_scene=24)


@pytest.mark.parametrize("sectors", [4, 8])
def test_a_straight_walk_goes_forward_or_backward_and_does_not_turn(tmp_path, sectors):
    write_scene(tmp_path / "scene", walk())
    found = samples(tmp_path, sectors=sectors, min_baseline=0.1, kinds=["move", "turn"])
    for sample in found:
        first, second = frames(sample)
        assert said(sample) == ("Forward" if second > first else "Backward")
        assert "faces the same way as here" in sample.question
    assert sorted(map(said, found)) == ["Backward", "Forward"]  # it never turns


@pytest.mark.parametrize(("gap", "number"), [(16, True), (200, False)])
def test_a_view_without_a_third_that_is_clearly_brightest_is_not_asked_about(tmp_path, gap, number):
    write_scene(tmp_path / "scene", walk())
    if number:
        assert samples(tmp_path, kinds=["light"], light_margin=gap)
    else:
        with pytest.raises(ValueError, match="fit no question"):
            samples(tmp_path, kinds=["light"], light_margin=gap)


def told_apart(found):
    return [(s.id, s.question, s.choices, s.answer, s.image.tobytes(), s.edit_image.tobytes()) for s in found]


def test_a_scene_asks_the_same_however_its_world_lies(tmp_path):
    poses, rng = wander(), np.random.default_rng(3)
    turned, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    world = np.eye(4)
    world[:3, :3] = turned * np.sign(np.linalg.det(turned))
    moved = [world @ pose for pose in poses]
    for pose in moved:
        pose[:3, 3] = 7.5 * pose[:3, 3] + (3, -4, 5)
    write_scene(tmp_path / "one" / "scene", poses)
    write_scene(tmp_path / "two" / "scene", moved)
    assert told_apart(samples(tmp_path / "one")) == told_apart(samples(tmp_path / "two"))


def test_a_scene_asks_the_same_whatever_size_the_lens_is_given_for(tmp_path):
    write_scene(tmp_path / "one" / "scene", wander())
    write_scene(tmp_path / "two" / "scene", wander(), lens={name: value / 8 for name, value in LENS.items()})
    write_scene(tmp_path / "three" / "scene", wander(), lens=LENS | {"fl_x": 1200.0, "fl_y": 1205.0})
    one, two, three = (told_apart(samples(tmp_path / name)) for name in ("one", "two", "three"))
    assert one == two
    assert one != three  # the lens counts


def test_options_bound_the_pairs(tmp_path):
    write_scene(tmp_path / "scene", wander())
    found = samples(tmp_path, min_baseline=0.2, max_baseline=0.6, min_yaw=12, max_yaw=30, min_shared=0.35)
    assert found
    assert all(0.2 <= sample.meta["baseline"] <= 0.6 for sample in found)
    assert all(12 <= abs(sample.meta["yaw"]) <= 30 for sample in found)
    assert all(sample.meta["shared_view"] >= 0.35 for sample in found)
    with pytest.raises(ValueError, match="fit no question"):
        samples(tmp_path, min_baseline=40, max_baseline=50)


def test_another_seed_draws_other_pairs_and_other_orders_of_options(tmp_path):
    write_scene(tmp_path / "scene", wander())
    one, again, other = (samples(tmp_path, seed=seed) for seed in (1, 1, 2))
    assert told_apart(one) == told_apart(again)
    assert [frames(sample) for sample in one] != [frames(sample) for sample in other]
    assert len({sample.choices[0] for sample in one + other}) > 3


def test_the_pictures_are_the_largest_small_ones_or_those_asked_for(tmp_path):
    write_scene(tmp_path / "scene", wander(12))
    write_scene(tmp_path / "other" / "scene", wander(12), images="images_8", size=(32, 18))
    for folder in (tmp_path / "scene", tmp_path / "other" / "scene"):  # the originals are never taken unasked
        (folder / "images").mkdir()
        painted(0, (96, 54)).save(folder / "images" / "frame_00001.png")
    assert samples(tmp_path, index=1)[0].image.size == (48, 27)  # sorted: other/scene, scene
    assert samples(tmp_path, index=0)[0].edit_image.size == (32, 18)
    assert samples(tmp_path, index=0)[0].meta["images"] == "images_8"
    shutil.copytree(tmp_path / "other" / "scene" / "images_8", tmp_path / "scene" / "images_8")
    assert samples(tmp_path, index=1)[0].image.size == (48, 27)
    assert samples(tmp_path, index=1, images="images_8")[0].image.size == (32, 18)
    with pytest.raises(ValueError, match="the scene has no folder images_4"):
        samples(tmp_path, index=0, images="images_4")
    with pytest.raises(ValueError, match=r"folder images_2; choose another one with images="):
        source(tmp_path, images="images_2")


def test_frames_that_are_missing_or_damaged_are_passed_over(tmp_path):
    write_scene(tmp_path / "scene", wander(20))
    paths = sorted((tmp_path / "scene" / "images_4").iterdir())
    for path in paths[:8]:
        path.unlink()
    paths[8].write_bytes(b"no picture")
    painted(9, (32, 18)).save(paths[9])
    painted(10, (27, 48)).save(paths[10])
    found = samples(tmp_path, min_shared=0.1)
    assert {number for sample in found for number in frames(sample)} <= set(range(11, 20))
    for path in paths[11:19]:
        path.unlink()
    with pytest.raises(ValueError, match=r"fewer than two frames can be used: \S"):
        samples(tmp_path)


def test_a_tilted_camera_is_left_out(tmp_path):
    poses = wander()
    for pose in poses[::4]:  # looks 60 degrees up
        angle = math.radians(60)
        pose[:3, 1:3] = pose[:3, 1:3] @ [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
    write_scene(tmp_path / "scene", poses)
    used = {number for sample in samples(tmp_path, pairs_per_scene=12, min_shared=0.2) for number in frames(sample)}
    assert len(used) > 5
    assert all(number % 4 for number in used)


# ------------------------------------------------------------------------------------------------------ scenes left out


def listed(path, hashes, form):
    rows = {
        "csv": ["index,hash,Indoor or outdoor", *(f'{n},{name},"in, or out"' for n, name in enumerate(hashes))],
        "text": ["", *hashes],
        "capitals": [name.upper() for name in hashes],
    }[form]
    path.write_text("\n".join(rows) + "\n", encoding="utf-8-sig")
    return str(path)


@pytest.mark.parametrize("form", ["csv", "text", "capitals"])
def test_scenes_of_the_benchmark_give_no_sample(tmp_path, form):
    root = tmp_path / "scenes"
    for number in (0xA1, 0xB2):
        write_scene(root / "1K" / scene_hash(number), walk())
    write_scene(root / scene_hash(0xC3) / "nerfstudio", walk())
    exclude = listed(tmp_path / "list", [scene_hash(n) for n in (0xA1, 0xC3, 0xD4)], form)
    left = source(root, exclude=exclude)
    assert [left.key(index) for index in range(len(left))] == [scene_hash(0xB2)]
    everything = source(root)
    assert {everything.key(index) for index in range(3)} == {scene_hash(n) for n in (0xA1, 0xB2, 0xC3)}
    assert left.identity() != everything.identity()


def test_a_run_without_the_list_is_refused(tmp_path):
    write_scene(tmp_path / "scene", walk())
    with pytest.raises(ValueError, match=r"benchmark-meta.csv of the Hub's DL3DV/DL3DV-10K-Benchmark.*exclude=none"):
        source(tmp_path, exclude=None)


@pytest.mark.parametrize(("content", "words"), [
    ("", "names no scene"), ("hash\n", "names no scene"), ("scene-1\n", "'scene-1'"),
    (f"{scene_hash(1)}\n123\n", "'123'"),
    (f"index,name\n1,{scene_hash(1)}\n", "no column 'hash'; it has: index, name"), ("index,hash\n1\n", "''"),
    (b"\xff\xfe\x00", "no list"),
])  # fmt: skip
def test_a_list_of_something_else_is_refused(tmp_path, content, words):
    (tmp_path / "list").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=words):
        source(tmp_path, exclude=str(tmp_path / "list"))
    with pytest.raises(ValueError, match="is no file"):
        source(tmp_path, exclude=str(tmp_path / "missing"))


def test_one_scene_is_in_one_split_wherever_it_lies(tmp_path):
    for folder in ("1K", "other/480P"):
        write_scene(tmp_path / folder / scene_hash(7), walk(3))
    write_scene(tmp_path / "by-name", walk(3))
    keys = [source(tmp_path).key(index) for index in range(3)]
    assert sorted(keys) == sorted([scene_hash(7), scene_hash(7), "by-name"])
    assert source(tmp_path / "1K" / scene_hash(7)).key(0) == scene_hash(7)


# -------------------------------------------------------------------------------------------------------- hostile input


def frame_with(**fields):
    def change(values):
        values["frames"][3].update(fields)
        return values

    return change


def without(name):
    def change(values):
        del values["frames"][3][name]
        return values

    return change


def matrix_with(value):
    return frame_with(transform_matrix=[[value, *LEVEL[0][1:]], *LEVEL[1:]])


HOSTILE = {
    "is a list": (lambda values: values["frames"], "must be an object"),
    "no frames": (lambda values: values | {"frames": []}, "2 to 10,000 frames"),
    "frames of texts": (lambda values: values | {"frames": ["a", "b"]}, "frame 0 of transforms.json: it is no object"),
    "no matrix": (without("transform_matrix"), "frame 3 of transforms.json: a pose must be"),
    "no path": (without("file_path"), "frame 3 of transforms.json: file_path is missing"),
    "not a number": (matrix_with(math.nan), "frame 3.*got nan"),
    "no rotation": (matrix_with(2.0), "frame 3.*no rotation"),
    "leads out": (frame_with(file_path="images/../../other/frame_00001.png"), "leads out of the scene"),
    "absolute": (frame_with(file_path="/frame_00001.png"), "leads out of the scene"),
    "no focal length": (lambda values: values | {"fl_x": 0}, "fl_x must lie"),
    "no width": (lambda values: {name: value for name, value in values.items() if name != "w"}, "w must be a number"),
    "portrait": (lambda values: values | {"w": 2160, "h": 3840, "cx": 1080}, "of another shape than w and h say"),
    "stands still": (
        lambda values: values | {"frames": [frame | {"transform_matrix": LEVEL} for frame in values["frames"]]},
        "does not move",
    ),
}  # fmt: skip


def test_hostile_scenes_are_refused_with_a_reason_and_stop_nothing(tmp_path):
    root = tmp_path / "scenes"
    write_scene(root / "good", wander())
    for name, (change, _) in HOSTILE.items():
        write_scene(root / name, wander(12), change=change)
    reasons = {name: words for name, (_, words) in HOSTILE.items()}
    for name in ("nested", "no JSON", "no transforms", "no pictures", "bad pictures", "a link", "sizes"):
        write_scene(root / name, wander(12))
    (root / "nested" / "transforms.json").write_text("[" * 200_000)
    (root / "no JSON" / "transforms.json").write_bytes(b"\xff{")
    (root / "no transforms" / "transforms.json").unlink()
    for number, path in enumerate(sorted((root / "sizes" / "images_4").iterdir())):
        painted(number, (48 + 16 * number, 27 + 9 * number)).save(path)
    for path in (root / "no pictures" / "images_4").iterdir():
        path.unlink()
    for path in (root / "bad pictures" / "images_4").iterdir():
        path.write_bytes(b"no picture")
    for path in (root / "a link" / "images_4").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
        path.unlink()
        path.symlink_to(tmp_path / path.name)
    reasons |= {
        "nested": "nested too deeply", "no JSON": "not readable as JSON", "no transforms": "no file 'no transforms/",
        "no pictures": "fewer than two.*no file 'no pictures/images_4/frame_", "bad pictures": "not an image",
        "a link": "does not lie below", "sizes": "differ in size",
    }  # fmt: skip
    config = DL3DVConfig(
        root=str(root), out=str(tmp_path / "out"), exclude="none", processes=1, val_share=0, frames_per_scene=12
    )
    assert 2 <= build(DL3DV, config)["view3d"] <= 8
    lines = (tmp_path / "out" / "dl3dv" / "train" / "rejected.jsonl").read_text(encoding="utf-8").splitlines()
    refused = {entry["key"]: entry["reason"] for entry in map(json.loads, lines)}
    assert refused.keys() == {name.lower() for name in reasons}
    for name, words in reasons.items():
        assert re.search(words, refused[name.lower()]), (name, refused[name.lower()])


def test_two_builds_give_the_same_bytes_and_what_was_asked_for(tmp_path):
    root = tmp_path / "scenes"
    for number in range(4):
        write_scene(root / "2K" / scene_hash(number), wander(seed=number), images="images_8")
    outs = [tmp_path / name for name in ("one", "two")]
    exclude = listed(tmp_path / "list.csv", [scene_hash(2)], "csv")
    for out in outs:
        for split in ("train", "val"):
            build(DL3DV, DL3DVConfig(
                root=str(root), out=str(out), split=split, exclude=exclude, images="images_8", processes=1,
                val_share=0.5, pairs_per_scene=3, part_size=2, frames_per_scene=12,
            ))  # fmt: skip
    files = [sorted((out / "dl3dv").glob("*.parquet")) for out in outs]
    assert [path.read_bytes() for path in files[0]] == [path.read_bytes() for path in files[1]]
    scenes = {}
    for split in ("train", "val"):
        try:
            found = list(read_parquet(outs[0] / "dl3dv", split))
        except ValueError:  # no scene of so few fell into it
            found = []
        scenes[split] = {sample.meta["scene"] for sample in found}
        assert all(split_of(name, 0.5) == split for name in scenes[split])
    assert scenes["train"] | scenes["val"] == {scene_hash(number) for number in (0, 1, 3)}


@pytest.mark.parametrize(("options", "words"), [
    ({"root": ""}, "root='' is no folder"), ({"root": "nowhere"}, "root='nowhere' is no folder"),
    ({"images": "../pictures"}, "images='../pictures' must be one of"), ({"kinds": ["guess"]}, "kinds='guess' must be"),
    ({"kinds": []}, "at least one kind"), ({"sectors": 6}, "sectors=6 must be 4 or 8"),
    ({"margin": 22.5}, "below 22.5"), ({"light_margin": 0}, "light_margin=0"),
    ({"pairs_per_scene": 1}, "pairs_per_scene=1"), ({"frames_per_scene": 2}, "frames_per_scene=2"),
    ({"near": 2.0}, "near=2.0"), ({"min_shared": 1.5}, "min_shared"),
    ({"min_baseline": 0.6}, "min_baseline must be below"), ({"max_yaw": 190}, "max_yaw"),
    ({"max_tilt": 90}, "max_tilt"),
])  # fmt: skip
def test_options_that_make_no_sense_are_refused(tmp_path, options, words):
    with pytest.raises(ValueError, match=words):
        source(**{"root": tmp_path, **options})


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"no scene .* unpack"):
        source(tmp_path)
