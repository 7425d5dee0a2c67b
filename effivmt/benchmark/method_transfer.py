"""A transfer by any method of the benchmark: the same stages around it, and the same results in the out folder."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from effivmt.benchmark import peer_stages
from effivmt.benchmark.methods import METHODS, OURS, Method, lack, of_file
from effivmt.benchmark.peers import PEERS, is_of_peer, peer_params, section_of, tunes
from effivmt.catalog import Clip
from effivmt.config import Params, Section
from effivmt.errors import EffiVMTError, ParamsError
from effivmt.params_file import load_params
from effivmt.pipeline import stages
from effivmt.pipeline.excerpt import load_excerpt
from effivmt.pipeline.runner import StageRunner
from effivmt.pipeline.stages import RenderedVideo, check_clip_images, check_texts, embed_clip
from effivmt.pipeline.transfer import MethodFacts, TransferMethod, TransferResult, adapter_folder, run_clip
from effivmt.pipeline.workspace import Workspace
from effivmt.store import Artifact

NAMES = tuple(name for name, method in METHODS.items() if method.kind == "method")
"""The methods that a transfer can be by, beside a user's file."""


@dataclass(frozen=True)
class ByMethod:
    """Takes a clip through all stages by a method; `settings` are the params of a peer's own module."""

    method: Method
    settings: Mapping[str, object]

    def __call__(self, work: Workspace, clip: Clip, runner: StageRunner) -> TransferResult:
        """As `run_clip`; EffiVMTError also as of `check`."""
        self.check(clip)
        facts = MethodFacts(self.method.name, self.method.title, self.settings)
        if self.method.maker == OURS:
            return replace(run_clip(work, clip, runner), method=facts)
        work = work.for_clip(clip)
        runner.stage = "text"
        check_texts(work, (clip.caption, *clip.prompts))
        runner.stage = "images" if clip.images else runner.stage
        check_clip_images(work, clip)
        ingested = runner.run(stages.ingest, work, clip)
        masked = runner.run(stages.mask, work, clip, ingested) if clip.chosen else None
        work = work.for_frames(load_excerpt(ingested).num_frames)
        tuned: Artifact | None = None
        if self.method.peer is None:  # the backbone alone
            rendered = runner.run(stages.render, work, clip.prompts, None, images=clip.images)
        else:
            params = peer_params(self.method.peer, {section_of(self.method.peer): self.settings})
            if tunes(self.method.peer):
                tuned = runner.run(peer_tune, work, clip, ingested, peer=self.method.peer, params=params)
                with adapter_folder(tuned) as adapter:
                    rendered = runner.run(stages.render, work, clip.prompts, adapter, images=clip.images)
            else:
                rendered = runner.run(peer_render, work, clip, ingested, peer=self.method.peer, params=params)
        evaluated = runner.run(stages.evaluate, work, clip, masked or ingested, rendered)
        return TransferResult(
            clip=clip,
            backbone=work.folder.facts,
            runs=tuple(runner.runs),
            ingested=ingested,
            rendered=tuple(rendered),
            evaluated=evaluated,
            motion=tuned,
            masked=masked,
            method=facts,
        )

    def check(self, clip: Clip) -> None:
        """EffiVMTError where the clip asks for what the method cannot do: a part of its motion, or videos of images."""
        if found := lack(self.method, clip):
            raise EffiVMTError(f"{found.reason}; leave {found.columns} out")


def peer_tune(work: Workspace, clip: Clip, ingested: Artifact, *, peer: str, params: Section) -> Artifact:
    """The stage of a peer that tunes: its adapter."""
    return peer_stages.tune(work, clip, ingested, peer=peer, params=params)


def peer_render(work: Workspace, clip: Clip, ingested: Artifact, *, peer: str, params: Section) -> list[RenderedVideo]:
    """The stage of a peer that guides the sampling: every prompt and seed and, if asked for, the backbone alone."""
    embed_clip(work, clip)
    videos = [
        video
        for prompt in clip.prompts
        for video in peer_stages.render(work, ingested, prompt, peer=peer, params=params)
    ]
    if not work.params.render.baseline:
        return videos
    plain = stages.render(work, clip.prompts, None)
    return [replace(video, without_adapter=it.artifact) for video, it in zip(videos, plain, strict=True)]


def choose_method(
    name: str,
    source: str | Path | None,
    overrides: Sequence[str] = (),
    *,
    force: Sequence[str] = (),
    dry_run: bool = False,
) -> tuple[Params, TransferMethod]:
    """The params and the way of a transfer by the method of this name, or of a user's file (.py).

    source: a params file or preset; overrides: `section.key=value` of the params or of the method's own. ParamsError
    for an unknown name, which it lists; for a wrong field; for a stage of `force` that the method has not; and where a
    preview or a dry run, which are of EffiVMT's stages, is asked of another method.
    """
    if name == OURS:
        return load_params(source, overrides), run_clip
    if not name.endswith(".py") and name not in NAMES:
        raise ParamsError(
            f"--method {name:.60}: there is no such method; expected one of {', '.join(NAMES)}, or FILE.py"
        )
    method = of_file(name) if name.endswith(".py") else METHODS[name]
    own = [section_of(method.peer)] if method.peer else []
    of_peers = [override for override in overrides if is_of_peer(override, (*PEERS, *own))]
    if foreign := [override for override in of_peers if not is_of_peer(override, own)]:
        raise ParamsError(f"--set {foreign[0]:.80} is of another method than --method {name:.60}")
    ours = [override for override in overrides if override not in of_peers]
    fixed = {override.partition("=")[0] for override in method.overrides}
    if taken := [override for override in ours if override.partition("=")[0].strip() in fixed]:
        raise ParamsError(f"--set {taken[0]:.80}: --method {name} fixes this one; leave it out")
    params = load_params(source, (*ours, *method.overrides))
    settings = peer_params(method.peer, {}, of_peers).model_dump(mode="json") if method.peer else {}
    if method.maker != OURS:
        _check_options(method, params, force, dry_run=dry_run)
    return params, ByMethod(method, settings)


def _check_options(method: Method, params: Params, force: Sequence[str], *, dry_run: bool) -> None:
    """ParamsError for what is of EffiVMT's stages alone."""
    if params.preview:
        raise ParamsError(f"--preview shows what EffiVMT tunes; leave it out with --method {method.name}")
    if dry_run:
        raise ParamsError(f"--dry-run shows the stages of EffiVMT; leave it out with --method {method.name}")
    known = ["ingest", *([] if method.peer and not tunes(method.peer) else ["render"]), "evaluate"]
    if unknown := [stage for stage in force if stage not in known]:
        raise ParamsError(f"--force {unknown[0]}: {method.name} can run these again: {', '.join(known)}")
