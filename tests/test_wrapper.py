import copy
import re

import pytest
import torch
from transformers import RobertaConfig, RobertaModel
from transformers.models.roberta.modeling_roberta import RobertaClassificationHead

from lora_bench.model.attention import ATTENTION
from lora_bench.model.dropout import DropoutStream
from lora_bench.model.encoder import load_encoder, tiny_config
from lora_bench.model.heads import SequenceHead
from lora_bench.model.inject import inject_lora
from lora_bench.model.parameters import parameter_counts, parameter_table, parameter_text
from lora_bench.model.streams import Streams
from lora_bench.model.wrapper import FreezePolicy, LoraWrapperRoberta

from .conftest import TINY
from .helpers import random_batch


@pytest.fixture(scope="module")
def roberta_base_shape():
    """roberta-base's shape with random weights."""
    config = RobertaConfig(
        vocab_size=50265,
        max_position_embeddings=514,
        type_vocab_size=1,
        attn_implementation=ATTENTION,
    )
    return lambda: RobertaModel(config, add_pooling_layer=False)


def article_call(model_id, **changes):
    settings = dict(
        task_type="glue",
        num_classes=2,
        dropout_rate=0.1,
        model_id=model_id,
        lora_rank=8,
        train_biases=True,
        train_embedding=False,
        train_layer_norms=True,
    )
    return LoraWrapperRoberta(**{**settings, **changes})


def test_parameter_counts_are_the_published_ones(roberta_base_shape):
    """The article's 420,098 include a pooler bias of 768, which never reaches the loss."""
    counts = parameter_counts(article_call(roberta_base_shape()))
    assert counts["trained"] == 420_098 - 768
    assert counts["adapter"] == 294_912
    assert counts["trained"] == sum(counts[g] for g in ("adapter", "head", "bias", "norm", "other"))
    plain = article_call(
        roberta_base_shape(), train_biases=False, train_layer_norms=False, head="standard"
    )
    assert parameter_counts(plain)["adapter"] == 294_912
    assert (
        parameter_counts(plain)["head"] == 592_130
    )  # microsoft/LoRA's head, which the paper's 0.3M leave out
    assert parameter_counts(plain)["trained"] == 294_912 + 592_130


def test_every_trained_parameter_gets_a_gradient(tiny_encoder):
    model = article_call(tiny_encoder)
    model(random_batch([3, 5])).square().sum().backward()
    assert [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None] == []


def test_article_call_scales_by_one_and_rejects_other_task_types(tiny_encoder):
    assert (
        article_call(tiny_encoder).encoder.encoder.layer[0].attention.self.query.lora_scaling == 1.0
    )
    with pytest.raises(ValueError, match="task_type=squad_v3: must be one of glue, squad_v1"):
        article_call(tiny_encoder, task_type="squad_v3")
    for wrong, message in (({"head": "mine"}, "head=mine: must be"), ({"num_classes": 0}, "=0: ")):
        with pytest.raises(ValueError, match=message):
            article_call(tiny_encoder, **wrong)


@pytest.mark.parametrize("head", ["article", "standard"])
@pytest.mark.parametrize("task_type", ["squad_v1", "squad_v2"])
def test_a_number_of_classes_that_squad_does_not_have_is_refused(tiny_encoder, task_type, head):
    def outputs(number: int | None) -> int:
        changes = {"task_type": task_type, "head": head, "num_classes": number}
        model = article_call(tiny_encoder, **changes, lora_rank=None)
        return model(random_batch([3])).shape[1]

    own = outputs(None)
    assert outputs(own) == own
    for wrong in {0, 1, 2, 3, 4} - {own}:
        with pytest.raises(ValueError, match=f"num_classes={wrong}: task_type={task_type} with"):
            outputs(wrong)


@pytest.mark.parametrize(
    ("policy", "trained"),
    [
        (FreezePolicy(), set()),
        (FreezePolicy(biases="adapted"), {"self.query.bias", "self.value.bias"}),
        (FreezePolicy(layer_norms=True), {"LayerNorm.weight", "LayerNorm.bias"}),
        (FreezePolicy(embeddings=True), {"embeddings.weight"}),
        (
            FreezePolicy(biases="all"),
            {"self.query.bias", "self.key.bias", "self.value.bias", "dense.bias", "LayerNorm.bias"},
        ),
    ],
)
def test_freeze_policy_trains_exactly_what_it_says(tiny_encoder, policy, trained):
    model = LoraWrapperRoberta("glue", 2, model_id=tiny_encoder, lora_rank=None)
    inject_lora(model.encoder, rank=2, alpha=2.0)
    policy.apply(model)

    def matches(name):
        if name.endswith("embeddings.weight"):
            return "embeddings.weight" in trained
        return any(name.endswith(t) for t in trained)

    for name, parameter in model.named_parameters():
        always = name.startswith("head.") or ".lora_" in name
        assert parameter.requires_grad == (always or matches(name)), name


def test_parameter_table_has_a_row_for_each_parameter(tiny_encoder):
    model = article_call(tiny_encoder)
    table = parameter_table(model)
    assert list(table.columns) == ["group", "name", "shape", "count", "trained"]
    assert table["count"].sum() == sum(p.numel() for p in model.parameters())
    assert table.set_index("name").loc[
        "encoder.encoder.layer.0.attention.self.query.lora_a", "shape"
    ] == (8, 32)
    assert set(table.group) == {"adapter", "head", "bias", "norm", "other"}


def test_the_printed_table_groups_shapes_and_counts(tiny_encoder):
    text = parameter_text(article_call(tiny_encoder))
    assert "adapter: 2,048 of 2,048 trained" in text and "other: 0 of " in text
    assert re.search(
        r"layer\.1\.attention\.self\.value\.lora_b +\| \(32, 8\) +\| +256 \| yes", text
    )
    assert re.search(
        r"encoder\.embeddings\.word_embeddings\.weight +\| \(261, 32\) +\| +8,352 \| no", text
    )


def test_standard_head_is_the_one_of_transformers():
    config = RobertaConfig(hidden_size=12, num_labels=3, hidden_dropout_prob=0.0)
    theirs, ours = RobertaClassificationHead(config).eval(), SequenceHead(12, 3, 0.0)
    ours.load_state_dict(theirs.state_dict())
    hidden = torch.randn(4, 6, 12)
    torch.testing.assert_close(ours(hidden[:, 0]), theirs(hidden), rtol=0, atol=0)


def test_all_dropouts_take_the_runs_stream():
    model = LoraWrapperRoberta("glue", 2, 0.3, load_encoder(TINY, dropout=0.3), lora_rank=4)
    model.use_stream(stream := DropoutStream(Streams(0)))
    dropouts = [m for m in model.modules() if isinstance(m, torch.nn.Dropout)]
    assert len(dropouts) > 5 and all(m.stream is stream for m in dropouts)
    batch = random_batch([3, 5])
    before = torch.get_rng_state()
    assert not torch.equal(model.train()(batch), model(batch))
    assert torch.equal(torch.get_rng_state(), before)  # torch's global generator is not asked
    assert torch.equal(model.eval()(batch), model(batch))


LENGTHS = (3, 7, 5)


def padded(side: str) -> dict[str, torch.Tensor]:
    """The rows of ``random_batch(LENGTHS)``, padded on one side."""
    rows = random_batch(LENGTHS).input_ids.split(LENGTHS)
    ids = torch.full((len(LENGTHS), max(LENGTHS)), 1)
    mask = torch.zeros_like(ids)
    for row, (tokens, n) in enumerate(zip(rows, LENGTHS, strict=True)):
        real = slice(0, n) if side == "right" else slice(max(LENGTHS) - n, None)
        ids[row, real], mask[row, real] = tokens, 1
    return {"input_ids": ids, "attention_mask": mask}


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("task_type", ["glue", "squad_v1", "squad_v2"])
def test_padded_batches_compute_what_packed_ones_do(tiny_encoder, task_type, side):
    classes = 2 if task_type == "glue" else None
    model = article_call(tiny_encoder, task_type=task_type, num_classes=classes).eval()
    packed, inputs = model(random_batch(LENGTHS)), padded(side)
    logits = model(**inputs)
    if task_type == "glue":
        torch.testing.assert_close(logits, packed, rtol=0, atol=0)
        return
    real = inputs["attention_mask"].bool()
    torch.testing.assert_close(logits[real], packed, rtol=0, atol=0)
    assert logits.shape[:2] == real.shape and not logits[~real].any()


def test_the_wrapper_trains_in_a_plain_pytorch_loop_and_restores_it_from_a_state_dict():
    """Padded batches, torch's own optimizer, nothing else of this project."""
    torch.manual_seed(0)
    model = article_call(load_encoder(TINY, dropout=0.0), dropout_rate=0.0)
    inputs, labels = padded("right"), torch.tensor([0, 1, 0])
    optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=1e-2)
    losses = []
    for _ in range(20):
        loss = torch.nn.functional.cross_entropy(model(**inputs), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.1 * losses[0]
    restored = article_call(load_encoder(TINY, dropout=0.0), dropout_rate=0.0)
    restored.load_state_dict(model.state_dict())
    assert torch.equal(restored.eval()(**inputs), model.eval()(**inputs))


def test_a_call_without_tokens_says_what_is_missing(tiny_encoder):
    model = article_call(tiny_encoder)
    with pytest.raises(ValueError, match="input_ids=None: give a packed batch or input_ids"):
        model()
    inputs = padded("right")
    inputs["attention_mask"][1] = 0
    with pytest.raises(ValueError, match="every row must have a real token"):
        model(**inputs)


def test_under_autocast_the_encoder_computes_in_bf16(tiny_encoder):
    """As with ``dtype``, which this project uses; the head follows the caller's autocast."""
    model = article_call(tiny_encoder, task_type="squad_v1", num_classes=None).eval()
    ids = torch.randint(5, 200, (3, 9))
    exact = model(input_ids=ids)
    same = LoraWrapperRoberta.from_parts(
        model.encoder, model.head, per_token=True, dtype=torch.bfloat16
    )
    with torch.autocast("cpu", torch.bfloat16):
        found, expected = model(input_ids=ids), same.eval()(input_ids=ids)
    assert torch.equal(found, expected) and not torch.equal(found, exact)
    assert (found - exact).abs().max() < 0.05 * exact.abs().max()
    found.float().sum().backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
    assert torch.equal(model(input_ids=ids), exact)
    with torch.autocast("cpu", torch.float16), pytest.raises(ValueError, match="must be to torch"):
        model(input_ids=ids)


def test_another_encoder_is_used_once_it_is_set(tiny_encoder):
    model = article_call(tiny_encoder, lora_rank=None).eval()
    ids = torch.randint(5, 200, (3, 9))
    before = model(input_ids=ids)
    other = copy.deepcopy(model.encoder)
    with torch.no_grad():
        other.embeddings.word_embeddings.weight.mul_(3)
    model.encoder = other
    assert not torch.equal(model(input_ids=ids), before)


def test_weights_written_without_a_trace_are_used():
    """As by code that averages or merges weights through ``.data``."""
    model = LoraWrapperRoberta("glue", 2, 0.0, "random:tiny", lora_rank=4).eval()
    ids = torch.arange(3, 13)[None]
    before = model(input_ids=ids)
    weight = model.encoder.encoder.layer[0].attention.self.query.weight
    weight.data.mul_(2)
    changed = model(input_ids=ids)
    weight.data.div_(2)
    assert (changed - before).abs().max() > 1e-6
    assert torch.equal(model(input_ids=ids), before)


def test_what_the_wrapper_does_not_compute_is_refused():
    decoder = RobertaModel(tiny_config(is_decoder=True), add_pooling_layer=False)
    with pytest.raises(ValueError, match="model_id: is_decoder=True in its configuration"):
        LoraWrapperRoberta("glue", 2, 0.0, decoder)
    for arguments, name in (({"num_classes": -1}, "num_classes"), ({"dropout_rate": 1.0}, "drop")):
        with pytest.raises(ValueError, match=name):
            LoraWrapperRoberta("glue", **{"num_classes": 2, **arguments}, model_id="random:tiny")


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (torch.tensor([[1, 0, 1, 1]]), "padding must be before or after the real tokens"),
        (torch.tensor([[1, 1, 0, 0], [0, 0, 0, 0]]), "every row must have a real token"),
        (torch.ones(0, 4), "must have a row"),
        (torch.ones(1, 513), "more real tokens than the 512 positions"),
    ],
)
def test_a_mask_of_no_padded_batch_is_refused(mask, message):
    model = LoraWrapperRoberta("glue", 2, 0.0, "random:tiny")
    ids = torch.full(mask.shape, 5)
    with pytest.raises(ValueError, match=message):
        model(input_ids=ids, attention_mask=mask)
    if len(mask) == 1 and mask.shape[1] > 4:
        assert model(input_ids=ids[:, 1:], attention_mask=mask[:, 1:]).shape == (1, 2)
