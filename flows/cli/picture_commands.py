"""The command `animate`: results as a moving picture for a web page or a chat."""

from pathlib import Path
from typing import Annotated

import typer


def animate(
    folders: Annotated[list[Path], typer.Argument(metavar="FOLDER...", help="Out folders of clips, a row for each.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="The picture to write, .gif or .webp.")],
    every: Annotated[int, typer.Option(metavar="N", min=1, help="Takes every Nth frame.")] = 1,
) -> None:
    """Writes the reference and the results of clips as one moving picture."""
    from effivmt.report.moving_picture import write_moving_picture
    from effivmt_flows.cli.terminal import say

    write_moving_picture(folders, out, every=every)
    say(out)
