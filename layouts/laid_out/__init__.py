"""Checkpoints laid out ahead: written once, checked, and mapped by engines."""

from preshuffle.layouts.laid_out.cluster.ray_executor import RayExecutor
from preshuffle.layouts.laid_out.convert import convert_laid_out
from preshuffle.layouts.laid_out.copied_tensors import Keep
from preshuffle.layouts.laid_out.files.errors import LaidOutError, StaleError
from preshuffle.layouts.laid_out.files.manifest import MANIFEST, Manifest
from preshuffle.layouts.laid_out.files.progress import Listener, RunEvent
from preshuffle.layouts.laid_out.open_rank import LaidOutFallbackWarning, LaidOutRank, open_laid_out
from preshuffle.layouts.laid_out.restore import restore_checkpoint
from preshuffle.layouts.laid_out.runs.executor import Executor
from preshuffle.layouts.laid_out.runs.share import Share
from preshuffle.layouts.laid_out.runs.threads import core_count
from preshuffle.layouts.laid_out.shares import ShareWritten, lay_out_share
from preshuffle.layouts.laid_out.verify import Verification, VerifyProblem, verify_laid_out
from preshuffle.layouts.laid_out.whole_checkpoint import lay_out_checkpoint

__all__ = [
    "MANIFEST",
    "Executor",
    "Keep",
    "LaidOutError",
    "LaidOutFallbackWarning",
    "LaidOutRank",
    "Listener",
    "Manifest",
    "RayExecutor",
    "RunEvent",
    "Share",
    "ShareWritten",
    "StaleError",
    "Verification",
    "VerifyProblem",
    "convert_laid_out",
    "core_count",
    "lay_out_checkpoint",
    "lay_out_share",
    "open_laid_out",
    "restore_checkpoint",
    "verify_laid_out",
]
