"""A checkpoint brings back weights, optimizer and logs to the bit, and is whole or absent."""

import os

import pytest
import torch
from safetensors.torch import save_file

from effivmt.errors import DamageError
from effivmt.method import checkpoint
from effivmt.method.checkpoint import load_checkpoint, save_checkpoint


def make(seed: int = 0) -> tuple[dict[str, torch.Tensor], torch.optim.Optimizer]:
    random = torch.Generator().manual_seed(seed)
    weights = {name: torch.randn(3, 2, generator=random).requires_grad_() for name in ("b.lora_A", "a.lora_B")}
    return weights, torch.optim.AdamW(weights.values(), lr=0.1, weight_decay=0.01)


def train(weights, optimizer, steps: range) -> list[float]:
    losses = []
    for step in steps:
        loss = sum(((weight - step) ** 2).sum() for weight in weights.values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


class TestCheckpoint:
    def test_training_goes_on_bit_for_bit(self, tmp_path):
        path = tmp_path / "state.safetensors"
        weights, optimizer = make()
        first = train(weights, optimizer, range(5))
        save_checkpoint(path, 5, weights, optimizer, logs={"loss": first})
        rest = train(weights, optimizer, range(5, 9))
        again, fresh = make(seed=1)
        steps, logs = load_checkpoint(path, again, fresh)
        assert steps == 5 and logs == {"loss": first}
        assert train(again, fresh, range(5, 9)) == rest
        assert all(torch.equal(again[name], weights[name]) for name in weights)

    def test_restores_in_place(self, tmp_path):
        weights, optimizer = make()
        train(weights, optimizer, range(1))
        save_checkpoint(tmp_path / "state", 1, weights, optimizer, logs={})
        again, fresh = make(seed=1)
        tensors = dict(again)
        load_checkpoint(tmp_path / "state", again, fresh)
        assert all(again[name] is tensors[name] and tensors[name].requires_grad for name in tensors)
        assert all(torch.equal(again[name], weights[name]) for name in weights)

    def test_without_a_file_nothing_changes(self, tmp_path):
        weights, optimizer = make()
        before = {name: weight.detach().clone() for name, weight in weights.items()}
        assert load_checkpoint(tmp_path / "absent", weights, optimizer) == (0, {})
        assert all(torch.equal(weights[name], before[name]) for name in before)
        assert not optimizer.state_dict()["state"]

    def test_logs_keep_their_digits(self, tmp_path):
        weights, optimizer = make()
        logs = {"denoising": [0.1 + 0.2, 1e-300, 1 / 3], "motion": []}
        save_checkpoint(tmp_path / "state", 3, weights, optimizer, logs=logs)
        assert load_checkpoint(tmp_path / "state", weights, optimizer) == (3, logs)

    def test_a_failing_write_leaves_the_old_file(self, tmp_path, monkeypatch):
        path = tmp_path / "state"
        weights, optimizer = make()
        save_checkpoint(path, 1, weights, optimizer, logs={})
        old = path.read_bytes()

        def half(tensors, file, metadata) -> None:
            file.write_bytes(b"half")
            raise OSError("no space left")

        monkeypatch.setattr(checkpoint, "save_file", half)
        with pytest.raises(OSError, match="no space"):
            save_checkpoint(path, 2, weights, optimizer, logs={})
        assert path.read_bytes() == old and load_checkpoint(path, weights, optimizer)[0] == 1

    @pytest.mark.parametrize("damage", ["flip", "cut", "folder", "link", "pipe"])
    def test_a_damaged_file_is_dropped(self, tmp_path, damage):
        """Once, and nothing of it is taken over; a flip of any byte is seen."""
        path = tmp_path / "state"
        weights, optimizer = make()
        train(weights, optimizer, range(1))
        save_checkpoint(path, 1, weights, optimizer, logs={"loss": [0.5]})
        content = path.read_bytes()
        positions = range(0, len(content), 7) if damage == "flip" else [0]
        again, fresh = make(seed=1)
        before = {name: weight.detach().clone() for name, weight in again.items()}
        for position in positions:
            path.unlink(missing_ok=True)
            if damage == "flip":
                path.write_bytes(content[:position] + bytes([content[position] ^ 4]) + content[position + 1 :])
            elif damage == "cut":
                path.write_bytes(content[:-9])
            elif damage == "folder":
                (path / "more").mkdir(parents=True)
            elif damage == "link":
                path.symlink_to(tmp_path / "nowhere")
            else:
                os.mkfifo(path)
            with pytest.raises(DamageError, match=r"state is a damaged checkpoint .*: it is dropped"):
                load_checkpoint(path, again, fresh)
            assert load_checkpoint(path, again, fresh) == (0, {})
        assert all(torch.equal(again[name], before[name]) for name in before)
        assert not fresh.state_dict()["state"]

    def test_one_of_an_earlier_version_goes_on(self, tmp_path):
        weights, optimizer = make()
        tensors = {f"weights.{name}": weight.detach() + 1 for name, weight in weights.items()}
        save_file(tensors, tmp_path / "state", metadata={"step": "7", "logs": "{}"})
        assert load_checkpoint(tmp_path / "state", weights, optimizer) == (7, {})
        assert torch.equal(weights["b.lora_A"], tensors["weights.b.lora_A"])
