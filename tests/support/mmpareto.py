"""MMPareto's official procedure, written out tensor by tensor with four backward passes."""

import torch


def min_norm_of_two(first, second):
    """The official solver's two-task case in the interior: α for the first, by the line search
    formula.
    """
    v11, v12, v22 = (
        float((a * b).sum()) for a, b in ((first, first), (first, second), (second, second))
    )
    if v12 >= v11:
        return 1.0
    if v12 >= v22:
        return 0.0
    return (v22 - v12) / (v11 + v22 - 2 * v12)


def official_procedure(model, losses, gamma):
    """Each loss backpropagated alone, then their sum; per encoder the cosine decides; the length
    per tensor; times γ.
    """
    collected = {}
    for name in ("fused", "audio", "visual"):
        model.zero_grad()
        losses[name].backward(retain_graph=True)
        collected[name] = {
            n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None
        }
    model.zero_grad()
    sum(losses.values()).backward(retain_graph=True)
    conflicts = 0
    for encoder in ("audio", "visual"):
        names = [n for n, _ in model.named_parameters() if n.startswith(f"{encoder}.")]
        joint, alone = (
            torch.cat([collected[o][n].flatten() for n in names]) for o in ("fused", encoder)
        )
        share = 0.5
        if float(torch.nn.functional.cosine_similarity(joint, alone, dim=0)) <= 0:
            conflicts += 1
            share = min_norm_of_two(joint, alone)
        for n, p in model.named_parameters():
            if n in names:
                new = 2 * share * collected["fused"][n] + 2 * (1 - share) * collected[encoder][n]
                ratio = p.grad.norm() / new.norm()
                p.grad = new * gamma * (ratio if ratio > 1 else 1.0)
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}, conflicts
