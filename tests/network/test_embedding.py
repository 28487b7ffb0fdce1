"""fp.at_embedding: the same function of the embeddings, sample by sample, and what it refuses."""

import copy

import pytest
import torch
from torch import Tensor, nn

import flatprobe as fp
from flatprobe.data import LabelledData
from flatprobe.network import embedding
from tests.helpers import foreign
from tests.helpers.properties import assert_model_untouched, streamed


class Reads(nn.Module):
    """A text network of one tensor that reads padding and lengths from the integers themselves."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(foreign.WORDS, 5), nn.Linear(5, foreign.CLASSES)

    def forward(self, ids: Tensor) -> Tensor:
        real = (ids != 0).to(self.head.weight)
        return self.head((self.table(ids) * real[:, :, None]).sum(1) / real.sum(1, keepdim=True))


class Shared(Reads):
    """The table is also registered elsewhere, and its values are the output weights."""

    def __init__(self) -> None:
        super().__init__()
        self.again = nn.ModuleList([self.table])

    def forward(self, ids: Tensor) -> Tensor:
        hidden = self.again[0](ids).mean(1).tanh()
        return hidden @ self.table.weight[: foreign.CLASSES].T


TEXTS = {
    "bert": (foreign.bert, lambda: {"input_ids": foreign.ids(), "attention_mask": foreign.mask()}),
    "bert with token types": (
        foreign.bert,
        lambda: {"token_type_ids": foreign.mask(), "input_ids": foreign.ids(), "attention_mask": foreign.mask()},
    ),
    "encoder": (foreign.MODELS["encoder"], lambda: (foreign.ids(), foreign.mask())),
    "32-bit integers": (foreign.MODELS["encoder"], lambda: (foreign.ids().int(), foreign.mask())),
    "reads": (lambda: foreign.built(Reads), foreign.ids),
    "shared": (lambda: foreign.built(Shared), foreign.ids),
    "sequence": (
        lambda: foreign.built(lambda: nn.Sequential(nn.Embedding(17, 3), nn.Flatten(), nn.Linear(18, 4))),
        foreign.ids,
    ),
}


@pytest.mark.parametrize("held", [True, False])
@pytest.mark.parametrize("name", TEXTS)
def test_closed_form_the_embedded_samples_have_the_networks_own_logits(
    name: str, held: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, inputs = TEXTS[name]
    model, data = make(), LabelledData(inputs(), foreign.labels(), source={"name": "words"})
    if not held:
        monkeypatch.setattr(embedding, "_HELD", 0)
    wrapped, embedded = fp.at_embedding(model, data)
    assert ("in memory" in repr(embedded)) is held
    expected = foreign.logits(model, data.inputs).detach()
    rows = [foreign.logits(wrapped, batch.inputs).detach() for batch in embedded.batches(4)]
    torch.testing.assert_close(torch.cat(rows), expected, rtol=0, atol=1e-12)
    assert torch.equal(embedded.labels, data.labels)
    assert embedded.source == {"name": "words", "at_embedding": wrapped_layer(name)}
    margins = fp.functional_margins(wrapped, embedded, batch_size=4).values
    torch.testing.assert_close(margins, fp.functional_margins(model, data, batch_size=4).values, rtol=0, atol=1e-12)


def wrapped_layer(name: str) -> str:
    return "bert.embeddings.word_embeddings" if name.startswith("bert") else "0" if name == "sequence" else "table"


def test_property_masked_tokens_do_not_matter_and_others_do() -> None:
    model, data = fp.at_embedding(foreign.bert(), foreign.data("bert"))
    inputs = dict(data.inputs)
    variable = inputs["embeddings"].clone().requires_grad_()
    model(**{**inputs, "embeddings": variable}).logits.square().sum().backward()
    slopes = variable.grad.square().sum(2)
    assert torch.equal(slopes > 0, foreign.mask() == 1)


@pytest.mark.parametrize("name", ["bert", "encoder", "shared"])
def test_property_the_model_is_not_touched_and_not_shared(name: str) -> None:
    make, inputs = TEXTS[name]
    model, data = make(), LabelledData(inputs(), foreign.labels())
    assert_model_untouched(model, lambda: fp.at_embedding(model, data))
    wrapped, embedded = fp.at_embedding(model, data)
    before = fp.functional_margins(wrapped, embedded).values
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    assert torch.equal(fp.functional_margins(wrapped, embedded).values, before)
    assert wrapped.training is False


def test_property_streamed_data_and_float32_and_float16_networks_are_taken() -> None:
    for dtype in (torch.float32, torch.float16):
        model, data = foreign.bert().to(dtype), foreign.data("bert")
        wrapped, embedded = fp.at_embedding(model, streamed(data))
        assert embedded.inputs["embeddings"].dtype == dtype
        assert torch.equal(fp.functional_margins(wrapped, embedded).values, fp.functional_margins(model, data).values)


def test_the_table_is_no_parameter_and_the_layer_may_be_named() -> None:
    model, data = foreign.bert(), foreign.data("bert")
    named, _ = fp.at_embedding(model, data, embedding="bert.embeddings.word_embeddings")
    names = {f"network.{name}" for name, _ in model.named_parameters()}
    assert names - {name for name, _ in named.named_parameters()} == {"network.bert.embeddings.word_embeddings.weight"}


class Twice(Reads):
    def forward(self, ids: Tensor) -> Tensor:
        return self.head((self.table(ids) + self.table(ids.flip(1))).mean(1))


class Functional(Reads):
    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.table.weight[ids].mean(1))


class Shifts(Reads):
    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.table(ids.flip(1)).mean(1))


class Two(Reads):
    def __init__(self) -> None:
        super().__init__()
        self.other = nn.Embedding(foreign.WORDS, 5)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head((self.table(ids) + self.other(ids)).mean(1))


REFUSED = {
    "twice": (Twice, None, r"0 of .* \('table'\) receive one of the inputs once per pass; expected exactly one"),
    "never": (Functional, None, r"0 of .* \('table'\) receive one of the inputs"),
    "shifted": (Shifts, None, r"0 of .* \('table'\) receive one of the inputs"),
    "two": (Two, None, r"2 of .* receive one of the inputs once per pass: 'table', 'other'; .*embedding="),
    "unknown": (Reads, "words", r"no layer 'words'; its embedding layers are table"),
    "another layer": (Reads, "head", r"0 of .* \('head'\) receive one of the inputs"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_layers_that_cannot_be_told_are_refused(name: str) -> None:
    make, layer, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        fp.at_embedding(foreign.built(make), LabelledData(foreign.ids(), foreign.labels()), embedding=layer)


def test_one_of_two_layers_that_are_fed_the_inputs_may_be_named() -> None:
    model, data = foreign.built(Two), LabelledData(foreign.ids(), foreign.labels())
    wrapped, embedded = fp.at_embedding(model, data, embedding="other")
    assert torch.equal(fp.functional_margins(wrapped, embedded).values, fp.functional_margins(model, data).values)
    assert embedded.source == {"at_embedding": "other"}


def test_a_layer_that_sees_more_than_its_input_is_refused() -> None:
    """BERT's whole embedding block is fed the integers, and token types and positions beside them."""
    inputs = {"input_ids": foreign.ids(), "attention_mask": foreign.mask(), "token_type_ids": foreign.mask()}
    data = LabelledData(inputs, foreign.labels())
    with pytest.raises(
        ValueError, match=r"the output of 'bert.embeddings' as input, the logits differ by up to .* name"
    ):
        fp.at_embedding(foreign.bert(), data, embedding="bert.embeddings")


def test_floating_inputs_and_other_kinds_are_refused() -> None:
    with pytest.raises(TypeError, match=r"inputs\['pixel_values'\] is floating \(torch.float64\); expected integers"):
        fp.at_embedding(foreign.vit(), foreign.data("vit"))
    model = foreign.bert()
    with pytest.raises(ValueError, match="in training mode"):
        fp.at_embedding(copy.deepcopy(model).train(), foreign.data("bert"))
    onehot = nn.Sequential(nn.Flatten(), Onehot(), nn.Linear(17, 4)).double().eval()
    with pytest.raises(ValueError, match=r"0 of .* \(there is no nn\.Embedding\) receive"):
        fp.at_embedding(onehot, LabelledData(foreign.ids(), foreign.labels()))


class Onehot(nn.Module):
    def forward(self, ids: Tensor) -> Tensor:
        return nn.functional.one_hot(ids, 17).double().mean(1)
