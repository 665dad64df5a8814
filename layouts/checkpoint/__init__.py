"""Read and write MoE layers as safetensors checkpoints."""

from preshuffle.layouts.checkpoint.checkpoint import INDEX, Checkpoint
from preshuffle.layouts.checkpoint.mapped_shards import MappedShards, Reading, map_file
from preshuffle.layouts.checkpoint.page_advice import advise
from preshuffle.layouts.checkpoint.part import CheckpointError, Part, unpack_int32
from preshuffle.layouts.checkpoint.remote import (
    check_unchanged,
    fetch_checkpoint,
    fetched_names,
    forget_fetched,
    wanted_files,
)
from preshuffle.layouts.checkpoint.remote_folder import (
    Identity,
    RemoteFile,
    RemoteFolder,
    identity_of_link,
    is_remote,
    same_identity,
    without_password,
)
from preshuffle.layouts.checkpoint.role_reader import RoleReader, stored_names
from preshuffle.layouts.checkpoint.role_writer import write_role
from preshuffle.layouts.checkpoint.shard_file import (
    TORCH_DTYPES,
    ShardFile,
    StoredEntry,
    header_size,
    open_regular,
    read_head,
    read_regular,
)
from preshuffle.layouts.checkpoint.write import write_checkpoint

__all__ = [
    "INDEX",
    "TORCH_DTYPES",
    "Checkpoint",
    "CheckpointError",
    "Identity",
    "MappedShards",
    "Part",
    "Reading",
    "RemoteFile",
    "RemoteFolder",
    "RoleReader",
    "ShardFile",
    "StoredEntry",
    "advise",
    "check_unchanged",
    "fetch_checkpoint",
    "fetched_names",
    "forget_fetched",
    "header_size",
    "identity_of_link",
    "is_remote",
    "map_file",
    "open_regular",
    "read_head",
    "read_regular",
    "same_identity",
    "stored_names",
    "unpack_int32",
    "wanted_files",
    "without_password",
    "write_checkpoint",
    "write_role",
]
