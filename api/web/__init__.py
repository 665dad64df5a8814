"""HTTP building blocks: problems, access, tokens, logs, metrics."""

from preshuffle.api.log_lines import REQUEST_ID
from preshuffle.api.web import openapi, problem, repeated_params
from preshuffle.api.web.access import Access, Reads, need_of
from preshuffle.api.web.batch import MAX_BATCH, REQUEST_SECONDS, read_batch, write_batch, write_problem
from preshuffle.api.web.cached_response import (
    IF_NONE_MATCH,
    MIN_COMPRESSED,
    NOT_MODIFIED,
    CachedResponse,
    matches,
    weak,
)
from preshuffle.api.web.direct_route import DirectRoute
from preshuffle.api.web.limits import MAX_BODY, in_turn, json_input, parse_json, parsed, read_body, read_json_body
from preshuffle.api.web.logs import Level, Style, current_set_up, request_id, say_first, set_up
from preshuffle.api.web.metrics import METRICS_TYPE, FleetCounts, Metrics
from preshuffle.api.web.openapi import BODY_PROBLEMS, STORE_PROBLEMS, if_match, json_body, problems
from preshuffle.api.web.problem import (
    PROBLEM_TYPE,
    FieldFault,
    Problem,
    ProblemError,
    as_problem,
    invalid_input,
    problem_response,
)
from preshuffle.api.web.query_models import Params
from preshuffle.api.web.query_params import documented, parse_params
from preshuffle.api.web.request_identity import identity_of, request_identity, set_identity
from preshuffle.api.web.tokens import Tokens, load_tokens, make_token, read_tokens

__all__ = [
    "BODY_PROBLEMS",
    "IF_NONE_MATCH",
    "MAX_BATCH",
    "MAX_BODY",
    "METRICS_TYPE",
    "MIN_COMPRESSED",
    "NOT_MODIFIED",
    "PROBLEM_TYPE",
    "REQUEST_ID",
    "REQUEST_SECONDS",
    "STORE_PROBLEMS",
    "Access",
    "CachedResponse",
    "DirectRoute",
    "FieldFault",
    "FleetCounts",
    "Level",
    "Metrics",
    "Params",
    "Problem",
    "ProblemError",
    "Reads",
    "Style",
    "Tokens",
    "as_problem",
    "current_set_up",
    "documented",
    "identity_of",
    "if_match",
    "in_turn",
    "invalid_input",
    "json_body",
    "json_input",
    "load_tokens",
    "make_token",
    "matches",
    "need_of",
    "openapi",
    "parse_json",
    "parse_params",
    "parsed",
    "problem",
    "problem_response",
    "problems",
    "read_batch",
    "read_body",
    "read_json_body",
    "read_tokens",
    "repeated_params",
    "request_id",
    "request_identity",
    "say_first",
    "set_identity",
    "set_up",
    "weak",
    "write_batch",
    "write_problem",
]
