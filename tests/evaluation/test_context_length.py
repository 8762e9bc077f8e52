"""The longest request: by hand for single cases, and never shorter than what really is sent."""

import pytest
from PIL import Image

from etchr.editor.geometry import fit_size
from etchr.families import TASKS
from evaluation import systems, zoom
from evaluation.benchmarks import BENCHMARKS
from evaluation.context_length import (
    EDIT_TOKENS,
    KINDS,
    STEP,
    TEXT_TOKENS,
    RequestConfig,
    longest_request,
    main,
    picture_tokens,
)
from evaluation.tools import DESCRIPTION


def request(**options):
    return longest_request(RequestConfig(**options))


def test_a_picture_takes_a_token_for_every_32_pixels_square_and_no_edit_or_crop_takes_more_than_assumed():
    for size, tokens in [((7680, 4320), 32400), ((3840, 2160), 8160), ((1024, 1024), 1024), ((33, 32), 2), ((1, 1), 1)]:
        assert picture_tokens(size) == tokens, (size, tokens)

    for size in [(4096, 256), (3840, 2160), (2250, 1500), (1040, 1008), (7680, 4320), (1000, 1001)]:
        assert picture_tokens(fit_size(*size)) <= EDIT_TOKENS, size
        source = Image.new("RGB", (size[0] // 4, size[1] // 4))
        for box in (zoom.Box(0, 0, *source.size), zoom.Box(5, 5, 10, 3)):
            assert picture_tokens(zoom.zoomed(source, box).size) <= 1024, size


def test_the_numbers_of_one_request_by_hand():
    direct = request(images=["3200x3200"], systems=["direct"], max_tokens=4096)
    assert (direct.num_images, direct.source_tokens, direct.max_pixels) == (1, 10000, None)
    assert direct.max_model_len == 16384  # 10,000 + 2,048 + 4,096 = 16,144, rounded up to a multiple of 1,024
    evr = request(images=["3200x3200"], systems=["direct", "evr"])
    assert (evr.num_images, evr.max_model_len) == (2, 17408)  # and 1,156 of the edit: 17,300
    crop = request(images=["3200x3200"], systems=["crop"])
    assert (crop.num_images, crop.max_model_len) == (3, 18432)  # and 1,024 of the enlarged part: 18,324
    tools = request(images=["640x480"], systems=["tool_loop"], turns=2, max_tokens=1000)
    assert tools.num_images == 4
    assert tools.max_model_len == 6144  # four pictures of 300 tokens, 2,048 of text, two replies: 5,248

    one, three = request(images=["640x480"], num_sources=1), request(images=["640x480"], num_sources=3)
    assert three.num_images - one.num_images == 2
    assert 0 <= three.max_model_len - one.max_model_len - 2 * 300 + STEP < 2 * STEP


def test_the_largest_of_several_sizes_and_systems_counts():
    alone = [request(benchmarks=[name], systems=[system]) for name in ("hrbench_4k", "lakes") for system in KINDS]
    both = request(benchmarks=["lakes", "hrbench_4k"], systems=list(KINDS))
    assert both.max_model_len == max(each.max_model_len for each in alone)
    assert both.num_images == max(each.num_images for each in alone)


def test_without_benchmarks_the_paper_s_table_fits_and_every_benchmark_and_system_is_known():
    assert request().size == (7680, 4320)
    assert request().max_model_len > 32400 + 1024 + 4096
    assert request(images=["640x480"]).size == (640, 480)  # a size alone means that size alone

    for name, benchmark in BENCHMARKS.items():
        assert request(benchmarks=[name], model_max_tokens=10**6).size == benchmark.largest
    assert set(KINDS) == {*systems.SYSTEMS, "edit_judge", "rewards"}
    assert request(benchmarks=list(TASKS)).size == (512, 512)


def test_the_processor_s_limit_is_raised_only_where_a_picture_is_larger():
    assert request(benchmarks=["hrbench_4k"]).max_pixels is None
    assert request(benchmarks=["hrbench_8k"]).max_pixels == 7680 * 4320
    scaled = request(benchmarks=["hrbench_8k"], whole=False)
    assert (scaled.max_pixels, scaled.source_tokens) == (None, 4096 * 4096 // 1024)
    assert request(images=["1024x1024"], own_max_pixels=512 * 512).max_pixels == 1024 * 1024


def test_the_room_for_text_holds_the_longest_prompts():
    from etchr.mllm import prompts

    question, options = "What is it? " * 60, ["An option of some length"] * 6
    longest = [
        prompts.rewrite_prompt(question, options, "x" * prompts.MAX_INSTRUCTION, "y " * 10000),
        prompts.TOOLS.format(tools=DESCRIPTION) + prompts.answer_prompt(question, options, "moves", with_edit=True),
        prompts.route_prompt(question, options),
        prompts.judge_prompt("view3d", "view3d", question, options, "truth"),
    ]
    assert max(map(len, longest)) / 3 < TEXT_TOKENS  # English has more than three letters a token


def test_a_mistake_is_one_sentence():
    for options, sentence in [
        ({"benchmarks": ["hrbench"]}, r"no benchmark 'hrbench'; there are: .*; for other data give images="),
        ({"images": ["8K"]}, r"an image size looks like 3840x2160, got '8K'"),
        ({"images": ["0x10"]}, r"an image size looks like 3840x2160"),
        ({"systems": ["evrr"]}, r"no kind of system 'evrr'; there are: direct, "),
        ({"systems": []}, r"no systems; there are: "),
        ({"systems": ["tool_loop"]}, r"343,040 tokens and the model reads 262,144: serve fewer systems, turns"),
        ({"max_tokens": 0}, r"max_tokens=0 must be at least 1"),
    ]:
        with pytest.raises(ValueError, match=sentence):
            request(**options)


def test_the_command_prints_the_numbers(capsys):
    main(["benchmarks=[hrbench_8k]", "systems=[evr]"])
    said = capsys.readouterr().out
    assert f"{request(benchmarks=['hrbench_8k']).max_model_len:,} tokens and 2 pictures a request" in said
    assert "33,177,600 pixels" in said
    with pytest.raises(SystemExit, match="no benchmark 'x'"):
        main(["benchmarks=[x]"])
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "whose pictures must fit" in capsys.readouterr().out
