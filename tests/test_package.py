"""The public names are what they say, however often and in whatever order they are used."""

from __future__ import annotations

import subprocess
import sys

import pytest

from omnifill import api

ASK = "import omnifill as of; assert callable(of.train), of.train; assert of.train is of.train"


@pytest.mark.parametrize(
    "before",
    ["", "import omnifill.api", "import omnifill; omnifill.train; import omnifill.train.loop",
     "import omnifill; omnifill.load"],
)  # fmt: skip
def test_train_is_the_function_and_not_the_package_beside_it(before: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"{before}\n{ASK}"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_to_load_a_run_draws_nothing_and_needs_no_compiler(model: api.Model) -> None:
    """To fill tensors of no device torch imports a compiler, which takes seconds."""
    code = (
        "import sys, torch\nfrom omnifill import api\nbefore = torch.get_rng_state()\n"
        f"api.load({str(model.run.folder.path)!r})\n"
        "print('torch._dynamo' in sys.modules, torch.equal(before, torch.get_rng_state()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]
