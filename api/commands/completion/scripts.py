"""Completion scripts: each asks the command itself for candidates."""

from __future__ import annotations

import shlex
import sys
from typing import Final

_BASH: Final = """\
# Completion of preshuffle for bash.
_preshuffle() {
    local IFS=$'\\n' program=(preshuffle)
    type -P preshuffle > /dev/null || program=(@PYTHON@ -m preshuffle)
    COMPREPLY=($("${program[@]}" completion bash --complete "${COMP_WORDS[@]:1:COMP_CWORD}" 2> /dev/null))
}
complete -o default -F _preshuffle preshuffle
"""
_ZSH: Final = """\
#compdef preshuffle
# Completion of preshuffle for zsh.
_preshuffle() {
    local -a program=(preshuffle) found=() shown=()
    local line
    (( $+commands[preshuffle] )) || program=(@PYTHON@ -m preshuffle)
    found=("${(@f)$("${program[@]}" completion zsh --complete "${(@Q)words[2,CURRENT]}" 2> /dev/null)}")
    for line in $found; do
        shown+=("${${line%%$'\\t'*}//:/\\\\:}:${line#*$'\\t'}")
    done
    if (( $#shown )); then
        _describe preshuffle shown
    else
        _files
    fi
}
if [[ $funcstack[1] == _preshuffle ]]; then
    _preshuffle "$@"
elif (( $+functions[compdef] )); then
    compdef _preshuffle preshuffle
fi
"""
_FISH: Final = """\
# Completion of preshuffle for fish.
function __preshuffle_complete
    set -l words (commandline -opc)
    set -l current (commandline -ct)
    set -l program preshuffle
    command -sq preshuffle; or set program @PYTHON@ -m preshuffle
    set -l found ($program completion fish --complete $words[2..-1] "$current" 2> /dev/null)
    if test (count $found) -gt 0
        printf '%s\\n' $found
    else
        __fish_complete_path "$current"
    end
end
complete -c preshuffle -f -a '(__preshuffle_complete)'
"""
_TCSH: Final = """\
# Completion of preshuffle for tcsh.
complete preshuffle 'p@*@`preshuffle completion tcsh --complete "$COMMAND_LINE"`@'
"""
SCRIPTS: Final[dict[str, str]] = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH, "tcsh": _TCSH}


def completion_script(shell: str) -> str:
    """Return the script of a shell.

    Where ``preshuffle`` is not on the shell's path, it runs with this Python.
    """
    return SCRIPTS[shell].replace("@PYTHON@", shlex.quote(sys.executable))
