"""What a run that finds everything in the store must not import."""

import subprocess
import sys

HEAVY = {"torch", "diffusers", "transformers", "peft", "matplotlib", "cv2", "av"}


def test_asking_the_store_imports_nothing_heavy():
    modules = "effivmt.pipeline.write_outputs, effivmt.pipeline.plan, effivmt_flows.cli.tables"
    code = f"import sys, {modules}; print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "effivmt.pipeline.stages" in found.stdout.split() and not HEAVY & set(found.stdout.split())
