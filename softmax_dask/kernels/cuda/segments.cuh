// A warp moves a stretch of a row between memory and registers, 16 bytes a thread at a time, wherever the row begins.
//
// A pack is V = 16 / sizeof(logit) neighbouring classes; thread `lane` holds packs lane, 32 + lane, .. of the stretch.
// Which thread holds a class hangs on the class alone, never on the address, so that bits never do. Where a row does
// not begin at a multiple of 16 bytes, aligned packs are moved and neighbouring threads hand each other the rest.

template <int WORDS> struct Words { u32 w[WORDS]; };

// Moves words STEP places down, and by smaller steps as the bits of `skip` say. Selects: registers have no address.
template <int STEP, int COUNT> DEVICE void move_down(u32 (&w)[COUNT], int skip) {
  const bool move = skip & (4 * STEP);
#pragma unroll
  for (int i = 0; i + STEP < COUNT; ++i) w[i] = move ? w[i + STEP] : w[i];
  if constexpr (STEP > 1) move_down<STEP / 2>(w, skip);
}
// Bytes skip.. of the words in `first` followed by those in `second`.
template <int WORDS> DEVICE Words<WORDS> behind(Words<WORDS> first, Words<WORDS> second, int skip) {
  u32 w[2 * WORDS];
#pragma unroll
  for (int i = 0; i < WORDS; ++i) w[i] = first.w[i], w[WORDS + i] = second.w[i];
  move_down<WORDS / 2>(w, skip);
  Words<WORDS> found;
#pragma unroll
  for (int i = 0; i < WORDS; ++i) found.w[i] = skip & 2 ? funnel(w[i], w[i + 1], 16) : w[i];
  return found;
}
template <int WORDS> DEVICE Words<WORDS> words_from_lane(Words<WORDS> mine, int lane) {
#pragma unroll
  for (int i = 0; i < WORDS; ++i) mine.w[i] = from_lane(mine.w[i], lane);
  return mine;
}

template <bool LAST = false> DEVICE Words<4> load_words(const char* p) {
  const Word4 q = load16<LAST>(p);
  return {{q.w[0], q.w[1], q.w[2], q.w[3]}};
}
template <typename T> DEVICE Words<4> nothing() {  // 16 bytes of -inf
  const u32 high = minus_infinity_word<T>(), low = sizeof(T) == 8 ? 0 : high;
  return {{low, high, low, high}};
}
template <bool ASIDE = false> DEVICE void store_words(void* p, Words<2> v) { store8<ASIDE>(p, {{v.w[0], v.w[1]}}); }
template <bool ASIDE = false> DEVICE void store_words(void* p, Words<4> v) {
  store16<ASIDE>(p, {{v.w[0], v.w[1], v.w[2], v.w[3]}});
}
DEVICE void put_words(char* shared, Words<4> v) { put((Word4*)shared, {{v.w[0], v.w[1], v.w[2], v.w[3]}}); }

// ---- numbers of 2, 4 or 8 bytes in words

DEVICE float item_of(const u32* w, int i, float*) { return float_of(w[i]); }
DEVICE double item_of(const u32* w, int i, double*) { return double_of((u64)w[2 * i + 1] << 32 | w[2 * i]); }
DEVICE half item_of(const u32* w, int i, half*) { return {(u16)(w[i / 2] >> (16 * (i % 2)))}; }
DEVICE bfloat item_of(const u32* w, int i, bfloat*) { return {(u16)(w[i / 2] >> (16 * (i % 2)))}; }
DEVICE void put_item(u32* w, int i, float x) { w[i] = bits_of(x); }
DEVICE void put_item(u32* w, int i, double x) { w[2 * i] = (u32)bits_of(x), w[2 * i + 1] = (u32)(bits_of(x) >> 32); }
DEVICE void put_bits(u32* w, int i, u16 bits) { w[i / 2] = i % 2 ? w[i / 2] | (u32)bits << 16 : bits; }
DEVICE void put_item(u32* w, int i, half x) { put_bits(w, i, x.bits); }
DEVICE void put_item(u32* w, int i, bfloat x) { put_bits(w, i, x.bits); }
// In place of another number, if it is `here`; `put_item` takes them one after the other. Selects, as above.
DEVICE void set_bits(u32* w, int i, u16 bits, bool here) {
  const u32 set = i % 2 ? (w[i / 2] & 0xffffu) | (u32)bits << 16 : (w[i / 2] & 0xffff0000u) | bits;
  w[i / 2] = here ? set : w[i / 2];
}
DEVICE void set_item(u32* w, int i, float x, bool here) { w[i] = here ? bits_of(x) : w[i]; }
DEVICE void set_item(u32* w, int i, double x, bool here) {
  w[2 * i] = here ? (u32)bits_of(x) : w[2 * i];
  w[2 * i + 1] = here ? (u32)(bits_of(x) >> 32) : w[2 * i + 1];
}
DEVICE void set_item(u32* w, int i, half x, bool here) { set_bits(w, i, x.bits, here); }
DEVICE void set_item(u32* w, int i, bfloat x, bool here) { set_bits(w, i, x.bits, here); }

// The largest of 16 bytes of logits.
template <typename T> DEVICE T largest_item(const u32* w, T*) {
  T most = item_of(w, 0, (T*)0);
#pragma unroll
  for (int j = 1; j < 16 / (int)sizeof(T); ++j) most = larger(most, item_of(w, j, (T*)0));
  return most;
}
template <typename T> DEVICE float largest_of_pairs(const u32* w) {
  const u32 pair = larger_pair(larger_pair(w[0], w[1], (T*)0), larger_pair(w[2], w[3], (T*)0), (T*)0);
  return larger(decode(item_of(&pair, 0, (T*)0)), decode(item_of(&pair, 1, (T*)0)));
}
DEVICE float largest_item(const u32* w, half*) { return largest_of_pairs<half>(w); }
DEVICE float largest_item(const u32* w, bfloat*) { return largest_of_pairs<bfloat>(w); }

// Logits that a thread holds, packed as they lie in memory.
template <typename T, int PACKS> struct Packs {
  typedef typename Number<T>::Float A;
  static const int V = 16 / sizeof(T), N = V * PACKS, GROUP = N < 8 ? N : 8, GROUPS = N / GROUP;
  Words<4> pack[PACKS];

  DEVICE A at(int i) const { return (A)decode(item_of(pack[i / V].w, i % V, (T*)0)); }
  DEVICE void set(int i, A x, bool here) { set_item(pack[i / V].w, i % V, Encode<T>::of(x), here); }
  DEVICE A largest(int group) const {
    A most = (A)largest_item(pack[group * GROUP / V].w, (T*)0);
#pragma unroll
    for (int k = 1; k < GROUP / V; ++k) most = larger(most, (A)largest_item(pack[group * GROUP / V + k].w, (T*)0));
    return most;
  }
  DEVICE void end(int k, int there) {  // what is not there is -inf
#pragma unroll
    for (int j = 0; j < V; ++j) set(k * V + j, minus_infinity<A>(), j >= there);
  }
};

// Writes numbers begin..end-1 of `pack` to `out`.
template <bool ASIDE, typename O, int WORDS> DEVICE void store_part(O* out, int begin, int end, Words<WORDS> pack) {
  const int COUNT = 4 * WORDS / sizeof(O);
  if (begin <= 0 && end >= COUNT) return store_words<ASIDE>(out, pack);
#pragma unroll
  for (int j = 0; j < COUNT; ++j)
    if (j >= begin && j < end) store(out + j, item_of(pack.w, j, (O*)0));
}
// Of 32 bytes a thread, neighbours swap halves: then both of their stores fill sectors, and not every half of them.
template <bool ASIDE, typename O> DEVICE void store_part(O* out, int begin, int end, Words<8> pack) {
  const int COUNT = 16 / sizeof(O);
  const bool odd = thread() & 1;
  Words<4> one, other;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const u32 theirs = from_lane_xor(odd ? pack.w[i] : pack.w[4 + i], 1);
    one.w[i] = odd ? theirs : pack.w[i];
    other.w[i] = odd ? pack.w[4 + i] : theirs;
  }
  const int one_at = odd ? -COUNT : 0, other_at = odd ? COUNT : 2 * COUNT;
  store_part<ASIDE>(out + one_at, begin - one_at, end - one_at, one);
  store_part<ASIDE>(out + other_at, begin - other_at, end - other_at, other);
}

// ---- a stretch of PACKS * 32 packs from class `first` on; classes past the row are -inf

// On its way from memory: aligned packs, and for the last thread what lies behind them in a row that is not aligned.
template <int PACKS> struct Fetched {
  Words<4> pack[PACKS], behind;
  int skip;   // bytes of the first pack before the stretch
  int there;  // classes from those of this thread on
};

template <typename T, int PACKS, bool LAST = false>
DEVICE void fetch_stretch(const T* row, int first, int classes, int lane, Fetched<PACKS>& fetched) {
  const int V = 16 / sizeof(T), MOST = (PACKS * 32 + 1) * V;
  const int left = classes - first < MOST ? classes - first : MOST;
  const char* begin = (const char*)(row + first);
  const int skip = (int)((u64)begin & 15);
  const char* window = begin - skip + lane * 16;
  const int end = left > 0 ? left * (int)sizeof(T) + skip - lane * 16 : 0;  // of the row, from `window` on
#pragma unroll
  for (int k = 0; k < PACKS; ++k) fetched.pack[k] = k * 512 < end ? load_words<LAST>(window + k * 512) : nothing<T>();
  const bool more = skip && lane == 0 && PACKS * 512 < end;
  fetched.behind = more ? load_words<LAST>(window + PACKS * 512) : Words<4>{};
  fetched.skip = skip;
  fetched.there = left - lane * V;
}

template <typename T, int PACKS>
DEVICE void settle_stretch(int classes, int lane, const Fetched<PACKS>& fetched, Packs<T, PACKS>& v) {
  const int V = 16 / sizeof(T), skip = fetched.skip;
#pragma unroll
  for (int k = 0; k < PACKS; ++k) v.pack[k] = fetched.pack[k];
  if (skip) {  // the same for all threads of the row
#pragma unroll
    for (int k = 0; k < PACKS; ++k) {
      const Words<4> later = k + 1 < PACKS ? fetched.pack[k + 1 < PACKS ? k + 1 : k] : fetched.behind;
      v.pack[k] = behind(v.pack[k], words_from_lane(lane == 0 ? later : v.pack[k], (lane + 1) % 32), skip);
    }
  }
  // Elsewhere packs are in the row or out of it as they were loaded.
  if ((skip || classes % V) && fetched.there + lane * V < PACKS * 32 * V) {
#pragma unroll
    for (int k = 0; k < PACKS; ++k) v.end(k, fetched.there - k * 32 * V);
  }
}

// Writes value(0..), V numbers a pack, of the type O, to the row `out`.
template <typename O, int V, int PACKS, bool ASIDE = false, typename Value>
DEVICE void store_stretch(O* out, int first, int classes, int lane, Value value) {
  const int BYTES = V * sizeof(O);
  typedef Words<BYTES / 4> Pack;
  const int behind_bytes = (int)((u64)(out + first) & (BYTES - 1));
  const int spill = behind_bytes / (int)sizeof(O);  // numbers that the next thread writes
  O* const begin = out + first + (lane * V - spill);
  const int before = spill - lane * V, there = classes - first + before;  // where the row is, seen from `begin`
  Pack last = {};
#pragma unroll
  for (int k = 0; k < PACKS; ++k) {
    Pack mine;
#pragma unroll
    for (int j = 0; j < V; ++j) put_item(mine.w, j, Encode<O>::of(value(k * V + j)));
    Pack pack = mine;
    if (spill) pack = behind(words_from_lane(lane == 31 ? last : mine, (lane + 31) % 32), mine, BYTES - behind_bytes);
    store_part<ASIDE>(begin + k * 32 * V, before - k * 32 * V, there - k * 32 * V, pack);
    last = mine;
  }
  if (spill && lane == 31) {  // what the last thread still holds
    const int at = PACKS * 32 * V - spill;
#pragma unroll
    for (int j = 0; j < V; ++j)
      if (j >= V - spill && first + at + j - (V - spill) < classes)
        store(out + first + at + j - (V - spill), item_of(last.w, j, (O*)0));
  }
}
