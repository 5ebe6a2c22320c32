from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from pipeline.model.folding import folded, on_onednn
from pipeline.model.resunet_h import PUBLISHED_WIDTHS, ResUNetH

NARROW = (2, 3, 4, 5, 6)


def trained(norm: str = "batch", padding: str = "replicate") -> ResUNetH:
    """A narrow network whose BatchNorm layers have seen data, in evaluation mode."""
    torch.manual_seed(0)
    network = ResUNetH(NARROW, norm, padding)  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    for _ in range(3):
        network.train()(torch.randn(2, 1, 3, 32, 32) * 2 + 1)
    return network.eval()


def sample(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def test_the_published_network_has_the_published_number_of_parameters() -> None:
    network = ResUNetH(PUBLISHED_WIDTHS, norm="none")
    assert sum(parameter.numel() for parameter in network.parameters()) == 2_093_630


def test_every_parameter_takes_part_in_the_output() -> None:
    network = ResUNetH(NARROW)
    network(sample(1, 1, 2, 16, 16)).sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


@pytest.mark.parametrize("shape", [(1, 1, 32, 16), (3, 5, 32, 16), (1, 2, 16, 48)])
@pytest.mark.parametrize("norm", ["none", "batch", "instance"])
def test_the_output_has_two_channels_of_probabilities_and_the_size_of_the_input(
    shape: tuple[int, int, int, int], norm: str
) -> None:
    count, *size = shape
    output = trained(norm)(sample(count, 1, *size)).detach()
    assert output.shape == (count, 2, *size)
    assert float(output.min()) >= 0
    assert float(output.max()) <= 1


def test_the_probabilities_are_the_sigmoid_of_the_logits() -> None:
    network, x = trained(), sample(1, 1, 2, 16, 16)
    assert torch.equal(network(x), torch.sigmoid(network.logits(x)))


def test_the_two_outputs_have_decoders_of_their_own() -> None:
    network, x = trained(), sample(1, 1, 2, 16, 16)
    before = network(x)
    with torch.no_grad():
        for parameter in network.boundary.parameters():
            parameter.mul_(2.0)
    after = network(x)
    assert torch.equal(before[:, 0], after[:, 0])
    assert not torch.equal(before[:, 1], after[:, 1])


def test_replicate_padding_keeps_a_constant_image_constant_up_to_the_border() -> None:
    network = trained()
    output = network(torch.full((1, 1, 3, 32, 32), 0.7))
    assert torch.allclose(output, output[..., :1, :1, :1].expand_as(output), atol=1e-5)


def test_zero_padding_shows_at_the_border_of_a_constant_image() -> None:
    output = trained(padding="zeros")(torch.full((1, 1, 3, 32, 32), 0.7)).detach()
    assert float((output - output[..., 1:2, 16:17, 16:17]).abs().max()) > 1e-3


def test_the_memory_layout_does_not_change_the_result() -> None:
    network, x = trained(), sample(1, 1, 4, 32, 32)
    plain = network(x)
    last = network(x.to(memory_format=torch.channels_last_3d))
    assert torch.allclose(plain, last, atol=1e-5)


@pytest.mark.parametrize("padding", ["replicate", "zeros"])
def test_folding_batchnorm_away_keeps_the_function(padding: str) -> None:
    network, x = trained("batch", padding), sample(2, 1, 3, 32, 32)
    lean = folded(network)
    assert not any(isinstance(module, nn.BatchNorm3d) for module in lean.modules())
    assert torch.allclose(network(x), lean(x), atol=1e-5)


@pytest.mark.parametrize("norm", ["none", "instance"])
def test_folding_leaves_a_network_without_batchnorm_as_it_is(norm: str) -> None:
    network, x = trained(norm), sample(1, 1, 2, 16, 16)
    assert torch.equal(network(x), folded(network)(x))


def test_onednn_convolutions_keep_the_function() -> None:
    network, x = folded(trained()), sample(1, 1, 3, 32, 32)
    with torch.inference_mode():
        before = network(x)
        assert torch.allclose(on_onednn(network)(x), before, atol=1e-5)


def test_folding_leaves_the_original_alone() -> None:
    network, x = trained(), sample(1, 1, 2, 16, 16)
    before = network(x)
    with torch.no_grad():
        for parameter in folded(network).parameters():
            parameter.zero_()
    assert torch.equal(before, network(x))


def test_a_patch_is_predicted_the_same_whatever_lies_beside_it_in_the_batch() -> None:
    network, x = folded(trained()), sample(3, 1, 4, 32, 32)
    assert torch.allclose(network(x)[1:2], network(x[1:2]), atol=1e-5)
