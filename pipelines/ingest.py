"""`python -m pipelines.ingest`: raw rows to encoded Parquet and a manifest.

`python -m pipelines.ingest dataset.schema=infer dataset.path=FILE` is `python -m pipelines.infer infer.files=[FILE]`.
"""

import sys

from pipelines import infer
from pipelines.config import Run
from pipelines.entry import stage_main
from pipelines.stage import StageKey, stage
from recsys.data.faults import REJECTED_FOLDER
from recsys.data.fingerprint import file_fingerprint
from recsys.data.ingest import ingest

INFER, PATH = "dataset.schema=infer", "dataset.path="


def work(run: Run) -> None:
    """Ingest the data set, once for all runs that use it as it is."""
    folder, config = run.stage("ingest"), run.config
    part = run.part("dataset", "ingest")
    key = StageKey(
        stage="ingest",
        config=part,
        inputs=_raw_inputs(run),
        resolved=run.values,
        worth_keeping=f"{REJECTED_FOLDER}/*",  # what is wrong with the rows, where that was too much
        shared=True,
    )
    # The folder's name is a digest of the configuration, so what differs can only be the raw files: take the new ones.
    with stage(folder, key, overwrite=True) as aside:
        if aside is not None:
            ingest(config.dataset, aside, options=config.ingest)


def _raw_inputs(run: Run) -> dict[str, str]:
    return {str(path): file_fingerprint(path) for path in run.config.dataset.inputs()}


def main() -> None:
    """The stage, or what proposes a config for rows that have none yet."""
    given = sys.argv[1:]
    if INFER not in given:
        return start()
    files = [text.removeprefix(PATH) for text in given if text.startswith(PATH)]
    others = [text for text in given if text != INFER and not text.startswith(PATH)]
    sys.argv[1:] = [f"infer.files=[{','.join(files)}]", *others]
    return infer.main()


start = stage_main(work)

if __name__ == "__main__":
    main()
