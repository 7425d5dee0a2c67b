"""Params files by name, as `--params NAME` takes them; `tiny` is the defaults of `effivmt.config`."""
