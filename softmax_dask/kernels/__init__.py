"""Row kernels: the same names in each backend, all under one contract test.

`reference` is NumPy and the definition; `cpu` is Numba, `cuda` CUDA C++ through CuPy. A backend has

- `takes_planes(columns, classes)`, which says whether logits and wide columns may be planes,
- `writes_wide(dtype, floats)`, which says what dtype these may have,
- `softmax_rows(logits, out, temperature)`, which fills `out` with probabilities,
- `decision_rows(logits, targets, out, temperature)`, which fills each array of the dict `out`,
- `fills_tails(classes, k)`, which says whether `decision_rows` fills columns of the tail, beyond the k largest,
- `tail_rows(logits, labels, out, temperature)`, which does that as if the classes of `labels`, (rows, k), were masked,
- `jacobian_rows(logits, out, temperature, first=0, second=0)`, which fills `out`, (rows, height, breadth), with the
  entries first.., second.. of each row's Jacobian, and
- `jvp_rows`, `log_jvp_rows`, `log_vjp_rows(logits, vectors, out, temperature)`, which fill `out` with its products.

`reference` and `cpu` also have `count_rows(columns, targets, classes, into)`, which adds rows to `counts`: columns of
one value a row are small, and come to this machine's memory to be counted.

`logits`, vectors and wide arrays are (rows, classes), with classes next to each other, the others (rows,). Planes are
(groups, rows, classes) with rows next to each other, as (N, C, H, W) has them. Kernels check nothing,
allocate no result and raise nothing on purpose: `blocks` does that once, outside the loop.
"""
