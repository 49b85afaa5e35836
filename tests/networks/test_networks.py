"""What every network promises, asked of each class in the room, and what each adds."""

import pytest
import torch
from checks import members, refused
from torch import nn

import pyrovae.networks
from pyrovae.networks import MLP, ConvDecoder, ConvEncoder, Network, ResNetDecoder, ResNetEncoder
from pyrovae.networks.network import activations

pytestmark = pytest.mark.usefixtures("float64")
picture_pairs = [((6, 6), (6, 6)), ((2, 7, 5), (3, 4, 9)), ((1, 28, 28), (28, 28)), ((1, 1), (2, 1, 3))]


class Transposed(ConvDecoder):
    """A decoder that goes up by transposed convolutions."""

    def __init__(self, *args, **options):
        super().__init__(*args, upsampling="transposed", **options)


@pytest.mark.parametrize("cls", [*members(pyrovae.networks, Network), Transposed])
class TestEvery:
    @pytest.mark.parametrize(("in_shape", "out_shape"), picture_pairs)
    @pytest.mark.parametrize("batch", [(), (3,), (2, 3), (2, 1, 3)])
    def test_any_number_of_batch_dimensions(self, cls, in_shape, out_shape, batch):
        network = cls(in_shape, out_shape)
        x = torch.randn(*batch, *in_shape)
        y = network(x)
        assert y.shape == (*batch, *out_shape)
        assert y.dtype == torch.float64
        one_by_one = [network(row) for row in x.reshape(-1, *in_shape)]
        torch.testing.assert_close(y.reshape(-1, *out_shape), torch.stack(one_by_one))

    def test_a_gradient_reaches_every_parameter_and_the_input(self, cls):
        network = cls((2, 6, 6), (2, 5, 5))
        x = torch.randn(3, 2, 6, 6, requires_grad=True)
        network(x).square().sum().backward()
        assert all(value.grad.norm() > 0.0 for value in [x, *network.parameters()])

    def test_shapes_of_another_kind_of_sequence(self, cls):
        assert cls([6, 6], [2, 5, 5])(torch.randn(3, 6, 6)).shape == (3, 2, 5, 5)

    @pytest.mark.parametrize("shape", [(3, 6, 5), (6,), (3, 36), (6, 6, 3)])
    def test_an_input_of_another_shape_is_refused(self, cls, shape):
        with refused(cls.__name__, "(*batch, 6, 6)", "in_shape="):
            cls((6, 6), (6, 6))(torch.zeros(shape))

    def test_its_output_starts_where_it_is_told(self, cls):
        """Up to what its weights add, which two values share."""
        network, x = cls((6, 6), (2, 5, 5)), torch.randn(3, 6, 6)
        outputs = []
        for value in (0.5, -2.0):
            network.start_output_at(torch.full((2, 5, 5), value))
            outputs.append(network(x))
        torch.testing.assert_close(outputs[0] - outputs[1], torch.full_like(outputs[0], 2.5))
        with torch.no_grad():
            for name, parameter in network.named_parameters():
                if name.endswith("weight"):
                    parameter.zero_()
        torch.testing.assert_close(network(x), torch.full_like(outputs[0], -2.0))

    def test_a_state_dict_makes_the_same_network(self, cls):
        one, other = (cls((6, 6), (2, 5, 5)) for _ in range(2))
        x = torch.randn(3, 6, 6)
        assert not torch.equal(one(x), other(x))
        other.load_state_dict(one.state_dict())
        assert torch.equal(one(x), other(x))

    @pytest.mark.parametrize("activation", activations)
    def test_every_activation(self, cls, activation):
        network = cls((6, 6), (2, 5, 5), activation=activation)
        kinds = {type(module) for module in network.modules()} & {*activations.values()}
        assert kinds == {activations[activation]}
        x = torch.randn(3, 6, 6)
        assert not torch.allclose(network(x) + network(-x), 2 * network(torch.zeros_like(x)), atol=1e-6)


class TestMLP:
    @pytest.mark.parametrize("hidden", [(), (7,), (7, 8, 9)])
    def test_its_layers_have_the_widths_asked_for(self, hidden):
        network = MLP((2, 3), (2, 5), hidden=hidden)
        linear = [layer for layer in network.layers if isinstance(layer, nn.Linear)]
        assert [(layer.in_features, layer.out_features) for layer in linear] == list(
            zip((6, *hidden), (*hidden, 10), strict=True)
        )
        assert network(torch.randn(4, 2, 3)).shape == (4, 2, 5)

    def test_it_is_the_composition_of_its_layers(self):
        network = MLP((3,), (2,), hidden=(4,))
        x = torch.randn(5, 3)
        first, last = network.layers[0], network.layers[-1]
        expected = (x @ first.weight.T + first.bias).tanh() @ last.weight.T + last.bias
        torch.testing.assert_close(network(x), expected)

    def test_its_output_starts_at_a_value_of_its_own_for_each_number(self):
        network = MLP((3,), (2, 2), hidden=())
        value = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
        network.start_output_at(value)
        torch.testing.assert_close(network(torch.zeros(5, 3)), value.expand(5, 2, 2))


class TestConvolutions:
    @pytest.mark.parametrize("channels", [(4,), (4, 8), (4, 8, 16)])
    @pytest.mark.parametrize("picture", [(28, 28), (5, 9), (1, 2)])
    def test_any_picture_and_depth(self, channels, picture):
        encoder = ConvEncoder(picture, (2, 3), channels=channels)
        assert encoder(torch.randn(4, *picture)).shape == (4, 2, 3)
        assert [layer.out_channels for layer in encoder.convolutions if isinstance(layer, nn.Conv2d)] == [*channels]
        decoder = ConvDecoder((3,), picture, channels=channels[::-1])
        assert decoder(torch.randn(4, 3)).shape == (4, *picture)
        assert [layer.in_channels for layer in decoder.convolutions if isinstance(layer, nn.Conv2d)] == [*channels[::-1]]

    def test_leading_dimensions_become_channels(self):
        decoder = ConvDecoder((3,), (2, 3, 8, 8))
        assert decoder.convolutions[-1].out_channels == 6
        assert decoder(torch.randn(4, 5, 3)).shape == (4, 5, 2, 3, 8, 8)

    def test_the_output_starts_at_the_mean_of_each_channel(self):
        decoder = ConvDecoder((3,), (2, 8, 8))
        value = torch.randn(2, 8, 8)
        decoder.start_output_at(value)
        torch.testing.assert_close(decoder.convolutions[-1].bias, value.mean((1, 2)))

    def test_an_upper_pixel_stays_above(self):
        """The rows and columns of the picture are not mixed up: what an output pixel sees is what lies near it."""
        decoder = ConvDecoder((3,), (8, 12), channels=(2, 2))
        convolutions = decoder.convolutions
        features = torch.zeros(1, *decoder.first, requires_grad=True)
        convolutions(features + torch.rand_like(features))[0, 0, 0, 11].backward()
        seen = features.grad[0].abs().sum(0).nonzero()
        assert decoder.first == (2, 2, 3)
        assert seen[:, 0].max() <= 1
        assert seen[:, 1].min() >= 1

    @pytest.mark.parametrize("upsampling", ["resize", "transposed"])
    def test_no_checkerboards(self, upsampling):
        """Constant features make constant pictures, away from the edges."""
        decoder = ConvDecoder((3,), (32, 32), channels=(2,), upsampling=upsampling)
        with torch.no_grad():
            for name, value in decoder.convolutions.named_parameters():
                if name.endswith("weight"):
                    value.fill_(1.0)
            picture = decoder.convolutions(torch.ones(1, *decoder.first))[0, 0, 4:-4, 4:-4]
        torch.testing.assert_close(picture, torch.full_like(picture, picture[0, 0].item()))

    def test_another_way_up_is_refused(self):
        with refused("upsampling", "'bilinear'", "'resize'", "'transposed'"):
            ConvDecoder((3,), (8, 8), upsampling="bilinear")

    @pytest.mark.parametrize(
        "build",
        [
            lambda: ConvEncoder((784,), (2,)),
            lambda: ConvDecoder((2,), (784,)),
            lambda: ResNetEncoder((784,), (2,)),
            lambda: ResNetDecoder((2,), (784,)),
        ],
    )
    def test_shapes_that_are_no_picture_are_refused(self, build):
        with refused("(784,)", "(channels, height, width)", "MLP"):
            build()


class TestResNets:
    @pytest.mark.parametrize("channels", [(8,), (4, 8), (4, 8, 16)])
    @pytest.mark.parametrize("blocks", [1, 3])
    def test_any_depth(self, channels, blocks):
        encoder = ResNetEncoder((9, 5), (2, 3), channels=channels, blocks=blocks)
        decoder = ResNetDecoder((3,), (2, 9, 5), channels=channels[::-1], blocks=blocks)
        assert encoder(torch.randn(4, 9, 5)).shape == (4, 2, 3)
        assert decoder(torch.randn(4, 3)).shape == (4, 2, 9, 5)
        for network in (encoder, decoder):
            assert sum(type(layer).__name__ == "_Residual" for layer in network.convolutions) == blocks * len(channels)

    def test_a_block_adds_to_what_it_is_given(self):
        block = ResNetEncoder((6, 6), (2,), channels=(8,), blocks=1).convolutions[1]
        x = torch.randn(3, 8, 6, 6)
        with torch.no_grad():
            block.branch[-1].weight.zero_()
            block.branch[-1].bias.zero_()
        assert torch.equal(block(x), x)
