"""The report's section on the data: what was found before any number was computed."""

from recsys.evaluate.data_checks import DataChecks, FeatureCheck
from recsys.evaluate.metric_tables import table
from recsys.evaluate.sections import cell, text
from recsys.metrics import MetricValue


def checks_section(checks: DataChecks) -> str:
    """Findings in words, shares of equal rows, and a table of all features."""
    findings = "".join(f'<li class="finding">{text(finding)}.</li>' for finding in checks.findings)
    found = f"<ul>{findings}</ul>" if findings else '<p class="note">Nothing stands out.</p>'
    alone = "alone (correlation)" if checks.numbers else "alone (AUC)"
    names = ("feature", "PSI", "by chance", "unseen in train", "in test", "colliding", alone)
    note = (
        "Unseen: look-ups of ids that training lacks, which all share one row. Colliding: training look-ups whose id "
        "has all its rows in common with another id of its column, so that no training tells the two apart; as the "
        "tables are planned, what training moves as it starts."
    )
    return (
        f"<h2>Data checks</h2>{found}{_facts(checks)}<details><summary>Every feature</summary>"
        f'<p class="note">{note}</p>'
        f"{table(names, [_row(check, numbers=checks.numbers) for check in checks.features])}</details>"
    )


def _facts(checks: DataChecks) -> str:
    overlap = checks.overlap
    rates = {"train": checks.train_rate, "test": checks.test_rate}
    label, form = ("mean label", ".4g") if checks.numbers else ("positive", ".2%")
    means = "".join(f"<div><dt>{label}, {name}</dt><dd>{_shown(rate, form)}</dd></div>" for name, rate in rates.items())
    shares = {
        "test rows like a train row": overlap.test_in_train,
        "and with its label": overlap.test_in_train_with_label,
        "repeated in test": overlap.test_duplicates,
        "repeated in train": overlap.train_duplicates,
    }
    cells = "".join(f"<div><dt>{name}</dt><dd>{_shown(share, '.2%')}</dd></div>" for name, share in shares.items())
    rows = f"<div><dt>rows, train and test</dt><dd>{checks.num_train_rows:,} and {checks.num_test_rows:,}</dd></div>"
    return f'<dl class="facts">{rows}{means}{cells}</dl>'


def _shown(value: MetricValue, form: str) -> str:
    if value.value is None:
        return f'<abbr class="none" title="{text(value.undefined_reason)}">undefined</abbr>'
    return f"{value.value:{form}}"


def _row(check: FeatureCheck, *, numbers: bool) -> str:
    stability = check.stability
    cells = cell(stability.index, ".4f") + cell(stability.by_chance, ".4f")
    cells += cell(check.train_unseen, ".2%") + cell(check.test_unseen, ".2%")
    cells += cell(check.colliding, ".2%") + cell(check.correlation if numbers else check.auc, ".4f")
    return f'<tr><td class="text">{text(check.feature)}</td>{cells}</tr>'
