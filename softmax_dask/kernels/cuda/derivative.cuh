// The Jacobian of softmax and products with it. The winner is kept apart, and 1 / temperature enters as its square root,
// once in each of two factors: see softmax_dask/kernels/cpu/jacobian.py and products.py. THREADS share a row, classes
// go round them; what is read again comes from the caches. Exponentials are exact here, of 16-bit logits also.
template <typename A> struct Peak {
  A logit;
  int winner;
};

template <typename T, int THREADS, typename A = typename Number<T>::Float>
DEVICE Peak<A> peak_of(const T* row, int classes, const Group<THREADS>& group) {
  Peak<A> peak;
  A most = minus_infinity<A>();
  for (int c = group.member(); c < classes; c += THREADS) most = larger(most, (A)decode(load(row + c)));
  peak.logit = group.template all<Largest>(0, most);
  int mine = NONE;
  for (int c = group.member(); c < classes && mine == NONE; c += THREADS)
    if (same((A)decode(load(row + c)), peak.logit)) mine = c;
  peak.winner = group.template all<Lowest>(1, mine);
  if (peak.winner == NONE) peak.winner = 0;  // a row of NaN: any class will do
  return peak;
}

// The sum of the exponentials of all classes but the winner, relative to the winner's.
template <typename T, int THREADS, typename A>
DEVICE double others_of(const T* row, int classes, Peak<A> peak, const Powers<A>& powers, const Group<THREADS>& group) {
  Sum<A> total;
  for (int c = group.member(); c < classes; c += THREADS)
    if (c != peak.winner) total.add(powers.of((A)decode(load(row + c))));
  return group.template all<Added>(2, total.value()) / (double)powers.of(peak.logit);
}

// Probabilities times root, and of the winner (1 - s) times root: what the entries of the matrix are made of.
template <typename T, int THREADS, typename A>
DEVICE void share_rows(const T* logits, i64 stride, i64 rows, int classes, Scale<A> scale, A root, A* shares,
                       int* winners, A* rests) {
  SHARED(double, board, SLOTS * MOST_WARPS);
  const int ROWS = (THREADS < BLOCK ? BLOCK : THREADS) / THREADS;
  const Group<THREADS> group = {board};
  for (i64 first = (i64)block() * ROWS; first < rows; first += (i64)blocks() * ROWS) {
    const i64 i = first + thread() / THREADS;
    const int counted = i < rows ? classes : 0;
    const T* row = logits + (i < rows ? i : 0) * stride;
    const Peak<A> peak = peak_of<T>(row, counted, group);
    const Powers<A> powers(peak.logit, scale);
    const double others = others_of(row, counted, peak, powers, group);
    const A factor = (A)((double)root / ((double)powers.of(peak.logit) * (1.0 + others)));
    for (int c = group.member(); c < counted; c += THREADS)
      store(shares + i * classes + c, powers.of((A)decode(load(row + c))) * factor);
    if (i < rows && group.member() == 0) {
      store(winners + i, peak.winner);
      store(rests + i, (A)(others / (1.0 + others) * (double)root));
    }
    group.gather();
  }
}

// Entries first.., second.. of each matrix, VECTOR neighbouring ones a thread.
template <typename A> DEVICE A entry_of(const A* shares, int j, int k, int winner, A rest, A root) {
  const A share = load(shares + j);
  if (j == k) return share * (j == winner ? rest : root - share);
  return fused(share, -load(shares + k), (A)0);  // plus 0: a masked class has 0, not -0
}
template <typename A>
DEVICE void matrix_rows(const A* shares, const int* winners, const A* rests, i64 rows, int classes, A root, int first,
                        int height, int second, int breadth, A* out) {
  const int VECTOR = 16 / sizeof(A);
  const i64 size = (i64)height * breadth, all = rows * size;
  for (i64 at = ((i64)block() * BLOCK + thread()) * VECTOR; at < all; at += (i64)blocks() * BLOCK * VECTOR) {
    i64 row = at / size;
    int inside = (int)(at - row * size), j = inside / breadth, k = inside - j * breadth;
    Words<4> words = {};
#pragma unroll
    for (int n = 0; n < VECTOR; ++n) {
      if (at + n < all) {
        const A x = entry_of(shares + row * classes, first + j, second + k, load(winners + row), load(rests + row), root);
        put_item(words.w, n, x);
        if (((u64)out & 15) || at + VECTOR > all) store(out + at + n, x);
      }
      if (++k == breadth) k = 0, ++j;
      if (j == height) j = 0, ++row;
    }
    if (((u64)out & 15) == 0 && at + VECTOR <= all) store_words(out + at, words);
  }
}

enum { JVP, LOG_JVP, LOG_VJP };

template <typename A> DEVICE double nan_unless_finite(double x) { return x + (x - x); }

// s * (v - <s, v>) / T and (v - <s, v>) / T; v enters as v - v_w, so nothing cancels as s_w goes to 1.
template <typename T, int THREADS, int KIND, typename A>
DEVICE void times_vector(const T* row, const A* vector, int classes, Peak<A> peak, const Powers<A>& powers, A root,
                         A* out, const Group<THREADS>& group) {
  const A pivot = classes ? load(vector + peak.winner) : (A)0;
  Sum<A> total, moment;
  for (int c = group.member(); c < classes; c += THREADS) {
    const A power = powers.of((A)decode(load(row + c)));
    total.add(power);
    moment.add(power * (load(vector + c) - pivot));
  }
  const double whole = group.template all<Added>(2, total.value());
  const double mean = nan_unless_finite<A>(group.template all<Added>(3, moment.value()) / whole);
  const A factor = (A)((double)root / whole), means = (A)mean;
  for (int c = group.member(); c < classes; c += THREADS) {
    const A gap = load(vector + c) - pivot - means;
    const A share = KIND == JVP ? powers.of((A)decode(load(row + c))) * factor : root;
    store(out + c, KIND == JVP ? share * (gap * root) : gap * root * root);
  }
}

// (g - s * sum(g)) / T; of the winner, g (1 - s) - s (sum of the other g).
template <typename T, int THREADS, typename A>
DEVICE void minus_share(const T* row, const A* vector, int classes, Peak<A> peak, const Powers<A>& powers, A root, A* out,
                        const Group<THREADS>& group) {
  const double others = others_of(row, classes, peak, powers, group);
  Sum<A> sum;
  for (int c = group.member(); c < classes; c += THREADS)
    if (c != peak.winner) sum.add(load(vector + c));
  const double rest = group.template all<Added>(3, sum.value());
  const double pivot = classes ? (double)load(vector + peak.winner) : 0.0, total = nan_unless_finite<A>(pivot + rest);
  const A factor = (A)(1.0 / ((double)powers.of(peak.logit) * (1.0 + others))), sums = (A)total;
  for (int c = group.member(); c < classes; c += THREADS) {
    const A gap = load(vector + c) - powers.of((A)decode(load(row + c))) * factor * sums;
    const double winners = (pivot * others - rest) / (1.0 + others) + (total - total);
    store(out + c, c == peak.winner ? (A)(winners * (double)root * (double)root) : gap * root * root);
  }
}

template <typename T, int THREADS, int KIND, typename A>
DEVICE void product_rows(const T* logits, i64 stride, const A* vectors, i64 vector_stride, i64 rows, int classes,
                         Scale<A> scale, A root, A* out) {
  SHARED(double, board, SLOTS * MOST_WARPS);
  const int ROWS = (THREADS < BLOCK ? BLOCK : THREADS) / THREADS;
  const Group<THREADS> group = {board};
  for (i64 first = (i64)block() * ROWS; first < rows; first += (i64)blocks() * ROWS) {
    const i64 i = first + thread() / THREADS, there = i < rows ? i : 0;
    const int counted = i < rows ? classes : 0;
    const T* row = logits + there * stride;
    const Peak<A> peak = peak_of<T>(row, counted, group);
    const Powers<A> powers(peak.logit, scale);
    const A* vector = vectors + there * vector_stride;
    if (KIND == LOG_VJP)
      minus_share(row, vector, counted, peak, powers, root, out + there * classes, group);
    else
      times_vector<T, THREADS, KIND>(row, vector, counted, peak, powers, root, out + there * classes, group);
  }
}
