"""Checkpoints laid out ahead: written once, checked, and mapped by engines."""

from preshuffle.layouts.laid_out.errors import LaidOutError, StaleError
from preshuffle.layouts.laid_out.lay_out_checkpoint import Keep, core_count, lay_out_checkpoint
from preshuffle.layouts.laid_out.manifest import Manifest
from preshuffle.layouts.laid_out.progress import Listener, RunEvent
from preshuffle.layouts.laid_out.verify import Verification, VerifyProblem, verify_laid_out

__all__ = [
    "Keep",
    "LaidOutError",
    "Listener",
    "Manifest",
    "RunEvent",
    "StaleError",
    "Verification",
    "VerifyProblem",
    "core_count",
    "lay_out_checkpoint",
    "verify_laid_out",
]
