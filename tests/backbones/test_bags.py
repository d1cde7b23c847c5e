"""Contexts as grids of word bags."""

import random

import torch
from torch import nn

from backbones.bags import bag_ids, embed_bags, scene_slots
from isthmus.data.sources.world import CELLS, WorldStyle, make_scene


def test_a_bag_is_the_sum_of_its_words_over_the_root_of_their_number() -> None:
    table = nn.Embedding(6, 4)
    ids = torch.tensor([[1, 2, 5], [1, 3, 0]])
    embedded = embed_bags(table, bag_ids([[(2, 3, 4, 5)], []], ids))
    weight = table.weight
    assert torch.allclose(embedded[0, 1], (weight[2] + weight[3] + weight[4] + weight[5]) / 2)
    assert torch.allclose(embedded[1], weight[ids[1]])
    assert torch.allclose(embedded[0, 2], weight[5])


def test_every_item_stands_in_the_slots_that_it_covers() -> None:
    scene = make_scene(4, "test", WorldStyle(items=(3, 3), writing=0.0, chart=0.0))
    slots = scene_slots(scene, random.Random(0))
    said = {slot for slot in slots if slot != (" empty",)}
    assert len(slots) in (16, 36, 64, 144)
    wanted = {(f" {one.size}", f" {one.colour}", f" {one.shape}", f" {CELLS[one.cell]}") for one in scene.items}
    assert wanted <= said | {slot[:4] for slot in said} | {slot[4:] for slot in said}
