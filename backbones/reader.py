"""Train the reader: a small BERT with its own word pieces, by masked language modelling.

Its vocabulary holds `[DEC]`, the start mark of a Q-Former that writes. One command:
`python -m backbones.reader --data DATA --out FOLDER --log LOG --minutes 26`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Int
from torch import Tensor
from transformers import BertConfig, BertForMaskedLM, PreTrainedTokenizerFast

from backbones.budget import Budget, Log, Means
from backbones.documents import Library
from backbones.optimise import Both
from backbones.real import read_figures, read_nlvr
from backbones.saving import save_bf16, save_tokenizer
from backbones.word_pieces import SPECIALS, train_word_pieces

VOCABULARY, LONGEST = 2_500, 96


def new_reader(tokenizer: PreTrainedTokenizerFast) -> BertForMaskedLM:
    """An untrained reader."""
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=192, num_hidden_layers=4, num_attention_heads=3, intermediate_size=768,
        max_position_embeddings=512, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
        pad_token_id=tokenizer.pad_token_id, type_vocab_size=2,
    )  # fmt: skip
    return BertForMaskedLM._from_config(config, attn_implementation="sdpa")


def draw_text(library: Library) -> str:
    """A context, with one of its questions and answers in two of three texts."""
    document = library.draw()
    if not document.turns or library.rng.random() < 1 / 3:
        return document.context
    turn = library.rng.choice(document.turns)
    asked = f"Question: {turn.question} Answer: {turn.answer}"
    return asked if library.rng.random() < 0.2 else f"{asked} {document.context}"


def mask_tokens(
    ids: Int[Tensor, "texts length"], tokenizer: PreTrainedTokenizerFast, *, share: float = 0.2
) -> tuple[Int[Tensor, "texts length"], Bool[Tensor, "texts length"]]:
    """BERT's masking: of the chosen tokens 80% become [MASK], 10% random, 10% stay."""
    chosen = (torch.rand(ids.shape) < share) & (ids >= len(SPECIALS))
    fate = torch.rand(ids.shape)
    masked = torch.where(chosen & (fate < 0.8), torch.full_like(ids, tokenizer.mask_token_id), ids)
    noise = torch.randint(len(SPECIALS), len(tokenizer), ids.shape)
    return torch.where(chosen & (fate >= 0.8) & (fate < 0.9), noise, masked), chosen


def loss_of(model: BertForMaskedLM, texts: list[str], tokenizer: PreTrainedTokenizerFast, means: Means) -> Tensor:
    """Cross-entropy of the masked tokens."""
    encoded = tokenizer(texts, padding=True, truncation=True, max_length=LONGEST, return_tensors="pt")
    ids = encoded["input_ids"]
    masked, chosen = mask_tokens(ids, tokenizer)
    hidden = model.bert(input_ids=masked, attention_mask=encoded["attention_mask"]).last_hidden_state
    logits = model.cls(hidden[chosen])
    loss = F.cross_entropy(logits, ids[chosen])
    means.add("masked tokens", float((logits.argmax(1) == ids[chosen]).float().mean()))
    means.add("loss", float(loss.detach()))
    return loss


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with textbook_figures and nlvr")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=26.0)
    parser.add_argument("--steps", type=int, default=None, help="exact number of steps in place of minutes")
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--batch", type=int, default=40)
    parser.add_argument("--rate", type=float, default=4e-3)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    torch.set_flush_denormal(True)
    library = Library(read_figures(args.data, "train"), read_nlvr(args.data, "dev"), args.seed)
    texts = [draw_text(library) for _ in range(8_000)] + [one.description for one in library.figures]
    tokenizer = train_word_pieces(texts, VOCABULARY)
    model = new_reader(tokenizer)
    optimizer = Both([model], matrix_rate=args.rate, other_rate=args.rate, decay=0.05)
    means, log = Means(), Log(args.log)
    budget, saved = Budget(minutes=args.minutes, steps=args.steps), 0.0
    while not budget.over():
        loss_of(model, [draw_text(library) for _ in range(args.batch)], tokenizer, means).backward()  # type: ignore[no-untyped-call]
        means.add("gradient norm", optimizer.step(budget.rate(warmup_steps=40)))
        budget.step += 1
        if budget.step % 20 == 0:
            log.write(step=budget.step, seconds=budget.elapsed(), progress=budget.progress(), **means.take())
        if budget.elapsed() - saved > 120 or budget.over():
            saved = budget.elapsed()
            save_bf16(model, args.out)
            save_tokenizer(tokenizer, args.out)
    save_bf16(model, args.out)
    save_tokenizer(tokenizer, args.out)


if __name__ == "__main__":
    main()
