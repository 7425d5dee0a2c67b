"""Dockerfile and compose.yaml: linted, consistent, and each command in them run as it stands, in a folder of its own.

There is no container runtime here: a command runs in this environment, with the image's folders moved below a temporary
one, and ports and names of services replaced by free ports of the loopback interface.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from services import free_port, started, until

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]


def instructions() -> list[tuple[str, str]]:
    """The instructions of the Dockerfile: name and arguments."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(line.split()[0], line.partition(" ")[2]) for line in lines]


def stages() -> dict[str, list[tuple[str, str]]]:
    """The instructions of each build stage, by its name."""
    found: dict[str, list[tuple[str, str]]] = {}
    for name, arguments in instructions():
        if name == "FROM":
            found[arguments.split(" AS ")[1]] = []
        elif found:
            list(found.values())[-1].append((name, arguments))
    return found


def interpolated(text: str, values: Mapping[str, str] = {}) -> str:
    """A value of compose.yaml with its variables replaced, as compose does it."""
    return re.sub(r"\$\{(\w+)(?::-([^}]*))?\}", lambda it: values.get(it[1], it[2] or ""), text)


def test_hadolint_finds_nothing() -> None:
    hadolint = shutil.which("hadolint", path=f"{BIN}{os.pathsep}{os.environ['PATH']}")
    if hadolint is None:
        pytest.skip("hadolint is not installed")
    ended = subprocess.run([hadolint, "Dockerfile"], cwd=ROOT, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout + ended.stderr) == (0, "")


def test_the_build_gets_what_it_copies_and_nothing_secret() -> None:
    sent = [
        line for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if not line.startswith("#")
    ]
    assert sent[0] == "*"
    copied = {
        source
        for name, arguments in instructions()
        if name == "COPY" and "--from" not in arguments
        for source in arguments.split()[:-1]
    }
    assert copied == {line[1:] for line in sent if line.startswith("!")}
    assert all((ROOT / source).exists() for source in copied)
    left_out = {line for line in sent[1:] if not line.startswith("!")}
    assert left_out == {"data/bench", "data/stages", "**/__pycache__"}  # what the package does not install


def test_stages_follow_from_one_another() -> None:
    found = stages()
    bases = [arguments.split(" AS ")[0] for name, arguments in instructions() if name == "FROM"]
    own = [base for base in bases if not base.startswith("python:")]
    copied = re.findall(r"--from=(\S+)", (ROOT / "Dockerfile").read_text(encoding="utf-8"))
    assert {*own, *copied} <= found.keys()
    assert ("USER", "1000") in found["runtime"] and own[-2:] == ["runtime", "runtime"]
    assert {service["build"]["target"] for service in SERVICES.values()} == {"cpu", "cuda"} <= found.keys()


def test_compose_fits_the_image() -> None:
    assert SERVICES.keys() == {"prefect", "mlflow", "worker", "worker-cuda"}
    made = next(arguments for name, arguments in stages()["runtime"] if "install --directory" in arguments).split()
    mounts = [mount.rsplit(":", 1) for service in SERVICES.values() for mount in service["volumes"]]
    named = {source: target for source, target in mounts if target != "ro"}
    assert named.keys() == COMPOSE["volumes"].keys() and set(named.values()) <= set(made)
    for service in SERVICES.values():
        assert service["restart"] == "unless-stopped"
        for port in service.get("ports", ()):  # published to this host alone: neither server has a password
            assert port.startswith("127.0.0.1:")
    for worker in ("worker", "worker-cuda"):
        environment, waits = SERVICES[worker]["environment"], SERVICES[worker]["depends_on"]
        assert {name: it["condition"] for name, it in waits.items()} == dict.fromkeys(waits, "service_healthy")
        assert environment["PREFECT_API_URL"] == "http://prefect:4200/api"
        assert environment["MLFLOW_TRACKING_URI"] == "http://mlflow:5000"
        assert shlex.split(interpolated(SERVICES[worker]["command"]))[:3] == ["effivmt", "serve", "clips/catalog.csv"]
    text = (ROOT / "compose.yaml").read_text(encoding="utf-8")
    assert re.findall(r"\$\{\w+\}", text) == []  # every setting has a default


@pytest.mark.slow
def test_what_the_build_and_a_container_without_a_command_run(tmp_path: Path) -> None:
    runs = {arguments for name, arguments in instructions() if name == "RUN"}
    (check,) = {arguments for arguments in runs if arguments.startswith("effivmt")}
    (command,) = [yaml.safe_load(arguments) for name, arguments in instructions() if name == "CMD"]
    for words in (shlex.split(check), command):
        ended = subprocess.run([BIN / words[0], *words[1:]], cwd=tmp_path, capture_output=True, text=True)
        assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_services_start_and_are_healthy(tmp_path: Path) -> None:
    ports = {"4200": str(free_port()), "5000": str(free_port())}

    def moved(text: str) -> str:
        text = interpolated(text).replace("/work", str(tmp_path)).replace("/home/effivmt", str(tmp_path))
        text = re.sub(r"\b(4200|5000)\b", lambda it: ports[it[0]], text)
        return re.sub(r"http://(prefect|mlflow):", "http://127.0.0.1:", text)

    def environment(service: str) -> dict[str, str]:
        values = SERVICES[service]["environment"]
        return {name: moved(str(value)) for name, value in values.items() if value is not None}

    def script(words: list[str]) -> list[str]:
        """The arguments with which Python runs a console script, or itself."""
        return words[1:] if words[0] == "python" else [str(BIN / words[0]), *words[1:]]

    def healthy(service: str) -> bool:
        kind, *words = SERVICES[service]["healthcheck"]["test"]
        assert kind == "CMD"
        return subprocess.run([sys.executable, *map(moved, script(words))], capture_output=True).returncode == 0

    for name in ("prefect", "mlflow", "store", "out"):
        (tmp_path / name).mkdir()
    (source, target, _) = interpolated(SERVICES["worker"]["volumes"][0]).split(":")
    assert target == "/work/clips"
    (tmp_path / "clips").symlink_to(ROOT / source)
    logs = {name: tmp_path / f"{name}.log" for name in ("prefect", "mlflow", "worker")}
    commands = {name: script(shlex.split(moved(SERVICES[name]["command"]))) for name in logs}
    with (
        started(logs["prefect"], *commands["prefect"], **environment("prefect")),
        started(logs["mlflow"], *commands["mlflow"], **environment("mlflow")),
    ):
        for service in ("prefect", "mlflow"):
            until(lambda service=service: healthy(service), 240, logs[service])
        with started(logs["worker"], *commands["worker"], **environment("worker")):
            until(lambda: "serving" in logs["worker"].read_text(), 240, logs["worker"])

            def listed() -> str:
                command, own = [BIN / "prefect", "deployment", "ls"], os.environ | environment("worker")
                return subprocess.run(command, env=own, capture_output=True, text=True).stdout

            until(lambda: "nightly/catalog" in listed(), 120, logs["worker"])


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_image_s_packages_install(tmp_path: Path) -> None:
    """Of the target for the CPU, from the registries that this machine's pip knows."""
    (install,) = [arguments for name, arguments in stages()["cpu-packages"] if name == "RUN"]
    sent = [line[1:] for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line[:1] == "!"]
    (tmp_path / "src").mkdir()
    for name in sent:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / "src" / name)
    index = subprocess.run(
        [sys.executable, "-m", "pip", "config", "get", "global.extra-index-url"], capture_output=True, text=True
    ).stdout.strip()
    command = install.replace("/opt/effivmt", str(tmp_path / "venv"))
    settings = {"TORCH_INDEX": (index or "https://pypi.org/simple").split()[0]}
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    path = {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    subprocess.run(["sh", "-c", command], cwd=tmp_path / "src", env=clean | settings | path, check=True)
    path = {"PATH": f"{tmp_path / 'venv' / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    for words in ([tmp_path / "venv/bin/effivmt", "doctor"], [tmp_path / "venv/bin/pip", "check"]):
        ended = subprocess.run(words, cwd=tmp_path, env=clean | path, capture_output=True, text=True)
        assert ended.returncode == 0, ended.stdout + ended.stderr
