"""Child process that compiles one FlyDSL kernel without a GPU.

It takes the request as JSON on its standard input and writes ``kernel.mlir`` and ``result.json`` into the folder of
its first argument. AITER's own package initialisation needs ROCm, so stand-ins take the place of those packages; their
modules come from the AITER in question.
"""

import hashlib
import inspect
import json
import logging
import os
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

STAGE = "*_reconcile_unrealized_casts.mlir"
"""FlyDSL's dump of its last stage before LLVM."""

PACKAGES = ("aiter", "aiter.ops", "aiter.ops.flydsl", "aiter.jit", "aiter.jit.utils", "aiter.utility")
COMPUTE_UNITS = 256
MESSAGE_LIMIT = 4096
VARIANTS = ("interleave", "enable_bias", "model_dim_pad", "inter_dim_pad")
"""Keywords that must not be left out where they are set."""


def install_stand_ins(root: Path, arch: str) -> None:
    """Put packages without their initialisation in the place of AITER's."""
    for name in PACKAGES:
        module = ModuleType(name)
        module.__path__ = [str(root.joinpath(*name.split(".")))]
        module.__dict__["logger"] = logging.getLogger(name)
        sys.modules[name] = module
    chip = ModuleType("aiter.jit.utils.chip_info")
    for function, value in (("get_gfx", arch), ("get_cu_num", COMPUTE_UNITS)):
        setattr(chip, function, lambda value=value: value)
    sys.modules[chip.__name__] = chip


def function_of(place: list[str]) -> Any:
    """Return a function by module and name."""
    module, name = place
    return getattr(import_module(module), name)


def keywords_of(request: dict[str, Any], compiles: Any) -> dict[str, Any]:
    """Return the keywords that the compiling function takes.

    Those of the name come first, then the request's.
    """
    parameters = function_of(request["names"])(request["kernel"])
    if parameters is None:
        raise SystemExit(f"AITER does not know the name {request['kernel']}")
    if parameters.get("persist"):
        parameters = {**parameters, "persist_m": -1}
    parameters = {request["renamed"].get(name, name): value for name, value in parameters.items() if value is not None}
    if not parameters.get("SBM", 1):
        del parameters["SBM"]  # not stated: that of the tile
    known = inspect.signature(compiles).parameters
    keywords = {**parameters, **request["keywords"]}
    lacking = [name for name in VARIANTS if request["keywords"].get(name) and name not in known]
    if lacking:
        raise SystemExit(f"{request['kernel']} has no variant with {', '.join(lacking)}")
    return {name: value for name, value in keywords.items() if name in known}


def arguments_of(kinds: list[str]) -> list[Any]:
    """Return arguments of these kinds, and a stream.

    Compiling looks at their types alone.
    """
    import flydsl.compiler
    import flydsl.expr

    values = {"address": 64, "integer": 32, "float": 1.0}
    pointer = flydsl.compiler.from_c_void_p(flydsl.expr.Uint8, 64)
    return [*(pointer if kind == "pointer" else values[kind] for kind in kinds), 0]


def generic_form(text: str) -> str:
    """Return MLIR in generic form, without locations."""
    from flydsl._mlir import ir

    with ir.Context() as context:
        context.allow_unregistered_dialects = True
        module = ir.Module.parse(text)
        form: str = module.operation.get_asm(print_generic_op_form=True, enable_debug_info=False)
        return form


def compile_apart(launch: Any, arguments: list[Any]) -> tuple[str, bool]:
    """Compile in a process of its own.

    Returns:
        why it failed, and whether the process survived: the linker behind the dump is ROCm's and may be missing, but
        LLVM ends the process where it has no instruction for an operation.
    """
    import flydsl.compiler

    reading, writing = os.pipe()
    process = os.fork()
    if process == 0:
        message = ""
        try:
            flydsl.compiler.compile(launch, *arguments)
        except BaseException as error:
            message = f"{type(error).__name__}: {' '.join(str(error).split())}"
        os.write(writing, message[:MESSAGE_LIMIT].encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        message = pipe.read().decode()
    _, status = os.waitpid(process, 0)
    return message or f"the compiling process ended with status {status}", status == 0


def main(folder: Path) -> None:
    """Compile the kernel that the request names."""
    request = json.load(sys.stdin)
    install_stand_ins(Path(request["root"]), request["arch"])
    import flydsl

    compiles = function_of(request["compiles"])
    launch = compiles(**keywords_of(request, compiles))
    failure, survived = compile_apart(launch, arguments_of(request["arguments"]))
    dumps = sorted((folder / "dump").rglob(STAGE))
    if not dumps:
        raise SystemExit(failure)
    content = dumps[-1].read_bytes()
    (folder / "kernel.mlir").write_text(generic_form(content.decode()), encoding="utf-8")
    digest = hashlib.sha256(content).hexdigest()
    facts = {"sha256": digest, "flydsl": flydsl.__version__, "machine_code": survived}
    (folder / "result.json").write_text(json.dumps(facts), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
