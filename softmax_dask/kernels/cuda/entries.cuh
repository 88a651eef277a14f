// One line a kernel, appended by text.py: what CuPy and the emulator call.
#define ROW_KERNEL(name, T, O, threads, resident, body)                                                              \
  KERNEL(threads, resident)                                                                                          \
  name(const T* logits, i64 stride, i64 rows, int classes, int batch, Number<T>::Float a, Number<T>::Float a_lost,   \
       Number<T>::Float a_inverse, double inverse, double inverse_lost, Number<T>::Float near,                       \
       Number<T>::Float near_lost, const i64* targets, int* label, Number<T>::Float* confidence,                     \
       Number<T>::Float* margin, Number<T>::Float* entropy, Number<T>::Float* logsumexp, Number<T>::Float* max_logit, \
       Number<T>::Float* nll, Number<T>::Float* target_probability, Number<T>::Float* brier, int* target_rank,       \
       O* probabilities, O* log_probabilities) {                                                                     \
    const Temperature<Number<T>::Float> t = {{a, a_lost, a_inverse}, inverse, inverse_lost, near, near_lost};        \
    const Columns<Number<T>::Float, O> out = {label, confidence, margin, entropy, logsumexp, max_logit, nll,         \
                                              target_probability, brier, target_rank, probabilities,                 \
                                              log_probabilities};                                                    \
    body(logits, stride, rows, classes, batch, t, targets, out);                                                     \
  }
#define TOP_K_KERNEL(name, T, threads, members)                                                                      \
  KERNEL(threads, 384)                                                                                               \
  name(const T* logits, i64 stride, i64 rows, int classes, int k, Number<T>::Float a, Number<T>::Float a_lost,       \
       Number<T>::Float a_inverse, const Number<T>::Float* confidence, int* labels, Number<T>::Float* probabilities) { \
    const Scale<Number<T>::Float> scale = {a, a_lost, a_inverse};                                                    \
    top_k_rows<T, members>(logits, stride, rows, classes, k, scale, confidence, labels, probabilities);              \
  }
#define SHARE_KERNEL(name, T, threads, members)                                                                      \
  KERNEL(threads, 384)                                                                                               \
  name(const T* logits, i64 stride, i64 rows, int classes, Number<T>::Float a, Number<T>::Float a_lost,              \
       Number<T>::Float a_inverse, Number<T>::Float root, Number<T>::Float* shares, int* winners,                    \
       Number<T>::Float* rests) {                                                                                    \
    const Scale<Number<T>::Float> scale = {a, a_lost, a_inverse};                                                    \
    share_rows<T, members>(logits, stride, rows, classes, scale, root, shares, winners, rests);                      \
  }
#define MATRIX_KERNEL(name, A)                                                                                       \
  KERNEL(BLOCK, 384)                                                                                                 \
  name(const A* shares, const int* winners, const A* rests, i64 rows, int classes, A root, int first, int height,    \
       int second, int breadth, A* out) {                                                                            \
    matrix_rows<A>(shares, winners, rests, rows, classes, root, first, height, second, breadth, out);                \
  }
#define PRODUCT_KERNEL(name, T, threads, members, kind)                                                              \
  KERNEL(threads, 384)                                                                                               \
  name(const T* logits, i64 stride, const Number<T>::Float* vectors, i64 vector_stride, i64 rows, int classes,       \
       Number<T>::Float a, Number<T>::Float a_lost, Number<T>::Float a_inverse, Number<T>::Float root,               \
       Number<T>::Float* out) {                                                                                      \
    const Scale<Number<T>::Float> scale = {a, a_lost, a_inverse};                                                    \
    product_rows<T, members, kind>(logits, stride, vectors, vector_stride, rows, classes, scale, root, out);         \
  }
