"""Figures of one clip as RGB images: contact sheets of videos, the head map, and loss curves.

Every function is pure and draws the same bytes for the same input: no global plotting state, fonts from matplotlib's
own files, colours from the Okabe-Ito palette, which readers with colour-blindness can tell apart.
"""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from PIL import Image, ImageDraw, ImageFont

from effivmt.errors import EffiVMTError, ParamsError, VideoError

BRANCH_COLOURS = {"spatial": (0, 114, 178), "temporal": (213, 94, 0)}
OTHER_COLOURS = ((0, 158, 115), (204, 121, 167), (86, 180, 233), (230, 159, 0))
INK, MUTED, RULE, PAPER = (34, 34, 34), (105, 105, 105), (222, 222, 222), (255, 255, 255)

_PAD, _GAP = 24, 8
_ENLARGED_WIDTH, _SHRUNK_WIDTH = 128, 200
_LABEL_LINES = 2
_LEGEND_WIDTH = 228
_PALEST = 0.22


def contact_sheet(rows: Sequence[tuple[str, np.ndarray]], *, columns: int = 9) -> np.ndarray:
    """Lays videos out as rows of evenly spaced frames, first and last included, each row under its label.

    `rows` pairs a label with a uint8 (T, H, W, 3) video. A video of fewer than `columns` frames shows each frame once.
    Frames of 64 px or less grow by a whole factor (nearest neighbour) to about 128 px; frames over 200 px shrink to
    200 px (Lanczos). A label takes at most two lines and ends in an ellipsis where it is cut.
    Returns uint8 (H', W', 3). Raises VideoError for a row that is no such video, ParamsError for `columns` below 2.
    """
    if columns < 2:
        raise ParamsError(f"columns: given {columns}, expected 2 or more; a row shows its first and its last frame")
    if not rows:
        raise VideoError("a contact sheet was given no video, expected at least one row; pass a (label, video) pair")
    strips = [[_tile(frame) for frame in _spread(label, video, columns)] for label, video in rows]
    font = label_font(16)
    pitch = max(strip[0].width for strip in strips) + _GAP
    width = columns * pitch - _GAP
    labels = [wrap_label(label, font, width) for label, _ in rows]
    line = 22
    heights = [len(lines) * line + 4 + strip[0].height for lines, strip in zip(labels, strips, strict=True)]
    sheet = Image.new("RGB", (width + 2 * _PAD, sum(heights) + _PAD * (len(rows) + 1)), PAPER)
    draw = ImageDraw.Draw(sheet)
    top = _PAD
    for lines, strip, height in zip(labels, strips, heights, strict=True):
        for index, text in enumerate(lines):
            draw.text((_PAD, top + index * line), text, font=font, fill=INK)
        for index, tile in enumerate(strip):
            sheet.paste(tile, (_PAD + index * pitch, top + height - tile.height))
        top += height + _PAD
    return np.asarray(sheet)


def head_map(spatial: np.ndarray, temporal: np.ndarray, branch: np.ndarray) -> np.ndarray:
    """Draws the head map: one cell a head, layers downwards, coloured by branch, with the counts of every layer.

    `spatial`, `temporal`: scores, finite and >= 0, (L, N); `branch`: "spatial" | "temporal", (L, N). The strength of a
    cell's colour grows with log2 of its own branch's score over the other's, from pale (equal, or the other larger) to
    full at the ratio that the legend names. Returns uint8 (H', W', 3). Raises EffiVMTError for shapes that differ or
    values outside these ranges.
    """
    _check_head_map(spatial, temporal, branch)
    strength, full_ratio = _strength(spatial, temporal, branch == "temporal")
    layers, heads = branch.shape
    cell = int(np.clip(840 // max(layers, heads), 20, 56))
    left, top, count_width = _PAD + 44, _PAD + 150, 76
    grid_right = left + heads * cell
    width = max(grid_right + 12 + 2 * count_width, _PAD + 2 * _LEGEND_WIDTH) + _PAD
    image = Image.new("RGB", (width, top + layers * cell + _PAD), PAPER)
    draw, font = ImageDraw.Draw(image), label_font(13)
    _draw_head_legend(draw, branch, full_ratio)
    every = int(np.ceil(24 / cell))
    draw.text((left - 8, top - 8), "layer", font=font, fill=MUTED, anchor="rs")
    draw.text((left, top - 24), "head", font=font, fill=MUTED, anchor="ls")
    for head in range(0, heads, every):
        draw.text((left + (head + 0.5) * cell, top - 8), str(head), font=font, fill=MUTED, anchor="ms")
    ends = {name: grid_right + 12 + (index + 1) * count_width for index, name in enumerate(BRANCH_COLOURS)}
    for name, end in ends.items():
        draw.text((end, top - 8), name, font=font, fill=MUTED, anchor="rs")
    for layer in range(layers):
        y = top + layer * cell
        draw.text((left - 8, y + cell / 2), str(layer), font=font, fill=MUTED, anchor="rm")
        for head in range(heads):
            box = (left + head * cell + 1, y + 1, left + (head + 1) * cell - 2, y + cell - 2)
            draw.rectangle(box, fill=_shade(branch[layer, head], strength[layer, head]))
        for name, end in ends.items():
            number = str(int((branch[layer] == name).sum()))
            draw.text((end, y + cell / 2), number, font=font, fill=INK, anchor="rm")
    return np.asarray(image)


def stacked(maps: Mapping[str, np.ndarray]) -> np.ndarray:
    """Draws head maps one above the other, each under its name; one without a name stands as it is.

    Takes and returns uint8 (H, W, 3).
    """
    if list(maps) == [""]:
        return maps[""]
    width, heading = max(image.shape[1] for image in maps.values()), 40
    page = Image.new("RGB", (width, sum(heading + len(image) for image in maps.values())), PAPER)
    draw, y = ImageDraw.Draw(page), 0
    for name, image in maps.items():
        draw.text((_PAD, y + heading - 8), name, font=label_font(16), fill=INK, anchor="ls")
        page.paste(Image.fromarray(image), (0, y + heading))
        y += heading + len(image)
    return np.asarray(page)


def curve(
    series: Mapping[str, Sequence[float]], *, title: str, xlabel: str, ylabel: str, log_y: bool = False
) -> np.ndarray:
    """Draws named series over their step number (from 1), raw values thin and their moving average thick.

    A value that is not finite leaves a gap. Returns uint8 (432, 768, 3). Raises EffiVMTError for no series, for one
    without a finite value, and with `log_y` for one that holds a value <= 0.
    """
    if not series:
        raise EffiVMTError(f"the curve '{title}' was given no series, expected at least one; pass name -> values")
    layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12)
    figure = Figure(figsize=(6.4, 3.6), dpi=120, facecolor="white", layout=layout)
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    others = 0
    for name, raw in series.items():
        values = np.asarray(raw, dtype=np.float64)
        if not np.isfinite(values).any():
            raise EffiVMTError(f"series '{name}' of '{title}' has no finite value, expected one or more; leave it out")
        if log_y and (values <= 0).any():
            raise EffiVMTError(
                f"series '{name}' of '{title}' has a value <= 0, expected > 0 on a log axis; use log_y=False"
            )
        if name in BRANCH_COLOURS:
            rgb = BRANCH_COLOURS[name]
        else:
            rgb = OTHER_COLOURS[others % len(OTHER_COLOURS)]
            others += 1
        colour, steps = np.divide(rgb, 255), np.arange(1, values.size + 1)
        axes.plot(steps, values, color=colour, linewidth=0.7, alpha=0.35, marker="." if values.size == 1 else "")
        axes.plot(steps, smooth(values), color=colour, linewidth=2.0, label=name)
    axes.set_yscale("log" if log_y else "linear")
    ink, rule = np.divide(MUTED, 255), np.divide(RULE, 255)
    axes.set_title(title, loc="left", fontsize=12, fontweight="bold", color=np.divide(INK, 255), parse_math=False)
    axes.set_xlabel(xlabel, color=ink, parse_math=False)
    axes.set_ylabel(ylabel, color=ink, parse_math=False)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(rule)
    axes.tick_params(colors=ink, which="both", length=0)
    axes.grid(axis="y", color=rule, linewidth=0.7)
    axes.set_axisbelow(True)
    legend = figure.legend(loc="outside lower center", ncols=4, frameon=False, labelcolor=ink)
    for text in legend.get_texts():
        text.set_parse_math(False)
    canvas.draw()
    return np.array(canvas.buffer_rgba())[..., :3]


def smooth(series: Sequence[float] | np.ndarray) -> np.ndarray:
    """Averages each value with its neighbours, over a centred window of about 1/20 of the series.

    At the ends the window is cut. Values that are not finite are left out of it; where it holds no other the result is
    NaN. Returns float64 of the length of `series`.
    """
    values = np.asarray(series, dtype=np.float64)
    finite = np.isfinite(values)
    kernel = np.ones(2 * (values.size // 40) + 1)
    half = kernel.size // 2
    total, count = (
        np.convolve(part, kernel)[half : half + values.size] for part in (np.where(finite, values, 0.0), finite * 1.0)
    )
    return np.divide(total, count, out=np.full(values.shape, np.nan), where=count > 0.5)


def _spread(label: str, video: np.ndarray, columns: int) -> np.ndarray:
    if video.ndim != 4 or video.shape[-1] != 3 or video.dtype != np.uint8 or 0 in video.shape:
        raise VideoError(
            f"row '{label}' of the contact sheet is {video.dtype} {video.shape}, "
            "expected uint8 (T, H, W, 3) with no empty axis; decode the video to RGB first"
        )
    last = len(video) - 1
    return video[np.linspace(0, last, min(columns, last + 1)).round().astype(int)]


def _tile(frame: np.ndarray) -> Image.Image:
    image = Image.fromarray(frame)
    width, height = image.size
    if width > _SHRUNK_WIDTH:
        shrunk = (_SHRUNK_WIDTH, max(1, round(height * _SHRUNK_WIDTH / width)))
        return image.resize(shrunk, Image.Resampling.LANCZOS)
    factor = max(1, _ENLARGED_WIDTH // width)
    return image.resize((width * factor, height * factor), Image.Resampling.NEAREST)


def label_font(size: int, *, bold: bool = False) -> ImageFont.FreeTypeFont:
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(
        Path(matplotlib.get_data_path(), "fonts", "ttf", name), size, layout_engine=ImageFont.Layout.BASIC
    )


def wrap_label(label: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    """Breaks a label into at most `_LABEL_LINES` lines of `width` px, at spaces where one fits."""
    rest, lines = " ".join(label.split()), list[str]()
    while rest:
        fits = _fitting(rest, font, width)
        if fits == len(rest):
            return [*lines, rest]
        if len(lines) == _LABEL_LINES - 1:
            cut = next((n for n in range(fits, 0, -1) if font.getlength(rest[:n].rstrip() + "…") <= width), 0)
            return [*lines, rest[:cut].rstrip() + "…"]
        space = rest.rfind(" ", 0, fits + 1)
        cut = space if space > 0 else fits
        lines.append(rest[:cut])
        rest = rest[cut:].lstrip()
    return lines


def _fitting(text: str, font: ImageFont.FreeTypeFont, width: int) -> int:
    """How many characters from the start of a text fit in `width` px; at least 1."""
    return max(1, bisect_right(range(1, len(text) + 1), float(width), key=lambda n: font.getlength(text[:n])))


def _check_head_map(spatial: np.ndarray, temporal: np.ndarray, branch: np.ndarray) -> None:
    shapes = {"spatial": spatial.shape, "temporal": temporal.shape, "branch": branch.shape}
    if len(set(shapes.values())) != 1 or branch.ndim != 2 or branch.size == 0:
        raise EffiVMTError(f"head map of shapes {shapes}, expected one (layers, heads) shape; pass one map's columns")
    for name, scores in (("spatial", spatial), ("temporal", temporal)):
        if not np.isfinite(scores).all() or (scores < 0).any():
            raise EffiVMTError(
                f"{name} scores of the head map hold a value that is negative or not finite, "
                "expected attention masses >= 0; classify the heads again"
            )
    unknown = sorted(set(branch.ravel().tolist()) - set(BRANCH_COLOURS))
    if unknown:
        raise EffiVMTError(
            f"head map has branch {unknown[0]!r}, expected 'spatial' or 'temporal'; classify the heads again"
        )


def _draw_head_legend(draw: ImageDraw.ImageDraw, branch: np.ndarray, full_ratio: int) -> None:
    share, (layers, heads) = (branch == "temporal").mean(), branch.shape
    draw.text((_PAD, _PAD), f"Head map: {share:.1%} temporal", font=label_font(22, bold=True), fill=INK)
    draw.text(
        (_PAD, _PAD + 32), f"{layers} layers × {heads} heads = {branch.size} heads", font=label_font(15), fill=MUTED
    )
    length, top, bottom = 96, _PAD + 64, _PAD + 77
    for index, name in enumerate(BRANCH_COLOURS):
        left = _PAD + index * _LEGEND_WIDTH
        for step in range(length):
            draw.line([(left + step, top), (left + step, bottom)], _shade(name, step / (length - 1)))
        count = f"{name} ({int((branch == name).sum())})"
        draw.text((left + length + 8, (top + bottom) / 2), count, font=label_font(15), fill=INK, anchor="lm")
    scale = f"pale: scores equal; full: own score {full_ratio}× the other's"
    draw.text((_PAD, _PAD + 88), scale, font=label_font(13), fill=MUTED)


def _strength(spatial: np.ndarray, temporal: np.ndarray, is_temporal: np.ndarray) -> tuple[np.ndarray, int]:
    """The cells' strength in [0, 1], (L, N), and the ratio of scores at which it reaches 1, a power of 2."""
    tiny = np.finfo(np.float64).tiny
    ratio = np.log2(np.maximum(temporal, tiny)) - np.log2(np.maximum(spatial, tiny))
    ratio = np.where(is_temporal, ratio, -ratio).clip(min=0)
    octaves = int(np.clip(np.ceil(np.percentile(ratio, 95)), 1, 6))
    return (ratio / octaves).clip(max=1), 2**octaves


def _shade(branch: str, strength: float) -> tuple[int, int, int]:
    weight = _PALEST + (1 - _PALEST) * strength
    red, green, blue = (round(255 + weight * (channel - 255)) for channel in BRANCH_COLOURS[branch])
    return red, green, blue
