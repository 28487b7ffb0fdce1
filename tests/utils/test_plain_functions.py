"""Torch functions whose options or fast paths change a gradient or a value."""

import warnings

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import flatprobe as fp
from flatprobe.network.network import Network
from tests.helpers import foreign, strange

TOKENS = fp.LabelledData(torch.randint(0, 7, (20, 3), generator=torch.Generator().manual_seed(2)), torch.arange(20) % 3)


class Tokens(nn.Module):
    def __init__(self, **options: object) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(7, 4, **options), nn.Linear(12, 3)
        with torch.no_grad():
            self.table.weight.normal_()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.table(x).flatten(1).tanh())


@pytest.mark.parametrize(
    "options", [{"padding_idx": 0}, {"padding_idx": 2}, {"sparse": True}, {"scale_grad_by_freq": True}]
)
def test_slow_reference_embeddings_are_differentiated_as_the_function_is(options: dict[str, object]) -> None:
    """Of the function of all weights: the padding row is read, and moves with the others along a direction."""
    plain, model = strange.seeded(lambda: Tokens().double()), strange.seeded(lambda: Tokens(**options).double())
    risk = fp.EmpiricalRisk(model, TOKENS)
    weights = {name: value.clone() for name, value in plain.named_parameters()}

    def loss(table: Tensor) -> Tensor:
        logits = torch.func.functional_call(plain, {**weights, "table.weight": table}, (TOKENS.inputs,))
        return F.cross_entropy(logits, TOKENS.labels)

    table = weights["table.weight"].detach()
    expected = torch.func.grad(loss)(table)
    found = risk.gradient()["table.weight"]
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
    hessian = torch.autograd.functional.hessian(loss, table).reshape(28, 28)
    largest = float(torch.linalg.eigvalsh(hessian)[-1])
    assert float(fp.hessian_eigenvalues(risk, parameters="table.*").eigenvalues[0]) == pytest.approx(largest, rel=1e-4)
    assert model.table.sparse == options.get("sparse", False)


def test_a_padding_row_that_is_tied_elsewhere_is_differentiated_as_the_function_is() -> None:
    class Tied(Tokens):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + F.linear(self.table(x).mean(1), self.other.weight)[:, :3]

    def model(**options: object) -> nn.Module:
        made = strange.seeded(lambda: Tied(**options).double())
        made.other = nn.Linear(4, 7, bias=False)
        made.other.weight = made.table.weight
        return made.double().eval()

    found, expected = (fp.EmpiricalRisk(model(**options), TOKENS).gradient() for options in ({"padding_idx": 2}, {}))
    torch.testing.assert_close(found["table.weight"], expected["table.weight"], rtol=1e-12, atol=1e-12)


def test_ones_own_call_of_a_sparse_embedding_is_differentiated_too() -> None:
    class Own(Tokens):
        def forward(self, x: Tensor) -> Tensor:
            return self.head(F.embedding(x, self.table.weight, 2, sparse=True).flatten(1).tanh())

    found = fp.EmpiricalRisk(strange.seeded(lambda: Own().double()), TOKENS).gradient()["table.weight"]
    expected = fp.EmpiricalRisk(strange.seeded(lambda: Tokens().double()), TOKENS).gradient()["table.weight"]
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("options", [{"sparse": True}, {"scale_grad_by_freq": True}])
def test_bags_of_embeddings_are_differentiated_as_the_function_is(options: dict[str, object]) -> None:
    class Bag(nn.Module):
        def __init__(self, **options: object) -> None:
            super().__init__()
            self.table, self.head = nn.EmbeddingBag(7, 4, mode="sum", padding_idx=1, **options), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.table(x).tanh())

    def gradient(**options: object) -> Tensor:
        return fp.EmpiricalRisk(strange.seeded(lambda: Bag(**options).double()), TOKENS).gradient()["table.weight"]

    found, expected = gradient(**options), gradient()
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_torchs_encoder_is_one_function_with_and_without_gradients_whatever_the_batch() -> None:
    """Torch's fast path cuts padded tokens off: 0.27 in the logits, and a length that is the batch's own."""
    model, data = foreign.MODELS["encoder"](), foreign.data("encoder")
    with_gradients = model(*data.inputs).detach()
    before = torch.backends.mha.get_fastpath_enabled()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # nested tensors are a prototype
        assert float((model(*data.inputs) - with_gradients).abs().max()) > 1e-2
    network = Network(model)
    with torch.no_grad():
        found = torch.cat([network(batch.inputs) for batch in data.batches(3)])
    torch.testing.assert_close(found, with_gradients, rtol=0, atol=1e-12)
    assert torch.backends.mha.get_fastpath_enabled() is before is True
