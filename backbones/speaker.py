"""Train the speaker: a Llama-shaped causal LM, on text alone.

One command: `python -m backbones.speaker --data DATA --out FOLDER --log LOG --minutes 60`.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, distributed, nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from backbones.bags import bag_ids, embed_bags
from backbones.budget import Budget, Log, Means, plateau_at
from backbones.documents import Document, Library
from backbones.hints import HintHeads, Placed
from backbones.lookup_start import start_heads
from backbones.optimise import Both
from backbones.real import read_figures, read_nlvr
from backbones.saving import save_bf16, save_tokenizer
from backbones.sequences import Encoder, Sequence, pad
from backbones.speaker_tokenizer import train_pieces
from isthmus.data.sources.world.words import WORDS

VOCABULARY = 8_000


def new_speaker(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """An untrained speaker."""
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=256,
        intermediate_size=704,
        num_hidden_layers=4,
        num_attention_heads=4,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    model = LlamaForCausalLM._from_config(config, attn_implementation="sdpa")
    start_heads(model)
    return model


def deepen(model: LlamaForCausalLM, layers: int) -> LlamaForCausalLM:
    """A copy with new layers before the last one, which add nothing yet: the same function, with room to learn."""
    old = model.config.num_hidden_layers
    if layers == old:
        return model
    config = LlamaConfig(**{**model.config.to_dict(), "num_hidden_layers": layers})
    deep = LlamaForCausalLM._from_config(config, attn_implementation="sdpa")
    weights = deep.state_dict()
    for name, weight in model.state_dict().items():
        last = f"layers.{old - 1}."
        weights[name.replace(last, f"layers.{layers - 1}.")].copy_(weight)
    for layer in deep.model.layers[old - 1 : layers - 1]:
        torch.nn.init.zeros_(layer.self_attn.o_proj.weight)
        torch.nn.init.zeros_(layer.mlp.down_proj.weight)
    return deep


ALIKE = (
    *("small", "large", "yes", "no", "above", "below", "higher", "lower", "bigger", "smaller", "left", "right"),
    *("0", "1", "2", "3", "4", "5", "6", "7"),
)
"""Words that stand in each other's place: while none is told from its fellows, their embeddings grow together."""


@torch.no_grad()
def spread_words(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, length: float = 1.3) -> None:
    """Move the embedding of every word of `ALIKE` by this length, each in a random direction of its own."""
    table = model.model.embed_tokens.weight
    for word in ALIKE:
        (piece,) = tokenizer(f" {word}", add_special_tokens=False)["input_ids"]
        table[piece] += length * F.normalize(torch.randn(table.shape[1]), dim=0)


def tokenizer_texts(library: Library) -> list[str]:
    """All textbook and NLVR text, as much of the world, and every word that the world writes."""
    texts = [text for one in library.figures for text in (one.description, one.caption)]
    texts += [one.sentence for one in library.boxes] + [f" {word}" for word in WORDS for _ in range(50)]
    for _ in range(4_000):
        document = library.draw()
        texts += [document.context] + [f"Question: {turn.question} Answer: {turn.answer}" for turn in document.turns]
    return texts


def shake(
    embedded: Float[Tensor, "rows length width"], context: Bool[Tensor, "rows length"]
) -> Float[Tensor, "rows length width"]:
    """Uniform noise on the context's embeddings of every other row (after NEFTune, arXiv:2310.05914).

    It is up to three tenths of the embeddings' own size, so that a context need not be made of exact words.
    """
    size = embedded.detach()[context].pow(2).mean().sqrt() if context.any() else torch.zeros(())
    strength = 0.3 * torch.rand(len(embedded), 1, 1) * (torch.rand(len(embedded), 1, 1) < 0.5)
    noise = (torch.rand_like(embedded) * 2 - 1) * (3**0.5 * size)
    return embedded + noise * strength * context[:, :, None]


def loss_of(
    model: LlamaForCausalLM,
    ids: Int[Tensor, "rows length"],
    weights: Tensor,
    context: Tensor,
    bags: list[list[tuple[int, ...]]],
    heads: HintHeads,
    hints: list[Placed],
    means: Means,
    *,
    rest: float,
    noise: bool,
) -> Tensor:
    """Weighted cross-entropy; of the tokens that are no answer a share `rest` is predicted, at more weight.

    Three tenths of every kind of hint's loss is added.
    """
    embedded = embed_bags(model.model.embed_tokens, bag_ids(bags, ids))
    embedded = shake(embedded, context) if noise else embedded
    out = model.model(inputs_embeds=embedded, use_cache=False, output_hidden_states=True)
    hidden = out.last_hidden_state
    extra = torch.zeros(())
    for name, hinted in heads(out.hidden_states, hints).items():
        means.add(f"hint {name}", float(hinted.detach()))
        extra = extra + 0.3 * hinted
    weights = weights[:, 1:].clone()
    low = (weights > 0) & (weights < 0.3)
    drawn = torch.rand(weights.shape) < rest
    weights[low & ~drawn] = 0.0
    weights[low & drawn] /= rest
    chosen = weights > 0
    logits = model.lm_head(hidden[:, :-1][chosen])
    losses = F.cross_entropy(logits, ids[:, 1:][chosen], reduction="none")
    weight = weights[chosen]
    answers = weight >= 0.8
    if answers.any():
        means.add("answer tokens", float((logits.argmax(1) == ids[:, 1:][chosen])[answers].float().mean()))
        means.add("answer loss", float(losses[answers].detach().mean()))
    if not answers.all():
        means.add("rest loss", float(losses[~answers].detach().mean()))
    return (losses * weight).sum() / weight.sum() + extra


def draw_batches(library: Library, encoder: Encoder, *, progress: float, tokens: int) -> list[list[Sequence]]:
    """About sixteen batches of like lengths, in random order."""
    documents: list[Document] = [library.draw(progress) for _ in range(16 * tokens // 220)]
    sequences = sorted((encoder.encode(one, library.rng) for one in documents), key=lambda one: len(one.ids))
    batches: list[list[Sequence]] = [[]]
    for one in sequences:
        if batches[-1] and (len(batches[-1]) + 1) * len(one.ids) > tokens:
            batches.append([])
        batches[-1].append(one)
    library.rng.shuffle(batches)
    return batches


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, out: Path) -> None:
    """An ordinary transformers folder."""
    save_bf16(model, out)
    save_tokenizer(tokenizer, out)


def share_gradients(modules: list[nn.Module]) -> None:
    """The mean over all processes; nothing where there is one."""
    if not distributed.is_initialized():
        return
    parameters = [parameter for module in modules for parameter in module.parameters()]
    gradients = [torch.zeros_like(one) if one.grad is None else one.grad for one in parameters]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    distributed.all_reduce(flat)
    flat /= distributed.get_world_size()
    for gradient, part in zip(gradients, torch.split(flat, [gradient.numel() for gradient in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient


def agree(progress: float) -> float:
    """The first process's progress, for all."""
    if not distributed.is_initialized():
        return progress
    value = torch.tensor(progress)
    distributed.broadcast(value, 0)
    return float(value)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with textbook_figures and nlvr")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--steps", type=int, default=None, help="exact number of steps in place of minutes")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--tokens", type=int, default=2_000, help="tokens of a batch, padding included")
    parser.add_argument("--start", type=Path, default=None, help="a saved speaker to go on from")
    parser.add_argument("--from-progress", type=float, default=0.0, help="where in the curriculum to begin")
    parser.add_argument(
        "--layers", type=int, default=6, help="layers, more than the saved speaker has for a deeper one"
    )
    parser.add_argument(
        "--spread", action="store_true", help="move the embeddings of interchangeable words apart first"
    )
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--bags", type=float, default=0.5, help="share of scenes written as grids of word bags")
    args = parser.parse_args()
    rank = 0
    if "WORLD_SIZE" in os.environ:
        distributed.init_process_group("gloo")
        rank = distributed.get_rank()
    torch.manual_seed(args.seed)
    torch.set_flush_denormal(True)
    library = Library(read_figures(args.data, "train"), read_nlvr(args.data, "dev"), args.seed)
    if args.start is None:
        tokenizer = train_pieces(tokenizer_texts(library), VOCABULARY)
        model = new_speaker(tokenizer)
    else:
        tokenizer = PreTrainedTokenizerFast.from_pretrained(str(args.start))
        model = LlamaForCausalLM.from_pretrained(str(args.start), dtype=torch.float32)
    model = deepen(model, args.layers)
    if args.spread:
        spread_words(model, tokenizer)
    library = Library(library.figures, library.boxes, args.seed + 1_000 * rank, bags=args.bags)
    train(model, library, Encoder(tokenizer), Budget(minutes=args.minutes, steps=args.steps), args, first=rank == 0)


def train(
    model: LlamaForCausalLM,
    library: Library,
    encoder: Encoder,
    budget: Budget,
    args: argparse.Namespace,
    *,
    first: bool,
) -> None:
    """Until the budget is spent; the first process logs and saves."""
    heads = HintHeads(model.config.hidden_size)
    optimizer = Both([model, heads], matrix_rate=args.rate, other_rate=args.rate, decay=0.05)
    means, saved = Means(), 0.0
    log = Log(args.log) if first else None
    batches: list[list[Sequence]] = []
    while (progress := agree(budget.progress())) < 1.0:
        if not batches:
            lesson = args.from_progress + (1 - args.from_progress) * progress
            batches = draw_batches(library, encoder, progress=lesson, tokens=args.tokens)
        batch = batches.pop()
        padded = pad(batch, encoder.tokenizer.pad_token_id)
        hints = [(hint.kind, row, place, hint.labels) for row, one in enumerate(batch) for place, hint in one.hints]
        bags = [one.bags for one in batch]
        loss = loss_of(model, *padded, bags, heads, hints, means, rest=0.2, noise=progress < 0.75)
        torch.autograd.backward(loss)
        share_gradients([model, heads])
        means.add("loss", float(loss.detach()))
        means.add("gradient norm", optimizer.step(plateau_at(progress, budget.step)))
        budget.step += 1
        if log is not None and budget.step % 20 == 0:
            log.write(step=budget.step, seconds=budget.elapsed(), progress=progress, **means.take())
        if first and budget.elapsed() - saved > 180:
            saved = budget.elapsed()
            save(model, encoder.tokenizer, args.out)
    if first:
        save(model, encoder.tokenizer, args.out)


if __name__ == "__main__":
    main()
