"""av-transformer: one encoder for both modalities, unimodal heads that see nothing of the other."""

import pytest
import torch

import gradsurgery as gs
from gradsurgery.compare import Plan
from gradsurgery.compare.checking import check_task
from gradsurgery.compare.loop import Loop, endless, seeded
from gradsurgery.tasks import get_task
from gradsurgery.tasks.av_transformer import TOKENS, TokenTransformer
from tests.support.tasks import loaded


@pytest.fixture
def net():
    torch.manual_seed(0)
    return TokenTransformer().double()


def drawn(count=4):
    generator = torch.Generator().manual_seed(1)
    return (
        torch.randn(count, 1, 14, 14, generator=generator, dtype=torch.float64),
        torch.randn(count, 24, 13, generator=generator, dtype=torch.float64),
    )


@pytest.mark.quick
def test_a_modality_is_read_without_the_other_and_fused_from_both(net):
    image, audio = drawn()
    first, other = net(image, audio), net(image + 1, audio)
    assert torch.equal(first["audio"], other["audio"])
    assert not torch.allclose(first["image"], other["image"])
    assert not torch.allclose(first["fused"], other["fused"])
    assert torch.equal(first["image"], net(image, audio + 1)["image"])


@pytest.mark.quick
def test_it_is_attention_among_all_tokens_with_a_mask(net):
    image, audio = drawn()
    tokens = torch.cat(
        [
            net.embeddings[m](x.reshape(-1, *TOKENS[m])) + net.places[m]
            for m, x in (("image", image), ("audio", audio))
        ],
        1,
    )
    own = torch.arange(19) < 7  # the image's
    for name, kept in (("image", own), ("audio", ~own)):
        masked = net.encoder(tokens, src_key_padding_mask=(~kept).expand(4, -1))
        expected = net.heads[name](masked[:, kept].mean(1))
        assert torch.allclose(net(image, audio)[name], expected)


@pytest.mark.quick
def test_the_encoder_is_one_group_of_three():
    net = TokenTransformer()
    image, audio = (x.float() for x in drawn())
    losses = {name: logits.square().mean() for name, logits in net(image, audio).items()}
    record = gs.inspect(losses, net)
    shared = sum(p.numel() for p in net.encoder.parameters())
    assert set(record) == {
        *("audio+fused+image", "audio+fused", "fused+image"),
        *("fused", "image", "audio"),
    }
    assert shared > 15_000


def test_a_few_steps_learn():
    problem, chosen = loaded("av-transformer"), get_task("av-transformer")
    with seeded(0):
        loop = Loop(problem, gs.get_strategy("mmpareto"), seed=0, lr=chosen.lr, steps=30)
        draw = endless(problem)
        for _ in range(30):
            loop.step(draw)
        loop.model.eval()
        with torch.no_grad():
            figures = problem.evaluate(loop.model, "validation")
    assert figures["fused"] > 20
    assert figures["image"] > 13


@pytest.mark.exhaustive
def test_the_check_finds_nothing_wrong():
    loaded("av-transformer")
    names = ["sum", "mmpareto", "mgda", "pcgrad", "agm", "ogm-ge", "modo", "famo"]
    plan = Plan.of(["av-transformer"], names, [0])
    found = check_task(plan, plan.tasks[0])
    assert found.wrong == found.notes == []
    assert get_task("av-transformer").primary == "fused"
