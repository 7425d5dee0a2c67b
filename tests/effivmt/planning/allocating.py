"""What torch's allocator on the processor gives out while something runs."""

from collections.abc import Callable
from itertools import accumulate

import torch


def allocated(run: Callable[[], object], *models: torch.nn.Module) -> int:
    """Peak of the bytes that the processor's allocator had given out to this thread, beside those of the models."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        run()
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    peak = max(accumulate(event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())))
    held = {t.untyped_storage().data_ptr(): t.nbytes for m in models for t in (*m.parameters(), *m.buffers())}
    return peak + sum(held.values())
