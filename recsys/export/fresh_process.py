"""Prove that a bundle loads and scores where only torch is installed."""

import logging
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from recsys.core.errors import ParityError

RELOAD_SCRIPT = Path(__file__).with_name("reload.py")
MAX_ERROR = 1e-5  # same file, same machine: differences come from thread counts only
TIMEOUT_SECONDS = 300

logger = logging.getLogger(__name__)


def check_in_fresh_process(model_path: Path, features: dict[str, Tensor], outputs: Sequence[Tensor]) -> None:
    """Score rows with an exported model in a new Python process that can import torch and its requirements only.

    Args:
        model_path: the TorchScript file.
        features: border tensors of B rows.
        outputs: what the model said in this process, B rows each; whole numbers must agree exactly.

    Raises:
        ParityError: the process fails, or its scores differ.
    """
    with tempfile.TemporaryDirectory() as folder:
        golden = Path(folder) / "golden.pt"
        torch.save({"features": features, "outputs": list(outputs)}, golden)
        # -I: no PYTHONPATH, no user site, and the script's own folder is not importable.
        command = [sys.executable, "-I", str(RELOAD_SCRIPT), str(model_path.resolve()), str(golden), str(MAX_ERROR)]
        try:
            done = subprocess.run(
                command, cwd=folder, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise ParityError(f"{model_path}: a fresh process did not score within {TIMEOUT_SECONDS} s.") from error
    if done.returncode != 0:
        raise ParityError(
            f"{model_path}: a fresh Python process with torch alone could not reproduce the scores (exit status "
            f"{done.returncode}), so a server could not either. What it said:\n{done.stderr.strip()[-4000:]}"
        )
    logger.info("fresh process agrees: %s", done.stdout.strip())
