r"""The second-order meta-gradient step by step backwards, with one step's graph in memory.

Differentiating through the inner loop keeps the graphs of all its steps. But the chain rule needs
of each step only its parameters :math:`\theta'_s`:

.. math:: g_S = \nabla L_\text{query}(\theta'_S), \qquad
   g_s = g_{s+1} - \alpha \nabla^2 L_\text{support}(\theta'_s) \, g_{s+1}

and a Hessian-vector product costs a forward derivative of the gradient. Memory is that of one step
whatever their number; the price is that each step's gradient is computed twice, about 1.3 times the
work. Parameters outside the scope get their share from the mixed derivatives.
"""

from torch import Tensor
from torch.func import grad, grad_and_value, jvp

from mutmeta_lib.learn.inner import Batch, InnerLoop, Loss, Params
from mutmeta_lib.learn.scope import adapted_names


def recursive_task_gradient(
    loss: Loss, params: Params, support: Batch, query: Batch, loop: InnerLoop
) -> tuple[Tensor, Params]:
    """Query loss after adaptation and its gradient by the start, as ``meta.task_gradient``."""
    names = adapted_names(params, loop.scope)
    adapted = {name: params[name] for name in names}
    path = []
    for _ in range(loop.steps):
        path.append(adapted)
        slope = grad(lambda changed: loss({**params, **changed}, support))(adapted)
        adapted = {name: value - loop.lr * slope[name] for name, value in adapted.items()}
    gradient, value = grad_and_value(loss)({**params, **adapted}, query)
    if loop.first_order:
        return value, gradient

    def slope_at(changed: Params) -> Params:
        return grad(loss)({**params, **changed}, support)

    for point in reversed(path):
        direction = {name: gradient[name] for name in names}
        _, turned = jvp(slope_at, (point,), (direction,))
        gradient = {name: g - loop.lr * turned[name] for name, g in gradient.items()}
    return value, gradient
