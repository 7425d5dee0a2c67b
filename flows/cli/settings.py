"""Options that repeat, from the table [tool.effivmt] of the working folder's pyproject.toml.

What the command line says comes first, then the environment (EFFIVMT_PARAMS and so on), then this table.
"""

from pathlib import Path

from effivmt.errors import ParamsError

KEYS = ("params", "store", "engine", "runner", "address", "resource")


def read_settings(path: Path) -> dict[str, str]:
    """The options by name; none where there is no such file or table. ParamsError for another key or value."""
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError) as error:
        raise ParamsError(f"{path} cannot be read ({error}); mend it") from error
    if "effivmt" not in text:
        return {}
    import tomllib

    try:
        table = tomllib.loads(text).get("tool", {}).get("effivmt", {})
    except tomllib.TOMLDecodeError as error:
        raise ParamsError(f"{path} is damaged ({error}); mend it") from error
    for key, value in table.items():
        if key not in KEYS or not isinstance(value, str):
            raise ParamsError(f"{path}: tool.effivmt.{key} is {value!r:.60}; expected {', '.join(KEYS)}, each a text")
    return table
