from __future__ import annotations

import re
import stat
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from dataset_helpers import NTU25, STICK, random_clips, write

from methods.data import DatasetWriter, SkeletonDataset, inspect_dataset, layout_from_parts
from methods.data.inspection.page import write_page
from methods.data.inspection.strips import POSES, Mark, Up, find_up, poses_of, strip
from methods.data.synthetic import SyntheticConfig, generate_clips
from methods.errors import InputError

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = '<script>alert("1")</script>&amp;\x00\x1b[31m</figure>\'onload="x'
VOID = {"meta", "br"}


class Outline(HTMLParser):
    """What a browser makes of a page: which elements, whether they close in order, what can be read."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def outline(text: str) -> Outline:
    out = Outline()
    out.feed(text)
    out.close()
    assert out.open == []
    ET.fromstring(text.removeprefix("<!DOCTYPE html>"))  # and well-formed even as XML
    return out


def strips_of(text: str) -> list[ET.Element]:
    return [ET.fromstring(svg) for svg in re.findall(r'<svg class="strip".*?</svg>', text, re.DOTALL)]


def page(data: SkeletonDataset, path: Path, pictures: int = 200) -> str:
    write_page(data, inspect_dataset(data), path, pictures)
    return path.read_text(encoding="utf-8")


def generated(path: Path, spoil: bool = True) -> SkeletonDataset:
    """Three classes of two, one without a clip, two persons, one finding of some kinds, two copies."""
    config = SyntheticConfig(
        clips_per_cell=1, subjects=2, cameras=2, dropout=0.0, actions=("walk", "hug"), min_frames=20, max_frames=25
    )
    clips = list(generate_clips(config))
    frames = [np.array(clip.frames) for clip in clips]
    if spoil:
        frames[0][6, 0, 7] += 2
        frames[2][4:7, 0] = 0
        frames[3][:, 1] = frames[3][:, 0]
        frames[4] = frames[4][:1]
        frames[6] = np.round(frames[4], 3)
    with DatasetWriter(path, NTU25, ["walk", "hug", "nap"], 2) as writer:
        for index, clip in enumerate(clips):
            writer.append(frames[index], clip.label, clip.subject, camera=clip.camera, name=clip.name)
        return writer.finish({"xsub": [1 + clip.subject % 2 for clip in clips]})


def test_a_page_holds_a_strip_a_class_and_a_strip_a_finding(tmp_path: Path) -> None:
    data = generated(tmp_path / "set")
    found = inspect_dataset(data)
    text = page(data, tmp_path / "page.html")
    read = outline(text)
    figures = [attrs for tag, attrs in read.tags if tag == "figure"]
    assert [attrs["id"] for attrs in figures if "id" in attrs] == ["class-0", "class-1", "class-2"]
    findings = found.anomalies.findings
    assert {finding.kind for finding in findings} >= {"joint_jump", "gap", "twin", "one_frame"}
    assert sum(attrs.get("class") == "finding" for attrs in figures) == len(findings)
    assert sum(attrs.get("class") == "copies" for attrs in figures) == 1
    assert len(strips_of(text)) == 2 + len(findings) + 2  # "nap" has no clip; a pair of copies is two strips
    words = " ".join(read.words)
    for finding in findings:
        assert finding.text in words
    for line in found.lines():
        if line.startswith("! "):
            assert line[2:] in words
    assert "nap has no clip" in " ".join(words.split())
    assert "xsub" in words and "2 / 2 / 0" in words


def test_a_clean_set_says_so(tmp_path: Path) -> None:
    text = page(generated(tmp_path / "set", spoil=False), tmp_path / "page.html")
    assert "Nothing was found." not in text  # "nap" is missing on both sides
    assert "has no clip of nap" in text
    assert 'class="finding"' not in text and 'class="copies"' not in text
    data = write(tmp_path / "other", random_clips(4), [0, 1, 0, 1], [1, 2, 3, 4])
    assert "Nothing was found." in page(data, tmp_path / "other.html")


def test_nothing_in_the_page_comes_from_elsewhere_or_runs(tmp_path: Path) -> None:
    read = outline(page(generated(tmp_path / "set"), tmp_path / "page.html"))
    assert not {tag for tag, _ in read.tags} & {
        "script",
        "link",
        "img",
        "iframe",
        "object",
        "base",
        "a",
        "image",
        "use",
    }
    for _, attrs in read.tags:
        assert not [name for name in attrs if name.startswith("on") or name in ("href", "src", "style", "xlink:href")]
    style = " ".join(read.words)
    assert "url(" not in style and "@import" not in style
    policy = [attrs["content"] for tag, attrs in read.tags if attrs.get("http-equiv") == "Content-Security-Policy"]
    assert policy == ["default-src 'none'; style-src 'unsafe-inline'"]


def test_hostile_names_are_text(tmp_path: Path) -> None:
    layout = layout_from_parts(f"l{HOSTILE}", [f"{joint}{HOSTILE}" for joint in STICK.joints], STICK.parents)
    clips = random_clips(4, layout=layout)
    clips[1][:] = clips[1][0]
    clips[3][0, 0, 2] = 0
    with DatasetWriter(tmp_path / "set", layout, [HOSTILE, "b"], 1) as writer:
        for index, clip in enumerate(clips):
            writer.append(clip, index % 2, index, name=f"{index}{HOSTILE}".replace("\x00", ""))
        data = writer.finish({HOSTILE: [1, 1, 2, 1]})
    text = page(data, tmp_path / "page.html")
    read = outline(text)
    assert "script" not in {tag for tag, _ in read.tags}
    assert not [attrs for _, attrs in read.tags if "onload" in attrs]
    assert "\x00" not in text and "\x1b" not in text
    shown = HOSTILE.replace("\x00", "\N{REPLACEMENT CHARACTER}").replace("\x1b", "\N{REPLACEMENT CHARACTER}")
    assert sum(shown in words for words in read.words) > 5  # class, split, layout, joint, in captions and tables


@pytest.mark.parametrize("pictures", [0, 1, 3])
def test_so_many_pictures_of_a_kind_and_how_many_more(tmp_path: Path, pictures: int) -> None:
    clips = random_clips(7)
    for clip in clips[:5]:
        clip[1, 0, 4] = 0
    text = page(write(tmp_path / "set", clips, [0] * 7, range(7), classes=1), tmp_path / "p.html", pictures)
    read = outline(text)
    assert " ".join(read.words).count("head of person 0 is at zero") == 5
    assert len(strips_of(text)) == 1 + pictures
    assert f"{5 - pictures} more are told without a picture" in text


def test_a_strip_marks_the_frame_and_dots_the_joint() -> None:
    clip = np.zeros((9, 2, 5, 3), dtype=np.float32)
    clip[:, 0] = [[0, 1, 0], [0, 1.5, 0], [-0.2, 1.4, 0], [0.2, 1.4, 0], [0, 1.8, 0]]
    clip[:, 1] = clip[:, 0] + np.float32([1, 0, 0])
    clip[8] = 0
    shown = [0, 4, 8]
    drawn = ET.fromstring(strip(clip, STICK, Up(1, 1), shown, Mark(4, 1, 4)))
    cells = drawn.findall(f"{SVG}g")
    assert [cell.findtext(f"{SVG}text") for cell in cells] == ["0", "4", "8"]
    assert [len(cell.findall(f"{SVG}rect[@class='mark']")) for cell in cells] == [0, 1, 0]
    assert [len(cell.findall(f"{SVG}circle[@class='dot']")) for cell in cells] == [0, 1, 0]
    assert [len(cell.findall(f"{SVG}path[@class='p1']")) for cell in cells] == [1, 1, 0]
    assert cells[2].findall(f"{SVG}text")[1].text == "nobody"
    dot = cells[1].find(f"{SVG}circle[@class='dot']")
    heads = cells[1].findall(f"{SVG}circle")
    assert dot is not None
    assert (dot.get("cx"), dot.get("cy")) == (heads[1].get("cx"), heads[1].get("cy"))  # the second person's head


def points_of(drawn: ET.Element, person: int) -> list[list[tuple[int, int]]]:
    """The joints' places in each cell, chain by chain."""
    out = []
    for path in drawn.iter(f"{SVG}path"):
        if path.get("class") == f"p{person}":
            numbers = [int(number) for number in re.findall(r"\d+", path.get("d") or "")]
            out.append(list(zip(numbers[::2], numbers[1::2], strict=True)))
    return out


@pytest.mark.parametrize("shape", ["plain", "turned", "flat", "flat, downwards", "z up"])
def test_a_figure_stands_upright_and_is_seen_from_the_front(tmp_path: Path, shape: str) -> None:
    """Head at the top, shoulders apart, whatever way the data lies; sizes keep their proportion."""
    names = ("hip", "neck", "left_shoulder", "right_shoulder", "head")
    pose = np.array([[0, 1, 0], [0, 1.6, 0], [-0.3, 1.5, 0], [0.3, 1.5, 0], [0, 2.0, 0]])
    pose = {
        "plain": pose,
        "turned": pose[:, [2, 1, 0]],
        "flat": pose[:, :2],
        "flat, downwards": pose[:, :2] * [1, -1] + [0, 500],
        "z up": pose[:, [0, 2, 1]],
    }[shape]
    clip = pose[None, None].repeat(8, axis=0).astype(np.float32)
    data = write(tmp_path / "set", [clip], [0], [0])
    assert data.layout.joints == names
    drawn = ET.fromstring(strip(clip, STICK, find_up(data), [0, 7]))
    (cell, _) = points_of(drawn, 0)
    xs, ys = [x for x, _ in cell], [y for _, y in cell]
    wide, tall = max(xs) - min(xs), max(ys) - min(ys)
    assert wide / tall == pytest.approx(0.6, abs=0.01)
    head = drawn.find(f".//{SVG}circle")
    assert head is not None and int(head.get("cy") or 0) == min(ys)
    assert max(map(int, re.findall(r"\d+", drawn.get("viewBox") or ""))) >= max(xs)


def test_every_bone_is_drawn_once() -> None:
    for layout in (NTU25, STICK):
        rng = np.random.default_rng(0)
        clip = rng.uniform(0, 1, (1, 1, layout.num_joints, 3)).astype(np.float32)
        drawn = ET.fromstring(strip(clip, layout, Up(1, 1), [0]))
        path = next(path for path in drawn.iter(f"{SVG}path") if path.get("class") == "p0")
        runs = [run.split() for run in (path.get("d") or "").split("M")[1:]]
        assert sum(len(run) // 2 - 1 for run in runs) == len(layout.bones)


def test_one_far_joint_does_not_shrink_the_body() -> None:
    clip = np.zeros((6, 1, 5, 3), dtype=np.float32)
    clip[:, 0] = [[0, 1, 0], [0, 1.5, 0], [-0.2, 1.4, 0], [0.2, 1.4, 0], [0, 1.8, 0]]
    clip[3, 0, 4] = [900, -300, 4000]
    drawn = ET.fromstring(strip(clip, STICK, Up(1, 1), [0, 3, 5], Mark(3, 0, 4)))
    ys = [y for _, y in points_of(drawn, 0)[0]]
    assert max(ys) - min(ys) > 200
    width, height = (int(number) for number in (drawn.get("viewBox") or "").split()[2:])
    dot = drawn.find(f".//{SVG}circle[@class='dot']")
    assert dot is not None
    assert 0 <= int(dot.get("cx") or -1) <= width / 3 and 0 <= int(dot.get("cy") or -1) <= height


@pytest.mark.parametrize("fill", [0.0, 0.5, np.nan])
def test_what_has_no_size_can_be_drawn(fill: float) -> None:
    for channels in (1, 2, 3, 4):
        clip = np.full((3, 2, 5, channels), fill, dtype=np.float32)
        drawn = ET.fromstring(strip(clip, STICK, Up(min(1, channels - 1), 1), poses_of(3)))
        assert all(abs(int(number)) < 10_000 for number in re.findall(r"\d+", drawn.get("viewBox") or ""))


def test_poses_are_spread_and_hold_the_mark() -> None:
    assert poses_of(1) == [0] and poses_of(3) == [0, 1, 2]
    assert poses_of(61) == [0, 12, 24, 36, 48, 60]
    for frames in (2, 7, 50, 61):
        for frame in range(frames):
            for close in (False, True):
                shown = poses_of(frames, Mark(frame), close)
                assert frame in shown and shown == sorted(set(shown)) and len(shown) == min(POSES, frames)
                assert shown[0] >= 0 and shown[-1] < frames
                if close:
                    assert shown == list(range(shown[0], shown[0] + len(shown)))
    assert 29 in poses_of(60, Mark(30), close=True)  # what it jumped from


def test_a_page_replaces_the_old_one_and_leaves_nothing_behind(tmp_path: Path) -> None:
    data = write(tmp_path / "set", random_clips(4), [0, 1, 0, 1], [1, 2, 3, 4])
    target = tmp_path / "pages" / "p.html"
    with pytest.raises(InputError, match="cannot write there"):
        write_page(data, inspect_dataset(data), target)
    target.parent.mkdir()
    target.write_text("old")
    page(data, target)
    assert [path.name for path in target.parent.iterdir()] == ["p.html"]
    assert target.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert stat.S_IMODE(target.stat().st_mode) & 0o400
    with pytest.raises(InputError, match="is a folder"):
        write_page(data, inspect_dataset(data), target.parent)
    assert [path.name for path in target.parent.iterdir()] == ["p.html"]


def test_a_failing_page_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write(tmp_path / "set", random_clips(4), [0, 1, 0, 1], [1, 2, 3, 4])
    target = tmp_path / "p.html"
    target.write_text("old")

    def broken(*_: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("methods.data.inspection.page._strip", broken)
    with pytest.raises(InputError, match="No space left"):
        write_page(data, inspect_dataset(data), target)
    assert target.read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["p.html", "set"]


def test_sixty_classes_stay_below_five_megabytes(tmp_path: Path) -> None:
    config = SyntheticConfig(clips_per_cell=4, subjects=5, cameras=1, actions=("hug", "push", "handshake"))
    with DatasetWriter(tmp_path / "set", NTU25, [f"class {index}" for index in range(60)], 2) as writer:
        for index, clip in enumerate(generate_clips(config)):
            frames = np.array(clip.frames)
            frames[10, 0, 3] += 3
            frames[20:23, 1] = 0
            writer.append(frames, index % 60, clip.subject)
        data = writer.finish()
    text = page(data, tmp_path / "p.html")
    assert len(strips_of(text)) >= 60 + 2 * 60
    assert len(text.encode()) < 1.5e6
