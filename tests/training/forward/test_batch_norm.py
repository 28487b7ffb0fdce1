"""BatchNorm with detached statistics: the graph is freed, and penalties on weight gradients go through it."""

import copy
import gc
import weakref

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import flatprobe as fp
from flatprobe.training.transforms import FGSM
from tests.helpers.cases import batch, normalised_network


def test_property_a_pass_over_batch_norm_frees_its_graph() -> None:
    """A circle through autograd's graph is invisible to Python's collector: each pass would stay for good."""
    network = normalised_network()
    inputs, labels = batch()
    passed = fp.ForwardPass(network, inputs, labels)
    FGSM(0.1)(passed)
    means = [weakref.ref(mean) for mean, _ in passed._statistics._taken]
    assert means
    del passed
    gc.collect()
    assert [mean() for mean in means] == [None] * len(means)


def test_a_penalty_on_the_gradient_in_the_weights_goes_through_batch_norm() -> None:
    """Slow reference: torch's own BatchNorm differentiates twice where nothing is held."""
    inputs, labels = batch()
    network = normalised_network()
    plain = copy.deepcopy(network)

    def squares(loss: Tensor, module: nn.Module) -> Tensor:
        gradients = torch.autograd.grad(loss, list(module.parameters()), create_graph=True)
        return torch.stack([g.square().sum() for g in gradients]).sum()

    squares(fp.ForwardPass(network, inputs, labels).loss, network).backward()
    squares(F.cross_entropy(plain(inputs), labels), plain).backward()
    for (name, own), expected in zip(network.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(own.grad, expected.grad, rtol=1e-8, atol=1e-10, msg=name)
