"""`python -m pipelines.run`: all stages, each skipped when its inputs and options have not changed."""

from pipelines import evaluate, export, ingest, retrieval_export, train
from pipelines.config import Run
from pipelines.entry import stage_main
from recsys.core.manifest import Manifest

MADE = {
    "ingest": "encoded rows, vocabularies, manifest.json",
    "train": "checkpoints, plan.json, metrics.json, TensorBoard",
    "evaluate": "report.html, metrics.json, predictions.parquet",
    "export": "model.pt, model_int8.pt, parity.json, MODEL_CARD.md, golden.parquet",
}
MADE_OF_RETRIEVAL = {
    "evaluate": "report.html, report.md, metrics.json, lists.parquet",
    "export": "model.pt, items.parquet, MODEL_CARD.md, config.pbtxt, golden.pt; narrower models and items.faiss where "
    "scores are dot products",
}


def work(run: Run) -> None:
    """Run every stage in order, then say what was made and where.

    Raises:
        ConfigError: `from` names another run, or what is to be made at the end cannot be.
    """
    run.refuse_from()
    ingest.work(run)
    evaluate.check_columns(Manifest.read(run.stage("ingest")).schema, run.config.evaluate)  # before hours of training
    if run.config.retrieval is not None:
        retrieval_export.check_index(run)
    for stage in (train, evaluate, export):
        stage.work(run)
    print(f"run {run.config.name}:")
    for name, made in (MADE | (MADE_OF_RETRIEVAL if run.config.retrieval is not None else {})).items():
        print(f"  {name:<9} {run.stage(name)}: {made}")


main = stage_main(work)

if __name__ == "__main__":
    main()
