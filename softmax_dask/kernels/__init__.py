"""Row kernels: the same names in each backend, all under one contract test.

`reference` is NumPy and the definition; `cpu` is Numba. A backend has

- `softmax_rows(logits, out, temperature)`, which fills `out` with probabilities, and
- `decision_rows(logits, targets, out, temperature)`, which fills each array of the dict `out`.

`logits` and wide arrays are (rows, classes), the others (rows,). Kernels check nothing,
allocate no result and raise nothing on purpose: `blocks` does that once, outside the loop.
"""
