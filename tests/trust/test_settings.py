"""Settings and headers of strangers: one line each, soon."""

import json
import os
import socket
import struct
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trial import effivmt

from effivmt.config import BackboneParams, Params
from effivmt.errors import BackboneError, ParamsError, StoreError
from effivmt.method.backbone_folder import find_backbone
from effivmt.params_file import load_params
from effivmt.store.digests import sha256_tree
from effivmt.untrusted import parse_json, parse_yaml, read_json, read_safetensors_header, read_text

SECONDS = 5.0

LAUGHS = "a: &a {x: 1}\nm0: &m0 {<<: [*a,*a]}\n" + "".join(
    f"m{i}: &m{i} {{<<: [{','.join([f'*m{i - 1}'] * 9)}]}}\n" for i in range(1, 9)
)
ALIASES = "a0: &a0 [1]\n" + "".join(f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 9))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (LAUGHS, "stands for more than 20000 values"),
        (ALIASES, "stands for more than 20000 values"),
        ("heads: " + "[" * 6000 + "]" * 6000, "nested more than 32 deep"),
        ("- " * 20_000, "nested more than 32 deep"),
        ("a: &a [*a]", "contains itself"),
        ("seed: " + "1" * 5000, "is not valid YAML"),
        ("seed: !!bool maybe", "is not valid YAML"),
        ("seed: !!timestamp x", "is not valid YAML"),
        ("seed: !!python/object/apply:os.system [true]", "is not valid YAML"),
        ("seed: 1\n" + "#" * 70_000, "is larger than 64 KiB"),
        ("".join(f"f{i}: 1\n" for i in range(3000)), "and 2990 more"),
    ],
)
def test_params_of_a_stranger(tmp_path, text, told):
    (tmp_path / "p.yaml").write_text(text, encoding="utf-8")
    started = time.process_time()
    ended = effivmt("transfer", "a.mp4", "--caption", "a", "--prompt", "b", "--params", tmp_path / "p.yaml")
    assert ended.code == 2 and told in ended.fault and len(ended.fault) < 1500
    assert time.process_time() - started < SECONDS


@pytest.mark.parametrize("override", ["seed=" + "[" * 9000, "seed={a: &a [*a]}", "seed=!!int x", "a" * 9000, "x.y.z=1"])
def test_an_override_of_a_stranger(override):
    ended = effivmt("transfer", "a.mp4", "--caption", "a", "--prompt", "b", "--set", override)
    assert ended.code == 2 and "--set" in ended.fault and len(ended.fault) < 400


def test_a_path_that_cannot_be_one():
    for path in ("a" * 5000, "a\0b"):
        with pytest.raises(BackboneError, match="no folder here"):
            find_backbone(BackboneParams(path=path))
        with pytest.raises(ParamsError, match=r"cannot be read|null byte"):
            load_params(path)


def test_only_regular_files_are_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
    for name in ("pipe", "zero", "socket", "."):
        for read in (read_json, read_safetensors_header, lambda path: read_text(path, 100)):
            with pytest.raises((ValueError, OSError)):
                read(tmp_path / name)


def test_a_link_to_a_device_has_no_digest(tmp_path):
    (tmp_path / "weights").symlink_to("/dev/zero")
    with pytest.raises(StoreError, match="is neither a file nor a folder"):
        sha256_tree(tmp_path)


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "[" * 33 + "]" * 33, '{"a":' * 40 + "1" + "}" * 40, "1" * 5000, "{", ""]
)
def test_json_of_a_stranger(text):
    with pytest.raises(ValueError, match=r"is not JSON|nested more than 32 deep"):
        parse_json(text)
    assert parse_json("[" * 32 + "]" * 32)


def header(folder: Path, content: bytes, *, length: int | None = None) -> Path:
    """A safetensors file with this header, which may announce another length."""
    path = folder / "x.safetensors"
    path.write_bytes(struct.pack("<Q", len(content) if length is None else length) + content)
    return path


@pytest.mark.parametrize(
    ("content", "length"),
    [
        (b"{}", 2**60),
        (b"[" * 100_000, None),
        (b"[1]", None),
        (b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}', None),
        (b'{"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 0]}}', None),
        (b'{"a": {"dtype": 3, "shape": [], "data_offsets": [0, 0]}}', None),
        (b'{"a": []}', None),
        (b"\xff\xfe{}", None),
    ],
)
def test_a_safetensors_header_of_a_stranger(tmp_path, content, length):
    with pytest.raises(ValueError, match=r"expected|is no|nested|lists"):
        read_safetensors_header(header(tmp_path, content, length=length))


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_subnormal=False)
    | st.sampled_from(["F32", "BF16", "a"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["dtype", "shape", "data_offsets", "__metadata__", "a"]), inner, max_size=4)
    ),
    max_leaves=8,
)


def check_any_header(folder: Path, value: object, tail: bytes) -> None:
    """Any header of a safetensors file gives its tensors, or a ValueError."""
    path = header(folder, json.dumps(value).encode())
    path.write_bytes(path.read_bytes() + tail)
    try:
        assert all(entry.shape is not None for entry in read_safetensors_header(path).values())
    except ValueError as error:
        assert str(error).startswith(("is ", "has ", "holds ", "lists "))


@given(JSON, st.binary(max_size=8))
@settings(max_examples=80, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_header(tries, tmp_path, value, tail):
    tries()
    check_any_header(tmp_path, value, tail)


@pytest.mark.slow
@given(JSON, st.binary(max_size=8))
@settings(max_examples=3000, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_3000_headers(tries, tmp_path, value, tail):
    tries()
    check_any_header(tmp_path, value, tail)


YAML = st.text(st.sampled_from("[]{}:,&*<!- \n'\"a1|>?#%@`~.\\\x00\x1b\u2028"), max_size=40) | st.text(max_size=20)


def check_any_yaml(text: str) -> None:
    """Any text is a value, or a ValueError; as an override, params or a ParamsError of one line."""
    try:
        parse_yaml(text)
    except ValueError as error:
        assert str(error).startswith(("is ", "holds ", "stands "))
    try:
        assert isinstance(load_params("tiny", [f"seed={text}"]), Params)
    except ParamsError as error:
        assert "seed" in str(error)


@given(YAML)
@settings(max_examples=150, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_yaml(tries, text):
    tries()
    check_any_yaml(text)


@pytest.mark.slow
@given(YAML)
@settings(max_examples=10_000, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_10000_yaml_texts(tries, text):
    tries()
    check_any_yaml(text)
