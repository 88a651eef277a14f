// From what was found in a row to its columns. See softmax_dask/kernels/cpu/finish.py.
enum { DECIDE = 1, ENTROPY = 2, RANK = 4, SQUARES = 8, WIDE = 16 };  // what a kernel is for; 0 is probabilities alone

template <typename A, typename O> struct Columns {  // null where a column is not wanted
  int* label;
  A *confidence, *margin, *entropy, *logsumexp, *max_logit, *nll, *target_probability, *brier;
  int* target_rank;
  O *probabilities, *log_probabilities;
};

template <typename A> struct Temperature {
  Scale<A> scale;
  double inverse, inverse_lost;  // 1 / temperature in two parts
  A near, near_lost;             // the same in the arithmetic of the row
};

// w is the winner: the class of the largest logit, the lowest one on ties. Sums are relative to Powers(peak).
template <typename A> struct Found {
  A peak, second;        // x_w, and the largest of the other logits
  double total, weight;  // sum of the exponentials of the others, and of each times its log2
  double squares;        // sum of their squares
  int winner, rank;      // rank of the target
};

// x * inverse + more; no correction where that overflows: it could be inf - inf.
template <typename A> DEVICE A over_temperature(A x, A inverse, A lost, A more) {
  const A product = x * inverse;
  return is_finite(product) ? fused(x, inverse, fused(x, lost, more)) : product + more;
}
template <typename A> DEVICE double over_temperature(double x, Temperature<A> t, double more) {
  return over_temperature(x, t.inverse, t.inverse_lost, more);
}

// The probability of a class is its exponential times this. Of a peak that is not finite, NaN comes of itself: +inf has
// the exponential NaN, and where all is -inf the exponentials are 0 and 0 / 0.
template <typename T, typename A> DEVICE A share_of(const Found<A>& found, const Powers<T>& powers) {
  return (A)1 / (A)(found.total + (double)powers.of(found.peak));
}
// log(sum of exponentials) relative to the winner's own: its log-probability is minus this.
template <typename T, typename A> DEVICE A log_sum_of(const Found<A>& found, const Powers<T>& powers) {
  const A one = powers.of(found.peak);
  return log1p_of((A)found.total / one, one * share_of<T>(found, powers));
}

// Differences of exponentials come before divisions: a tie has a margin of exactly 0, and a winner that is the target a
// rest of exactly 0. Doubles are left to what may leave the range of float32 on its way.
template <typename T, int WORK, typename A, typename O>
DEVICE void finish(const Found<A>& found, const T* row, i64 i, int classes, Temperature<A> t, const i64* targets,
                   const Columns<A, O>& out) {
  const Powers<T> powers(found.peak, t.scale);
  A one_log2;
  const A one = powers.of(found.peak, one_log2), sum = (A)(found.total + (double)one), top = one / sum;
  const bool decided = top == top;
  if (out.label) store(out.label + i, decided ? found.winner : -1);
  if (out.confidence) store(out.confidence + i, top);
  if (out.max_logit) store(out.max_logit + i, decided ? found.peak : Limits<A>::nan());
  if (!(out.margin || out.entropy || out.logsumexp || targets)) return;
  const A inverse = (A)1 / sum, others = (A)found.total / one, log_sum = log1p_of(others, top);
  if (out.margin) store(out.margin + i, (one - powers.of(found.second)) * inverse);
  if (WORK & ENTROPY && out.entropy) {
    const A weight = (A)(found.weight - found.total * (double)one_log2);
    store(out.entropy + i, fused(weight * inverse, (A)-0.6931471805599453, log_sum));
  }
  if (out.logsumexp) store(out.logsumexp + i, (A)over_temperature((double)found.peak, t, (double)log_sum));
  if (targets) {
    const i64 target = load(targets + i);
    const bool there = target >= 0 && target < classes;
    const A x = there ? (A)decode(load(row + (there ? target : 0))) : Limits<A>::nan();
    const double gap = (double)found.peak - (double)x;
    if (out.nll) store(out.nll + i, (A)over_temperature(gap, t, (double)log_sum));
    const A power = powers.of(x), rest = one - power;
    if (out.target_probability) store(out.target_probability + i, there ? power * inverse : Limits<A>::nan());
    if (WORK & SQUARES && out.brier) {
      const A missing = (A)(found.total + (double)rest), squares = (A)found.squares;
      const A brier = (squares + rest * (one + power) + missing * missing) * (inverse * inverse);
      store(out.brier + i, there ? brier : Limits<A>::nan());
    }
    if (WORK & RANK && out.target_rank) store(out.target_rank + i, there && decided ? found.rank : -1);
  }
}
