"""Published connector weights come in by their own names, strictly."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from isthmus.connectors import (
    AudioQFormerConfig,
    CAbstractorConfig,
    ConnectorConfig,
    DAbstractorConfig,
    GatedCrossAttentionConfig,
    HoneybeeResamplerConfig,
    Idefics2Config,
    InstructQFormerConfig,
    LdpV2Config,
    MatryoshkaConfig,
    MlpConfig,
    PerceiverConfig,
    QFormerConfig,
    QLlamaConfig,
    QwenVlConfig,
    TokenPackerConfig,
    VideoQFormerConfig,
    WindowedQFormerConfig,
    WindowedStreamsConfig,
)
from isthmus.connectors.arrange import Anyres, Concatenate, DeepStack, Separated
from isthmus.connectors.windowed_streams import granite_keys
from isthmus.exchange import import_official
from isthmus.exchange.official import LAYOUTS, Layout, find_layout
from isthmus.llms import CausalLM
from isthmus.model import Model
from isthmus.runs import Run

QFORMER = QFormerConfig(num_queries=4, width=24, layers=2, heads=3, ffn_width=32)
READING = replace(QFORMER, text=True, vocabulary=40, positions=16)
LATENTS = PerceiverConfig(num_latents=3, layers=1, heads=2, head_width=4, project=False)
SMALL: dict[type[ConnectorConfig], ConnectorConfig] = {
    QFormerConfig: QFORMER,
    InstructQFormerConfig: InstructQFormerConfig(qformer=READING, max_text_tokens=8),
    AudioQFormerConfig: AudioQFormerConfig(num_queries=3, width=24, heads=3, ffn_width=32, max_windows=5),
    VideoQFormerConfig: VideoQFormerConfig(image=QFORMER, num_queries=3, layers=1, max_frames=4),
    QLlamaConfig: QLlamaConfig(
        num_queries=3, width=16, layers=2, heads=2, ffn_width=24, text=True, vocabulary=30, embedding=8, pool_heads=2
    ),
    PerceiverConfig: LATENTS,
    GatedCrossAttentionConfig: GatedCrossAttentionConfig(resampler=LATENTS, every=3, heads=2, head_width=4),
    Idefics2Config: Idefics2Config(num_latents=3, layers=1, heads=4, kv_heads=2, head_width=4, project_width=16),
    QwenVlConfig: QwenVlConfig(side=3),
    MatryoshkaConfig: MatryoshkaConfig(tokens=4, side=3),
    CAbstractorConfig: CAbstractorConfig(side=3, width=16, depth=1, eos_tokens=2, prenorm=True),
    DAbstractorConfig: DAbstractorConfig(side=3, width=16, layers=1, heads=2, ffn_width=16, eos_tokens=2),
    HoneybeeResamplerConfig: HoneybeeResamplerConfig(num_queries=3, width=16, layers=1, heads=2, ffn_width=16),
    LdpV2Config: LdpV2Config(side=3),
    TokenPackerConfig: TokenPackerConfig(width=16, heads=2),
    WindowedStreamsConfig: WindowedStreamsConfig(
        projector=WindowedQFormerConfig(ffn_width=16), streams=((0, "bottom-left"), (0, "area"), (0, "area"))
    ),
}
"""Where the defaults are of a published size."""


def model_of(config: ConnectorConfig, folder: Path) -> Model:
    """The bundled backbones around a connector, where it fits them."""
    made = Model(connector=config)
    if isinstance(config, QLlamaConfig):
        return replace(made, llm=None)
    if isinstance(config, PerceiverConfig) and not config.project:
        width = made.source().width  # it writes at the encoder's
        folder.mkdir(exist_ok=True)
        sizes = {"hidden_size": width, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 9}
        (folder / "config.json").write_text(json.dumps({"model_type": "llama", **sizes}))
        return replace(made, llm=CausalLM(name=str(folder)))
    return made


def weights_of(model: Model) -> dict[str, Tensor]:
    """The connector's own, freshly made from one seed."""
    torch.manual_seed(5)
    if model.llm is None:
        return model.connector.build_alone(model.source()).state_dict()
    return model.connector.build(model.source(), model.target()).state_dict()


def published(model: Model, layout: Layout) -> dict[str, Tensor]:
    """A connector's weights as a system saves them."""
    keys, connector = layout.keys, model.connector
    if isinstance(connector, WindowedStreamsConfig):
        keys = granite_keys([shrink for _, shrink in connector.streams])
    state = {keys.prefix + key: value.clone() for key, value in keys.to_official(weights_of(model)).items()}
    if isinstance(connector, GatedCrossAttentionConfig):
        assert model.llm is not None
        table = torch.randn(len(model.llm.tokenizer()) + 2, model.target().embedding_width)
        table[-1] = state.pop("image_token")
        state["lang_encoder.transformer.wte.weight"] = table
    return state


def layout_of(connector: type[ConnectorConfig], system: str) -> Layout:
    return next(one for one in LAYOUTS if one.system == system and one.connector is connector)


def llava15() -> tuple[Model, dict[str, Tensor]]:
    model = Model(connector=MlpConfig(depth=2))
    return model, published(model, layout_of(MlpConfig, "LLaVA-1.5"))


def taken_in(state: dict[str, Tensor], model: Model, folder: Path) -> dict[str, Tensor]:
    """The run's connector after an import of these weights."""
    torch.save(state, folder / "weights.pth")
    done = import_official(folder / "weights.pth", folder / "run", model)
    assert done.taken["connector"] == sum("wte" not in key for key in state) + ("wte" in " ".join(state))
    assert {what.split(" of ", 1)[1] for what in done.left} <= {"the language model and its blocks"}
    written = load_file(folder / "run" / "weights.safetensors")
    return {key.removeprefix("connector."): value for key, value in written.items() if key.startswith("connector.")}


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda one: f"{one.system}, {one.connector.__name__}")
def test_every_published_form_comes_in_by_its_names_and_strictly(layout: Layout, tmp_path: Path) -> None:
    model = model_of(SMALL.get(layout.connector) or layout.connector(), tmp_path / "llm")
    state, own = published(model, layout), weights_of(model)
    written = taken_in(state, model, tmp_path)
    assert set(written) == set(own)
    assert all(torch.equal(written[key], own[key]) for key in own)
    key = sorted(key for key in state if "wte" not in key)[-1]
    short = re.escape(key.removeprefix(layout.keys.prefix))
    for wrong, said in (
        ({name: value for name, value in state.items() if name != key}, rf"1 missing: {short}\b"),
        (state | {key: torch.zeros(7, 7, 7)}, rf"1 of another shape: {short} is \(7, 7, 7\), wanted"),
        (state | {f"{key}.stranger": torch.zeros(1)}, rf"1 unknown: {short}\.stranger"),
        (state | {"stranger.weight": torch.zeros(1)}, r"does not have: \['stranger\.weight'\]"),
    ):
        torch.save(wrong, tmp_path / "wrong.pth")
        with pytest.raises(ValueError, match=said):
            import_official(tmp_path / "wrong.pth", tmp_path / "no", model)
    assert not (tmp_path / "no").exists()


def test_a_first_stage_comes_in_with_its_heads_and_the_second_goes_on(tmp_path: Path) -> None:
    """LAVIS's stage 1 holds words, heads and BERT's copies; there is no way to a language model yet."""
    reading = replace(READING, embedding=8)
    model = replace(Model(connector=reading), llm=None)
    state = published(model, layout_of(QFormerConfig, "BLIP-2 (LAVIS, opt_proj)"))
    copies = {
        "Qformer.bert.embeddings.position_ids": torch.arange(16)[None],
        "Qformer.cls.predictions.decoder.weight": state["Qformer.bert.embeddings.word_embeddings.weight"],
        "Qformer.cls.predictions.decoder.bias": state["Qformer.cls.predictions.bias"],
        "visual_encoder.cls_token": torch.zeros(1, 1, 8),
    }
    torch.save({"model": state | copies}, tmp_path / "stage1.pth")
    done = import_official(tmp_path / "stage1.pth", tmp_path / "run", model)
    written = load_file(tmp_path / "run" / "weights.safetensors")
    assert {f"connector.{key}" for key in weights_of(model)} == set(written)
    assert torch.equal(written["connector.heads.temperature"], state["temp"])
    assert done.taken["arrangement"] == 0
    assert done.run.model_config.llm is None
    with pytest.raises(ValueError, match=r"opt_proj\.weight"):
        import_official(tmp_path / "stage1.pth", tmp_path / "second", Model(connector=QFORMER))


def test_what_is_not_published_is_said_with_the_way_out(tmp_path: Path) -> None:
    model = model_of(LATENTS, tmp_path / "llm")
    state = published(model, layout_of(PerceiverConfig, "OpenFlamingo"))
    torch.save(state, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match=r"cannot fill project\.weight, project\.bias .*project=False"):
        import_official(tmp_path / "weights.pth", tmp_path / "run", Model(connector=replace(LATENTS, project=True)))
    middleware = SMALL[QLlamaConfig]
    alone = published(model_of(middleware, tmp_path), layout_of(QLlamaConfig, "InternVL 1.0"))
    torch.save(alone, tmp_path / "qllama.pth")
    with pytest.raises(ValueError, match=r"cannot fill project\.0\.weight.*\(llm=None\)"):
        import_official(tmp_path / "qllama.pth", tmp_path / "run", Model(connector=middleware))


def test_flamingo_blocks_may_be_named_inside_their_layers_and_need_the_row_of_the_image(tmp_path: Path) -> None:
    model = model_of(SMALL[GatedCrossAttentionConfig], tmp_path)
    state = published(model, layout_of(GatedCrossAttentionConfig, "OpenFlamingo"))
    inside = {
        re.sub(r"gated_cross_attn_layers\.(\d+)\.", r"model.layers.\1.gated_cross_attn_layer.", key): value
        for key, value in state.items()
    }
    assert set(inside) != set(state)
    written, own = taken_in(inside, model, tmp_path), weights_of(model)
    assert all(torch.equal(written[key], own[key]) for key in own)
    words = next(key for key in state if "wte" in key)
    for wrong, said in (({}, "no word embeddings came"), ({words: state[words][:-1]}, "word embeddings of shape")):
        torch.save({key: value for key, value in state.items() if key != words} | wrong, tmp_path / "wrong.pth")
        with pytest.raises(ValueError, match=said):
            import_official(tmp_path / "wrong.pth", tmp_path / "no", model)


@pytest.mark.parametrize("connector", [CAbstractorConfig, DAbstractorConfig])
def test_older_honeybee_has_a_position_for_the_class_token(connector: type[ConnectorConfig], tmp_path: Path) -> None:
    model = model_of(SMALL[connector], tmp_path)
    state = published(model, layout_of(connector, "Honeybee"))
    key = next(key for key in state if key.endswith("pos_emb"))
    older = state | {key: torch.cat([torch.full_like(state[key][:, :1], 9.0), state[key]], dim=1)}
    assert torch.equal(taken_in(older, model, tmp_path)["positions"], state[key])


def test_the_newline_goes_where_the_arrangement_keeps_it(tmp_path: Path) -> None:
    model, state = llava15()
    width = model.target().embedding_width
    newline = torch.randn(width)
    stacked = replace(model, arrange=DeepStack(every_view=True, arrange=Anyres(unpad=False)))
    save_file(state | {"model.image_newline": newline}, tmp_path / "whole.safetensors")
    done = import_official(tmp_path / "whole.safetensors", tmp_path / "stacked", stacked)
    assert done.taken == {"connector": 4, "arrangement": 1}
    assert torch.equal(load_file(tmp_path / "stacked" / "weights.safetensors")["arrange.arrange.newline"], newline)
    left = import_official(tmp_path / "whole.safetensors", tmp_path / "plain", model).left
    assert left == {"model.image_newline": "Concatenate puts no vector at the end of a row"}
    save_file(state, tmp_path / "projector.safetensors")
    save_file(state | {"model.image_newline": newline[:5]}, tmp_path / "short.safetensors")
    for file, arrange, said in (
        ("projector", Anyres(), r"has no newline for AnyresLayout: .*model\.image_newline alone is published"),
        ("whole", Separated(), r"has no comma for SeparatedLayout"),
        ("short", Anyres(), rf"model\.image_newline in .* is \(5,\), wanted \({width},\)"),
    ):
        with pytest.raises(ValueError, match=said):
            import_official(tmp_path / f"{file}.safetensors", tmp_path / "no", replace(model, arrange=arrange))
    assert isinstance(model.arrange, Concatenate)


def test_a_folder_of_files_is_one_checkpoint_unless_they_contradict_each_other(tmp_path: Path) -> None:
    """Video-LLaMA publishes its outer half, BLIP-2 the inner one: both files in one folder make the connector."""
    model = model_of(SMALL[VideoQFormerConfig], tmp_path)
    state, own = published(model, layout_of(VideoQFormerConfig, "Video-LLaMA")), weights_of(model)
    both = tmp_path / "both"
    both.mkdir()
    outer = {key: value for key, value in state.items() if key.startswith(("video_", "llama_proj"))}
    inner = {key: value for key, value in state.items() if key not in outer} | {"t5_proj.bias": torch.zeros(2)}
    torch.save({"model": inner}, both / "blip2.pth")
    torch.save({"model": outer | {"ln_vision.bias": state["ln_vision.bias"]}}, both / "video_llama.pth")
    done = import_official(both, tmp_path / "run", model)
    assert done.left == {"1 tensors of BLIP-2's way to another language model": "the run takes it from the model"}
    written = load_file(tmp_path / "run" / "weights.safetensors")
    assert all(torch.equal(written[f"connector.{key}"], own[key]) for key in own)
    torch.save({"model": outer | {"ln_vision.bias": state["ln_vision.bias"] + 1}}, both / "video_llama.pth")
    with pytest.raises(ValueError, match=r"another 'ln_vision\.bias' than a file before it"):
        import_official(both, tmp_path / "no", model)


def test_a_whole_run_comes_of_it(tmp_path: Path) -> None:
    model, state = llava15()
    save_file(state, tmp_path / "mm_projector.safetensors")
    run = import_official(tmp_path / "mm_projector.safetensors", tmp_path / "run", model).run
    assert isinstance(run, Run)
    own = weights_of(model)
    again = run.load_model(with_encoder=False).connector.state_dict()
    assert all(torch.equal(again[key], own[key]) for key in own)


def test_lavis_puts_the_model_beside_other_things_and_keeps_its_text_side(tmp_path: Path) -> None:
    model = Model(connector=QFORMER)
    state = published(model, layout_of(QFormerConfig, "BLIP-2 (LAVIS, opt_proj)"))
    more = {
        "Qformer.bert.embeddings.position_ids": torch.zeros(1, 4),
        "Qformer.bert.embeddings.word_embeddings.weight": torch.zeros(9, 24),
        "visual_encoder.cls_token": torch.zeros(1, 1, 8),
        "opt_model.lm_head.weight": torch.zeros(2, 2),
    }
    torch.save({"model": state | more, "epoch": 3}, tmp_path / "blip2.pth")
    left = import_official(tmp_path / "blip2.pth", tmp_path / "run", model).left
    assert {what.split(" of ")[1] for what in left} == {
        "the vision encoder",
        "the language model",
        "the Q-Former's text side and heads, which this connector was built without",
    }


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        ({"model.mm_projector.0.weight": None}, r"1 missing: 0\.weight"),
        ({"model.mm_projector.1.weight": torch.zeros(2, 2)}, r"1 unknown: 1\.weight"),
        ({"model.mm_projector.0.bias": torch.zeros(3)}, r"of another shape: 0\.bias is \(3,\)"),
        ({"model.stranger": torch.zeros(1)}, r"LLaVA-1.5 does not have: \['model.stranger'\]"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(change: dict[str, Tensor | None], wanted: str, tmp_path: Path) -> None:
    model, state = llava15()
    changed = {key: value for key, value in (state | change).items() if value is not None}
    save_file(changed, tmp_path / "mm_projector.safetensors")
    with pytest.raises(ValueError, match=wanted):
        import_official(tmp_path / "mm_projector.safetensors", tmp_path / "run", model)
    assert not (tmp_path / "run").exists()


def test_weights_of_another_connector_are_refused(tmp_path: Path) -> None:
    _, state = llava15()
    save_file(state, tmp_path / "mm_projector.safetensors")
    with pytest.raises(ValueError, match="holds no weights of QFormerConfig"):
        import_official(tmp_path / "mm_projector.safetensors", tmp_path / "run", Model(connector=QFORMER))


def test_pickled_code_is_never_run(tmp_path: Path) -> None:
    class Hostile:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (exec, (f"open({str(tmp_path / 'ran')!r}, 'w').close()",))

    torch.save({"model.mm_projector.0.weight": Hostile()}, tmp_path / "bad.bin")
    with pytest.raises(ValueError, match="without running code"):
        import_official(tmp_path / "bad.bin", tmp_path / "run", Model())
    assert not (tmp_path / "ran").exists()


def test_the_form_with_most_names_wins() -> None:
    model = Model(connector=QFORMER)
    state = published(model, layout_of(QFormerConfig, "BLIP-2 (LAVIS, t5_proj)"))
    found: Layout = find_layout(state, replace(QFORMER), weights_of(model))
    assert found.system == "BLIP-2 (LAVIS, t5_proj)"
