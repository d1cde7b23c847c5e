"""DeepStack's oracle files of other grids, groups, layers and sizes: its pseudo-code, layer by layer over Llama's."""

import json
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import save_file
from torch import Tensor, nn

IMAGE = -200
CASES = ((3, 2, 2, 8), (1, 4, 3, 4), (4, 1, 2, 6))
"""Columns, rows, patches a side, groups."""


def write_deepstack(folder: Path) -> None:
    """A table of groups, and two forward passes."""
    cases = [
        {
            "grid_w": columns,
            "grid_h": rows,
            "patches_per_side": side,
            "num_crops": crops,
            "sampling": sampling,
            "groups_high_res_row_col": places(columns, rows, side, crops, sampling),
        }
        for columns, rows, side, crops in CASES
        for sampling in ("2d", "1d", "grid")
    ]
    (folder / "deepstack_grouping_wide.json").write_text(json.dumps({"cases": cases}), encoding="utf-8")
    write_forward(folder, "deepstack_forward_late", [(3, 1), (1, 2)], num_crops=5, layers=7, start=2, interval=1)
    write_forward(folder, "deepstack_forward_far", [(2, 3), (1, 1)], num_crops=6, layers=17, start=0, interval=3)


def places(columns: int, rows: int, side: int, crops: int, sampling: str) -> list[Any]:
    """Row and column in the merged map of every token of every group; None for a group without a crop."""
    high, wide = rows * side, columns * side
    flat = [[row, column] for row in range(high) for column in range(wide)]
    made: list[Any] = []
    for number in range(rows * columns):
        down, right = divmod(number, columns)
        if sampling == "1d":
            made.append(flat[number :: rows * columns])
        elif sampling == "2d":
            made.append([[r, c] for r, c in flat if r % rows == down and c % columns == right])
        else:
            made.append([[r, c] for r, c in flat if r // side == down and c // side == right])
    return made + [None] * (crops - len(made))


def write_forward(
    folder: Path, name: str, grids: list[tuple[int, int]], *, num_crops: int, layers: int, start: int, interval: int
) -> None:
    """Two rows of unequal length; groups are added in a loop over the layers."""
    side, seen, width, vocab = 2, 6, 16, 30
    config = transformers.LlamaConfig(
        vocab_size=vocab, hidden_size=width, intermediate_size=20, num_hidden_layers=layers, num_attention_heads=2,
        num_key_value_heads=2, rms_norm_eps=1e-5, rope_parameters={"rope_type": "default", "rope_theta": 700.0},
        attn_implementation="eager",
    )  # fmt: skip
    llama, project = transformers.LlamaForCausalLM(config).eval(), nn.Linear(seen, width)
    for weight in [*llama.parameters(), *project.parameters()]:
        nn.init.normal_(weight, 1.0 if weight.dim() == 1 else 0.0, 0.2)
    texts = [[5, 6, 7, IMAGE, 8, 9], [IMAGE, 11, 12, 13, 14]]
    views = [torch.randn(1 + wide * high, side * side, seen) for wide, high in grids]
    longest = max(len(text) for text in texts)
    padded = [text + [0] * (longest - len(text)) for text in texts]
    labels = [[-100] * 4 + text[4:] + [-100] * (longest - len(text)) for text in texts]
    tensors: dict[str, Tensor] = {f"weights/{key}": value for key, value in llama.state_dict().items()}
    tensors |= {f"weights/model.mm_projector.{key}": value for key, value in project.state_dict().items()}
    tensors |= {f"inputs/vision_features_{row}": one for row, one in enumerate(views)}
    tensors |= {"inputs/input_ids": torch.tensor(padded), "inputs/labels": torch.tensor(labels)}
    tensors["inputs/attention_mask"] = torch.tensor([[int(n < len(t)) for n in range(longest)] for t in texts])
    length = longest + side * side - 1
    made = [
        row_of(llama, project, text, label[: len(text)], one, grid, num_crops, (start, interval), length)
        for text, label, one, grid in zip(texts, labels, views, grids, strict=True)
    ]
    for key in made[0]:
        if key.startswith(("stacked", "global")):
            tensors |= {f"outputs/{key}{row}": one[key] for row, one in enumerate(made)}
        else:
            tensors[f"outputs/{key}"] = torch.stack([one[key] for one in made])
    logits, wanted = tensors["outputs/logits"][:, :-1], tensors["outputs/labels"][:, 1:]
    tensors["outputs/loss"] = nn.functional.cross_entropy(logits.flatten(0, 1), wanted.flatten())
    sizes = {"patches_per_side": side, "vit_width": seen, "hidden_size": width, "intermediate_size": 20, "heads": 2}
    sizes |= {"layers": layers, "vocab": vocab, "bestgrid_wh": grids, "rms_norm_eps": 1e-5, "rope_theta": 700.0}
    sizes |= {"is_anyres_deepstack": False, "num_crops": num_crops, "deepstack_start_id": start}
    said = {"seed": 77, "config": sizes | {"deepstack_interval": interval}}
    (folder / f"{name}.json").write_text(json.dumps(said), encoding="utf-8")
    save_file({key: one.detach().contiguous().clone() for key, one in tensors.items()}, folder / f"{name}.safetensors")


@torch.no_grad()
def row_of(
    llama: Any,
    project: nn.Linear,
    text: list[int],
    labels: list[int],
    views: Tensor,
    grid: tuple[int, int],
    num_crops: int,
    where: tuple[int, int],
    length: int,
) -> dict[str, Tensor]:
    """All outputs of one row, padded with zeros to `length`."""
    columns, rows = grid
    whole, *crops = project(views)
    side, count = round(len(whole) ** 0.5), len(whole)
    merged = torch.cat(
        [
            torch.cat([crops[r * columns + c].reshape(side, side, -1) for c in range(columns)], dim=1)
            for r in range(rows)
        ]
    )
    groups = [merged[i::rows, j::columns].flatten(0, 1) for i in range(rows) for j in range(columns)]
    groups += [torch.zeros_like(whole)] * (num_crops - len(groups))
    place = text.index(IMAGE)
    table = llama.model.embed_tokens
    before, after = (torch.tensor(part, dtype=torch.long) for part in (text[:place], text[place + 1 :]))
    hidden = torch.cat([table(before), whole, table(after)])[None]
    made = {f"stacked_group_{k}_image_": group for k, group in enumerate(groups)} | {"global_tokens_": whole}
    made["inputs_embeds"] = hidden[0].clone()
    positions = torch.arange(hidden.shape[1])[None]
    turned = llama.model.rotary_emb(hidden, positions)
    causal = torch.full((hidden.shape[1], hidden.shape[1]), float("-inf")).triu(1)[None, None]
    for number, layer in enumerate(llama.model.layers):
        k, rest = divmod(number - where[0], where[1])
        if number >= where[0] and rest == 0 and k < len(groups):
            hidden[0, place : place + count] += groups[k]
        made[f"hidden_states_{number}"] = hidden[0].clone()
        said = layer(hidden, attention_mask=causal, position_ids=positions, position_embeddings=turned)
        hidden = (said[0] if isinstance(said, tuple) else said).clone()
    last = llama.model.norm(hidden)[0]
    made |= {f"hidden_states_{len(llama.model.layers)}": last, "logits": llama.lm_head(last)}
    made["labels"] = torch.tensor([*labels[:place], *[-100] * count, *labels[place + 1 :]])
    made["attention_mask"] = torch.ones(hidden.shape[1], dtype=torch.long)
    for key, one in made.items():
        if not key.startswith(("stacked", "global")):
            full = one.new_full((length, *one.shape[1:]), -100 if key == "labels" else 0)
            full[: len(one)] = one
            made[key] = full
    return made
