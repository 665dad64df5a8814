"""Client of the service and reporter of engines; needs httpx alone."""

from preshuffle.api.client.async_reporter import AsyncPendingReport, AsyncReporter
from preshuffle.api.client.client import Client
from preshuffle.api.client.groups import group_layers
from preshuffle.api.client.pending import PendingReport
from preshuffle.api.client.problems import ClientError, faults_of, not_ours, read_problem
from preshuffle.api.client.replies import Reply, Told, VerdictError
from preshuffle.api.client.reporter import Reporter, ReporterStats
from preshuffle.api.client.settings import ServiceSettings
from preshuffle.api.fleet import Group, PipelineStage
from preshuffle.registry.values.observation import Observation

__all__ = [
    "AsyncPendingReport",
    "AsyncReporter",
    "Client",
    "ClientError",
    "Group",
    "Observation",
    "PendingReport",
    "PipelineStage",
    "Reply",
    "Reporter",
    "ReporterStats",
    "ServiceSettings",
    "Told",
    "VerdictError",
    "faults_of",
    "group_layers",
    "not_ours",
    "read_problem",
]
