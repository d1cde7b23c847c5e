"""Tiny language models with random weights, in the ordinary folder format, for tests that must not download."""

import json
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    Gemma2Config,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    OPTConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    T5Config,
)

SPECIALS = ("<pad>", "<s>", "</s>", "<unk>")
VOCABULARY = 256 + len(SPECIALS)
_SIZE = {"vocab_size": VOCABULARY, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
_WIDE = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "max_position_embeddings": 128}

CONFIGS = {
    "llama": LlamaConfig(**_SIZE, **_WIDE, num_key_value_heads=2, intermediate_size=48),
    "opt": OPTConfig(**_SIZE, **_WIDE, ffn_dim=48, word_embed_proj_dim=16, do_layer_norm_before=False),
    "gpt2": GPT2Config(**_SIZE, n_embd=32, n_layer=3, n_head=4, n_positions=128),
    "qwen2": Qwen2Config(**_SIZE, **_WIDE, num_key_value_heads=2, intermediate_size=48, tie_word_embeddings=True),
    "neox": GPTNeoXConfig(**_SIZE, **_WIDE, intermediate_size=48),
    "gemma2": Gemma2Config(
        **_SIZE, **_WIDE, num_key_value_heads=2, intermediate_size=48, head_dim=8, final_logit_softcapping=2.0
    ),
}
"""One config of each family: OPT's embedding is narrower than its hidden state, Gemma 2 caps its logits."""

T5 = T5Config(
    **{key: value for key, value in _SIZE.items() if key != "bos_token_id"},
    d_model=32,
    d_kv=8,
    d_ff=48,
    num_layers=3,
    num_heads=4,
    decoder_start_token_id=0,
)


def byte_tokenizer(*, bos: bool = True, template: str | None = None) -> PreTrainedTokenizerFast:
    """One token a byte: id 4 + its place in the byte alphabet."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate((*SPECIALS, *alphabet))}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    begin = {"bos_token": "<s>"} if bos else {}
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", **begin
    )
    fast.chat_template = template
    return fast


def save_byte_reader(root: Path) -> str:
    """The folder of a BERT-shaped model's tokenizer: one token a byte between marks of its own."""
    folder = root / "reader"
    if not folder.is_dir():
        tokenizer = byte_tokenizer()
        tokenizer.add_special_tokens({"cls_token": "[CLS]", "sep_token": "[SEP]"})
        tokenizer.save_pretrained(folder)
        (folder / "config.json").write_text(json.dumps({"model_type": "bert"}))
    return str(folder)


def save_model(family: str, root: Path) -> str:
    """A model folder of this family, made once under `root`."""
    folder = root / family
    if not folder.is_dir():
        torch.manual_seed(7)
        made = (
            AutoModelForSeq2SeqLM.from_config(T5)
            if family == "t5"
            else AutoModelForCausalLM.from_config(CONFIGS[family])
        )
        for weight in made.parameters():
            if weight.dim() > 1:
                torch.nn.init.normal_(weight, std=0.2)
        made.save_pretrained(folder)
        byte_tokenizer(bos=family != "t5").save_pretrained(folder)
    return str(folder)
