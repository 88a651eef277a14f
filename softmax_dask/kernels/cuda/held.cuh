// Rows that fit the registers of the threads that share them: every logit is read once, whatever is wanted.

// Sum of the exponentials, plainly in runs of FOLD and then exactly: plain float32 sums break the contract.
// Each is a term of the sum, not exact to the last bit: half as many instructions as those of probabilities.
template <typename T> struct Fold { static const int RUN = sizeof(T) == 2 ? 16 : 8; };

// A run, in two sums by turns: beside a term of 1, up to half an eps is lost of each that follows it in the same sum, and
// in a sum of equal terms roundings are alike.
template <typename A> struct Part {
  A even, odd;
  DEVICE void add(int i, A term) {
    if (i % 2)
      odd = i == 1 ? term : odd + term;
    else
      even = i == 0 ? term : even + term;
  }
  DEVICE void add_product(int i, A x, A y) {
    if (i % 2)
      odd = i == 1 ? x * y : fused(x, y, odd);
    else
      even = i == 0 ? x * y : fused(x, y, even);
  }
  DEVICE A value(int terms) const { return terms == 1 ? even : even + odd; }
};

template <typename T, int N, int WORK, typename Held, typename A>
DEVICE void add_up(const Held& v, const Powers<T>& powers, Sum<A>& total, A& weight, A& squares) {
#pragma unroll
  for (int i = 0; i < N; i += Fold<T>::RUN) {
    Part<A> part, heavy;
#pragma unroll
    for (int j = i; j < i + Fold<T>::RUN && j < N; ++j) {
      if (WORK & ENTROPY) {
        A log2;
        const A power = powers.term(v.at(j), log2);
        part.add(j - i, power);
        heavy.add_product(j - i, power, log2);
        if (WORK & SQUARES) squares = fused(power, power, squares);
      } else {
        part.add(j - i, powers.term(v.at(j)));
      }
    }
    total.add(part.value(N - i));
    if (WORK & ENTROPY) weight = i == 0 ? heavy.value(N) : weight + heavy.value(N - i);
  }
}

// The largest logit of each group: few groups are searched.
template <typename Held, typename A> struct Tops {
  static const int GROUP = Held::GROUP, GROUPS = Held::GROUPS;
  A top[GROUPS];

  DEVICE explicit Tops(const Held& v) {
#pragma unroll
    for (int k = 0; k < GROUPS; ++k) top[k] = v.largest(k);
  }
  DEVICE A largest() const {
    A most = top[0];
#pragma unroll
    for (int k = 1; k < GROUPS; ++k) most = larger(most, top[k]);
    return most;
  }
};

// Where in `v` the first logit `peak` is; NONE if it is not here.
template <typename Held, typename A> DEVICE int find(const Held& v, const Tops<Held, A>& tops, A peak) {
  const int GROUP = Held::GROUP;
  int found = NONE;
#pragma unroll
  for (int k = 0; k < Held::GROUPS; ++k) {
    if (found == NONE && same(tops.top[k], peak)) {
#pragma unroll
      for (int j = GROUP - 1; j >= 0; --j)
        if (same(v.at(k * GROUP + j), peak)) found = k * GROUP + j;
    }
  }
  return found;
}

template <typename Held, typename A> DEVICE void replace(Held& v, Tops<Held, A>& tops, int place, A x) {
  const int GROUP = Held::GROUP;
  // Bits, for comparisons of indices become an index, and registers have none.
  const u32 group = 1u << place / GROUP, here = 1u << place % GROUP;
#pragma unroll
  for (int k = 0; k < Held::GROUPS; ++k) {
    if (group >> k & 1) {
#pragma unroll
      for (int j = 0; j < GROUP; ++j) v.set(k * GROUP + j, x, here >> j & 1);
      tops.top[k] = v.largest(k);
    }
  }
}

// Classes here that come before the target: larger logits, and equal ones of lower classes.
template <typename Place, typename A>
DEVICE int count_before(const typename Place::Held& v, i64 target, A x, const Place& at) {
  int count = 0;
#pragma unroll
  for (int i = 0; i < Place::N; ++i) count += above(v.at(i), x) || (same(v.at(i), x) && at.column(i) < target);
  return count;
}

// The winner's logit is taken out of `v`: its term is kept apart, so confident rows keep their digits.
template <typename T, int WORK, typename Place, typename A>
DEVICE Found<A> look(typename Place::Held& v, i64 target, A target_logit, Temperature<A> t, const Place& at,
                     const Group<Place::MEMBERS>& group) {
  Found<A> found;
  Tops<typename Place::Held, A> tops(v);
  const A most = tops.largest();
  found.rank = WORK & RANK ? count_before(v, target, target_logit, at) : 0;
  found.peak = group.template all<Largest>(0, most);
  const int place = same(most, found.peak) ? find(v, tops, found.peak) : NONE;
  const int mine = place == NONE ? NONE : at.column(place);
  found.winner = group.template all<Lowest>(1, mine);
  const bool held = mine == found.winner && mine != NONE;
  if (held) replace(v, tops, place, minus_infinity<A>());

  const Powers<T> powers(found.peak, t.scale);
  Sum<A> total;
  A weight = 0, squares = 0;
  add_up<T, Place::N, WORK>(v, powers, total, weight, squares);
  found.second = group.template within_warp<Largest>(tops.largest());
  found.total = group.template within_warp<Added>(total.value());
  found.weight = WORK & ENTROPY ? group.template within_warp<Added>((double)weight) : 0.0;
  if (WORK & RANK) found.rank = group.template within_warp<Added>(found.rank);
  found.squares = WORK & SQUARES ? group.template within_warp<Added>((double)squares) : 0.0;
  group.post(2, found.second);
  group.post(3, found.total);
  if (WORK & ENTROPY) group.post(4, found.weight);
  if (WORK & RANK) group.post(5, found.rank);
  if (WORK & SQUARES) group.post(6, found.squares);
  group.gather();
  found.second = group.template read<Largest>(2, found.second);
  found.total = group.template read<Added>(3, found.total);
  if (WORK & ENTROPY) found.weight = group.template read<Added>(4, found.weight);
  if (WORK & RANK) found.rank = group.template read<Added>(5, found.rank);
  if (WORK & SQUARES) found.squares = group.template read<Added>(6, found.squares);

  if (WORK & WIDE && held) replace(v, tops, place, found.peak);
  return found;
}

// Probabilities alone: `v` becomes exponentials; returns what to multiply them by.
template <typename T, typename Place, typename A>
DEVICE A to_exponentials(const typename Place::Held& x, A* v, Temperature<A> t, const Group<Place::MEMBERS>& group) {
  const Tops<typename Place::Held, A> tops(x);
  const A peak = group.template all<Largest>(0, tops.largest());
  const Powers<T> powers(peak, t.scale);
  Sum<A> total;
#pragma unroll
  for (int i = 0; i < Place::N; i += Fold<T>::RUN) {
    Part<A> part;
#pragma unroll
    for (int j = i; j < i + Fold<T>::RUN && j < Place::N; ++j) part.add(j - i, v[j] = powers.of(x.at(j)));
    total.add(part.value(Place::N - i));
  }
  return (A)1 / (A)group.template all<Added>(3, total.value());
}

template <typename T, typename Place, typename A, typename O>
DEVICE void write_wide(const typename Place::Held& v, const Found<A>& found, i64 top, i64 rows, int classes,
                       Temperature<A> t, const Place& place, const Columns<A, O>& out) {
  const Powers<T> powers(found.peak, t.scale);
  if (out.probabilities) {
    const A share = share_of<T>(found, powers);
    place.store(out.probabilities, top, rows, classes, [&](int i) { return powers.of(v.at(i)) * share; });
  }
  if (out.log_probabilities) {
    const A log_sum = log_sum_of<T>(found, powers);
    place.store(out.log_probabilities, top, rows, classes,
                [&](int i) { return over_temperature(v.at(i) - found.peak, t.near, t.near_lost, -log_sum); });
  }
}

// A block takes `batch` rows a group, one after the other, and finishes them together: a row a thread.
template <typename T, typename O, typename Place, int WORK, typename A>
DEVICE void held_rows(const T* logits, i64 stride, i64 rows, int classes, int batch, Temperature<A> t,
                      const i64* targets, Columns<A, O> out) {
  // No registers are left for the next row where what is looked for takes them, or many wide exponentials do.
  const bool MANY = WORK == 0 && Place::N * sizeof(A) >= 192 && sizeof(O) >= 4;
  const bool AHEAD = !(WORK & WIDE && WORK & RANK) && !MANY;
  SHARED(double, board, SLOTS * MOST_WARPS);
  SHARED(Word4, memory, (Place::BYTES + 15) / 16);
  SHARED(Found<A>, kept, 32);  // the same where a block has no registers left; each thread reads what it wrote
  const Place place((char*)memory);
  const Group<Place::MEMBERS> group = {board};
  const i64 step = (i64)blocks() * batch * Place::ROWS;
  typename Place::Fetched fetched;
  place.fetch(logits, stride, (i64)block() * batch * Place::ROWS, rows, classes, fetched);
  for (i64 first = (i64)block() * batch * Place::ROWS; first < rows; first += step) {
    Found<A> mine = {};  // of row `member` of the batch
    for (int i = 0; i < batch; ++i) {
      const i64 top = first + i * Place::ROWS, next = i + 1 < batch ? top + Place::ROWS : first + step;
      typename Place::Held v;
      place.settle(logits, stride, top, classes, fetched, v);
      if (AHEAD) place.fetch(logits, stride, next, rows, classes, fetched);
      if (WORK) {
        const i64 row = top + row_of_block<Place::MEMBERS>();
        i64 target = -1;
        A target_logit = 0;
        if (WORK & RANK && targets && row < rows) {
          target = load(targets + row);
          if (target >= 0 && target < classes) target_logit = (A)decode(load(logits + row * stride + target));
        }
        const Found<A> found = look<T, WORK>(v, target, target_logit, t, place, group);
        if (WORK & WIDE) write_wide<T>(v, found, top, rows, classes, t, place, out);
        if (i == group.member() && Place::MEMBERS > 32) put(kept + i, found);
        if (i == group.member() && Place::MEMBERS <= 32) mine = found;
      } else {
        A power[Place::N];
        const A share = to_exponentials<T, Place>(v, power, t, group);
        place.store(out.probabilities, top, rows, classes, [&](int i) { return power[i] * share; });
      }
      if (!AHEAD) place.fetch(logits, stride, next, rows, classes, fetched);
    }
    const i64 row = first + group.member() * Place::ROWS + row_of_block<Place::MEMBERS>();
    if (WORK && group.member() < batch && row < rows) {
      if (Place::MEMBERS > 32) mine = get(kept + group.member());
      finish<T, WORK>(mine, logits + row * stride, row, classes, t, targets, out);
    }
  }
}
