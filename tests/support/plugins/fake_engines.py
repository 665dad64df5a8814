"""Small engines with the book's names, written as installed distributions."""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module, invalidate_caches
from pathlib import Path
from textwrap import dedent
from typing import Any

import torch

from preshuffle.layouts import apply
from preshuffle.registry import Decision, Registry
from preshuffle.registry.entries import ConversionFacts
from support.tensors.live_ranks import live

ROOT = Path(__file__).parents[3]
METHODS = {"vllm": "GptOssMxfp4MoEMethod", "sglang": "Mxfp4MoEMethod", "atom": "Mxfp4MoEMethod"}
LOADERS = {
    "vllm": """
        from importlib.metadata import entry_points

        def load_general_plugins():
            for point in entry_points(group="vllm.general_plugins"):
                point.load()()
        """,
    "sglang": """
        from importlib.metadata import entry_points
        from sglang.srt.plugins.hook_registry import HookRegistry

        def load_plugins():
            for point in entry_points(group="sglang.srt.plugins"):
                point.load()()
            HookRegistry.apply_hooks()
        """,
}
HOOKS = """
    import enum, functools, pkgutil

    class HookType(enum.Enum):
        AROUND = "around"

    class HookRegistry:
        hooks = {}

        @classmethod
        def register(cls, target, hook, hook_type):
            assert hook_type is HookType.AROUND
            cls.hooks[target] = hook

        @classmethod
        def apply_hooks(cls):
            for target, hook in cls.hooks.items():
                path, _, name = target.rpartition(".")
                owner = pkgutil.resolve_name(path)
                setattr(owner, name, functools.partialmethod(_call, getattr(owner, name), hook))

    def _call(method, original, hook, *args):
        return hook(original, method, *args)
    """
CONVERSION = """
    class {name}:
        def process_weights_after_loading(self, layer):
            import {engine}
            return {engine}.convert(layer)
    """
LOAD = """
    def {name}({first}model):
        for layer in model:
            layer.quant_method.process_weights_after_loading(layer)
        return model
    """


def conversion_of(engine: str) -> ConversionFacts:
    """Where the book says that an engine converts its layers."""
    found = Registry.default().book.entries["engine_layers"][f"{engine}.experts"].conversion
    assert isinstance(found, ConversionFacts)
    return found


@contextmanager
def installed(engine: str, folder: Path, version: str | None = None) -> Iterator[Any]:
    """Install a stand-in of an engine, with the project's own entry points; yield its module."""
    facts = conversion_of(engine)
    for name, text in _modules(engine, facts).items():
        _write(folder, name, text)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    points = "".join(
        f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in named.items())
        for group, named in project["entry-points"].items()
    )
    _distribution(folder, engine, version or facts.versions[0], "")
    _distribution(folder, "preshuffle_of_the_test", "1", points)
    before = set(sys.modules)
    sys.path.insert(0, str(folder))
    invalidate_caches()
    try:
        yield import_module(engine)
    finally:
        sys.path.remove(str(folder))
        for name in set(sys.modules) - before:
            if name.partition(".")[0] == engine:
                del sys.modules[name]


def load_plugins(engine: str) -> None:
    """Let an engine load its plugins as it does at its start."""
    if engine == "vllm":
        import_module("vllm.plugins").load_general_plugins()
    elif engine == "sglang":
        import_module("sglang.srt.plugins").load_plugins()
    else:
        import_module("preshuffle.layouts.engines.plugins.atom").register()


def layers_of(engine: str, count: int = 2) -> list[Any]:
    """Loaded layers of a model, with the engine's own quantization methods."""
    module = next(name for name, classes in conversion_of(engine).classes.items() if METHODS[engine] in classes)
    made = []
    for number in range(count):
        layer, _, _ = live(engine)
        layer.quant_method = getattr(import_module(module), METHODS[engine])()
        layer.layer_name, layer.layer_id = f"model.layers.{number}.mlp.experts", number
        made.append(layer)
    return made


def load_model(engine: str, layers: list[Any]) -> None:
    """Let an engine load a model of these layers."""
    module, _, name = conversion_of(engine).load.rpartition(".")
    if engine == "atom":
        getattr(import_module(module), name)(layers)
    else:
        module, _, kind = module.rpartition(".")
        getattr(getattr(import_module(module), kind)(), name)(layers)


def converting(
    decide: Callable[[Any], Decision], spoil: Callable[[dict[str, torch.Tensor]], None] | None = None
) -> Any:
    """Return an engine's conversion: new tensors, laid out as decided, and spoilt afterwards."""

    def convert(layer: Any) -> None:
        names = [name for name, _ in layer.named_parameters()]
        tensors = {name.replace("_weight_bias", "_bias"): layer.get_parameter(name).data.clone() for name in names}
        apply(tensors, decide(layer))
        plain = {role: tensor.clone() for role, tensor in tensors.items()}
        for role in ("w13_weight", "w2_weight"):
            plain[role].is_shuffled = True
        if spoil is not None:
            spoil(plain)
        for name in names:
            tensor = plain[name.replace("_weight_bias", "_bias")]
            parameter = torch.nn.Parameter(tensor, requires_grad=False)
            parameter.__dict__.update(tensor.__dict__)
            setattr(layer, name, parameter)

    return convert


def _modules(engine: str, facts: ConversionFacts) -> dict[str, str]:
    texts = {engine: ""}
    for module, classes in facts.classes.items():
        texts[module] = "".join(dedent(CONVERSION.format(name=name, engine=engine)) for name in classes)
    for target in facts.before:
        module, kind, name = target.rsplit(".", 2)
        texts[module] = f"class {kind}:\n    def {name}(self):\n        self.moved = True\n"
    place, _, name = facts.load.rpartition(".")
    if engine == "atom":
        texts[place] = dedent(LOAD.format(name=name, first=""))
    else:
        module, _, kind = place.rpartition(".")
        texts[module] = f"class {kind}:" + dedent(LOAD.format(name=name, first="self, ")).replace("\n", "\n    ")
    module, _, name = facts.config.rpartition(".")
    texts[module] = f"from types import SimpleNamespace as S\ndef {name}():\n    return S(model_config=None, {{}})\n"
    words = {"vllm": 'model="gpt-oss-20b"', "sglang": 'model_path="gpt-oss-20b"', "atom": 'model="gpt-oss-20b"'}
    texts[module] = texts[module].replace("{}", words[engine])
    if engine in LOADERS:
        texts[f"{engine}.plugins" if engine == "vllm" else f"{engine}.srt.plugins"] = dedent(LOADERS[engine])
    if engine == "sglang":
        texts["sglang.srt.plugins.hook_registry"] = dedent(HOOKS)
    return texts


def _write(folder: Path, name: str, text: str) -> None:
    """Write a module as a package, so that others may lie in it."""
    path = folder
    for part in name.split("."):
        path = path / part
        path.mkdir(exist_ok=True)
        (path / "__init__.py").touch()
    (path / "__init__.py").write_text(text, encoding="utf-8")


def _distribution(folder: Path, name: str, version: str, points: str) -> None:
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", encoding="utf-8")
    (info / "entry_points.txt").write_text(points, encoding="utf-8")
