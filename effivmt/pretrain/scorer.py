"""Trains the embedded scorer, a small `CLIPModel`, on single frames of the procedural world and their captions."""

import copy
import math
import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from transformers import (
    AutoTokenizer,
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPTextConfig,
    CLIPVisionConfig,
    PreTrainedTokenizerBase,
)

from effivmt.method.checkpoint import load_checkpoint, save_checkpoint
from effivmt.pretrain.drawing import drawing
from effivmt.pretrain.log import Log
from effivmt.pretrain.precision import fast_products
from effivmt.pretrain.text import carry_words, make_tokenizer
from effivmt.world import figure, motions
from effivmt.world.looks import COLOURS, SHAPES, names_held_out
from effivmt.world.scenes import Mix, draw_clip

MAX_TOKENS = 32
WIDTH: dict[str, Any] = {"hidden_size": 128, "intermediate_size": 256, "num_attention_heads": 4}
"""Arguments of both configs; `Any`, since their other arguments have other types."""
PROJECTION = 64
KINDS = {"object": 0.7, "camera": 0.1, "pair": 0.1, "figure": 0.1}
MIX = Mix(patterned_object=0.5, patterned_ground=0.35)
"""Patterned looks are harder to name than plain ones."""
WORLD = 300
"""Training draws its clips from world `WORLD` + seed."""
GROUP = 8
"""Clips of one group in a training batch."""
RAMP = 1000
"""Steps until the contrastive loss has its full weight."""
_PLACE = "the (?:(?:top|bottom) (?:left|right)|left|right|middle|top|bottom)"
_ROUTE = re.compile(rf" going from {_PLACE} to {_PLACE}")
_PHRASES = re.compile(rf" (?:{'|'.join([*motions.NAMED, *figure.ACTIONS])})\b")
_SHAPE = re.compile("|".join(SHAPES))
_COLOUR = re.compile(rf"(?:an? )?(?:{'|'.join(COLOURS)})")
_CAMERA = re.compile(rf"^the camera (?:{'|'.join(motions.CAMERA)}) over ")


def make_scorer(vocabulary: int, *, patch: int = 8, seed: int = 0) -> CLIPModel:
    """An untrained scorer: a ViT of 4 layers on 64 x 64 pixels in square patches of `patch` pixels, a causal text
    encoder of 2 layers."""
    text = CLIPTextConfig(
        vocab_size=vocabulary,
        max_position_embeddings=MAX_TOKENS,
        num_hidden_layers=2,
        bos_token_id=None,
        eos_token_id=1,
        pad_token_id=0,
        projection_dim=PROJECTION,
        **WIDTH,
    )
    vision = CLIPVisionConfig(image_size=64, patch_size=patch, num_hidden_layers=4, projection_dim=PROJECTION, **WIDTH)
    config = CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=PROJECTION)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return CLIPModel(config)


def make_finer(start: CLIPModel, known: PreTrainedTokenizerBase, patch: int) -> CLIPModel:
    """A new scorer for patches of `patch` pixels with what `start`, whose tokenizer is `known`, has learned.

    The kernel of its patch embedding is pooled, so that an even patch gives what it gave; its positions are
    interpolated; words that it does not know stay random.
    """
    tokenizer = make_tokenizer()
    finer, weights = make_scorer(len(tokenizer), patch=patch), start.state_dict()
    kernel, places = (f"vision_model.embeddings.{name}.weight" for name in ("patch_embedding", "position_embedding"))
    words = "text_model.embeddings.token_embedding.weight"
    coarse = weights[kernel].shape[-1]
    weights[kernel] = F.interpolate(weights[kernel], (patch, patch), mode="area") * (coarse / patch) ** 2
    grid = weights[places][1:].T.unflatten(1, (64 // coarse, -1))[None]
    grid = F.interpolate(grid, (64 // patch, 64 // patch), mode="bilinear")[0].flatten(1).T
    weights[places] = torch.cat([weights[places][:1], grid])
    weights[words] = carry_words(weights[words], known, finer.state_dict()[words], tokenizer)
    finer.load_state_dict(weights)
    return finer


def train_scorer(
    folder: Path,
    *,
    steps: int,
    device: torch.device | str = "cpu",
    patch: int = 8,
    start: tuple[CLIPModel, PreTrainedTokenizerBase] | None = None,
    batch: int = 64,
    pool: int = 8000,
    learning_rate: float = 1e-3,
    seed: int = 0,
    save_every: int = 200,
    report: Callable[[int, dict[str, float]], None] | None = None,
) -> tuple[CLIPModel, dict[str, list[float]]]:
    """Trains a scorer for `steps` steps on `device`, resuming from `folder`/scorer.safetensors: a new one, or
    `start`, a trained one and its tokenizer, now with patches of `patch` pixels.

    Returns it, on the processor, and the log of its losses.

    Frames come from a pool of `pool` clips (at least `batch`), two of each, half of them flipped and half of them
    blurred (sigma up to 1.5 pixels). A caption loses its motion phrase every second time, for one frame shows no
    motion; frames whose captions agree but for motion count as each other's match, not as negatives. A batch is made
    of groups of up to `GROUP` clips whose captions agree but for shapes, or but for colours: in batches drawn at random
    the other words leave little for a shape to decide, or for a colour between those of a patterned object, and that
    is not learned.

    Loss: contrastive cross-entropy both ways (Radford et al., "Learning Transferable Visual Models From Natural
    Language Supervision"), its weight growing from 0 to 1 over `RAMP` steps of a new scorer, + 3 times the
    cross-entropy of naming the shape from the image by a linear layer that only training has. Without that start the
    two encoders wait for each other to tell shapes apart: after 1300 steps they were still named at chance.
    """
    tokenizer = make_tokenizer()
    model = make_scorer(len(tokenizer), patch=patch, seed=seed) if start is None else make_finer(*start, patch)
    model.train()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        namer = nn.Linear(WIDTH["hidden_size"], len(SHAPES))
    trained = nn.ModuleDict({"scorer": model, "namer": namer}).to(device)
    parameters: dict[str, torch.Tensor] = dict(trained.named_parameters())
    decayed = [p for name, p in parameters.items() if p.ndim > 1 and "embedding" not in name]
    others = [p for name, p in parameters.items() if p.ndim <= 1 or "embedding" in name]
    groups = [{"params": decayed, "weight_decay": 0.05}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, 0.98), fused=True)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "scorer.safetensors"
    done, logs = load_checkpoint(path, parameters, optimizer)
    log = Log(logs, torch.device(device))
    if done >= steps:
        return model.cpu().eval(), log.read()
    frames, captions = _draw_pool(WORLD + seed, pool)
    bare = [without_motion(caption) for caption in captions]
    key = torch.tensor([{text: i for i, text in enumerate(bare)}[text] for text in bare])
    groups_of = _groups(bare)
    tokens = torch.stack([tokenize(tokenizer, texts) for texts in (captions, bare)])
    shape = torch.tensor([_only_shape(text) for text in bare])
    for step in range(done, steps):
        rng = np.random.default_rng([seed, step, 11])
        for group in optimizer.param_groups:
            progress = 0.5 + 0.5 * math.cos(math.pi * step / steps)
            group["lr"] = learning_rate * min(1.0, (step + 1) / 100) * (0.01 + 0.99 * progress)
        picks = _pick(rng, groups_of, batch)
        pixels = to_pixels(np.stack([_augment(frames[i, rng.integers(frames.shape[1])], rng) for i in picks]))
        pixels = pixels.to(device)
        ids = tokens[rng.integers(0, 2, batch), picks]
        ids = ids[:, : int((ids > 0).sum(1).max())].to(device)
        with fast_products(model.vision_model, pixels.device):
            seen = model.vision_model(pixels).pooler_output
        images = F.normalize(model.visual_projection(seen), dim=-1)
        texts = F.normalize(model.get_text_features(ids).pooler_output, dim=-1)
        logits = model.logit_scale.exp() * images @ texts.T
        same = (key[picks][:, None] == key[picks][None]).to(device)
        target = same / same.sum(1, keepdim=True)
        loss = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
        naming = F.cross_entropy(namer(seen), shape[picks].to(device), reduction="sum") / batch
        weight = min(1.0, step / RAMP) if start is None else 1.0
        optimizer.zero_grad(set_to_none=True)
        (weight * loss + 3 * naming).backward()
        nn.utils.clip_grad_norm_(parameters.values(), 1.0)
        optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(max=math.log(100))
        hit = same.gather(1, logits.argmax(1, keepdim=True)).float().mean()
        log.add(loss=loss.detach(), naming=naming.detach(), matched=hit)
        if (step + 1) % save_every == 0 or step + 1 == steps:
            save_checkpoint(path, step + 1, parameters, optimizer, logs=log.read())
        if report is not None and log.due(step + 1):
            report(step + 1, log.newest())
    return model.cpu().eval(), log.read()


def save_scorer(model: CLIPModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Writes a folder that `CLIPModel`, `AutoTokenizer` and `CLIPImageProcessorPil` load; the weights in float16."""
    copy.deepcopy(model).half().save_pretrained(folder)
    tokenizer.model_max_length = MAX_TOKENS
    tokenizer.save_pretrained(folder)
    size, half = {"height": 64, "width": 64}, [0.5] * 3
    CLIPImageProcessorPil(
        size=size, crop_size=size, do_center_crop=False, image_mean=half, image_std=half
    ).save_pretrained(folder)


def load_scorer(folder: Path) -> tuple[CLIPModel, PreTrainedTokenizerBase]:
    """A saved scorer in float32 and its tokenizer; OSError where the folder holds none."""
    return CLIPModel.from_pretrained(folder, dtype=torch.float32).eval(), AutoTokenizer.from_pretrained(folder)


def without_motion(caption: str) -> str:
    """A world caption without the words that only a moving picture can show."""
    return _ROUTE.sub("", _PHRASES.sub("", _CAMERA.sub("a view of ", caption)))


def tokenize(tokenizer: PreTrainedTokenizerBase, captions: Sequence[str]) -> torch.Tensor:
    """Token ids int64 (B, 32), each row ending in one end token and padding."""
    tokens = tokenizer(
        list(captions), padding="max_length", max_length=MAX_TOKENS, truncation=True, return_tensors="pt"
    )
    return tokens.input_ids


def to_pixels(frames: np.ndarray) -> torch.Tensor:
    """Model input float32 (B, 3, 64, 64) in [-1, 1] of frames uint8 (B, 64, 64, 3), as the saved processor makes it."""
    return torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 127.5 - 1


def _draw_pool(world: int, size: int) -> tuple[np.ndarray, list[str]]:
    """Frames uint8 (size, 2, 64, 64, 3), two of each clip, and the clips' captions, none of which names a held-out
    look."""
    frames = np.empty((size, 2, 64, 64, 3), np.uint8)
    captions: list[str] = []
    start = 0
    with drawing() as draw:
        while len(captions) < size:
            indices = range(start, start + min(1024, size - len(captions)))
            clips = draw(partial(draw_clip, world, kinds=KINDS, num_frames=5, mix=MIX), indices)
            for index, clip in zip(indices, clips, strict=True):
                if not names_held_out(clip.caption):
                    frames[len(captions)] = clip.frames[[index % 5, (index + 2) % 5]]
                    captions.append(clip.caption)
            start = indices.stop
    return frames, captions


def _only_shape(caption: str) -> int:
    """Which of `SHAPES` a caption names; -100, which cross-entropy leaves out, if it names none or several."""
    named = _SHAPE.findall(caption)
    return SHAPES.index(named[0]) if len(named) == 1 else -100


def _groups(captions: Sequence[str]) -> np.ndarray:
    """int (captions, 2): the group of those that agree but for shapes, and of those that agree but for colours."""
    kinds = [[words.sub("", caption) for caption in captions] for words in (_SHAPE, _COLOUR)]
    return np.stack([np.unique(kind, return_inverse=True)[1] for kind in kinds], axis=1)


def _pick(rng: np.random.Generator, groups_of: np.ndarray, batch: int) -> np.ndarray:
    """Numbers (batch,) of different clips: at most `GROUP` of a group of each of some random clips, whose groups are
    groups_of (clips, kinds of groups)."""
    picks: list[int] = []
    for anchor in rng.permutation(len(groups_of)):
        if anchor not in picks:
            group_of = groups_of[:, rng.integers(groups_of.shape[1])]
            others = np.flatnonzero(group_of == group_of[anchor])
            picks += [int(i) for i in rng.permutation(others)[:GROUP] if i not in picks]
        if len(picks) >= batch:
            break
    return np.array(picks[:batch])


def _augment(frame: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    flip, blur = rng.random(2) < 0.5
    sigma = rng.uniform(0.3, 1.5)
    frame = frame[:, ::-1] if flip else frame
    return cv2.GaussianBlur(np.ascontiguousarray(frame), (0, 0), sigma) if blur else frame
