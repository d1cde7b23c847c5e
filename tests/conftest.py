"""Every test runs with shapes and types checked: jaxtyping annotations are enforced by beartype as modules load."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from jaxtyping import install_import_hook

install_import_hook("isthmus", "beartype.beartype")
