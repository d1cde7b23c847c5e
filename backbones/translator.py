"""Train the translator: a T5-shaped encoder-decoder with the speaker's tokenizer, on text alone.

Three in four examples are a context and a question in the encoder and the answer in the decoder; one in four is span
corruption (T5, arXiv:1910.10683, section 3.1.4). Its words begin with the speaker's embeddings, and its encoder gets
hints (`backbones.hints`). One command:
`python -m backbones.translator --data DATA --speaker isthmus/bundled/speaker --out FOLDER --log LOG --minutes 30`.
"""

from __future__ import annotations

import argparse
import random
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

from backbones.budget import Budget, Log, Means
from backbones.documents import Document, Library
from backbones.hints import Hint, HintHeads
from backbones.lookup_start import start_encoder_heads
from backbones.optimise import Both
from backbones.real import read_figures, read_nlvr
from backbones.saving import save_bf16, save_tokenizer
from backbones.sequences import FREE, Encoder

LONGEST = 160


@dataclass(frozen=True, kw_only=True)
class Pair:
    """What the encoder reads and what the decoder says; both end with the end mark."""

    read: list[int]
    said: list[int]
    exact: bool
    hints: tuple[tuple[int, Hint], ...] = ()
    """Positions in `read` that a hint is given at."""


def new_translator(speaker: Path, tokenizer: PreTrainedTokenizerFast) -> T5ForConditionalGeneration:
    """An untrained translator, whose word embeddings are the speaker's, brought to T5's scale."""
    config = T5Config(
        vocab_size=len(tokenizer), d_model=256, d_kv=64, d_ff=256, num_layers=6, num_decoder_layers=2, num_heads=4,
        feed_forward_proj="gated-gelu", dropout_rate=0.0, tie_word_embeddings=True, pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id, decoder_start_token_id=tokenizer.pad_token_id,
        relative_attention_num_buckets=32, relative_attention_max_distance=128,
    )  # fmt: skip
    model = T5ForConditionalGeneration._from_config(config, attn_implementation="eager")
    start_encoder_heads(model)
    words = LlamaForCausalLM.from_pretrained(str(speaker), dtype=torch.float32).model.embed_tokens.weight.detach()
    with torch.no_grad():
        model.shared.weight.copy_(words / words.pow(2).mean().sqrt())
    return model


def deepen(model: T5ForConditionalGeneration, layers: int) -> T5ForConditionalGeneration:
    """A copy with new encoder layers behind the first two, copies of the third which add nothing yet."""
    new = layers - model.config.num_layers
    if not new:
        return model
    deep = T5ForConditionalGeneration._from_config(
        T5Config(**{**model.config.to_dict(), "num_layers": layers}), attn_implementation="eager"
    )
    weights = deep.state_dict()
    for name, weight in model.state_dict().items():
        part, _, rest = name.removeprefix("encoder.block.").partition(".")
        if not name.startswith("encoder.block.") or int(part) < 2:
            weights[name].copy_(weight)
            continue
        weights[f"encoder.block.{int(part) + new}.{rest}"].copy_(weight)
        if part == "2":
            for place in range(2, 2 + new):
                weights[f"encoder.block.{place}.{rest}"].copy_(weight * (not rest.endswith(("o.weight", "wo.weight"))))
    return deep


def corrupt(ids: list[int], sentinels: list[int], end: int, rng: random.Random) -> Pair:
    """Spans of three on average, 15% of the text, each replaced by a sentinel and said after it."""
    spans = max(1, min(len(sentinels) - 1, round(0.05 * len(ids))))
    starts = sorted(rng.sample(range(len(ids)), min(spans, len(ids))))
    read: list[int] = []
    said: list[int] = []
    at = 0
    for sentinel, start in zip(sentinels, starts, strict=False):
        if start < at:
            continue
        stop = min(len(ids), start + rng.randint(1, 5))
        read += [*ids[at:start], sentinel]
        said += [sentinel, *ids[start:stop]]
        at = stop
    return Pair(read=[*read, *ids[at:], end], said=[*said, end], exact=False)


def pairs_of(document: Document, encoder: Encoder, rng: random.Random, *, questions: int = 4) -> list[Pair]:
    """One corrupted text, or some of the document's questions."""
    tokenizer = encoder.tokenizer
    end = tokenizer.eos_token_id
    context = list(encoder.pieces.__wrapped__(document.context))[: LONGEST - 40]
    if not document.turns or rng.random() < 0.25:
        sentinels = tokenizer.convert_tokens_to_ids([f"<extra_id_{place}>" for place in range(12)])
        return [corrupt(context, sentinels, end, rng)] if context else []
    turns = rng.sample(document.turns, min(questions, len(document.turns)))
    told = [(encoder.place(document.context, hint.end), hint) for hint in document.hints]
    told = [(place, hint) for place, hint in told if place < len(context)]
    pairs = []
    for turn in turns:
        read = [*context, *encoder.question(turn, after_context=True)]
        pairs.append(
            Pair(
                read=[*read, end],
                said=[*encoder.pieces(f" {turn.answer}"), end],
                exact=turn.family not in FREE,
                hints=(*told, *encoder.hints_of(turn, len(read))),
            )
        )
    return pairs


def pad_rows(rows: list[list[int]], padding: int) -> Tensor:
    """Right-padded ids."""
    ids = torch.full((len(rows), max(map(len, rows))), padding)
    for place, row in enumerate(rows):
        ids[place, : len(row)] = torch.tensor(row)
    return ids


def loss_of(
    model: T5ForConditionalGeneration,
    pairs: list[Pair],
    padding: int,
    heads: HintHeads,
    means: Means,
    *,
    strength: float,
) -> Tensor:
    """Cross-entropy of what is said; every other row's input is shaken by noise of up to `strength` of its size.

    Three tenths of every kind of hint's loss is added.
    """
    read, said = pad_rows([pair.read for pair in pairs], padding), pad_rows([pair.said for pair in pairs], padding)
    embedded = model.shared(read)
    amount = strength * torch.rand(len(pairs), 1, 1) * (torch.rand(len(pairs), 1, 1) < 0.5)
    noise = (torch.rand_like(embedded) * 2 - 1) * (3 * embedded.detach().pow(2).mean()).sqrt()
    shifted = torch.cat([torch.full((len(pairs), 1), padding), said[:, :-1]], dim=1)
    mask = read != padding
    seen = model.encoder(inputs_embeds=embedded + amount * noise, attention_mask=mask, output_hidden_states=True)
    memory = seen.last_hidden_state
    hints = [(hint.kind, row, place, hint.labels) for row, pair in enumerate(pairs) for place, hint in pair.hints]
    extra = torch.zeros(())
    for name, hinted in heads(seen.hidden_states, hints).items():
        means.add(f"hint {name}", float(hinted.detach()))
        extra = extra + 0.3 * hinted
    hidden = model.decoder(
        input_ids=shifted, encoder_hidden_states=memory, encoder_attention_mask=mask, use_cache=False
    ).last_hidden_state
    chosen = said != padding
    logits = model.lm_head(hidden[chosen] * model.config.d_model**-0.5)
    losses = F.cross_entropy(logits, said[chosen], reduction="none")
    exact = torch.tensor([pair.exact for pair in pairs])[:, None].expand_as(said)[chosen]
    if exact.any():
        means.add("answer tokens", float((logits.argmax(1) == said[chosen])[exact].float().mean()))
        means.add("answer loss", float(losses[exact].detach().mean()))
    if not exact.all():
        means.add("rest loss", float(losses[~exact].detach().mean()))
    weights = torch.where(exact, 1.0, 0.2)
    return (losses * weights).sum() / weights.sum() + extra


def draw_batches(library: Library, encoder: Encoder, *, progress: float, tokens: int) -> list[list[Pair]]:
    """About sixteen batches of like lengths, in random order."""
    pairs: list[Pair] = []
    while sum(len(pair.read) for pair in pairs) < 16 * tokens:
        pairs += pairs_of(library.draw(progress), encoder, library.rng)
    pairs.sort(key=lambda pair: len(pair.read))
    batches: list[list[Pair]] = [[]]
    for pair in pairs:
        if batches[-1] and (len(batches[-1]) + 1) * len(pair.read) > tokens:
            batches.append([])
        batches[-1].append(pair)
    library.rng.shuffle(batches)
    return batches


def save(model: T5ForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, out: Path) -> None:
    """An ordinary transformers folder."""
    save_bf16(model, out)
    save_tokenizer(tokenizer, out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with textbook_figures and nlvr")
    parser.add_argument("--speaker", type=Path, required=True, help="its tokenizer and word embeddings")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=18.0)
    parser.add_argument("--steps", type=int, default=None, help="exact number of steps in place of minutes")
    parser.add_argument("--seed", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=3_000, help="encoder tokens of a batch, padding included")
    parser.add_argument("--from-progress", type=float, default=0.1, help="where in the curriculum to begin")
    parser.add_argument("--rate", type=float, default=4e-3)
    parser.add_argument("--start", type=Path, default=None, help="a saved translator to go on from")
    parser.add_argument("--layers", type=int, default=6, help="encoder layers, more than the saved one has for more")
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    torch.set_flush_denormal(True)
    library = Library(read_figures(args.data, "train"), read_nlvr(args.data, "dev"), args.seed)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(str(args.speaker))
    model = new_translator(args.speaker, tokenizer)
    if args.start is not None:
        model = T5ForConditionalGeneration.from_pretrained(str(args.start), dtype=torch.float32)
        model = deepen(model, args.layers)
    heads = HintHeads(model.config.d_model)
    optimizer = Both([model, heads], matrix_rate=args.rate, other_rate=2 * args.rate, decay=0.05)
    encoder, means, log = Encoder(tokenizer), Means(), Log(args.log)
    budget, saved = Budget(minutes=args.minutes, steps=args.steps), 0.0
    batches: list[list[Pair]] = []
    while not budget.over():
        if not batches:
            batches = draw_batches(
                library,
                encoder,
                progress=args.from_progress + (1 - args.from_progress) * budget.progress(),
                tokens=args.tokens,
            )
        strength = 0.3 if 0.5 < budget.progress() < 0.85 else 0.0
        loss = loss_of(model, batches.pop(), tokenizer.pad_token_id, heads, means, strength=strength)
        torch.autograd.backward(loss)
        means.add("loss", float(loss.detach()))
        means.add("gradient norm", optimizer.step(budget.rate(warmup_steps=40)))
        budget.step += 1
        if budget.step % 20 == 0:
            log.write(step=budget.step, seconds=budget.elapsed(), progress=budget.progress(), **means.take())
        if budget.elapsed() - saved > 180:
            saved = budget.elapsed()
            save(model, tokenizer, args.out)
    save(model, tokenizer, args.out)


if __name__ == "__main__":
    main()
