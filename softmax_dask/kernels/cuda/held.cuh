// Rows that fit the registers of the threads that share them: every logit is read once, whatever is wanted.

// Sum of the exponentials, plainly in runs of FOLD and then exactly: plain float32 sums break the contract.
template <typename T> struct Fold { static const int RUN = sizeof(T) == 2 ? 16 : 8; };

template <typename T, int N, int WORK, typename A>
DEVICE void add_up(const A* v, const Powers<T>& powers, Sum<A>& total, A& weight, A& squares) {
#pragma unroll
  for (int i = 0; i < N; i += Fold<T>::RUN) {
    A part = 0;
#pragma unroll
    for (int j = i; j < i + Fold<T>::RUN && j < N; ++j) {
      if (WORK & ENTROPY) {
        A log2;
        const A power = powers.of(v[j], log2);
        part = part + power;
        weight = fused(power, log2, weight);
        if (WORK & SQUARES) squares = fused(power, power, squares);
      } else {
        part = part + powers.of(v[j]);
      }
    }
    total.add(part);
  }
}

template <int N, typename A> DEVICE A largest_of(const A* v) {
  A most = v[0];
#pragma unroll
  for (int j = 1; j < N; ++j) most = larger(most, v[j]);
  return most;
}

// The lowest class here that has the logit `peak`. `top` holds the largest logit of each pack: few packs are searched.
template <typename Place, typename A> DEVICE int find(const A* v, const A* top, A peak, const Place& at) {
  int found = NONE;
#pragma unroll
  for (int k = 0; k < Place::N / Place::V; ++k) {
    if (found == NONE && same(top[k], peak)) {
#pragma unroll
      for (int j = Place::V - 1; j >= 0; --j) {
        if (same(v[k * Place::V + j], peak)) found = at.first() + k * Place::STEP + j;
      }
    }
  }
  return found;
}

// Puts x in place of the winner, where it is held here.
template <typename Place, typename A> DEVICE void replace(A* v, A* top, int winner, A x, const Place& at) {
#pragma unroll
  for (int k = 0; k < Place::N / Place::V; ++k) {
    const int j = winner - at.first() - k * Place::STEP;
    if (j >= 0 && j < Place::V) {
#pragma unroll
      for (int i = 0; i < Place::V; ++i) v[k * Place::V + i] = i == j ? x : v[k * Place::V + i];
      top[k] = largest_of<Place::V>(v + k * Place::V);
    }
  }
}

// Classes here that come before the target: larger logits, and equal ones of lower classes.
template <typename Place, typename A> DEVICE int count_before(const A* v, i64 target, A x, const Place& at) {
  int count = 0;
#pragma unroll
  for (int i = 0; i < Place::N; ++i) {
    const int column = at.first() + i / Place::V * Place::STEP + i % Place::V;
    count += above(v[i], x) || (same(v[i], x) && column < target);
  }
  return count;
}

// The winner's logit is taken out of `v`: its term is kept apart, so confident rows keep their digits.
template <typename T, int WORK, typename Place, typename A>
DEVICE Found<A> look(A* v, i64 target, A target_logit, Temperature<A> t, const Place& at,
                     const Group<Place::MEMBERS>& group) {
  Found<A> found;
  A top[Place::N / Place::V];
#pragma unroll
  for (int k = 0; k < Place::N / Place::V; ++k) top[k] = largest_of<Place::V>(v + k * Place::V);
  found.rank = WORK & RANK ? count_before(v, target, target_logit, at) : 0;
  found.peak = group.template all<Largest>(0, largest_of<Place::N / Place::V>(top));
  found.winner = group.template all<Lowest>(1, find(v, top, found.peak, at));
  replace(v, top, found.winner, minus_infinity<A>(), at);

  const Powers<T> powers(found.peak, t.scale);
  Sum<A> total;
  A weight = 0, squares = 0;
  add_up<T, Place::N, WORK>(v, powers, total, weight, squares);
  found.second = group.template within_warp<Largest>(largest_of<Place::N / Place::V>(top));
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

  replace(v, top, found.winner, found.peak, at);
  return found;
}

// Probabilities alone: exponentials take the place of the logits; returns what to multiply them by.
template <typename T, typename Place, typename A>
DEVICE A to_exponentials(A* v, Temperature<A> t, const Group<Place::MEMBERS>& group) {
  const A peak = group.template all<Largest>(0, largest_of<Place::N>(v));
  const Powers<T> powers(peak, t.scale);
  Sum<A> total;
#pragma unroll
  for (int i = 0; i < Place::N; i += Fold<T>::RUN) {
    A part = 0;
#pragma unroll
    for (int j = i; j < i + Fold<T>::RUN && j < Place::N; ++j) part = part + (v[j] = powers.of(v[j]));
    total.add(part);
  }
  return (A)1 / (A)group.template all<Added>(3, total.value());
}

template <typename T, typename Place, typename A, typename O>
DEVICE void write_wide(const A* v, const Found<A>& found, i64 row, i64 rows, int classes, Temperature<A> t, const Place& place,
                       const Columns<A, O>& out) {
  const Powers<T> powers(found.peak, t.scale);
  if (out.probabilities) {
    const A share = share_of<T>(found, powers);
    place.store(out.probabilities, row, rows, classes, [&](int i) { return powers.of(v[i]) * share; });
  }
  if (out.log_probabilities) {
    const A log_sum = (A)log_sum_of<T>(found, powers);
    place.store(out.log_probabilities, row, rows, classes,
                [&](int i) { return over_temperature(v[i] - found.peak, t.near, t.near_lost, -log_sum); });
  }
}

// A block takes `batch` rows a group, one after the other, and finishes them together: a row a thread.
template <typename T, typename O, typename Place, int WORK, typename A>
DEVICE void held_rows(const T* logits, i64 stride, i64 rows, int classes, int batch, Temperature<A> t,
                      const i64* targets, Columns<A, O> out) {
  SHARED(double, board, SLOTS * MOST_WARPS);
  SHARED(Word4, memory, (Place::BYTES + 15) / 16);
  SHARED(Found<A>, kept, 32);  // the same where a block has no registers left; each thread reads what it wrote
  const Place place((char*)memory);
  const Group<Place::MEMBERS> group = {board};
  for (i64 first = (i64)block() * batch; first * Place::ROWS < rows; first += (i64)blocks() * batch) {
    Found<A> mine = {};  // of row `member` of the batch
    for (int i = 0; i < batch; ++i) {
      const i64 row = (first + i) * Place::ROWS + row_of_block<Place::MEMBERS>();
      A v[Place::N];
      place.load(logits, stride, row, rows, classes, v);
      if (WORK) {
        i64 target = -1;
        A target_logit = 0;
        if (WORK & RANK && targets && row < rows) {
          target = load(targets + row);
          if (target >= 0 && target < classes) target_logit = (A)decode(load(logits + row * stride + target));
        }
        const Found<A> found = look<T, WORK>(v, target, target_logit, t, place, group);
        write_wide<T>(v, found, row, rows, classes, t, place, out);
        if (i == group.member() && Place::MEMBERS > 32) put(kept + i, found);
        if (i == group.member() && Place::MEMBERS <= 32) mine = found;
      } else {
        const A share = to_exponentials<T, Place>(v, t, group);
        place.store(out.probabilities, row, rows, classes, [&](int i) { return v[i] * share; });
      }
    }
    const i64 row = (first + group.member()) * Place::ROWS + row_of_block<Place::MEMBERS>();
    if (WORK && group.member() < batch && row < rows)
      finish<T, WORK>(Place::MEMBERS > 32 ? get(kept + group.member()) : mine, logits + row * stride, row, classes, t, targets, out);
  }
}
