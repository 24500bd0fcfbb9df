"""Learning to rank items: loss of a batch of triples over propagated nodes, and recall on held-out pairs."""

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.functional import normalize

from recsys.core.batch import Batch, BatchSource
from recsys.core.callback import TrainingSession
from recsys.core.errors import ConfigError
from recsys.core.interactions import Interactions
from recsys.core.loss import Loss
from recsys.retrieval.config import RetrievalConfig, Similarity
from recsys.retrieval.dimension_shards import all_columns, num_ranks, shares
from recsys.retrieval.encoder import Encoded, Encoder
from recsys.retrieval.loss import Triples
from recsys.retrieval.node_model import NodeIds
from recsys.retrieval.ranking import Ranking, Relevant, judge, rank
from recsys.retrieval.recommender import DotRecommender
from recsys.retrieval.sampler import positive_log_probability, with_negatives
from recsys.retrieval.triples import POSITIVE, USER, Drawn, negatives_of


@dataclass(frozen=True)
class Validation:
    """Held-out pairs that are ranked for after every epoch: those that choose the epoch, or others to watch."""

    relevant: Relevant
    users: Tensor  # int64, those that are ranked for


class RetrievalTask:
    """A `Task` of `recsys.train`: its batches are triples, its model a `NodeModel`."""

    def __init__(
        self,
        config: RetrievalConfig,
        interactions: Interactions,
        nodes: NodeIds,
        validation: Validation | None,
        watched: Validation | None = None,
    ) -> None:
        """Learn from `interactions`; without validation every epoch counts as better than the one before.

        Figures of `watched` are told as `test_…`, and nothing looks at them.
        """
        self._config, self._interactions, self._nodes = config, interactions, nodes
        self._held_out = {"validation": validation, "test": watched}
        self._log_positive = positive_log_probability(interactions, config.sampler.positives)
        drawn = config.sampler.negatives(with_negatives(interactions)) if config.loss.needs_negatives else None
        self._log_negative = self._log_positive if drawn is None else drawn.log_probability
        self._epochs = 0
        self.monitor = f"validation_recall_at_{config.monitor_k}" if validation is not None else "epoch"

    def loss_sum(self, model: nn.Module, batch: Batch) -> Loss:
        """This rank's part of the batch's loss: the parts of all ranks add up to the sum over rows."""
        ids = batch.sparse.to_dict()
        users, positives = ids[USER].values(), ids[POSITIVE].values()
        negatives = negatives_of(batch)
        first_item = self._nodes.num_users
        # The module that sharding wraps is not reachable by one name; the encoder is where it was built.
        encoder = _encoder_of(model)
        choosing = self._config.sampler.num_kept < negatives.shape[1]
        encoded: Encoded | None = None
        if choosing or type(encoder).auxiliary is not Encoder.auxiliary:  # these look at more than the batch's rows
            encoded = model(self._nodes)
        if choosing and encoded is not None:
            negatives = self._hardest(encoded.final, users, negatives + first_item) - first_item
        drawn = Drawn.of(negatives, self._nodes.num_items)
        places = torch.cat([users, positives + first_item, drawn.items + first_item])
        own = None
        if encoded is None:
            reached = encoder.reached(places)
            nodes = self._nodes if reached is None else self._nodes.some(reached.nodes)
            rows: Encoded = model(nodes, places if reached is None else reached)
        else:
            own = encoder.auxiliary(encoded, users, positives + first_item, all_columns)
            rows = Encoded(*(part.index_select(0, places) for part in encoded))
        loss = self._config.loss(self._triples(all_columns(rows.final), users, positives, drawn))
        loss = (loss if own is None else loss + own) / num_ranks()
        if self._config.regularizer:
            # Columns are this rank's alone, so their squares are its part already.
            times = torch.cat([torch.ones_like(users), torch.ones_like(users), drawn.times])
            loss = loss + 0.5 * self._config.regularizer * (rows.initial.square().sum(1) @ times.float())
        return Loss(loss, loss)

    @torch.no_grad()
    def _hardest(self, nodes: Tensor, users: Tensor, negatives: Tensor) -> Tensor:
        """Of each row's negatives those with the highest scores now: node numbers, int64 (B, kept)."""
        queries, drawn = (all_columns(nodes.index_select(0, places)) for places in (users, negatives.flatten()))
        if self._config.similarity is Similarity.COSINE:
            drawn = normalize(drawn, dim=1)
        drawn = drawn.view(users.numel(), -1, queries.shape[1])
        best = (drawn @ queries.unsqueeze(2)).squeeze(2).topk(self._config.sampler.num_kept, dim=1).indices
        return negatives.gather(1, best)

    def _triples(self, vectors: Tensor, users: Tensor, positives: Tensor, drawn: Drawn) -> Triples:
        if self._config.similarity is Similarity.COSINE:
            vectors = normalize(vectors, dim=1)
        count = users.numel()
        user, positive, negative = vectors.split([count, count, drawn.items.numel()])
        return Triples(
            users=user,
            positives=positive,
            negatives=negative,
            negative_rows=drawn.rows,
            user_ids=users,
            positive_ids=positives,
            negative_ids=drawn.items[drawn.rows],
            log_positive=self._log_positive,
            log_negative=self._log_negative,
            user_degrees=self._interactions.user_degrees,
            item_degrees=self._interactions.item_degrees,
        )

    def evaluate(self, session: TrainingSession, source: BatchSource) -> dict[str, float]:
        """Recall and NDCG on the pairs that this task was given; `source` is not read.

        Raises:
            ConfigError: no user has any.
        """
        asked = {split: held_out for split, held_out in self._held_out.items() if held_out is not None}
        if not asked:
            return {}
        recommender = recommender_of(session.model, self._nodes, self._config)
        figures = [self._figures(split, held_out, recommender, session) for split, held_out in asked.items()]
        return {name: value for part in figures for name, value in part.items()}

    def _figures(
        self, split: str, held_out: Validation, recommender: DotRecommender, session: TrainingSession
    ) -> dict[str, float]:
        k, users = self._config.monitor_k, held_out.users
        own = users.tensor_split(session.world_size)[session.rank]
        lists = rank(recommender, own, self._interactions, k=k, users_at_once=self._config.users_at_once)
        found = judge(
            Ranking(users, _of_all_ranks(lists.items, users.numel(), session)),
            held_out.relevant,
            ks=[k],
            num_shown=self._nodes.num_items - 1,
        ).means()
        recall, ndcg = found[f"recall_at_{k}"], found[f"ndcg_at_{k}"]
        if recall.value is None or ndcg.value is None:
            raise ConfigError(f"{split} has no recall, because {recall.undefined_reason}. Raise dataset.validation.")
        return {f"{split}_recall_at_{k}": recall.value, f"{split}_ndcg_at_{k}": ndcg.value}


def choose_validation(relevant: Relevant, num_users: int, seed: int) -> Validation:
    """Validation over all users that have pairs, or over `num_users` of them (0: all), drawn by the seed."""
    users = relevant.users
    if 0 < num_users < users.numel():
        drawn = torch.randperm(users.numel(), generator=torch.Generator().manual_seed(seed))[:num_users]
        users = users[drawn.sort().values.to(users.device)]
    return Validation(relevant, users)


@torch.no_grad()
def recommender_of(model: nn.Module, nodes: NodeIds, config: RetrievalConfig) -> DotRecommender:
    """The recommender that a model is now, whole on every rank.

    Args:
        model: a `NodeModel`, sharded or not.
        nodes: of its features.
        config: of the run: how scores are made of vectors.
    """
    model.eval()
    encoded: Encoded = model(nodes)
    final, fold_in = all_columns(encoded.final), all_columns(_encoder_of(model).fold_in(encoded.initial))
    model.train()
    users, items = final.split([nodes.num_users, nodes.num_items])
    if config.similarity is Similarity.COSINE:
        items = normalize(items, dim=1)  # a user's length does not change the order of his items
    return DotRecommender(users=users.clone(), items=items.clone(), fold_in=fold_in[nodes.num_users :].clone())


def _encoder_of(model: nn.Module) -> Encoder:
    return next(part for part in model.modules() if isinstance(part, Encoder))


def _of_all_ranks(items: Tensor, num_users: int, session: TrainingSession) -> Tensor:
    """Lists of all users, whose shares the ranks ranked in order."""
    if session.world_size == 1:
        return items
    first = sum(shares(num_users)[: session.rank])
    every = items.new_zeros(num_users, items.shape[1])
    every[first : first + len(items)] = items
    dist.all_reduce(every)
    return every
