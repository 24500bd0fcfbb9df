"""Tables of a ticket start as the supernet's did, and a run that goes on keeps its rows."""

import torch

from recsys.core.initial import BLOCK_ROWS, initial_block
from recsys.core.jsonable import build_config, to_json
from recsys.core.specs import FeatureSpec, TableSpec
from recsys.embeddings.method import MethodConfig
from recsys.search.choice import Choice, Piece, Space
from recsys.search.plans import plan_of
from recsys.search.ticket import TicketConfig, initial_rows, ticket_of
from tests.search.world import INIT, SPACE, choice


class Tables:
    """Takes the rows that are written."""

    def __init__(self, tables: tuple[TableSpec, ...]) -> None:
        self.rows = {t.name: torch.full((t.num_embeddings, t.embedding_dim), torch.nan) for t in tables}

    def write_rows(self, table: str, rows: torch.Tensor, values: torch.Tensor, *, forget: bool = True) -> None:
        self.rows[table][rows] = values


def test_every_row_is_the_supernets_at_the_start() -> None:
    found = choice(user=[(4, (0, 5)), (6, (1,)), (30, ())], item=[(30, (0, 1, 2, 3))])
    plan, ticket = plan_of(SPACE, found), ticket_of(SPACE, found, 7)
    target = f"{TicketConfig.__module__}.TicketConfig"
    again = build_config(MethodConfig, {"_target_": target, **to_json(ticket)}, key="method")  # type: ignore[type-abstract]
    assert again == ticket
    tables = Tables(plan.tables)
    (callback,) = again.callbacks(plan)
    callback.on_train_start(tables)  # type: ignore[arg-type]
    source = initial_block(TableSpec(name="table_user", num_embeddings=40, embedding_dim=8, init=INIT), 0, 7)
    assert torch.equal(tables.rows["table_user_piece0"], source[:4][:, [0, 5]])
    assert torch.equal(tables.rows["table_user_piece1"], source[4:10][:, [1]])
    assert not any(rows.isnan().any() for rows in tables.rows.values())


def test_a_run_that_goes_on_keeps_its_rows() -> None:
    plan = plan_of(SPACE, SPACE.full)
    tables = Tables(plan.tables)
    (callback,) = ticket_of(SPACE, SPACE.full, 1).callbacks(plan)
    callback.load_state_dict({})
    callback.on_train_start(tables)  # type: ignore[arg-type]
    assert all(rows.isnan().all() for rows in tables.rows.values())


def test_rows_of_many_blocks_are_in_their_places() -> None:
    size = 2 * BLOCK_ROWS + 10
    feature = FeatureSpec(name="big", embedding_dim=2, num_embeddings=size, max_length=1)
    space = Space.of([feature], num_blocks=1, init=INIT)
    cut = BLOCK_ROWS - 3
    found = Choice(((Piece(size=cut, columns=(0, 1)), Piece(size=size - cut, columns=(1,))),))
    (first, second) = ticket_of(space, found, 0).origins
    whole = torch.cat([initial_block(first.source, block, 0)[:, :2] for block in range(3)])
    for origin, expected in ((first, whole[:cut]), (second, whole[cut:, [1]])):
        rows, values = (torch.cat(parts) for parts in zip(*initial_rows(origin, 0), strict=True))
        assert torch.equal(rows, torch.arange(len(expected))) and torch.equal(values, expected)
