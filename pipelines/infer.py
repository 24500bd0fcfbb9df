"""`python -m pipelines.infer infer.files=[clicks.csv]`: a dataset yaml proposed from rows, each choice explained."""

import logging
import sys
from pathlib import Path

from pipelines.config import Run
from pipelines.entry import stage_main
from recsys.core.errors import ConfigError
from recsys.data.infer import propose
from recsys.data.locate import located
from recsys.data.look import look

logger = logging.getLogger(__name__)


def work(run: Run) -> None:
    """Print the proposal, or write it to `infer.output`.

    Raises:
        ConfigError: no file is given, or the output is there already.
    """
    config = run.config.infer
    if not config.files:
        raise ConfigError(
            "infer.files=[]: name the files to propose a dataset config for: infer.files=[data/clicks.csv]"
        )
    found = look(located(config.files)[0], config.num_rows, config.side)
    text = propose(found, config.files, label=config.label, name=config.name)
    if not config.output:
        sys.stdout.write(text)
        return
    target = Path(config.output)
    if target.exists() and not run.config.overwrite:
        raise ConfigError(
            f"infer.output={target}: exists already. Choose another, or set overwrite=true to replace it."
        )
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
    except OSError as error:
        raise ConfigError(
            f"infer.output={target}: cannot be written ({error.strerror}). Name a file, as conf/dataset/mine.yaml."
        ) from error
    logger.info("wrote %s: read it, then run `python -m pipelines.run dataset=%s`", target, target.stem)


main = stage_main(work)

if __name__ == "__main__":
    main()
