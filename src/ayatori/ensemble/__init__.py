"""Stage 7. Predictions of many members, Plan -> one prediction a row. No torch."""

from ayatori.ensemble.columns import KINDS, check_ensembles, grow, with_net, with_plain
from ayatori.ensemble.make import (
    blends_of,
    chained,
    fold_members,
    networks,
    one_network,
    other_networks,
    out_of_bag,
    votes,
)
from ayatori.ensemble.nested import Kind, stack
from ayatori.ensemble.say import answer
from ayatori.ensemble.vote import blends

__all__ = [
    "KINDS",
    "Kind",
    "answer",
    "blends",
    "blends_of",
    "chained",
    "check_ensembles",
    "fold_members",
    "grow",
    "networks",
    "one_network",
    "other_networks",
    "out_of_bag",
    "stack",
    "votes",
    "with_net",
    "with_plain",
]
