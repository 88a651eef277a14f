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

DEVICE Words<4> load_words(const char* p) {
  const Word4 q = load16(p);
  return {{q.w[0], q.w[1], q.w[2], q.w[3]}};
}
DEVICE void store_words(void* p, Words<2> v) { store8(p, {{v.w[0], v.w[1]}}); }
DEVICE void store_words(void* p, Words<4> v) { store16(p, {{v.w[0], v.w[1], v.w[2], v.w[3]}}); }

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

// Classes past the row are -inf; few packs hold any, so the others are not asked class by class.
template <typename T, int V, typename A> DEVICE void unpack(Words<4> words, int column, int classes, A* v) {
#pragma unroll
  for (int j = 0; j < V; ++j) v[j] = (A)decode(item_of(words.w, j, (T*)0));
  if (column + V > classes) {
#pragma unroll
    for (int j = 0; j < V; ++j) v[j] = column + j < classes ? v[j] : minus_infinity<A>();
  }
}

// Writes the numbers of `pack` that belong to first..last-1 of `out`; the first one is that of `column`.
template <typename O, int WORDS> DEVICE void store_part(O* out, int column, int first, int last, Words<WORDS> pack) {
  const int COUNT = 4 * WORDS / sizeof(O);
  if (column >= first && column + COUNT <= last) return store_words(out + column, pack);
#pragma unroll
  for (int j = 0; j < COUNT; ++j)
    if (column + j >= first && column + j < last) store(out + column + j, item_of(pack.w, j, (O*)0));
}
// Of 32 bytes a thread, neighbours swap halves: then both of their stores fill sectors, and not every half of them.
template <typename O> DEVICE void store_part(O* out, int column, int first, int last, Words<8> pack) {
  const int COUNT = 16 / sizeof(O);
  const bool odd = thread() & 1;
  Words<4> one, other;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const u32 theirs = from_lane_xor(odd ? pack.w[i] : pack.w[4 + i], 1);
    one.w[i] = odd ? theirs : pack.w[i];
    other.w[i] = odd ? pack.w[4 + i] : theirs;
  }
  store_part(out, odd ? column - COUNT : column, first, last, one);
  store_part(out, odd ? column + COUNT : column + 2 * COUNT, first, last, other);
}

// ---- a stretch of PACKS * 32 packs from class `first` on; classes past the row are -inf

template <typename T, int PACKS, typename A>
DEVICE void load_stretch(const T* row, int first, int classes, int lane, A* v) {
  const int V = 16 / sizeof(T);
  const char* begin = (const char*)(row + first);
  const int skip = (int)((u64)begin & 15);
  const char* window = begin - skip;
  const i64 end = (i64)(classes - first) * (int)sizeof(T) + skip;  // of the row, from `window` on
  Words<4> pack[PACKS];
#pragma unroll
  for (int k = 0; k < PACKS; ++k) {
    const i64 at = (i64)(k * 32 + lane) * 16;
    pack[k] = at < end ? load_words(window + at) : Words<4>{};
  }
  if (skip) {  // the same for all threads of the row
    Words<4> beyond = {};
    const i64 at = (i64)PACKS * 32 * 16;
    if (lane == 0 && at < end) beyond = load_words(window + at);
#pragma unroll
    for (int k = 0; k < PACKS; ++k) {
      const Words<4> later = k + 1 < PACKS ? pack[k + 1 < PACKS ? k + 1 : k] : beyond;
      pack[k] = behind(pack[k], words_from_lane(lane == 0 ? later : pack[k], (lane + 1) % 32), skip);
    }
  }
#pragma unroll
  for (int k = 0; k < PACKS; ++k) unpack<T, V>(pack[k], first + (k * 32 + lane) * V, classes, v + k * V);
}

// Writes value(0..), V numbers a pack, of the type O, to the row `out`.
template <typename O, int V, int PACKS, typename Value>
DEVICE void store_stretch(O* out, int first, int classes, int lane, Value value) {
  const int BYTES = V * sizeof(O);
  typedef Words<BYTES / 4> Pack;
  const int behind_bytes = (int)((u64)(out + first) & (BYTES - 1));
  const int spill = behind_bytes / (int)sizeof(O);  // numbers that the next thread writes
  Pack before = {};
#pragma unroll
  for (int k = 0; k < PACKS; ++k) {
    Pack mine;
#pragma unroll
    for (int j = 0; j < V; ++j) put_item(mine.w, j, Encode<O>::of(value(k * V + j)));
    Pack pack = mine;
    if (spill) pack = behind(words_from_lane(lane == 31 ? before : mine, (lane + 31) % 32), mine, BYTES - behind_bytes);
    const int column = first + (k * 32 + lane) * V - spill;
    store_part(out, column, first, classes, pack);
    before = mine;
  }
  const int rest = first + PACKS * 32 * V - spill;  // what the last thread still holds
  if (spill && lane == 31) {
#pragma unroll
    for (int j = 0; j < V; ++j)
      if (j >= V - spill && rest + j - (V - spill) < classes)
        store(out + rest + j - (V - spill), item_of(before.w, j, (O*)0));
  }
}
