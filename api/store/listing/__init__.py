"""Fleet list: which deployments, in which order, with operators' marks."""

from preshuffle.api.store.listing.fleet_page import FleetGroup, JudgedDeployment, fleet_groups, fleet_page, tally
from preshuffle.api.store.listing.fleet_query import FleetFilter, FleetOrder, Grouping, Order, Place
from preshuffle.api.store.listing.marks import (
    MarkChange,
    acknowledge,
    describe,
    labels_of,
    last_marks,
    marks_of,
    silence,
    unacknowledge,
    unsilence,
    write_labels,
    write_marks,
)
from preshuffle.api.store.listing.one_deployment import stored_deployment
from preshuffle.api.store.listing.ranking import has_part

__all__ = [
    "FleetFilter",
    "FleetGroup",
    "FleetOrder",
    "Grouping",
    "JudgedDeployment",
    "MarkChange",
    "Order",
    "Place",
    "acknowledge",
    "describe",
    "fleet_groups",
    "fleet_page",
    "has_part",
    "labels_of",
    "last_marks",
    "marks_of",
    "silence",
    "stored_deployment",
    "tally",
    "unacknowledge",
    "unsilence",
    "write_labels",
    "write_marks",
]
