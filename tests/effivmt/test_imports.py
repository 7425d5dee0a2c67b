"""What a run that finds everything in the store must not import."""

import subprocess
import sys

HEAVY = ("torch", "diffusers", "transformers", "peft", "matplotlib", "cv2", "av")


def test_asking_the_store_imports_nothing_heavy():
    code = f"import sys, effivmt.outputs, effivmt.transfer, flows.console; print({HEAVY!r} & sys.modules.keys())"
    code = code.replace(repr(HEAVY), repr(set(HEAVY)))
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"
