"""The settings that the results of a comparison depend on, as its files name them."""

from effivmt.config import Params, Section

Setting = bool | int | float | str | None | list[int | float | str]
"""The value of a param."""
READ_OF_BACKBONE = ("dtype", "max_sequence_length", "attention", "compile", "allow_tf32")
"""Params of the section `backbone` that a result depends on; its digest stands for the others."""


def settings_of(params: Params, peer: Section | None = None) -> dict[str, Setting]:
    """The settings of params and of a peer by `section.key`, but those that no result depends on."""
    tree = params.model_dump(mode="json", exclude={"evaluate": True, "render": {"baseline"}})
    tree["backbone"] = {name: tree["backbone"][name] for name in READ_OF_BACKBONE}
    if peer is not None:
        tree["peer"] = peer.model_dump(mode="json", exclude={"save_every"})
    settings: dict[str, Setting] = {"seed": tree.pop("seed")}
    for section, values in tree.items():
        settings |= {f"{section}.{name}": value for name, value in values.items()}
    return settings
