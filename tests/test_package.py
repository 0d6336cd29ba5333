"""The public names are what they say, however often and in whatever order they are used."""

from __future__ import annotations

import subprocess
import sys

import pytest

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
