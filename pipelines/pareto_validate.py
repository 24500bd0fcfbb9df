"""The validation AUC of what is served, where that is not what was trained: selection must not see float tables."""

import json

from pipelines.config import Run
from pipelines.model import load_trained
from pipelines.stage import StageKey, check_made_with, fingerprint, stage
from pipelines.train import loaders
from recsys.metrics import auc, log_loss
from recsys.train.score import Replica, score
from recsys.train.session import process_group


def work(run: Run) -> None:
    """Score the validation split with the frozen model, on one rank, into `validate/metrics.json`."""
    with process_group(run.config.train.run_on) as device:
        data, trained = run.stage("ingest"), run.stage("train")
        inputs = {"ingest": fingerprint(data), "train": fingerprint(trained)}
        check_made_with(trained, config=run.trained_with, inputs={"ingest": inputs["ingest"]})
        key = StageKey(stage="validate", config=run.part("embedding"), inputs=inputs, resolved=run.values)
        with stage(run.stage("validate"), key, overwrite=run.config.overwrite) as folder:
            if folder is not None:
                loaded = load_trained(run)
                scorer = Replica(loaded.frozen_model.to(device), device)
                logits, labels, weights = score(scorer, loaders(run, data)("validation", False), "validation").of(0)
                figures = {
                    "validation.auc": auc(labels, logits, weights).value,
                    "validation.log_loss": log_loss(labels, logits, weights).value,
                }
                (folder / "metrics.json").write_text(json.dumps(figures, indent=1))
