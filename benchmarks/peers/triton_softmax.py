"""Softmax in Triton, a row a program. In a module of its own: Triton reads the source of its kernels."""

import triton
import triton.language as tl


@triton.jit
def softmax_kernel(logits, out, classes, BLOCK: tl.constexpr):  # noqa: N803  # Triton takes no other annotation
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, BLOCK)
    mask = columns < classes
    x = tl.load(logits + row * classes + columns, mask=mask, other=-float("inf")).to(tl.float32)
    terms = tl.exp(x - tl.max(x, axis=0))
    tl.store(out + row * classes + columns, terms / tl.sum(terms, axis=0), mask=mask)
