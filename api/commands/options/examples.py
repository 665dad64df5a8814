"""Examples that every ``--help`` ends with."""

from __future__ import annotations

from typing import Final

_GPT_OSS: Final = "--model openai/gpt-oss-120b --arch gfx950 --activation-dtype fp4x2"
EXAMPLES: Final[dict[str, tuple[str, ...]]] = {
    "": (
        f"resolve {_GPT_OSS} --tp 2",
        "layouts show gui16 --shape 128,6144,1536",
        "registry schema observation --example",
    ),
    "resolve": (
        f"{_GPT_OSS} --tp 2",
        "--model openai/gpt-oss-120b --arch MI355X --engine vllm@0.33.0 --env VLLM_ROCM_USE_AITER=1",
        "--hf-config ./checkpoint --arch gfx950 --engine atom --json",
    ),
    "explain": ("--model openai/gpt-oss-120b --arch gfx950 --activation-dtype bf16",),
    "check": ("observation.json", "report.json --json", "--explain tag_lost"),
    "layouts": ("list", "show gui16 --shape 128,6144,1536"),
    "layouts list": ("", "--book ./acme --json"),
    "layouts show": ("gui16 --shape 128,6144,1536", "sep16 --shape 2,256,256 --address 1,70,33"),
    "kernels": (f"predict {_GPT_OSS} --tables auto", "coverage openai/gpt-oss-120b --tables ./configs"),
    "kernels predict": (f"{_GPT_OSS} --tables ./configs", "--calls calls.jsonl --aiter 0.1.20 --json"),
    "kernels explain": (f"{_GPT_OSS} --tokens 512 --tables ./configs",),
    "kernels coverage": ("openai/gpt-oss-120b --tables ./configs",),
    "kernels diff": ("./old@0.1.13 ./new@0.1.20",),
    "kernels check": ("./configs", "./tuned_fmoe.csv@0.1.20"),
    "matrix": ("", "--engine vllm@0.33.0 --tp 8", "--arch MI300X --model deepseek --json"),
    "identify": (
        "--plain ./checkpoint --live dump.safetensors --role w13_weight --layer 3",
        "--plain ./checkpoint --live dump.safetensors --tp 2 --tp-rank 1",
    ),
    "probe": ("--runner reference", "--recipes legacy,generic", "--quantization fp8-block --activation Gelu"),
    "derive": ("fmoe_bf16_pertokenMXfp4_g1u1_novs_silu_2tg_32x256",),
    "conform": ("", "--json"),
    "apply": (
        "./checkpoint ./laid-out --arch gfx950 --tp 8 --engine vllm@0.33.0",
        "./checkpoint ./laid-out --arch MI355X --ep 8 --activation-dtype fp4x2 --json",
        "./checkpoint ./laid-out --arch gfx950 --tp 8 --of 4 --index 0",
    ),
    "verify": ("./laid-out", "./laid-out --against ./checkpoint --full"),
    "restore": ("./laid-out ./checkpoint",),
    "convert": ("./laid-out ./laid-out-tp4 --tp 4", "./laid-out ./laid-out-mi300x --arch gfx942 --json"),
    "registry": ("check --book ./acme", "show layouts sep16", "new recipe -o acme.yaml"),
    "registry check": ("", "--book ./acme --tables ./configs"),
    "registry show": ("", "models", "recipes mxfp4.sep16"),
    "registry diff": ("./acme",),
    "registry schema": ("", "observation", "replica-report --example"),
    "registry new": ("model acme/moe-1", "recipe -o acme.yaml"),
    "serve": ("--port 8080 --db sqlite:///preshuffle.db", "--host 0.0.0.0 --tokens tokens.yaml --book ./acme"),
    "store": ("check --db sqlite:///preshuffle.db", "backup preshuffle-2026-11-30.db"),
    "store check": ("--db postgresql://preshuffle@db/preshuffle",),
    "store backup": ("preshuffle-2026-11-30.db --db sqlite:///preshuffle.db",),
    "store restore": ("preshuffle-2026-11-30.db --db sqlite:///preshuffle.db",),
    "deployments": (
        "--server http://127.0.0.1:8080",
        "--server http://127.0.0.1:8080 --state mismatch --label team=inference --group-by engine",
        "prod-a --server http://127.0.0.1:8080 --history",
        "prod-a --server http://127.0.0.1:8080 --silence 4h --note INC-7",
    ),
    "plan": ("--server http://127.0.0.1:8080 --book ./acme --aiter 0.1.20",),
    "token": ("ops --role admin >> tokens.yaml", "fleet-a --role report --deployments 'gpt-oss-*' >> tokens.yaml"),
    "doctor": ("", "--json"),
    "completion": (
        "bash > ~/.local/share/bash-completion/completions/preshuffle",
        'zsh > "${fpath[1]}/_preshuffle"',
        "fish > ~/.config/fish/completions/preshuffle.fish",
    ),
}
"""What follows the name of each command and of its actions."""


def examples_text(command: str) -> str:
    """Return the end of a command's help; empty for an unknown one."""
    lines = (f"  {' '.join(filter(None, ('preshuffle', command, line)))}" for line in EXAMPLES.get(command, ()))
    return "\n".join(("examples:", *lines)) if command in EXAMPLES else ""
