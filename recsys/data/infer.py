"""A dataset yaml proposed from the rows of a table, with a comment that explains each choice."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from recsys.core.errors import ConfigError
from recsys.core.jsonable import to_json
from recsys.data.companions import weights_among
from recsys.data.look import Look
from recsys.data.profile import Profile, profile_of, words_of

LABEL_NAMES = (
    "label",
    "click",
    "clicked",
    "is_click",
    "target",
    "y",
    "conversion",
    "purchase",
    "converted",
    "is_conversion",
    "purchased",
    "is_purchase",
    "buy",
    "bought",
    "like",
    "liked",
    "is_like",
    "install",
)
WEIGHT_NAMES = ("weight", "sample_weight", "row_weight", "example_weight", "importance_weight")
ID_NAMES = ("id", "ids", "user", "uid", "item", "iid", "ad", "campaign", "sku", "zip", "code", "category", "type")
ITEM_NAMES = ("item", "items", "iid", "ad", "sku", "product", "article", "video", "movie", "song", "news")
USER_NAMES = ("user", "user_id", "userid", "uid", "visitor_id", "session_id")
Roles = Sequence[tuple[Profile, str, str, str]]  # what each column becomes: section, line and reason
LARGEST = 1e38  # numbers beyond are infinite as float32
MIN_TIMES = 10  # different times that a split by time needs
FEW_VALUES = 50  # whole numbers of no more different values are taken for codes


def propose(found: Look, files: Sequence[str], *, label: str, name: str) -> str:
    """The text of a dataset yaml that works as it is.

    Args:
        found: of the first file.
        files: all of them, in order.
        label: column of the label, of 0 and 1 or of other numbers to predict; "": found by its name and values among
            columns of 0 and 1.
        name: of the data set.
    Raises:
        ConfigError: no column can be the label, or several can.
    """
    profiles = [profile_of(column) for column in found.frame]
    target = _label(profiles, label)
    others = [other for other in profiles if other is not target and target.is_binary and _is_other_label(other)]
    weight = next((profile for profile in profiles if profile is not target and _is_weight(profile)), None)
    roles = _roles(found, [profile for profile in profiles if profile not in (target, weight, *others)])
    lines = {
        section: [_entry(line, why) for _, role, line, why in roles if role == section]
        for section in ("numeric", "categorical", "timestamps")
    }
    if not any(lines.values()):
        raise ConfigError(f"no column but the label {target.name!r} can be a feature: {_reasons(roles)}.")
    times = [profile for profile, role, *_ in roles if role == "timestamps"]
    lines["categorical"] += [line for profile in times for line in _derived(profile)]
    users = [profile.name for profile, *_ in roles if profile.name.lower() in USER_NAMES]
    return "\n".join(
        [
            f"# Proposed from the first {found.frame.height:,} rows of {Path(files[0]).name}: read it and change",
            "# what you know better.",
            *_source(found, files, name),
            *_label_lines(target, others),
            *([_weight(weight)] if weight else []),
            *(text for section, inside in lines.items() for text in _section(section, inside)),
            _passthrough(users, target),
            _split(times),
            *(_history(roles, users, times, target) if target.is_binary else []),
            *_left_out(roles),
            "",
        ]
    )


def _roles(found: Look, profiles: Sequence[Profile]) -> Roles:
    weights = weights_among(found.frame, profiles)
    return [(profile, *_role(profile, weights)) for profile in profiles if profile.name not in weights.values()]


def _left_out(roles: Roles) -> list[str]:
    found = [f"#   {_quoted(profile.name)}: {why}" for profile, role, _, why in roles if not role]
    return ["# Left out:", *found] if found else []


def _reasons(roles: Roles) -> str:
    return "; ".join(f"{profile.name!r}: {why}" for profile, _, _, why in roles) or "there is none"


def _source(found: Look, files: Sequence[str], name: str) -> list[str]:
    return [
        "_target_: recsys.data.table.TableDataset",
        f"name: {_quoted(name)}",
        f"kind: {found.kind.value}",
        f"files: {json.dumps(list(files), ensure_ascii=False)}",
        f"separator: {json.dumps(found.separator)}",
        f"columns: {json.dumps(list(found.columns))}" + ("   # the file has no header line" if found.columns else ""),
        f"quoted: {json.dumps(found.quoted)}",
        *(["side:"] if found.side else []),
        *(f"  - {json.dumps(to_json(each), ensure_ascii=False)}" for each in found.side),
    ]


def _section(name: str, lines: list[str]) -> list[str]:
    return [f"{name}:", *lines] if lines else [f"{name}: []"]


def _derived(time: Profile) -> list[str]:
    """Features of a timestamp."""
    parts = ("hour", "weekday") if time.has_hours else ("weekday",)
    of = f"of: [{_quoted(time.name)}]"
    return [_entry(f"{{name: {_quoted(f'{time.name}_{part}')}, derive: {part}, {of}}}", "in UTC") for part in parts]


def _label(profiles: Sequence[Profile], label: str) -> Profile:
    binary = {p.name: p for p in profiles if p.is_binary and not p.num_missing and p.num_values == 2}
    if label:
        numbers = {p.name: p for p in profiles if not p.is_binary and _is_number(p) and p.num_values > 1}
        if label not in binary | numbers:
            raise ConfigError(
                f"infer.label={label!r}: no such column, or it does not hold a number on every row. Columns of 0 and "
                f"1: {list(binary)}; of other numbers, which label_kind number predicts: {list(numbers)}."
            )
        return (binary | numbers)[label]
    by_name = {name.lower(): profile for name, profile in binary.items()}
    named = [by_name[name] for name in LABEL_NAMES if name in by_name]
    if named or len(binary) == 1:
        return [*named, *binary.values()][0]
    called = [profile.name for profile in profiles if profile.name.lower() in LABEL_NAMES]
    if called:
        raise ConfigError(
            f"column {called[0]!r} is called like a label, but does not hold 0 or 1 on every row. Write 1 for what is "
            "to be predicted and 0 for the rest, or name another column: infer.label=… (of any numbers, for label_kind "
            "number)."
        )
    raise ConfigError(
        f"infer.label='': columns of 0 and 1 are {list(binary)}, and none is called like a label. Give its name: "
        "infer.label=… (or that of a number to predict, such as a rating)."
    )


def _is_weight(profile: Profile) -> bool:
    """Whether a column is called like a weight of rows, and can be one on every row."""
    named = profile.name.lower() in WEIGHT_NAMES
    return named and _is_number(profile) and profile.num_values > 1 and profile.low >= 0


def _is_number(profile: Profile) -> bool:
    """Whether every row has a number that float32 holds."""
    known = not profile.unusable and not profile.is_list and not profile.num_missing and not profile.num_infinite
    return known and profile.numbers == 1 and max(-profile.low, profile.high) < LARGEST


def _passthrough(users: Sequence[str], target: Profile) -> str:
    gives = "GAUC by user" if target.is_binary else "intervals over users"
    group = f"; evaluate.group_key={users[0]} gives {gives}" if users else ""
    return f"passthrough: {json.dumps(users, ensure_ascii=False)}   # kept beside the predictions{group}"


def _is_other_label(profile: Profile) -> bool:
    """Whether a column that is not the label is called like one: as a feature it might tell the label."""
    sound = profile.is_binary and profile.num_values == 2 and not profile.num_missing
    return sound and profile.name.lower() in LABEL_NAMES


def _label_lines(target: Profile, others: Sequence[Profile]) -> list[str]:
    names = json.dumps([other.name for other in others], ensure_ascii=False)
    if target.is_binary:
        said = [f"label: {_quoted(target.name)}   # 0 and 1; 1 on {_positive(target):.2%} of rows"]
        why = "called like labels, of 0 and 1: no features; models of several labels learn them too"
        return said + ([f"other_labels: {names}   # {why}"] if others else [])
    span = f"{target.low:g} to {target.high:g}"
    return [
        f"label: {_quoted(target.name)}   # {span}, {target.num_values:,} different numbers",
        "label_kind: number   # predicted as a number, by squared error",
    ]


def _weight(profile: Profile) -> str:
    span = f"{profile.low:g} to {profile.high:g}"
    return f"weight: {_quoted(profile.name)}   # called so, and {span} on every row: how many rows each counts as"


def _positive(target: Profile) -> float:
    return target.most_share if target.most in ("1", "true", "True", "TRUE", "1.0") else 1 - target.most_share


def _role(profile: Profile, weights: Mapping[str, str]) -> tuple[str, str, str]:
    """(section of the yaml or nothing, entry, why)."""
    name = _quoted(profile.name)
    if profile.unusable:
        return "", "", profile.unusable
    if profile.num_values < 2:
        return "", "", "one value or none"
    if profile.is_binary and profile.name.lower() in LABEL_NAMES:
        return "", "", "called like a label, but it is none here; as a feature it might tell the label"
    if profile.time_form:
        return "timestamps", f"{{name: {name}, form: {profile.time_form}}}", f"{profile.time_form} times on every row"
    if profile.is_list or profile.separator:
        return "categorical", *_several(profile, weights.get(profile.name, ""))
    differs = profile.num_values == profile.num_rows - profile.num_missing and profile.num_rows > FEW_VALUES
    large = max(-profile.low, profile.high) >= 2**63 and not profile.is_float
    if differs and (profile.numbers < 1 or profile.integers == 1 or large):
        return "", "", "another value on every row: an id of the row, or a text"
    return _number_or_category(profile)


def _several(profile: Profile, weights: str) -> tuple[str, str]:
    """(Entry, why) of a multi-valued column."""
    separator = f", separator: {json.dumps(profile.separator)}" if profile.separator else ""
    pooling = f"weighted, weights: {_quoted(weights)}" if weights else "mean"
    size = f"max_length: {max(profile.longest, 1)}"
    why = f"several values a row, at most {profile.longest}"
    if weights:
        why += f"; {weights!r} has one number for each, on every row, by which embeddings are summed"
    return f"{{name: {_quoted(profile.name)}, multi_valued: true{separator}, {size}, pooling: {pooling}}}", why


def _number_or_category(profile: Profile) -> tuple[str, str, str]:
    name, counted = _quoted(profile.name), f"{profile.num_values:,} values, {profile.missing_share:.1%} missing"
    is_id = bool(words_of(profile.name) & set(ID_NAMES))
    if profile.integers == 1 and (is_id or profile.num_values <= FEW_VALUES):
        why = "whole numbers that name things" if is_id else "few whole numbers: codes rather than amounts"
        return "categorical", f"{{name: {name}, key_type: integer{_min_count(profile)}}}", f"{why}; {counted}"
    if profile.numbers == 1 and (profile.is_float or max(-profile.low, profile.high) < LARGEST):
        skewed = profile.high > 100 * max(abs(profile.low), 1)
        transform = "log1p_standard" if skewed else "standard"
        span = f"{profile.low:g} to {profile.high:g}{', skewed' if skewed else ''}"
        if profile.num_infinite:
            counted += (
                f"; {profile.num_infinite:,} infinite (as float32): ingest refuses them with file, row and column"
            )
        return "numeric", f"{{name: {name}, transform: {transform}}}", f"{span}; {counted}"
    return "categorical", f"{{name: {name}{_min_count(profile)}}}", f"{counted}, most often {profile.most[:20]!r}"


def _min_count(profile: Profile) -> str:
    return ", min_count: 2" if profile.once_share > 0.1 and profile.most_share > 2 / profile.num_rows else ""


def _history(roles: Roles, users: Sequence[str], times: Sequence[Profile], label: Profile) -> list[str]:
    """A comment that shows how rows would be given what their user did before."""
    items = {
        profile.name: ", key_type: integer" if "key_type: integer" in line else ""
        for profile, role, line, _ in roles
        if role == "categorical" and profile.name not in users and words_of(profile.name) & set(ITEM_NAMES)
    }
    if not (users and times and items):
        return []
    item, key_type = next(iter(items.items()))
    known = f"user: {_quoted(users[0])}, time: {_quoted(times[0].name)}, columns: [{_quoted(item)}]"
    past = f"{{name: {_quoted(f'hist_{item}')}, multi_valued: true, vocabulary: {_quoted(item)}{key_type}}}"
    return [
        f'# history: [{{{known}, behaviour: {_quoted(label.name)}, behaviours: ["1"]}}]   # what the user did before',
        f"#   - {past}   # reads it, among categorical",
    ]


def _split(times: Sequence[Profile]) -> str:
    shares = "train: 0.8, validation: 0.1, test: 0.1"
    for time in times:
        if time.num_values >= MIN_TIMES and not time.num_missing:
            return f"split: {{method: time, column: {_quoted(time.name)}, {shares}}}   # the past predicts the future"
    return f"split: {{method: shuffle, {shares}}}   # no column of times to split by"


def _entry(line: str, why: str) -> str:
    return f"  - {line}   # {' '.join(why.split())}"


def _quoted(name: str) -> str:
    return json.dumps(name, ensure_ascii=False)
