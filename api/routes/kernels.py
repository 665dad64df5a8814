"""``/v1/kernels``: kernel families, and AITER's tuned tables by version."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import datetime
from enum import Enum
from functools import partial
from typing import Annotated, Any, Final

from fastapi import APIRouter, Path
from pydantic import Field, RootModel
from starlette.requests import Request
from starlette.responses import Response

from preshuffle.api.answers import Answers, ListingCache
from preshuffle.api.store import in_thread
from preshuffle.api.upkeep import MAX_BODY, ONE_FILE, KernelLibrary, Uploaded, read_version
from preshuffle.api.web import (
    BODY_PROBLEMS,
    IF_NONE_MATCH,
    NOT_MODIFIED,
    STORE_PROBLEMS,
    CachedResponse,
    DirectRoute,
    ProblemError,
    in_turn,
    invalid_input,
    json_body,
    problems,
    read_body,
    request_identity,
)
from preshuffle.registry import Registry
from preshuffle.registry.base.errors import FieldProblem
from preshuffle.registry.base.frozen import Frozen
from preshuffle.registry.kernels import Families, Family, Hazard, TableSet
from preshuffle.registry.text import DuplicateKeyError, parse_json

TAGS: Final[list[str | Enum]] = ["kernels"]
CSV: Final = "text/csv"
JSON: Final = "application/json"
_SHOWN: Final = 100
_HEADER: Final = (
    "gfx,cu_num,token,model_dim,inter_dim,expert,topk,act_type,dtype,q_dtype_a,q_dtype_w,q_type,use_g1u1,"
    "doweight_stage1,block_m,ksplit,us,kernelName1,kernelName2,run_1stage"
)
_ROW: Final = (
    "gfx950,256,64,7168,256,257,9,ActivationType.Silu,torch.bfloat16,torch.float8_e4m3fn,torch.float8_e4m3fn,"
    "QuantType.per_1x128,1,0,32,0,55.1,_ZN5aiter48fmoe_bf16_blockscaleFp8_g1u1_vs_silu_1tg_32x256E,,1"
)
EXAMPLE: Final = f"{_HEADER}\n{_ROW}\n"


class TableFiles(RootModel[dict[str, str]]):
    """CSV texts by file name, as in AITER's configs/: tuned_fmoe.csv, model_configs/x_tuned_fmoe.csv."""


class TableFileView(Frozen):
    """One file of kernel tables."""

    name: str
    rows: int


class HazardView(Frozen):
    """Hazard of a kernel table, as the finding of its code explains."""

    code: str
    message: str
    source: str = Field(description="file:line")


class TablesView(Frozen):
    """The kernel tables of one AITER version."""

    version: str | None = Field(description="of AITER; null: for every version that has none of its own")
    digest: str | None = Field(description="of the content; null for tables that the service was started with")
    rows: int
    files: tuple[TableFileView, ...]
    hazard_count: int
    hazards: tuple[HazardView, ...] = Field(description=f"the first {_SHOWN}")
    uploaded_at: datetime | None = Field(description="null: the service was started with them")


class KernelsView(Frozen):
    """Kernel tables and kernel families."""

    tables_digest: str | None = Field(description="of all tables together; null: there are none")
    tables: tuple[TablesView, ...]
    families: tuple[Family, ...] = Field(description="grammar of the names, what is read, what is ignored")


KERNELS_PATH: Final = "/v1/kernels"
Version = Annotated[
    str,
    Path(pattern=r"^[A-Za-z0-9.!+_-]{1,128}$", examples=["0.1.20.post1"], description="AITER's version, as in PEP 440"),
]


def listing_cache(library: KernelLibrary, answers: Answers) -> ListingCache:
    """Return the cache of ``GET /v1/kernels``."""
    return ListingCache(answers, partial(_serialise, library))


def router(library: KernelLibrary, answers: Answers, listing: ListingCache) -> APIRouter:
    """Return the routes."""
    routes = APIRouter()
    routes.add_route(KERNELS_PATH, listing.respond, include_in_schema=False)  # GET and HEAD; the next one documents it
    routes.add_api_route(
        KERNELS_PATH,
        listing.respond,
        route_class_override=DirectRoute,
        tags=TAGS,
        response_model=KernelsView,
        summary="Kernel tables and all kernel families",
        operation_id="kernels",
        responses={**NOT_MODIFIED, **problems()},
        openapi_extra={"parameters": [IF_NONE_MATCH]},
    )

    @routes.put(
        "/v1/kernels/tables/{version}",
        tags=TAGS,
        operation_id="put_kernel_tables",
        summary="Upload the tuned tables of one AITER version; they never change",
        response_model=TablesView,
        responses={
            201: {"model": TablesView, "description": "The tables are new"},
            **problems(*BODY_PROBLEMS, "tables-exist", "tables-full", *STORE_PROBLEMS),
        },
        openapi_extra=_body(),
    )
    async def put(request: Request, version: Version) -> Response:
        aiter = read_version(version)
        files = await _read_files(request)
        uploaded, new = await in_thread(library.put, aiter, files, request_identity(request))
        return _respond(_uploaded_view(uploaded, answers.registry.book.families), uploaded, 201 if new else 200)

    @routes.get(
        "/v1/kernels/tables/{version}",
        tags=TAGS,
        operation_id="get_kernel_tables",
        summary="The tables that were uploaded for one AITER version",
        response_model=TablesView,
        responses=problems("invalid-input", "unknown-tables"),
    )
    async def get(version: Version) -> Response:
        uploaded = library.find(read_version(version))
        if uploaded is None:
            known = ", ".join(item.version for item in library.uploads.values()) or "none"
            raise ProblemError("unknown-tables", f"no tables were uploaded for AITER {version}; there are: {known}")
        return _respond(_uploaded_view(uploaded, answers.registry.book.families), uploaded, 200)

    return routes


def _serialise(library: KernelLibrary, registry: Registry) -> CachedResponse:
    tables, families = registry.tables, registry.book.families
    views = [_uploaded_view(item, families) for item in library.uploads.values()]
    started = library.initial_tables
    current = set(map(id, tables.sets)) if tables else set()
    views += [
        _view(loaded, families, None, None) for loaded in (started.sets if started else ()) if id(loaded) in current
    ]
    listing = KernelsView(
        tables_digest=tables.digest if tables else None, tables=tuple(views), families=tuple(families)
    )
    digest = hashlib.sha256(listing.model_dump_json().encode()).hexdigest()
    return CachedResponse.of(listing, f"sha256:{digest}")


def _respond(view: TablesView, uploaded: Uploaded, status: int) -> Response:
    headers = {"ETag": f'"{uploaded.digest}"'}
    return Response(view.model_dump_json(), status, headers=headers, media_type=JSON)


def _uploaded_view(item: Uploaded, families: Families) -> TablesView:
    return _view(item.tables.sets[0], families, item.digest, item.uploaded_at)


def _view(loaded: TableSet, families: Families, digest: str | None, uploaded_at: datetime | None) -> TablesView:
    hazards = loaded.hazards_by(families)
    return TablesView(
        version=loaded.version,
        digest=digest,
        rows=len(loaded.rows) + len(loaded.grouped),
        files=tuple(TableFileView(name=file.name, rows=len(file.rows) + len(file.grouped)) for file in loaded.files),
        hazard_count=len(hazards),
        hazards=tuple(map(_hazard, hazards[:_SHOWN])),
        uploaded_at=uploaded_at,
    )


def _hazard(hazard: Hazard) -> HazardView:
    return HazardView(code=hazard.code, message=hazard.message, source=hazard.source)


async def _read_files(request: Request) -> Mapping[str, bytes]:
    """Read one CSV, or a JSON object of several.

    Raises:
        ProblemError: 415 another media type or a compressed body, 413 too large, 400 not JSON, 422 not such an object.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if kind not in (CSV, JSON) or encoding not in ("identity", ""):
        found = f"found {kind!r}" if encoding in ("identity", "") else f"found Content-Encoding {encoding!r}"
        raise ProblemError(
            "unsupported-media-type",
            f"Content-Type must be {CSV} (one file) or {JSON} (an object of names and texts), not compressed; {found}",
            headers={"Accept": f"{CSV}, {JSON}"},
        )
    body = await read_body(request, MAX_BODY)
    return {ONE_FILE: body} if kind == CSV else await in_turn(_from_json, body)


def _from_json(body: bytes) -> dict[str, bytes]:
    try:
        value = parse_json(body.decode())
    except DuplicateKeyError as error:
        raise invalid_input([FieldProblem(error.key, "occurs twice")]) from None
    except RecursionError as error:
        raise ProblemError("json-too-deep", str(error)) from None
    except ValueError as error:
        raise ProblemError("malformed-json", str(error) if body else "the body is empty; JSON is needed") from None
    if not isinstance(value, dict):
        raise invalid_input([FieldProblem("(whole)", "the body is not an object", ('{"NAME.csv": "TEXT", …}',))])
    wrong = [name for name, text in value.items() if not isinstance(text, str)]
    if wrong:
        raise invalid_input([FieldProblem(name[:80], "its value is not a text") for name in wrong[:8]])
    try:
        return {name: text.encode() for name, text in value.items()}
    except UnicodeEncodeError:
        raise ProblemError("malformed-json", "a text holds half of a surrogate pair") from None


def _body() -> dict[str, Any]:
    """Both kinds of body, for the OpenAPI document."""
    body = json_body(TableFiles, {ONE_FILE: EXAMPLE})
    body["requestBody"]["content"][CSV] = {"schema": {"type": "string"}, "example": EXAMPLE}
    return body
