"""Random numbers of training as a function of what they are for, never of what was drawn before."""

import hashlib

import torch


def seed_of(*parts: int | str) -> int:
    """A 63-bit seed from these parts; other parts, or another order, give another seed."""
    digest = hashlib.blake2b("\x1f".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def seed_torch(*parts: int | str) -> None:
    """Seed torch, on every device, from these parts."""
    torch.manual_seed(seed_of(*parts))
