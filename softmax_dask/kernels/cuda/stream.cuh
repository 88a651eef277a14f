// Rows of any length, a block a row: one read for all columns but the wide ones, whose results need a second one.
//
// Each thread keeps sums relative to its own largest logit so far. The chunk that holds it, the best one, is kept out of
// the sums: when the row's winner is known, the thread that holds it reads that chunk again and leaves the winner out.
template <typename A> struct Running {
  A peak, second;  // `second`: the largest logit outside of the best chunk
  Sum<A> total;    // of the chunks but the best one
  A weight, squares;
  A best_total, best_weight, best_squares;
  int best;     // the class at which this thread's part of the best chunk begins
  int before;   // classes before the target

  DEVICE Running()
      : peak(minus_infinity<A>()), second(minus_infinity<A>()), weight(0), squares(0), best_total(0), best_weight(0),
        best_squares(0), best(NONE), before(0) {}
};

// Sums relative to `from` become sums relative to `to`: exactly where both are powers of two.
template <typename T, int WORK, typename A>
DEVICE void move_sums(A peak, const Powers<T>& from, const Powers<T>& to, Running<A>& s) {
  A log2_from, log2_to;
  const A unit = from.of(peak, log2_from), moved = to.of(peak, log2_to);
  // Of the first logits there are no sums yet, unless they were NaN.
  const A factor = peak == minus_infinity<A>() ? (A)0 : moved / unit, steps = factor == 0 ? (A)0 : log2_to - log2_from;
  s.weight = factor * fused(s.total.total + s.total.lost, steps, s.weight);
  s.best_weight = factor * fused(s.best_total, steps, s.best_weight);
  s.total.scale(factor);
  s.best_total = s.best_total * factor;
  if (WORK & SQUARES) {
    s.squares = s.squares * factor * factor;
    s.best_squares = s.best_squares * factor * factor;
  }
}

template <typename T, int PACKS, int WORK, typename A>
DEVICE void take_chunk(const Packs<T, PACKS>& v, int column, i64 target, A target_logit, int classes, Temperature<A> t,
                       Running<A>& s, Powers<T>& powers) {
  const int V = 16 / sizeof(T), N = PACKS * V;
  const A most = Tops<Packs<T, PACKS>, A>(v).largest();
  const bool better = most > s.peak || (s.best == NONE && column < classes);
  if (most > s.peak) {
    const Powers<T> next(most, t.scale);
    move_sums<T, WORK>(s.peak, powers, next, s);
    powers = next;
  }
  Sum<A> sum;
  A weight = 0, squares = 0;
  add_up<T, N, WORK>(v, powers, sum, weight, squares);
  const A total = sum.total + sum.lost;
  s.second = larger(s.second, better ? s.peak : most);
  s.total.add(better ? s.best_total : total);
  s.weight = s.weight + (better ? s.best_weight : weight);
  if (WORK & SQUARES) {
    s.squares = s.squares + (better ? s.best_squares : squares);
    s.best_squares = better ? squares : s.best_squares;
  }
  s.best_total = better ? total : s.best_total;
  s.best_weight = better ? weight : s.best_weight;
  s.best = better ? column : s.best;
  s.peak = larger(s.peak, most);
  if (WORK & RANK) {
#pragma unroll
    for (int i = 0; i < N; ++i) {
      const int c = column + i / V * 32 * V + i % V;
      s.before += above(v.at(i), target_logit) || (same(v.at(i), target_logit) && c < target);
    }
  }
}

// This thread's part of its best chunk, once more.
template <typename T, int PACKS> DEVICE void load_best(const T* row, int column, int classes, Packs<T, PACKS>& v) {
  typedef typename Number<T>::Float A;
  const int V = 16 / sizeof(T);
#pragma unroll
  for (int i = 0; i < PACKS * V; ++i) {
    const int c = column + i / V * 32 * V + i % V;
    v.set(i, c < classes ? (A)decode(load(row + c)) : minus_infinity<A>(), true);
  }
}

template <typename T, int PACKS, int WORK, typename A, int THREADS>
DEVICE Found<A> merge(const T* row, int classes, Temperature<A> t, Running<A>& s, const Powers<T>& own,
                      const Group<THREADS>& group) {
  const int V = 16 / sizeof(T), N = PACKS * V;
  Found<A> found = {};
  Packs<T, PACKS> v = {};
  int mine = NONE;
  found.peak = group.template all<Largest>(0, s.peak);
  const bool candidate = same(s.peak, found.peak) && s.best != NONE;
  if (candidate) {
    load_best(row, s.best, classes, v);
#pragma unroll
    for (int i = N - 1; i >= 0; --i)
      if (same(v.at(i), found.peak)) mine = s.best + i / V * 32 * V + i % V;
  }
  found.winner = group.template all<Lowest>(1, mine);
  const Powers<T> powers(found.peak, t.scale);
  if (candidate && mine == found.winner && mine != NONE) {
#pragma unroll
    for (int i = 0; i < N; ++i) v.set(i, minus_infinity<A>(), s.best + i / V * 32 * V + i % V == mine);
    Sum<A> sum;
    s.best_weight = 0;
    s.best_squares = 0;
    add_up<T, N, WORK>(v, powers, sum, s.best_weight, s.best_squares);
    s.best_total = sum.total + sum.lost;
    s.second = larger(s.second, Tops<Packs<T, PACKS>, A>(v).largest());
  } else {
    s.second = larger(s.second, s.peak);
  }
  s.total.add(s.best_total);
  s.weight = s.weight + s.best_weight;
  s.squares = s.squares + s.best_squares;
  s.best_total = 0;
  s.best_weight = 0;
  s.best_squares = 0;
  if (!same(s.peak, found.peak)) move_sums<T, WORK>(s.peak, own, powers, s);
  found.second = group.template within_warp<Largest>(s.second);
  found.total = group.template within_warp<Added>(s.total.value());
  found.weight = group.template within_warp<Added>((double)s.weight);
  found.rank = WORK & RANK ? group.template within_warp<Added>(s.before) : 0;
  found.squares = WORK & SQUARES ? group.template within_warp<Added>((double)s.squares) : 0.0;
  group.post(2, found.second);
  group.post(3, found.total);
  group.post(4, found.weight);
  if (WORK & RANK) group.post(5, found.rank);
  if (WORK & SQUARES) group.post(6, found.squares);
  group.gather();
  found.second = group.template read<Largest>(2, found.second);
  found.total = group.template read<Added>(3, found.total);
  found.weight = group.template read<Added>(4, found.weight);
  if (WORK & RANK) found.rank = group.template read<Added>(5, found.rank);
  if (WORK & SQUARES) found.squares = group.template read<Added>(6, found.squares);
  return found;
}

template <typename T, typename O, int WARPS, int PACKS, int WORK, typename A>
DEVICE void stream_rows(const T* logits, i64 stride, i64 rows, int classes, int batch, Temperature<A> t,
                        const i64* targets, Columns<A, O> out) {
  const int V = 16 / sizeof(T), STRETCH = PACKS * 32 * V, CHUNK = WARPS * STRETCH;
  SHARED(double, board, SLOTS * MOST_WARPS);
  SHARED(Found<A>, kept, 32);  // each thread reads what it wrote
  const Group<WARPS * 32> group = {board};
  const int begin = thread() / 32 * STRETCH, lane = thread() % 32;
  for (i64 first = (i64)block() * batch; first < rows; first += (i64)blocks() * batch) {
    for (int i = 0; i < batch && first + i < rows; ++i) {
      const T* row = logits + (first + i) * stride;
      i64 target = -1;
      A target_logit = 0;
      if (WORK & RANK && targets) {
        target = load(targets + first + i);
        if (target >= 0 && target < classes) target_logit = (A)decode(load(row + target));
      }
      Running<A> s;
      Powers<T> powers(minus_infinity<A>(), t.scale);
      Fetched<PACKS> fetched;
      fetch_stretch<T, PACKS>(row, begin, classes, lane, fetched);
      for (int chunk = begin; chunk < classes; chunk += CHUNK) {
        Packs<T, PACKS> v;
        settle_stretch(classes, lane, fetched, v);
        fetch_stretch<T, PACKS>(row, chunk + CHUNK, classes, lane, fetched);
        take_chunk<T, PACKS, WORK>(v, chunk + lane * V, target, target_logit, classes, t, s, powers);
      }
      const Found<A> found = merge<T, PACKS, WORK>(row, classes, t, s, powers, group);
      if (i == thread()) put(kept + i, found);
      if (WORK & WIDE) {
        const Powers<T> final(found.peak, t.scale);
        const A share = share_of<T>(found, final);
        const A log_sum = out.log_probabilities ? log_sum_of<T>(found, final) : (A)0;
        for (int chunk = begin; chunk < classes; chunk += CHUNK) {
          Packs<T, PACKS> v;
          fetch_stretch<T, PACKS, true>(row, chunk, classes, lane, fetched);
          settle_stretch(classes, lane, fetched, v);
          if (out.probabilities)
            store_stretch<O, V, PACKS, true>(out.probabilities + (first + i) * classes, chunk, classes, lane,
                                       [&](int k) { return final.of(v.at(k)) * share; });
          if (out.log_probabilities)
            store_stretch<O, V, PACKS>(
                out.log_probabilities + (first + i) * classes, chunk, classes, lane,
                [&](int k) { return over_temperature(v.at(k) - found.peak, t.near, t.near_lost, -log_sum); });
        }
      }
    }
    const i64 row = first + thread();
    if (thread() < batch && row < rows)
      finish<T, WORK>(get(kept + thread()), logits + row * stride, row, classes, t, targets, out);
  }
}
