// The k largest logits of a row, falling; of equal ones the lower class first.
//
// Each thread offers the first of its classes that come after the last one taken; the group takes the best offer, and
// only its owner looks for another. Classes go round the threads, so neighbouring threads read neighbouring logits.
template <typename A> struct Offer {
  A logit;
  int label;
};
template <typename A> DEVICE bool comes_before(Offer<A> a, Offer<A> b) {
  return above(a.logit, b.logit) || (same(a.logit, b.logit) && a.label < b.label);
}

template <typename T, int THREADS, typename A>
DEVICE Offer<A> next_offer(const T* row, int classes, Offer<A> last, int member) {
  Offer<A> offer = {minus_infinity<A>(), NONE};
  for (int c = member; c < classes; c += THREADS) {
    const Offer<A> here = {(A)decode(load(row + c)), c};
    if (comes_before(last, here) && comes_before(here, offer)) offer = here;
  }
  return offer;
}

template <int THREADS, typename A> DEVICE Offer<A> best_offer(Offer<A> mine, int slot, const Group<THREADS>& group) {
#pragma unroll
  for (int bit = 16; bit; bit >>= 1) {
    const Offer<A> other = {from_lane_xor(mine.logit, bit), from_lane_xor(mine.label, bit)};
    if (comes_before(other, mine)) mine = other;
  }
  group.post(2 * slot, mine.logit);
  group.post(2 * slot + 1, mine.label);
  group.gather();
  for (int warp = 0; warp < THREADS / 32 && THREADS > 32; ++warp) {
    const double* place = group.board + 2 * slot * MOST_WARPS + warp;
    const Offer<A> other = {(A)get(place), (int)get(place + MOST_WARPS)};
    if (comes_before(other, mine)) mine = other;
  }
  return mine;
}

// `confidence` is that of each row, and NaN where the row is undecidable. Slots change from round to round.
template <typename T, int THREADS, typename A>
DEVICE void top_k_rows(const T* logits, i64 stride, i64 rows, int classes, int k, Scale<A> scale, const A* confidence,
                       int* labels, A* probabilities) {
  SHARED(double, board, SLOTS * MOST_WARPS);
  const int ROWS = (THREADS < BLOCK ? BLOCK : THREADS) / THREADS;
  const Group<THREADS> group = {board};
  for (i64 first = (i64)block() * ROWS; first < rows; first += (i64)blocks() * ROWS) {
    const i64 i = first + thread() / THREADS;
    const int counted = i < rows ? classes : 0;
    const T* row = logits + (i < rows ? i : 0) * stride;
    const A most = i < rows ? load(confidence + i) : (A)0;
    const bool decided = most == most;
    Offer<A> last = {Limits<A>::infinity(), -1}, offer = next_offer<T, THREADS>(row, counted, last, group.member()), top;
    for (int rank = 0; rank < k; ++rank) {
      last = best_offer(offer, rank % 3, group);
      if (rank == 0) top = last;
      if (offer.label == last.label) offer = next_offer<T, THREADS>(row, counted, last, group.member());
      if (i < rows && group.member() == rank % THREADS) {
        const Powers<T> powers(top.logit, scale);
        // Divided first: equal logits have a ratio of exactly 1, so all of them get the confidence to the bit.
        const A ratio = powers.of(last.logit) / powers.of(top.logit);
        store(labels + i * k + rank, decided ? last.label : -1);
        store(probabilities + i * k + rank, decided ? ratio * most : Limits<A>::nan());
      }
    }
    group.gather();
  }
}
